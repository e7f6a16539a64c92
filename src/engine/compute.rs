//! What the device thread asks of a model: a batch in, one row per text out. A trait, so that tests can put anything behind it.

use super::load::Loaded;
use super::pipeline::{ComputeError, Flight};
use crate::exec;
use crate::kernels::device::Device;
use crate::ragged::Packed;

/// A model on its device. Lives on the device thread and never leaves it.
pub trait Compute {
    /// The number of values per text.
    fn dim(&self) -> usize;

    /// The longest text it takes, in tokens.
    fn longest(&self) -> usize;

    /// Where its forward pass has points at which another may come first (`exec::between`): how many tokens it is best given at once when nobody has to
    /// wait for all of them.
    fn overtaken(&self) -> Option<usize> {
        None
    }

    /// Gives a batch to the device. Where `overlaps` says so, it returns before the batch is computed.
    fn start(&self, batch: &Packed) -> Result<Flight, ComputeError> {
        self.encode(batch).map(Flight::there)
    }

    /// Whether the next batch may be started before the last one is awaited: true where the device would else wait for this thread.
    fn overlaps(&self) -> bool {
        false
    }

    /// What names this model on this device in the file of measured budgets; `None` where the budget is measured anew at every start.
    fn profile(&self) -> Option<String> {
        None
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

    fn overtaken(&self) -> Option<usize> {
        (self.info.device == Device::Cpu).then(exec::busy_tokens)
    }

    fn start(&self, batch: &Packed) -> Result<Flight, ComputeError> {
        self.pipeline.start(batch)
    }

    fn overlaps(&self) -> bool {
        self.pipeline.overlaps()
    }

    fn profile(&self) -> Option<String> {
        let device = self.info.device.product()?;
        let (architecture, width, bytes, dtype) = (self.info.architecture, self.info.hidden_size, self.info.weight_bytes, self.info.dtype);
        Some(format!("{architecture} of width {width}, {bytes} bytes in {dtype}, on {device}, vecmill {}", env!("CARGO_PKG_VERSION")))
    }

    fn encode(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
        self.pipeline.encode(batch)
    }

    fn encode_f32(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
        self.pipeline.encode_f32(batch)
    }
}
