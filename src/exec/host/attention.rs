//! Attention on the processor: one product for queries, keys and values, their norms and rotation in place, the mix, and the way back.

use super::Run;
use super::content::ContentOp;
use super::layer::Put;
use super::linear::LinearOp;
use super::parts::{self, Form};
use super::rope::{RopeOp, Ropes};
use super::space::{Space, fit};
use crate::exec::between;
use crate::exec::weights::numbers;
use crate::kernels::host::attention::{Bias, Projected, Spec, attend};
use crate::kernels::host::gemm::Into;
use crate::kernels::host::norm::{Norm, norm_strided};
use crate::kernels::host::rope::rotate;
use crate::kernels::host::{Act, Element};
use crate::network::{Attention, LoadError, Mask, PositionBias};
use std::ops::Range;
use std::sync::Arc;

/// See `network::Attention`.
pub(super) struct AttentionOp {
    /// `[(H + 2 G) D, C]`.
    qkv: LinearOp,
    output: LinearOp,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    scale: f32,
    mask: Mask,
    qk_norm: Option<(Norm, Norm)>,
    rope: Option<Arc<RopeOp>>,
    bias: BiasOp,
    element: Element,
}

impl AttentionOp {
    pub(super) fn new(attention: &Attention, ropes: &Ropes, form: Form) -> Result<Self, LoadError> {
        let Attention { heads, kv_heads, head_dim, query, key, value, output, qk_norm, scale, mask, rope, bias } = attention;
        let qk_norm = qk_norm.as_ref().map(|norms| Ok::<_, LoadError>((parts::norm(&norms.query)?, parts::norm(&norms.key)?)));
        Ok(Self {
            qkv: LinearOp::stack(&[query, key, value], form)?,
            output: LinearOp::new(output, form)?,
            heads: *heads,
            kv_heads: *kv_heads,
            dim: *head_dim,
            scale: *scale as f32,
            mask: *mask,
            qk_norm: qk_norm.transpose()?,
            rope: rope.as_ref().map(|rope| ropes.get(rope)),
            bias: BiasOp::new(bias, *head_dim, form)?,
            element: form.element,
        })
    }

    /// Reads `input`, or `out` itself.
    pub(super) fn forward(&self, input: Option<&[f32]>, out: &mut [f32], put: Put, space: &mut Space, run: &Run) {
        let width = self.output.columns();
        let (tokens, stride, inner) = (out.len() / width, self.qkv.columns(), self.heads * self.dim);
        let qkv = fit(&mut space.qkv, tokens * stride);
        self.qkv.forward(input.unwrap_or(out), qkv, Into::Place(Act::Identity), &mut space.products, run);
        between::here();
        self.norm_and_rotate(qkv, run);
        let longest = run.texts.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        let by_distance = self.bias.at(longest, self.heads);
        let bias = by_distance.as_deref().map_or(Bias::None, Bias::Distance);
        let Mask { causal, reach } = self.mask;
        let (heads, kv_heads, dim, scale, element) = (self.heads, self.kv_heads, self.dim, self.scale, self.element);
        let spec = Spec { heads, kv_heads, dim, scale, causal, reach, bias, element };
        let (mixed, qkv) = (fit(&mut space.mixed, tokens * inner), Projected { data: qkv, stride });
        match &self.bias {
            BiasOp::Content(content) => content.attend(qkv, spec, mixed, &mut space.made, run),
            _ => attend(run.cpu, run.team, qkv, run.texts, &spec, mixed, run.scratches),
        }
        between::here();
        self.output.forward(mixed, out, put.into(), &mut space.products, run);
    }

    fn norm_and_rotate(&self, qkv: &mut [f32], run: &Run) {
        let (stride, queries, keys) = (self.qkv.columns(), self.heads * self.dim, self.kv_heads * self.dim);
        if let Some((query, key)) = &self.qk_norm {
            // A norm as wide as one head takes each by itself, a wider one all heads as one row.
            for row in qkv.chunks_exact_mut(stride) {
                norm_strided(run.cpu, &mut row[..queries], query.weight.len(), query);
                norm_strided(run.cpu, &mut row[queries..queries + keys], key.weight.len(), key);
            }
        }
        let Some(rope) = &self.rope else { return };
        for text in run.texts.iter().filter(|text| !text.is_empty()) {
            rope.with(text.len(), |angles| {
                for (heads, from) in [(self.heads, 0), (self.kv_heads, queries)] {
                    let rows: Range<usize> = text.start * stride + from..(text.end - 1) * stride + from + heads * self.dim;
                    rotate(&mut qkv[rows], stride, heads, self.dim, angles);
                }
            });
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        let norms = self.qk_norm.as_ref().map_or(0, |(query, key)| parts::norm_bytes(query) + parts::norm_bytes(key));
        self.qkv.weight_bytes() + self.output.weight_bytes() + norms + self.bias.weight_bytes()
    }
}

/// See `network::PositionBias`.
enum BiasOp {
    None,
    Alibi(Arc<[f32]>),
    /// `[buckets, H]`.
    Buckets {
        table: Vec<f32>,
        buckets: usize,
        max_distance: usize,
    },
    Content(ContentOp),
}

impl BiasOp {
    fn new(bias: &PositionBias, dim: usize, form: Form) -> Result<Self, LoadError> {
        match bias {
            PositionBias::None => Ok(Self::None),
            PositionBias::Alibi(slopes) => Ok(Self::Alibi(slopes.clone())),
            PositionBias::Buckets { table, max_distance } => {
                Ok(Self::Buckets { table: numbers(table)?, buckets: table.shape()[0], max_distance: *max_distance })
            }
            PositionBias::Disentangled(about) => Ok(Self::Content(ContentOp::new(about, dim, form)?)),
        }
    }

    /// By head and distance, `[H, 2 longest - 1]`; `None` where it is not these that decide.
    fn at(&self, longest: usize, heads: usize) -> Option<Vec<f32>> {
        let far = longest.max(1) as i64 - 1;
        match self {
            Self::None | Self::Content(_) => None,
            Self::Alibi(slopes) => Some(slopes.iter().flat_map(|slope| (-far..=far).map(move |distance| -(distance.abs() as f32) * slope)).collect()),
            Self::Buckets { table, buckets, max_distance } => {
                let rows: Vec<usize> = (-far..=far).map(|distance| PositionBias::bucket(distance, *buckets, *max_distance)).collect();
                Some((0..heads).flat_map(|head| rows.iter().map(move |row| table[row * heads + head])).collect())
            }
        }
    }

    fn weight_bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Alibi(slopes) => slopes.len() * size_of::<f32>(),
            Self::Buckets { table, .. } => table.len() * size_of::<f32>(),
            Self::Content(content) => content.weight_bytes(),
        }
    }
}
