//! Linear maps on the device, with the low-rank deltas that single texts choose.

use super::batch::Batch;
use super::mlp::{activate, code};
use super::{bytes, device};
use crate::exec::Place;
use crate::kernels::device::{Ops, linear};
use crate::network::{Activation, Linear, LoadError, LowRank};
use candle_core::{Result, Tensor};

/// A linear map; public to the pipeline's Dense.
pub(crate) struct LinearOp {
    /// `[out, in]`.
    weight: Tensor,
    bias: Option<Tensor>,
    adapters: Vec<LowRankOp>,
    ops: Ops,
}

/// A delta: `(x down^T) up^T`, the scale being part of `up`.
struct LowRankOp {
    down: Tensor,
    up: Tensor,
}

impl LowRankOp {
    fn new(delta: &LowRank, place: &Place) -> std::result::Result<Self, LoadError> {
        let up = (place.tensor(&delta.up)? * delta.scale).map_err(device)?;
        Ok(Self { down: place.tensor(&delta.down)?, up })
    }

    /// `[rows, in]` -> `[rows, out]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear::product(&linear::product(x, &self.down)?, &self.up)
    }

    fn weight_bytes(&self) -> usize {
        bytes(&self.down) + bytes(&self.up)
    }
}

impl LinearOp {
    pub(crate) fn new(linear: &Linear, place: &Place) -> std::result::Result<Self, LoadError> {
        let bias = linear.bias.as_ref().map(|bias| place.tensor(bias)).transpose()?;
        let adapters = linear.adapters.iter().map(|delta| LowRankOp::new(delta, place)).collect::<std::result::Result<_, _>>()?;
        Ok(Self { weight: place.tensor(&linear.weight)?, bias, adapters, ops: place.ops })
    }

    /// The same map elsewhere.
    pub(crate) fn moved(&self, place: &Place) -> Result<Self> {
        let there = |tensor: &Tensor| tensor.to_device(&place.device);
        let adapters = self.adapters.iter().map(|delta| Ok(LowRankOp { down: there(&delta.down)?, up: there(&delta.up)? }));
        let bias = self.bias.as_ref().map(there).transpose()?;
        Ok(Self { weight: there(&self.weight)?, bias, adapters: adapters.collect::<Result<_>>()?, ops: place.ops })
    }

    /// Linear maps of one input as one map, if they can be: all have a bias or none has, and no text has its own deltas.
    pub(super) fn stack(parts: &[&Self]) -> Result<Option<Self>> {
        let biases: Vec<_> = parts.iter().filter_map(|part| part.bias.as_ref()).collect();
        if (biases.len() != parts.len() && !biases.is_empty()) || parts.iter().any(|part| !part.adapters.is_empty()) {
            return Ok(None);
        }
        let weight = Tensor::cat(&parts.iter().map(|part| &part.weight).collect::<Vec<_>>(), 0)?;
        let bias = if biases.is_empty() { None } else { Some(Tensor::cat(&biases, 0)?) };
        Ok(parts.first().map(|first| Self { weight, bias, adapters: Vec::new(), ops: first.ops }))
    }

    /// `[T, in]` -> `[T, out]`, the same for every text.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.ops == Ops::Fused {
            return linear::map(x, &self.weight, self.bias.as_ref(), code(Activation::Identity));
        }
        let y = x.matmul(&self.weight.t()?)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// The map and an activation after it, each text with the delta it chose.
    pub(super) fn forward_activated(&self, x: &Tensor, activation: Activation, batch: &Batch) -> Result<Tensor> {
        if self.ops == Ops::Fused && !self.adapts(batch) {
            return linear::map(x, &self.weight, self.bias.as_ref(), code(activation));
        }
        activate(&self.forward_each(x, batch)?, activation)
    }

    /// Whether a text of the batch chose a delta here.
    fn adapts(&self, batch: &Batch) -> bool {
        batch.adapters.iter().any(|(adapter, _)| *adapter < self.adapters.len())
    }

    /// The product alone, and the bias that is still to be added.
    pub(super) fn product(&self, x: &Tensor) -> Result<(Tensor, Option<&Tensor>)> {
        Ok((linear::product(x, &self.weight)?, self.bias.as_ref()))
    }

    /// `[T, in]` -> `[T, out]`, each text with the delta it chose.
    pub(super) fn forward_each(&self, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        let mut y = self.forward(x)?;
        for (adapter, rows) in &batch.adapters {
            if let Some(delta) = self.adapters.get(*adapter) {
                y = y.index_add(rows, &delta.forward(&x.index_select(rows, 0)?)?, 0)?;
            }
        }
        Ok(y)
    }

    pub(super) fn weight_bytes(&self) -> usize {
        let deltas: usize = self.adapters.iter().map(LowRankOp::weight_bytes).sum();
        bytes(&self.weight) + self.bias.as_ref().map_or(0, bytes) + deltas
    }
}
