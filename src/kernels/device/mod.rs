//! Operations on candle tensors, wherever these lie, and the opening of the device itself.

pub mod attention;
pub mod choose;
pub mod rope;

use std::fmt;
use std::str::FromStr;

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

    /// Opens the device.
    ///
    /// # Errors
    /// The build lacks it, or the machine does.
    pub fn open(self) -> candle_core::Result<candle_core::Device> {
        match self {
            Self::Cpu => Ok(candle_core::Device::Cpu),
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
