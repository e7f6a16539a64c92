//! The device under test, and how numbers come to it.

use candle_core::{DType, Result, Tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use vecmill::exec::Place;
use vecmill::kernels::device::{Device, Ops};
use vecmill::network;

/// Names the device: `cuda:0`, or `cpu` in a build with `device-emulation`, where it need not be said.
const VARIABLE: &str = "VECMILL_TEST_DEVICE";

/// The device under test. No test passes for want of a GPU: without one it fails here.
pub fn device() -> candle_core::Device {
    let emulates = cfg!(feature = "device-emulation");
    let name = match std::env::var(VARIABLE) {
        Ok(name) => name,
        Err(_) if emulates => "cpu".to_owned(),
        Err(_) => panic!("this build runs kernels on a GPU only; name it, as in {VARIABLE}=cuda:0"),
    };
    assert!(name != "cpu" || emulates, "{VARIABLE}=cpu: kernels run on the processor only in a build with device-emulation");
    let device: Device = name.parse().unwrap_or_else(|error| panic!("{VARIABLE}: {error}"));
    device.open().unwrap_or_else(|error| panic!("{VARIABLE}={name}: {}", vecmill::kernels::device::choose::why(&error)))
}

/// Where an executor uses the kernels.
pub fn place(dtype: network::DType) -> Place {
    Place { device: device(), dtype, ops: Ops::Fused, cpu: None }
}

/// Normally distributed numbers, rounded to `dtype`, on the processor; the same for the same seed.
pub fn random(seed: u64, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let mut dice = StdRng::seed_from_u64(seed);
    // Box and Muller.
    let mut normal = || (-2. * (1. - dice.random::<f32>()).ln()).sqrt() * (std::f32::consts::TAU * dice.random::<f32>()).cos();
    let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| normal()).collect();
    Tensor::from_vec(numbers, shape, &candle_core::Device::Cpu)?.to_dtype(dtype)
}

/// The same numbers where kernels run, in memory of their own.
pub fn there(x: &Tensor) -> Result<Tensor> {
    x.to_device(&device())?.copy()
}
