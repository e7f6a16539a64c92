//! What the device thread asks of a model: a batch in, one row per text out. A trait, so that tests can put anything behind it.

use super::load::Loaded;
use super::pipeline::ComputeError;
use crate::kernels::device::Device;
use crate::ragged::Packed;

/// A model on its device. Lives on the device thread and never leaves it.
pub trait Compute {
    /// The number of values per text.
    fn dim(&self) -> usize;

    /// The longest text it takes, in tokens.
    fn longest(&self) -> usize;

    /// Whether its forward pass has points at which another may come first: `exec::between`.
    fn can_be_overtaken(&self) -> bool {
        false
    }

    /// `[B, dim]`, row-major.
    fn encode(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError>;

    /// The same in f32 with the reference operations, for rows that came out non-finite.
    fn encode_f32(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError>;
}

impl Compute for Loaded {
    fn dim(&self) -> usize {
        self.pipeline.dim()
    }

    fn longest(&self) -> usize {
        self.info.max_tokens
    }

    fn can_be_overtaken(&self) -> bool {
        self.info.device == Device::Cpu
    }

    fn encode(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
        self.pipeline.encode(batch)
    }

    fn encode_f32(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
        self.pipeline.encode_f32(batch)
    }
}
