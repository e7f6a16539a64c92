//! A batch that has been given to the device and whose vectors are still to be awaited.

use super::ComputeError;
use crate::kernels::device::download::Download;

/// Vectors on their way.
pub struct Flight(Box<dyn FnOnce() -> Result<Vec<f32>, ComputeError>>);

impl Flight {
    /// Vectors that are there.
    pub fn there(vectors: Vec<f32>) -> Self {
        Self(Box::new(|| Ok(vectors)))
    }

    /// Vectors that a device will have computed when this ends.
    pub fn later(finish: impl FnOnce() -> Result<Vec<f32>, ComputeError> + 'static) -> Self {
        Self(Box::new(finish))
    }

    pub(super) fn of(download: Download) -> Self {
        Self::later(|| Ok(download.finish()?))
    }

    /// Waits for them: `[B, dim]`, row-major.
    ///
    /// # Errors
    /// What failed on the device since the batch was given to it.
    pub fn finish(self) -> Result<Vec<f32>, ComputeError> {
        (self.0)()
    }
}
