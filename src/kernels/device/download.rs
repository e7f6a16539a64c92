//! Results on their way back from a device; on a GPU the next batch can be queued before they are awaited.

use candle_core::{DType, Result, Tensor};

/// A tensor's numbers in f32, there or on their way.
pub struct Download(Way);

enum Way {
    There(Vec<f32>),
    #[cfg(feature = "cuda")]
    Queued(super::pinned::Download),
}

impl Download {
    /// Numbers that are there.
    pub fn there(numbers: Vec<f32>) -> Self {
        Self(Way::There(numbers))
    }

    /// Queues the copy behind what the device does now; elsewhere than on a GPU it is made at once.
    ///
    /// # Errors
    /// A device that fails.
    pub fn start(tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
        #[cfg(feature = "cuda")]
        if tensor.device().is_cuda() {
            return super::pinned::Download::start(&tensor).map(|queued| Self(Way::Queued(queued)));
        }
        Ok(Self::there(tensor.flatten_all()?.to_vec1()?))
    }

    /// Waits for the numbers, row-major.
    ///
    /// # Errors
    /// A device that fails.
    pub fn finish(self) -> Result<Vec<f32>> {
        match self.0 {
            Way::There(numbers) => Ok(numbers),
            #[cfg(feature = "cuda")]
            Way::Queued(queued) => queued.finish(),
        }
    }
}
