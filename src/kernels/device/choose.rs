//! Which devices compute, and why: those that were named, else the first GPU that opens, else the processor.

use super::Device;

/// The devices that compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// At least one; several hold the same models and share one queue.
    pub devices: Vec<Device>,
    /// Who chose them; where it is the processor for want of a GPU, why there is none.
    pub from: String,
}

/// A device that was named and cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--device {device} cannot be used: {why}")]
pub struct Unusable {
    pub device: Device,
    pub why: String,
}

/// Opens what was named; nothing named = auto.
///
/// # Errors
/// The first named device that cannot be opened. `auto` always finds one.
pub fn choose(named: &[Device]) -> Result<Choice, Unusable> {
    choose_by(named, |device| device.open().map(drop).map_err(|error| why(&error)))
}

fn choose_by(named: &[Device], opens: impl Fn(Device) -> Result<(), String>) -> Result<Choice, Unusable> {
    if !named.is_empty() {
        return match named.iter().find_map(|device| opens(*device).err().map(|why| Unusable { device: *device, why })) {
            Some(unusable) => Err(unusable),
            None => Ok(Choice { devices: named.to_vec(), from: "--device".to_owned() }),
        };
    }
    let mut without = Vec::new();
    for device in [Device::Cuda(0), Device::Metal].into_iter().filter(|device| device.is_built_in()) {
        match opens(device) {
            Ok(()) => return Ok(Choice { devices: vec![device], from: "auto: the first GPU of this machine".to_owned() }),
            Err(why) => without.push(format!("no {device}: {why}")),
        }
    }
    if without.is_empty() {
        without.push("this build has support for no GPU".to_owned());
    }
    Ok(Choice { devices: vec![Device::Cpu], from: format!("auto: {}", without.join("; ")) })
}

/// Why a device does not open, in words for whoever runs the server.
pub fn why(error: &candle_core::Error) -> String {
    match root(error) {
        candle_core::Error::NotCompiledWithCudaSupport => "this build has no CUDA support (cargo feature `cuda`)".to_owned(),
        candle_core::Error::NotCompiledWithMetalSupport => "this build has no Metal support (cargo feature `metal`)".to_owned(),
        #[cfg(feature = "cuda")]
        candle_core::Error::Cuda(error) => cuda(error.as_ref()),
        other => other.to_string(),
    }
}

/// The error below its backtrace and context.
fn root(error: &candle_core::Error) -> &candle_core::Error {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => root(inner),
        candle_core::Error::Context { inner, .. } | candle_core::Error::WithPath { inner, .. } => root(inner),
        other => other,
    }
}

/// The codes are those that the stand-ins for absent libraries answer with (`scripts/cuda/stand_ins.py`).
#[cfg(feature = "cuda")]
fn cuda(error: &(dyn std::error::Error + 'static)) -> String {
    use candle_core::cuda_backend::CudaError;
    use candle_core::cuda_backend::cudarc::{cublas::sys::cublasStatus_t, curand::sys::curandStatus_t, driver::sys::CUresult};
    match error.downcast_ref::<CudaError>() {
        Some(CudaError::Cuda(error)) if error.0 == CUresult::CUDA_ERROR_STUB_LIBRARY => {
            "NVIDIA's driver (libcuda.so.1) is not on this machine, or not in this container".to_owned()
        }
        Some(CudaError::Cuda(error)) if error.0 == CUresult::CUDA_ERROR_NO_DEVICE => "NVIDIA's driver sees no GPU".to_owned(),
        Some(CudaError::Cuda(error)) if error.0 == CUresult::CUDA_ERROR_INVALID_DEVICE => "NVIDIA's driver sees no GPU of this number".to_owned(),
        Some(CudaError::Cublas(error)) if error.0 == cublasStatus_t::CUBLAS_STATUS_NOT_INITIALIZED => {
            format!("cuBLAS of CUDA 13 (libcublas.so.13) is not found or does not start ({error})")
        }
        Some(CudaError::Curand(error)) if error.0 == curandStatus_t::CURAND_STATUS_INITIALIZATION_FAILED => {
            format!("cuRAND of CUDA 13 (libcurand.so.10) is not found or does not start ({error})")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_devices_are_opened_and_the_first_that_fails_is_named() {
        let only_cpu = |device: Device| if device == Device::Cpu { Ok(()) } else { Err(format!("there is no {device}")) };
        assert_eq!(choose_by(&[Device::Cpu], only_cpu).unwrap(), Choice { devices: vec![Device::Cpu], from: "--device".to_owned() });
        let unusable = choose_by(&[Device::Cuda(0), Device::Cuda(1)], only_cpu).unwrap_err();
        assert_eq!(unusable.to_string(), "--device cuda:0 cannot be used: there is no cuda:0");
        let both = choose_by(&[Device::Cuda(0), Device::Cuda(1)], |_| Ok(())).unwrap();
        assert_eq!(both.devices, [Device::Cuda(0), Device::Cuda(1)]);
    }

    #[test]
    fn auto_falls_back_to_the_processor_and_says_why() {
        let choice = choose_by(&[], |device| Err(format!("{device} is broken"))).unwrap();
        assert_eq!(choice.devices, [Device::Cpu]);
        let built_in = [Device::Cuda(0), Device::Metal].into_iter().find(|device| device.is_built_in());
        let why = built_in.map_or("this build has support for no GPU".to_owned(), |device| format!("no {device}: {device} is broken"));
        assert!(choice.from.starts_with("auto: ") && choice.from.contains(&why), "{}", choice.from);
    }

    #[test]
    fn a_build_without_a_gpu_says_so() {
        let error = candle_core::Error::NotCompiledWithCudaSupport.bt();
        assert_eq!(why(&error), "this build has no CUDA support (cargo feature `cuda`)");
        assert!(choose(&[Device::Cpu]).is_ok());
    }
}
