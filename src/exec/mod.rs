//! Runs a `Network` on a `Packed` batch. Knows no text, no file and no pooling.

pub mod between;
pub mod host;
mod need;
pub mod tensor;
mod weights;

pub use need::Need;
pub use weights::Place;

use crate::kernels::device::Ops;
use crate::kernels::host::{Cpu, Element};
use crate::kernels::threads;
use crate::network::{DType, LoadError, Network};
use crate::ragged::Packed;
use candle_core::{Device, Result};
use host::HostExecutor;
use tensor::TensorExecutor;

/// Whichever executor suits network and place.
pub enum Executor {
    /// Fused, on the processor.
    Host(Box<HostExecutor>),
    /// On candle tensors.
    Tensor(Box<TensorExecutor>),
}

impl Executor {
    /// Prepares a network where it will run: fused where the processor, the dtype and the network allow it, else on tensors.
    ///
    /// # Errors
    /// Weights that are not finite, a device that fails or is full; int8 where the fused executor does not run.
    pub fn new(network: &Network, place: &Place) -> std::result::Result<Self, LoadError> {
        match fused(network, place) {
            Ok((cpu, element)) => Ok(Self::Host(Box::new(HostExecutor::new(network, cpu, element)?))),
            Err(reason) if place.dtype == DType::Int8 => Err(LoadError::option(
                "--dtype",
                format!("int8 is computed by the fused executor only, which does not run this model here: {reason}"),
            )),
            Err(_) => Ok(Self::Tensor(Box::new(TensorExecutor::new(network, place)?))),
        }
    }

    /// The hidden state after the last layer, `[T, C]`, row-major, in the order of the batch.
    ///
    /// # Errors
    /// Ids outside the vocabulary, texts that are empty or too long, an adapter that there is not, a device that fails or is full.
    pub fn run(&self, batch: &Packed) -> Result<Vec<f32>> {
        match self {
            Self::Host(host) => host.run(batch),
            Self::Tensor(tensor) => tensor.run(batch)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1(),
        }
    }

    /// As `TensorExecutor::pooled`.
    pub fn pooled(&self, batch: &Packed, modes: &[i32], include_prompt: bool) -> Option<Result<candle_core::Tensor>> {
        match self {
            Self::Host(_) => None,
            Self::Tensor(tensor) => tensor.pooled(batch, modes, include_prompt),
        }
    }

    /// What the weights occupy where they compute.
    pub fn weight_bytes(&self) -> usize {
        match self {
            Self::Host(host) => host.weight_bytes(),
            Self::Tensor(tensor) => tensor.weight_bytes(),
        }
    }

    /// `host` or `tensor`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Tensor(_) => "tensor",
        }
    }
}

/// The level at which the fused executor runs this network there, and what it multiplies.
///
/// # Errors
/// Why it does not, for the log.
pub fn fused(network: &Network, place: &Place) -> std::result::Result<(Cpu, Element), &'static str> {
    if !place.device.is_cpu() || place.ops == Ops::Fused {
        return Err("it computes on a GPU");
    }
    let element = match place.dtype {
        DType::F32 => Element::F32,
        DType::Bf16 => Element::Bf16,
        DType::Int8 => Element::Int8,
        DType::F16 => return Err("the fused executor does not compute in f16"),
    };
    if element != Element::F32 && network.layers.is_empty() {
        return Err("a table of vectors has no products");
    }
    let cpu = place.cpu.ok_or("the processor lacks AVX2 and FMA")?;
    Ok((cpu, element))
}

/// Tokens that give every thread of the processor a group of texts of its own: with fewer all work on each operation together, and wait for each other.
pub fn busy_tokens() -> usize {
    threads::count().max(1) * host::GROUP_TOKENS
}

/// What every executor refuses of a batch.
struct Limits {
    vocabulary: usize,
    max_tokens: usize,
    adapters: usize,
    /// Without layers nothing is asked of a text's neighbours: it may be empty.
    layers: bool,
}

impl Limits {
    fn of(network: &Network) -> Self {
        let Network { max_tokens, adapters, layers, .. } = network;
        Self { vocabulary: network.vocabulary(), max_tokens: *max_tokens, adapters: *adapters, layers: !layers.is_empty() }
    }

    fn check(&self, batch: &Packed) -> Result<()> {
        if let Some(id) = batch.ids.iter().find(|id| **id as usize >= self.vocabulary) {
            candle_core::bail!("token id {id} is outside the vocabulary of {}", self.vocabulary)
        }
        if let Some(adapter) = batch.adapters.iter().flatten().find(|adapter| **adapter >= self.adapters) {
            candle_core::bail!("adapter {adapter} of {}", self.adapters)
        }
        let least = usize::from(self.layers);
        match batch.segments.ranges().map(|rows| rows.len()).find(|len| !(least..=self.max_tokens).contains(len)) {
            Some(len) => candle_core::bail!("a text of {len} tokens; the model takes {least} to {}", self.max_tokens),
            None => Ok(()),
        }
    }
}
