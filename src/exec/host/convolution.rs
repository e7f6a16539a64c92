//! A convolution beside a layer, on the processor: one product over each token's neighbours.

use super::Run;
use super::embeddings::add;
use super::parts::{self, Form};
use super::space::{Space, fit};
use crate::exec::weights::numbers;
use crate::kernels::host::Act;
use crate::kernels::host::gemm::{Into, Rows, product};
use crate::kernels::host::norm::{self, Norm};
use crate::kernels::host::pack::Packed;
use crate::network::{Convolution, LoadError};

/// See `network::Convolution`. In f32 whatever the network is in: there is one at the most.
pub(super) struct ConvolutionOp {
    /// For each group of channels `[C / groups, K C / groups]`: a token's neighbours in order.
    groups: Vec<Packed>,
    /// `K`.
    kernel: usize,
    activation: Act,
    norm: Norm,
}

impl ConvolutionOp {
    pub(super) fn new(convolution: &Convolution, form: Form) -> Result<Self, LoadError> {
        let Convolution { weight, bias, groups, activation, norm } = convolution;
        let (width, inner, kernel) = (weight.shape()[0], weight.shape()[1], weight.shape()[2]);
        let (channels, form) = (width / groups, form.exact());
        let mut packed: Vec<Packed> = (0..*groups).map(|_| Packed::zeros(form.cpu, form.element, channels, inner * kernel)).collect();
        // Stored with the neighbours innermost.
        for (channel, weights) in numbers(weight)?.chunks_exact((inner * kernel).max(1)).enumerate() {
            let row: Vec<f32> = (0..kernel).flat_map(|near| weights[near..].iter().step_by(kernel).copied()).collect();
            packed[channel / channels].put(channel % channels, &row);
        }
        if let Some(bias) = bias {
            packed.iter_mut().zip(numbers(bias)?.chunks(channels)).for_each(|(group, bias)| group.put_bias(0, bias));
        }
        Ok(Self { groups: packed, kernel, activation: parts::act(*activation), norm: parts::norm(norm)? })
    }

    /// What it makes of a layer's input, into `space.beside`.
    pub(super) fn look(&self, x: &[f32], space: &mut Space, run: &Run) {
        let width = self.norm.weight.len();
        let tokens = x.len() / width;
        let out = fit(&mut space.beside, x.len());
        for (group, map) in self.groups.iter().enumerate() {
            let first = group * map.columns();
            let near = fit(&mut space.inner, tokens * map.inner());
            let channels = map.inner() / self.kernel;
            for text in run.texts {
                for token in text.clone() {
                    let places = near[token * map.inner()..][..map.inner()].chunks_exact_mut(channels);
                    for (to, step) in places.zip(0..) {
                        // Beyond the ends of a text there are zeros.
                        match (token + step).checked_sub(self.kernel / 2).filter(|other| text.contains(other)) {
                            Some(other) => to.copy_from_slice(&x[other * width + group * channels..][..channels]),
                            None => to.fill(0.),
                        }
                    }
                }
            }
            let turned = space.products.turned.operand(run.team, Rows::dense(near, tokens, map.inner()), map);
            product(run.team, turned, map, &mut out[first..], width, Into::Place(self.activation));
        }
    }

    /// `norm(x + what it made)`, in place of what left the layer.
    pub(super) fn join(&self, x: &mut [f32], space: &Space, run: &Run) {
        add(x, &space.beside[..x.len()]);
        norm::norm(run.cpu, x, &self.norm);
    }

    pub(super) fn weight_bytes(&self) -> usize {
        self.groups.iter().map(Packed::bytes).sum::<usize>() + parts::norm_bytes(&self.norm)
    }
}
