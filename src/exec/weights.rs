//! From a weight's handle to a candle tensor on the device, in the dtype computed in, with every number checked.

use crate::kernels::device::Ops;
use crate::kernels::host::Cpu;
use crate::network::{self, LoadError, Stored, Weight};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

/// Where tensors lie and what they are made of.
#[derive(Debug, Clone)]
pub struct Place {
    pub device: Device,
    pub dtype: network::DType,
    /// Whose operations compute there.
    pub ops: Ops,
    /// The level that the fused executor takes on a processor; `None` leaves everything to candle's operations.
    pub cpu: Option<Cpu>,
}

impl Place {
    /// A device with the best operations that there are for it.
    pub fn new(device: Device, dtype: network::DType) -> Self {
        Self { ops: Ops::of(&device), cpu: Cpu::best(), device, dtype }
    }

    /// The processor in f32: the reference for everything else.
    pub fn reference() -> Self {
        Self { cpu: None, ..Self::new(Device::Cpu, network::DType::F32) }
    }

    /// The dtype as candle names it; tensors beside an int8 network are f32.
    pub fn candle_dtype(&self) -> DType {
        match self.dtype {
            network::DType::F32 | network::DType::Int8 => DType::F32,
            network::DType::Bf16 => DType::BF16,
            network::DType::F16 => DType::F16,
        }
    }

    /// Reads a weight into a tensor of its shape.
    ///
    /// # Errors
    /// A number that is not finite, as stored or in the dtype computed in; a device that fails.
    pub fn tensor(&self, weight: &Weight) -> Result<Tensor, LoadError> {
        self.tensor_with(weight, |number| number)
    }

    /// The same, with `change` applied to every number in f32.
    ///
    /// # Errors
    /// As `tensor`.
    pub fn tensor_with(&self, weight: &Weight, change: impl Fn(f32) -> f32) -> Result<Tensor, LoadError> {
        let mut numbers = numbers(weight)?;
        numbers.iter_mut().for_each(|number| *number = change(*number));
        let limit = match self.dtype {
            network::DType::F32 | network::DType::Int8 => f32::MAX,
            network::DType::Bf16 => bf16::MAX.to_f32(),
            network::DType::F16 => f16::MAX.to_f32(),
        };
        if let Some(number) = numbers.iter().find(|number| number.abs() > limit) {
            return Err(weight.refuse(format!("holds {number}, which {} cannot hold: choose another dtype", self.dtype)));
        }
        let build = || Tensor::from_vec(numbers, weight.shape(), &Device::Cpu)?.to_dtype(self.candle_dtype())?.to_device(&self.device);
        build().map_err(|error| LoadError::Device(error.into()))
    }
}

/// The numbers of a weight in f32, every one of them finite.
///
/// # Errors
/// A number that is not, or blocks that cannot be read.
pub(super) fn numbers(weight: &Weight) -> Result<Vec<f32>, LoadError> {
    let numbers = decode(weight)?;
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(at) => Err(weight.refuse(format!("holds {} at index {at}", numbers[at]))),
        None => Ok(numbers),
    }
}

/// The numbers of a weight in f32, which holds the three usual stored formats exactly. The bytes may lie at any address.
///
/// # Errors
/// Blocks that cannot be read.
fn decode(weight: &Weight) -> Result<Vec<f32>, LoadError> {
    let bytes = weight.bytes();
    Ok(match weight.stored() {
        Stored::F64 => bytes.as_chunks().0.iter().map(|number| f64::from_le_bytes(*number) as f32).collect(),
        Stored::F32 => bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect(),
        Stored::Bf16 => bytes.as_chunks().0.iter().map(|number| bf16::from_le_bytes(*number).to_f32()).collect(),
        Stored::F16 => bytes.as_chunks().0.iter().map(|number| f16::from_le_bytes(*number).to_f32()).collect(),
        Stored::I64 => bytes.as_chunks().0.iter().map(|number| i64::from_le_bytes(*number) as f32).collect(),
        Stored::I32 => bytes.as_chunks().0.iter().map(|number| i32::from_le_bytes(*number) as f32).collect(),
        Stored::I8 => bytes.iter().map(|number| f32::from(*number as i8)).collect(),
        Stored::U8 => bytes.iter().map(|number| f32::from(*number)).collect(),
        Stored::Blocks(blocks) => blocks.decode(bytes).map_err(|error| weight.refuse(format!("cannot be read as {blocks:?}: {error}")))?,
    })
}
