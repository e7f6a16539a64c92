//! modules.json as a pipeline: the encoder, then Pooling, Dense, LayerNorm, Normalize as data.

mod dense;
mod flight;
pub mod modules;
mod norm;
pub mod pooling;

pub use flight::Flight;

use crate::exec::tensor::TensorExecutor;
use crate::exec::{self, Executor, Place};
use crate::kernels::device::download::Download;
use crate::kernels::device::{Ops, pool};
use crate::kernels::host::Cpu;
use crate::network::{DType, LoadError, Network, Weight};
use crate::ragged::Packed;
use candle_core::Tensor;
use dense::Dense;
use norm::LayerNorm;
use pooling::{Mode, Pooling};
use std::sync::OnceLock;

/// Why a batch could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The device has no memory left for this batch: a smaller one may pass.
    #[error("the device is out of memory")]
    OutOfMemory(#[source] candle_core::Error),
    /// Everything else.
    #[error("the computation failed")]
    Failed(#[source] candle_core::Error),
}

impl From<candle_core::Error> for ComputeError {
    /// Drivers report a full device as text only: `CUDA_ERROR_OUT_OF_MEMORY`, `out of memory`.
    fn from(error: candle_core::Error) -> Self {
        let text = error.to_string().to_ascii_lowercase().replace('_', " ");
        if text.contains("out of memory") { Self::OutOfMemory(error) } else { Self::Failed(error) }
    }
}

/// A stage after pooling: rows in, rows out.
enum Stage {
    Dense(Dense),
    LayerNorm(LayerNorm),
    Normalize,
}

impl Stage {
    /// The same stage elsewhere.
    fn moved(&self, place: &Place) -> candle_core::Result<Self> {
        Ok(match self {
            Self::Dense(dense) => Self::Dense(dense.moved(place)?),
            Self::LayerNorm(norm) => Self::LayerNorm(norm.moved(place)?),
            Self::Normalize => Self::Normalize,
        })
    }

    /// Rows that nobody else holds, `[B, dim]`, on the device of the kernels.
    fn forward_on_device(&self, rows: Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Dense(dense) => dense.forward_on_device(&rows),
            Self::LayerNorm(norm) => norm.forward_on_device(&rows),
            Self::Normalize => {
                pool::unit_length(&rows)?;
                Ok(rows)
            }
        }
    }
}

/// What modules.json says after its Transformer.
pub struct Stages {
    pooling: Pooling,
    rest: Vec<Stage>,
    dim: usize,
}

/// What follows the encoder, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The pooling modes.
    pub pooling: String,
    /// The stages after pooling, in order.
    pub after: Vec<String>,
}

impl std::fmt::Display for Described {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.pooling)?;
        self.after.iter().try_for_each(|stage| write!(f, " > {stage}"))
    }
}

impl Stages {
    /// What follows the encoder of a GGUF file: one pooling, maps without bias, unit length.
    ///
    /// # Errors
    /// Weights that are not finite.
    pub fn of_one_file(mode: Mode, dense: &[Weight], width: usize) -> Result<Self, LoadError> {
        let pooling = Pooling::of(vec![mode], true);
        let mut rest = dense.iter().map(|map| Dense::map(map).map(Stage::Dense)).collect::<Result<Vec<_>, _>>()?;
        let dim = dense.last().map_or(pooling.dim(width), |map| map.shape()[0]);
        rest.push(Stage::Normalize);
        Ok(Self { pooling, rest, dim })
    }
}

/// `[B, dim]`, row-major: vectors on their way through the stages.
pub(crate) struct Rows {
    pub(crate) data: Vec<f32>,
    pub(crate) dim: usize,
}

/// A model from ids to vectors.
pub struct Pipeline {
    encoder: Executor,
    /// `C`: width of the encoder's hidden state.
    width: usize,
    stages: Stages,
    /// The stages after pooling once more, in f32 on the device, where its kernels pool.
    on_device: Vec<Stage>,
    dtype: DType,
    overlaps: bool,
    /// The level of the fused executor, or why the encoder does not run on it.
    fused: Result<Cpu, &'static str>,
    /// The description with the files it maps, kept where the encoder is not the reference itself.
    network: Option<Network>,
    /// The same network in f32 on the processor, built when it is first asked for.
    reference: OnceLock<TensorExecutor>,
}

impl Pipeline {
    /// Puts the network where it will run.
    ///
    /// # Errors
    /// Weights that are not finite, a device that fails or is full.
    pub fn new(network: Network, stages: Stages, place: &Place) -> Result<Self, LoadError> {
        let (encoder, fused) = (Executor::new(&network, place)?, exec::fused(&network, place).map(|(cpu, _)| cpu));
        let is_reference = matches!(encoder, Executor::Tensor(_)) && place.dtype == DType::F32;
        let width = network.width;
        let there = Place { dtype: DType::F32, ..place.clone() };
        let on_device = match place.ops {
            Ops::Plain => Ok(Vec::new()),
            Ops::Fused => stages.rest.iter().map(|stage| stage.moved(&there)).collect(),
        };
        let on_device = on_device.map_err(|error: candle_core::Error| LoadError::Device(error.into()))?;
        let network = (!is_reference).then_some(network);
        Ok(Self {
            encoder,
            width,
            stages,
            on_device,
            dtype: place.dtype,
            overlaps: place.device.is_cuda(),
            fused,
            network,
            reference: OnceLock::new(),
        })
    }

