//! Norms on the device; their statistics are computed in f32.

use super::{bytes, device};
use crate::exec::Place;
use crate::kernels::device::{Ops, norm};
use crate::network::{LoadError, Norm, NormKind};
use candle_core::{Result, Tensor};

/// A norm over the last dimension; public to the pipeline's LayerNorm.
pub(crate) struct NormOp {
    weight: Tensor,
    /// LayerNorm's, zeros where it has none; RMSNorm has `None`.
    bias: Option<Tensor>,
    eps: f32,
    ops: Ops,
}

impl NormOp {
    pub(crate) fn new(norm: &Norm, place: &Place) -> std::result::Result<Self, LoadError> {
        let weight = match norm.kind {
            NormKind::Layer | NormKind::Rms => place.tensor(&norm.weight)?,
            NormKind::RmsPlusOne => place.tensor_with(&norm.weight, |number| 1. + number)?,
        };
        let bias = match (norm.kind, &norm.bias) {
            (NormKind::Layer, Some(bias)) => Some(place.tensor(bias)?),
            (NormKind::Layer, None) => Some(weight.zeros_like().map_err(device)?),
            (NormKind::Rms | NormKind::RmsPlusOne, None) => None,
            (NormKind::Rms | NormKind::RmsPlusOne, Some(bias)) => return Err(bias.refuse("an RMSNorm has no bias")),
        };
        Ok(Self { weight, bias, eps: norm.eps as f32, ops: place.ops })
    }

    /// The same norm elsewhere.
    pub(crate) fn moved(&self, place: &Place) -> Result<Self> {
        let there = |tensor: &Tensor| tensor.to_device(&place.device);
        Ok(Self { weight: there(&self.weight)?, bias: self.bias.as_ref().map(there).transpose()?, eps: self.eps, ops: place.ops })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.ops == Ops::Fused {
            return norm::norm(x, &self.weights());
        }
        let x = x.contiguous()?;
        match &self.bias {
            Some(bias) => candle_nn::ops::layer_norm(&x, &self.weight, bias, self.eps),
            None => candle_nn::ops::rms_norm(&x, &self.weight, self.eps),
        }
    }

    /// `x + y` and the norm of it.
    pub(super) fn forward_sum(&self, x: &Tensor, y: &Tensor) -> Result<(Tensor, Tensor)> {
        if self.ops == Ops::Fused {
            return norm::add_norm(x, y, &self.weights());
        }
        let sum = (x + y)?;
        let normed = self.forward(&sum)?;
        Ok((sum, normed))
    }

    /// The norm of `x + y`.
    pub(super) fn forward_of_sum(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        if self.ops == Ops::Fused { norm::norm_of_sum(x, y, &self.weights()) } else { self.forward(&(x + y)?) }
    }

    /// As the kernels take them.
    pub(super) fn weights(&self) -> norm::Weights<'_> {
        norm::Weights { weight: &self.weight, bias: self.bias.as_ref(), rms: self.bias.is_none(), eps: self.eps }
    }

    /// The size it norms over.
    pub(super) fn width(&self) -> usize {
        self.weight.elem_count()
    }

    pub(super) fn weight_bytes(&self) -> usize {
        bytes(&self.weight) + self.bias.as_ref().map_or(0, bytes)
    }
}
