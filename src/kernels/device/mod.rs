//! Operations on candle tensors, wherever these lie, and the opening of the device itself.

pub mod activation;
pub mod attention;
pub mod choose;
#[cfg(feature = "cuda")]
mod cublaslt;
#[cfg(feature = "cuda")]
mod cuda;
pub mod download;
#[cfg(feature = "device-emulation")]
mod emulated;
pub mod flash;
mod launch;
pub mod linear;
pub mod norm;
#[cfg(feature = "cuda")]
mod pinned;
pub mod pool;
pub mod rope;
pub mod upload;

use std::fmt;
use std::str::FromStr;

/// Whose operations a network on tensors is computed with; chosen once, when it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ops {
    /// Candle's, one after the other: on every device, and the reference for the others.
    Plain,
    /// The kernels of this folder, which do several of those in one pass and know packed texts: on NVIDIA GPUs. In a test build with
    /// `device-emulation` they run on the processor too.
    Fused,
}

impl Ops {
    /// The best that there are for a device.
    pub fn of(device: &candle_core::Device) -> Self {
        if device.is_cuda() { Self::Fused } else { Self::Plain }
    }
}

/// Where a model computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// The machine's processor.
    #[default]
    Cpu,
    /// The n-th NVIDIA GPU.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl Device {
    /// Whether this build can use such a device at all, be it there or not.
    pub fn is_built_in(self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Cuda(_) => candle_core::utils::cuda_is_available(),
            Self::Metal => candle_core::utils::metal_is_available(),
        }
    }

    /// The product that it is, where that tells how much it computes: `NVIDIA H100 80GB HBM3`; `None` for a processor.
    pub fn product(self) -> Option<String> {
        match self {
            Self::Cpu => None,
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => cuda::product(index),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => None,
            Self::Metal => Some("Metal".to_owned()),
        }
    }

    /// Opens the device.
    ///
    /// # Errors
    /// The build lacks it, or the machine does.
    pub fn open(self) -> candle_core::Result<candle_core::Device> {
        match self {
            Self::Cpu => Ok(candle_core::Device::Cpu),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => cuda::open(index),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(index) => candle_core::Device::new_cuda(index),
            Self::Metal => candle_core::Device::new_metal(0),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    /// `cpu`, `cuda`, `cuda:N` or `metal`.
    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("cpu", _) => Ok(Self::Cpu),
            ("metal", _) => Ok(Self::Metal),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(Ok(index))) => Ok(Self::Cuda(index)),
            _ => Err(format!("`{text}` is not a device: say auto, cpu, cuda, cuda:N or metal")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_read_as_they_are_written() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(3), Device::Metal] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for wrong in ["gpu", "cuda:", "cuda:x", "cuda:-1", ""] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }
}
