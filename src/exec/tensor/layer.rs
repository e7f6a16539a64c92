//! One layer on the device: attention and MLP with their norms and residual connections, and a convolution beside them.

use super::attention::AttentionOp;
use super::batch::Batch;
use super::bytes;
use super::mlp::{MlpOp, activate};
use super::norm::NormOp;
use crate::exec::Place;
use crate::network::{Activation, Convolution, Layer, LoadError, Norms, Rope};
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// See `network::Layer`.
pub(super) struct LayerOp {
    attention: AttentionOp,
    attention_norms: NormsOp,
    mlp: MlpOp,
    mlp_norms: NormsOp,
    convolution: Option<ConvolutionOp>,
}

impl LayerOp {
    /// Ropes that are new are added to `ropes`.
    pub(super) fn new(layer: &Layer, ropes: &mut Vec<Arc<Rope>>, place: &Place) -> std::result::Result<Self, LoadError> {
        Ok(Self {
            attention: AttentionOp::new(&layer.attention, ropes, place)?,
            attention_norms: NormsOp::new(&layer.attention_norms, place)?,
            mlp: MlpOp::new(&layer.mlp, place)?,
            mlp_norms: NormsOp::new(&layer.mlp_norms, place)?,
            convolution: layer.convolution.as_ref().map(|convolution| ConvolutionOp::new(convolution, place)).transpose()?,
        })
    }

    /// `next` is the norm that the layer's output meets first.
    pub(super) fn forward(&self, stream: Stream, next: Option<&NormOp>, batch: &Batch) -> Result<Stream> {
        let input = self.convolution.as_ref().map(|convolution| (convolution, stream.x.clone()));
        let between = self.mlp_norms.before.as_ref();
        let stream = self.attention_norms.around(stream, between, |x| self.attention.forward(x, batch))?;
        let stream = self.mlp_norms.around(stream, if input.is_none() { next } else { None }, |x| self.mlp.forward(x, batch))?;
        match input {
            Some((convolution, x)) => Ok(Stream::new(convolution.forward(&x, &stream.x, batch)?)),
            None => Ok(stream),
        }
    }

    /// The norm before its attention.
    pub(super) fn first_norm(&self) -> Option<&NormOp> {
        self.attention_norms.before.as_ref()
    }

    pub(super) fn weight_bytes(&self) -> usize {
        let norms = self.attention_norms.weight_bytes() + self.mlp_norms.weight_bytes();
        self.attention.weight_bytes() + self.mlp.weight_bytes() + norms + self.convolution.as_ref().map_or(0, ConvolutionOp::weight_bytes)
    }
}

/// The residual stream between two parts.
pub(super) struct Stream {
    /// `[T, C]`.
    pub(super) x: Tensor,
    /// What the norm before the next part makes of it, where it came out with the sum.
    normed: Option<Tensor>,
}

impl Stream {
    pub(super) fn new(x: Tensor) -> Self {
        Self { x, normed: None }
    }

    /// What enters a part that `before` stands before.
    pub(super) fn into_normed(self, before: Option<&NormOp>) -> Result<Tensor> {
        match (self.normed, before) {
            (Some(normed), _) => Ok(normed),
            (None, Some(before)) => before.forward(&self.x),
            (None, None) => Ok(self.x),
        }
    }
}

struct NormsOp {
    before: Option<NormOp>,
    inside: Option<NormOp>,
    nested: Option<NormOp>,
    after: Option<NormOp>,
}

impl NormsOp {
    fn new(norms: &Norms, place: &Place) -> std::result::Result<Self, LoadError> {
        let norm = |norm: &Option<_>| norm.as_ref().map(|norm| NormOp::new(norm, place)).transpose();
        Ok(Self { before: norm(&norms.before)?, inside: norm(&norms.inside)?, nested: norm(&norms.nested)?, after: norm(&norms.after)? })
    }

    /// `after(x + inside(part(before(x))))`, or `after(x + nested(x + inside(part(before(x)))))`. `next` is the norm before the part that follows.
    fn around(&self, stream: Stream, next: Option<&NormOp>, part: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Stream> {
        let x = stream.x.clone();
        let mut y = part(&stream.into_normed(self.before.as_ref())?)?;
        if let Some(inside) = &self.inside {
            y = inside.forward(&y)?;
        }
        if let Some(nested) = &self.nested {
            y = nested.forward_of_sum(&x, &y)?;
        }
        match (&self.after, next) {
            (Some(after), _) => Ok(Stream::new(after.forward_of_sum(&x, &y)?)),
            (None, Some(next)) => {
                let (x, normed) = next.forward_sum(&x, &y)?;
                Ok(Stream { x, normed: Some(normed) })
            }
            (None, None) => Ok(Stream::new((x + y)?)),
        }
    }

    fn weight_bytes(&self) -> usize {
        [&self.before, &self.inside, &self.nested, &self.after].into_iter().flatten().map(NormOp::weight_bytes).sum()
    }
}

struct ConvolutionOp {
    /// `[C, C / groups, K]`.
    weight: Tensor,
    /// `[C, 1]`.
    bias: Option<Tensor>,
    groups: usize,
    activation: Activation,
    norm: NormOp,
}

impl ConvolutionOp {
    fn new(convolution: &Convolution, place: &Place) -> std::result::Result<Self, LoadError> {
        let bias = convolution.bias.as_ref().map(|bias| place.tensor(bias)?.unsqueeze(1).map_err(super::device)).transpose()?;
        Ok(Self {
            weight: place.tensor(&convolution.weight)?,
            bias,
            groups: convolution.groups,
            activation: convolution.activation,
            norm: NormOp::new(&convolution.norm, place)?,
        })
    }

    /// `input` entered the layer, `output` left it.
    fn forward(&self, input: &Tensor, output: &Tensor, batch: &Batch) -> Result<Tensor> {
        let padding = self.weight.dim(2)? / 2;
        let mut texts = Vec::new();
        for rows in batch.segments.ranges() {
            let text = input.narrow(0, rows.start, rows.len())?.t()?.contiguous()?.unsqueeze(0)?;
            let text = text.conv1d(&self.weight, padding, 1, 1, self.groups)?.squeeze(0)?;
            let text = self.bias.as_ref().map_or(Ok(text.clone()), |bias| text.broadcast_add(bias))?;
            texts.push(text.t()?);
        }
        self.norm.forward(&(output + activate(&Tensor::cat(&texts, 0)?.contiguous()?, self.activation)?)?)
    }

    fn weight_bytes(&self) -> usize {
        bytes(&self.weight) + self.bias.as_ref().map_or(0, bytes) + self.norm.weight_bytes()
    }
}
