//! One layer on the processor: attention and MLP, each with its norms and its residual connection, and a convolution beside them.

use super::Run;
use super::attention::AttentionOp;
use super::convolution::ConvolutionOp;
use super::embeddings::add;
use super::mlp::MlpOp;
use super::parts::{self, Form};
use super::rope::Ropes;
use super::space::{Space, fit};
use crate::exec::between;
use crate::kernels::host::Act;
use crate::kernels::host::gemm::Into;
use crate::kernels::host::norm::{self, Norm};
use crate::network::{Layer, LoadError, Norms};

/// See `network::Layer`.
pub(super) struct LayerOp {
    attention: AttentionOp,
    attention_norms: NormsOp,
    mlp: MlpOp,
    mlp_norms: NormsOp,
    convolution: Option<ConvolutionOp>,
}

/// Where a part of a layer puts its result.
pub(super) enum Put {
    /// Onto the residual stream at once.
    Onto,
    /// Apart, because a norm comes first.
    Apart,
}

impl From<Put> for Into {
    fn from(put: Put) -> Self {
        match put {
            Put::Onto => Self::Sum,
            Put::Apart => Self::Place(Act::Identity),
        }
    }
}

impl LayerOp {
    pub(super) fn new(layer: &Layer, ropes: &Ropes, form: Form) -> Result<Self, LoadError> {
        // Taken apart by name here and elsewhere, so that a new word of the description does not compile until it is dealt with.
        let Layer { attention, attention_norms, mlp, mlp_norms, convolution } = layer;
        Ok(Self {
            attention: AttentionOp::new(attention, ropes, form)?,
            attention_norms: NormsOp::new(attention_norms)?,
            mlp: MlpOp::new(mlp, form)?,
            mlp_norms: NormsOp::new(mlp_norms)?,
            convolution: convolution.as_ref().map(|convolution| ConvolutionOp::new(convolution, form)).transpose()?,
        })
    }

    /// `x: [T, C]` in place.
    pub(super) fn forward(&self, x: &mut [f32], space: &mut Space, run: &Run) {
        between::here();
        if let Some(convolution) = &self.convolution {
            convolution.look(x, space, run);
            between::here();
        }
        self.attention_norms.around(x, space, run, |input, out, put, space| self.attention.forward(input, out, put, space, run));
        between::here();
        self.mlp_norms.around(x, space, run, |input, out, put, space| self.mlp.forward(input, out, put, space, run));
        if let Some(convolution) = &self.convolution {
            convolution.join(x, space, run);
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        let convolution = self.convolution.as_ref().map_or(0, ConvolutionOp::weight_bytes);
        self.attention.weight_bytes() + self.mlp.weight_bytes() + self.attention_norms.weight_bytes() + self.mlp_norms.weight_bytes() + convolution
    }
}

struct NormsOp {
    before: Option<Norm>,
    inside: Option<Norm>,
    nested: Option<Norm>,
    after: Option<Norm>,
}

impl NormsOp {
    fn new(norms: &Norms) -> Result<Self, LoadError> {
        let norm = |norm: &Option<_>| norm.as_ref().map(parts::norm).transpose();
        let Norms { before, inside, nested, after } = norms;
        Ok(Self { before: norm(before)?, inside: norm(inside)?, nested: norm(nested)?, after: norm(after)? })
    }

    /// `x = after(x + inside(part(before(x))))`, or `after(x + nested(x + inside(part(before(x)))))`. The part is given its input, or `None` to read what it writes onto.
    fn around(&self, x: &mut [f32], space: &mut Space, run: &Run, part: impl FnOnce(Option<&[f32]>, &mut [f32], Put, &mut Space)) {
        let (mut input, mut output) = (std::mem::take(&mut space.input), std::mem::take(&mut space.output));
        let normed = self.before.as_ref().map(|before| {
            let input = fit(&mut input, x.len());
            input.copy_from_slice(x);
            norm::norm(run.cpu, input, before);
            &*input
        });
        if self.inside.is_none() && self.nested.is_none() {
            part(normed, x, Put::Onto, space);
        } else {
            let out = fit(&mut output, x.len());
            part(Some(normed.unwrap_or(x)), out, Put::Apart, space);
            if let Some(inside) = &self.inside {
                norm::norm(run.cpu, out, inside);
            }
            if let Some(nested) = &self.nested {
                add(out, x);
                norm::norm(run.cpu, out, nested);
            }
            add(x, out);
        }
        if let Some(after) = &self.after {
            norm::norm(run.cpu, x, after);
        }
        (space.input, space.output) = (input, output);
    }

    fn weight_bytes(&self) -> usize {
        [&self.before, &self.inside, &self.nested, &self.after].into_iter().flatten().map(parts::norm_bytes).sum()
    }
}
