//! What the device thread asks of a model: a batch in, one row per text out. A trait, so that tests can put anything behind it.

use crate::ragged::Packed;

/// A model on its device. Lives on the device thread and never leaves it.
pub trait Compute {
    /// The number of values per text.
    fn dim(&self) -> usize;

    /// The longest text it takes, in tokens.
    fn longest(&self) -> usize;

    /// `[B, dim]`, row-major.
    fn encode(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError>;

    /// The same in f32 with the reference operations, for rows that came out non-finite.
    fn encode_f32(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError>;
}

/// A batch could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    #[error("{0}")]
    Failed(String),
}