    /// The vectors of a batch as modules.json leaves them: `[B, dim]`, row-major.
    ///
    /// # Errors
    /// A batch the model cannot take (ids outside the vocabulary, texts that are empty or too long), a device that fails or is full.
    pub fn encode(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
        self.start(batch)?.finish()
    }

    /// Queues a batch on the device. On a GPU it gives back at once, and the next batch may be queued before this one is awaited; elsewhere it is
    /// computed here.
    ///
    /// # Errors
    /// As `encode`; what fails later is said when it is awaited.
    pub fn start(&self, batch: &Packed) -> Result<Flight, ComputeError> {
        let pooling = &self.stages.pooling;
        let pooled = || self.encoder.pooled(batch, &pooling.codes(), pooling.include_prompt());
        match (batch.texts() > 0).then(pooled).flatten() {
            Some(rows) => {
                let rows = self.on_device.iter().try_fold(rows?, |rows, stage| stage.forward_on_device(rows))?;
                Ok(Flight::of(Download::start(&rows)?))
            }
            None => self.run(|batch| self.encoder.run(batch), batch).map(Flight::there),
        }
    }

    /// Whether `start` gives back before the batch is computed.
    pub fn overlaps(&self) -> bool {
        self.overlaps
    }

    /// The same in f32, for vectors that came out non-finite in the dtype computed in. Slow: on the processor.
    ///
    /// # Errors
    /// As `encode`, and if the weights cannot be read again.
    pub fn encode_f32(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
        let Some(network) = &self.network else { return self.encode(batch) };
        if self.reference.get().is_none() {
            let built = TensorExecutor::new(network, &Place::reference()).map_err(|error| ComputeError::Failed(candle_core::Error::wrap(error)))?;
            // Another thread may have been first; both built the same.
            let _ = self.reference.set(built);
        }
        match self.reference.get() {
            Some(reference) => self.run(|batch| reference.run(batch)?.flatten_all()?.to_vec1(), batch),
            None => self.encode(batch),
        }
    }

    /// The description, where it is kept: where the encoder is not the reference itself.
    pub fn description(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// Size of the vectors.
    pub fn dim(&self) -> usize {
        self.stages.dim
    }

    /// What the encoder computes in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The level of the fused executor, or why it is not used.
    pub fn fused(&self) -> Result<Cpu, &'static str> {
        self.fused
    }

    /// What follows the encoder.
    pub fn stages(&self) -> Described {
        let after = self.stages.rest.iter().map(|stage| match stage {
            Stage::Dense(dense) => format!("Dense to {}", dense.out_features()),
            Stage::LayerNorm(_) => "LayerNorm".to_owned(),
            Stage::Normalize => "Normalize".to_owned(),
        });
        Described { pooling: self.stages.pooling.to_string(), after: after.collect() }
    }

    /// True if the last stage is Normalize.
    pub fn normalized(&self) -> bool {
        matches!(self.stages.rest.last(), Some(Stage::Normalize))
    }

    /// What the encoder's weights occupy on the device.
    pub fn weight_bytes(&self) -> usize {
        self.encoder.weight_bytes()
    }

    /// `encoder` gives `[T, C]`.
    fn run(&self, encoder: impl Fn(&Packed) -> candle_core::Result<Vec<f32>>, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
        if batch.texts() == 0 {
            return Ok(Vec::new());
        }
        self.finish(&encoder(batch)?, batch)
    }

    /// What follows the encoder: from its hidden states, `[T, C]` row-major, to the vectors of the batch.
    ///
    /// # Errors
    /// A stage that fails.
    pub fn finish(&self, hidden: &[f32], batch: &Packed) -> Result<Vec<f32>, ComputeError> {
        let mut rows = self.stages.pooling.pool(hidden, self.width, batch);
        for stage in &self.stages.rest {
            rows = match stage {
                Stage::Dense(dense) => dense.forward(rows)?,
                Stage::LayerNorm(layer_norm) => layer_norm.forward(rows)?,
                Stage::Normalize => norm::normalize(rows),
            };
        }
        Ok(rows.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_device_is_told_from_other_failures() {
        let driver = |text: &str| ComputeError::from(candle_core::Error::Cuda(text.into()).bt());
        assert!(matches!(driver("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"), ComputeError::OutOfMemory(_)));
        assert!(matches!(driver("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS)"), ComputeError::Failed(_)));
    }
}
