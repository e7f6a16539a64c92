//! The position-wise part of a layer on the processor: plain, gated, or experts.

use super::Run;
use super::embeddings::add;
use super::layer::Put;
use super::linear::LinearOp;
use super::parts::{self, Form};
use super::space::{Space, fit};
use crate::exec::between;
use crate::exec::weights::numbers;
use crate::kernels::host::Act;
use crate::kernels::host::gemm::{Into, Rows, product};
use crate::kernels::host::operand::Turned;
use crate::kernels::host::pack::Packed;
use crate::network::{Experts, LoadError, Mlp};

/// See `network::Mlp`.
pub(super) enum MlpOp {
    Plain { up: LinearOp, act: Act, down: LinearOp },
    Gated { gate: LinearOp, up: LinearOp, act: Act, down: LinearOp },
    Experts(ExpertsOp),
}

impl MlpOp {
    pub(super) fn new(mlp: &Mlp, form: Form) -> Result<Self, LoadError> {
        Ok(match mlp {
            Mlp::Plain { up, activation, down } => {
                Self::Plain { up: LinearOp::new(up, form)?, act: parts::act(*activation), down: LinearOp::new(down, form)? }
            }
            Mlp::Gated { gate, up, activation, down } => Self::Gated {
                gate: LinearOp::new(gate, form)?,
                up: LinearOp::new(up, form)?,
                act: parts::act(*activation),
                down: LinearOp::new(down, form)?,
            },
            Mlp::Experts(experts) => Self::Experts(ExpertsOp::new(experts, form)?),
        })
    }

    /// Reads `input`, or `out` itself.
    pub(super) fn forward(&self, input: Option<&[f32]>, out: &mut [f32], put: Put, space: &mut Space, run: &Run) {
        let (gate, up, act, down) = match self {
            Self::Plain { up, act, down } => (None, up, *act, down),
            Self::Gated { gate, up, act, down } => (Some(gate), up, *act, down),
            Self::Experts(experts) => return experts.forward(input, out, put, &mut space.products.turned, run),
        };
        let (width, wide) = (down.columns(), up.columns());
        let tokens = out.len() / width;
        let inner = fit(&mut space.inner, tokens * wide);
        let (x, products) = (input.unwrap_or(out), &mut space.products);
        let first = if gate.is_some() { Act::Identity } else { act };
        up.forward(x, inner, Into::Place(first), products, run);
        between::here();
        if let Some(gate) = gate {
            gate.forward(x, inner, Into::Gate(act), products, run);
            between::here();
        }
        down.forward(inner, out, put.into(), products, run);
    }

    pub(super) fn weight_bytes(&self) -> usize {
        match self {
            Self::Plain { up, down, .. } => up.weight_bytes() + down.weight_bytes(),
            Self::Gated { gate, up, down, .. } => gate.weight_bytes() + up.weight_bytes() + down.weight_bytes(),
            Self::Experts(experts) => experts.weight_bytes(),
        }
    }
}

/// Each token through the experts that its router chose.
pub(super) struct ExpertsOp {
    router: Packed,
    top_k: usize,
    act: Act,
    /// `up` and `down`.
    experts: Vec<(Packed, Packed)>,
    bias: Option<Vec<f32>>,
}

impl ExpertsOp {
    fn new(experts: &Experts, form: Form) -> Result<Self, LoadError> {
        let pairs = experts.experts.iter().map(|expert| Ok((parts::weight(&expert.up, form)?, parts::transposed(&expert.down, form)?)));
        Ok(Self {
            router: parts::linear(&experts.router, form.exact())?,
            top_k: experts.top_k,
            act: parts::act(experts.activation),
            experts: pairs.collect::<Result<_, LoadError>>()?,
            bias: experts.bias.as_ref().map(numbers).transpose()?,
        })
    }

    fn forward(&self, input: Option<&[f32]>, out: &mut [f32], put: Put, turned: &mut Turned, run: &Run) {
        let width = self.router.inner();
        let x = input.unwrap_or(out).to_vec();
        let routes = self.route(&x, turned, run);
        if let Put::Apart = put {
            out.fill(0.);
        }
        for ((up, down), routed) in self.experts.iter().zip(routes).filter(|(_, routed)| !routed.is_empty()) {
            let rows: Vec<f32> = routed.iter().flat_map(|(row, _)| &x[row * width..][..width]).copied().collect();
            let (count, wide) = (routed.len(), up.columns());
            let (mut inner, mut y) = (vec![0.; count * wide], vec![0.; count * width]);
            product(run.team, turned.operand(run.team, Rows::dense(&rows, count, width), up), up, &mut inner, wide, Into::Place(self.act));
            product(run.team, turned.operand(run.team, Rows::dense(&inner, count, wide), down), down, &mut y, width, Into::Place(Act::Identity));
            for ((row, share), y) in routed.iter().zip(y.chunks_exact(width)) {
                out[row * width..][..width].iter_mut().zip(y).for_each(|(out, y)| *out += y * share);
            }
        }
        if let Some(bias) = &self.bias {
            out.chunks_exact_mut(width).for_each(|out| add(out, bias));
        }
    }

    /// For each expert its rows and how much each counts.
    fn route(&self, x: &[f32], turned: &mut Turned, run: &Run) -> Vec<Vec<(usize, f32)>> {
        let (width, experts) = (self.router.inner(), self.experts.len());
        let tokens = x.len() / width;
        let mut logits = vec![0.; tokens * experts];
        let rows = turned.operand(run.team, Rows::dense(x, tokens, width), &self.router);
        product(run.team, rows, &self.router, &mut logits, experts, Into::Place(Act::Identity));
        let mut routes = vec![Vec::new(); experts];
        for (row, logits) in logits.chunks_exact(experts).enumerate() {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = logits.iter().map(|logit| (logit - max).exp()).sum();
            let mut order: Vec<usize> = (0..experts).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
            for expert in order.into_iter().take(self.top_k) {
                routes[expert].push((row, (logits[expert] - max).exp() / sum));
            }
        }
        routes
    }

    fn weight_bytes(&self) -> usize {
        let experts: usize = self.experts.iter().map(|(up, down)| up.bytes() + down.bytes()).sum();
        experts + self.router.bytes() + self.bias.as_ref().map_or(0, |bias| bias.len() * size_of::<f32>())
    }
}
