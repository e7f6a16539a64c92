//! From ids to the first hidden state, on the processor.

use super::Run;
use super::linear::LinearOp;
use super::parts::{self, Form};
use super::space::Products;
use super::table::Table;
use crate::exec::weights::numbers;
use crate::kernels::host::Act;
use crate::kernels::host::gemm::Into;
use crate::kernels::host::norm::{self, Norm};
use crate::network::{Embeddings, LoadError, Positions, RowDelta, TokenTable, Weight};
use std::sync::Arc;

/// See `network::Embeddings`.
pub(super) struct EmbeddingsOp {
    /// `[V, E]`, or fewer rows with `map`.
    tokens: Table,
    map: Option<Arc<[u32]>>,
    /// `[V]`.
    weights: Option<Vec<f32>>,
    adapters: Vec<RowDeltaOp>,
    scale: f32,
    /// The table with what says which row a token has.
    positions: Option<(Table, Positions)>,
    /// Row 0 of the token types, `[E]`.
    token_type: Option<Vec<f32>>,
    norm: Option<Norm>,
    /// The map, and the norm behind it.
    projection: Option<(LinearOp, Option<Norm>)>,
}

impl EmbeddingsOp {
    pub(super) fn new(words: &Embeddings, form: Form) -> Result<Self, LoadError> {
        let Embeddings { tokens, scale, positions, token_types, norm, projection } = words;
        let TokenTable { rows, map, weights, adapters } = tokens;
        let positions = positions.as_ref().map(|positions| Ok::<_, LoadError>((Table::new(&positions.table)?, positions.clone())));
        let projection = projection.as_ref().map(|projection| {
            let norm = projection.norm.as_ref().map(parts::norm).transpose()?;
            Ok::<_, LoadError>((LinearOp::new(&projection.linear, form.exact())?, norm))
        });
        Ok(Self {
            tokens: Table::new(rows)?,
            map: map.clone(),
            weights: weights.as_ref().map(numbers).transpose()?,
            adapters: adapters.iter().map(RowDeltaOp::new).collect::<Result<_, _>>()?,
            scale: *scale as f32,
            positions: positions.transpose()?,
            token_type: token_types.as_ref().map(|types| numbers(&types.rows(0..1)?)).transpose()?,
            norm: norm.as_ref().map(parts::norm).transpose()?,
            projection: projection.transpose()?,
        })
    }

    /// `[T, C]`. The ids are in the vocabulary.
    pub(super) fn forward(&self, ids: &[u32], run: &Run) -> Vec<f32> {
        let width = self.tokens.width();
        let mut x = self.rows(ids, run);
        if let Some((table, positions)) = &self.positions {
            let rows = run.texts.iter().flat_map(|text| positions.rows(&ids[text.clone()]));
            for (x, row) in x.chunks_exact_mut(width).zip(rows) {
                table.row(row as usize, x, |x, number| *x += number);
            }
        }
        if let Some(first) = &self.token_type {
            x.chunks_exact_mut(width).for_each(|x| add(x, first));
        }
        for (adapter, rows) in run.adapters {
            if let Some(all) = self.adapters.get(*adapter).and_then(|delta| delta.all.as_ref()) {
                x[rows.start * width..rows.end * width].chunks_exact_mut(width).for_each(|x| add(x, all));
            }
        }
        if let Some(norm) = &self.norm {
            norm::norm(run.cpu, &mut x, norm);
        }
        match &self.projection {
            Some((projection, after)) => {
                let mut y = vec![0.; ids.len() * projection.columns()];
                projection.forward(&x, &mut y, Into::Place(Act::Identity), &mut Products::default(), run);
                if let Some(norm) = after {
                    norm::norm(run.cpu, &mut y, norm);
                }
                y
            }
            None => x,
        }
    }

    /// Each token's own row, `[T, E]`.
    fn rows(&self, ids: &[u32], run: &Run) -> Vec<f32> {
        let width = self.tokens.width();
        let mut x = vec![0.; ids.len() * width];
        for (id, x) in ids.iter().zip(x.chunks_exact_mut(width)) {
            let row = self.map.as_ref().map_or(*id, |map| map[*id as usize]) as usize;
            self.tokens.row(row, x, |x, number| *x = number);
        }
        for (adapter, rows) in run.adapters {
            if let Some(delta) = self.adapters.get(*adapter) {
                let x = x[rows.start * width..rows.end * width].chunks_exact_mut(width);
                ids[rows.clone()].iter().zip(x).for_each(|(id, x)| delta.add_to(x, *id));
            }
        }
        for (id, x) in ids.iter().zip(x.chunks_exact_mut(width)) {
            let factor = self.scale * self.weights.as_ref().map_or(1., |weights| weights[*id as usize]);
            if factor != 1. {
                x.iter_mut().for_each(|x| *x *= factor);
            }
        }
        x
    }

    pub(super) fn weight_bytes(&self) -> usize {
        let deltas: usize = self.adapters.iter().map(RowDeltaOp::weight_bytes).sum();
        let tables = self.tokens.bytes() + self.positions.as_ref().map_or(0, |(table, _)| table.bytes());
        let rows: usize = [&self.weights, &self.token_type].into_iter().flatten().map(|row| size_of_val(row.as_slice())).sum();
        let norm = |norm: &Option<Norm>| norm.as_ref().map_or(0, parts::norm_bytes);
        tables + rows + deltas + norm(&self.norm) + self.projection.as_ref().map_or(0, |(map, after)| map.weight_bytes() + norm(after))
    }
}

/// See `network::RowDelta`.
struct RowDeltaOp {
    /// `[V, rank]`.
    down: Vec<f32>,
    rank: usize,
    /// `[rank, E]`, times the scale.
    up: Vec<f32>,
    /// What is added to all tokens alike, `[E]`.
    all: Option<Vec<f32>>,
}

impl RowDeltaOp {
    fn new(delta: &RowDelta) -> Result<Self, LoadError> {
        let RowDelta { down, up, scale, token_type } = delta;
        let scaled = |up: &Weight| Ok::<Vec<f32>, LoadError>(numbers(up)?.iter().map(|number| (f64::from(*number) * scale) as f32).collect());
        let all = |(down, up): &(Weight, Weight)| {
            let mut all = vec![0.; up.shape()[1]];
            combine(&mut all, &numbers(&down.rows(0..1)?)?, &scaled(up)?);
            Ok::<_, LoadError>(all)
        };
        Ok(Self { down: numbers(down)?, rank: down.shape()[1], up: scaled(up)?, all: token_type.as_ref().map(all).transpose()? })
    }

    fn add_to(&self, x: &mut [f32], id: u32) {
        combine(x, &self.down[id as usize * self.rank..][..self.rank], &self.up);
    }

    fn weight_bytes(&self) -> usize {
        (self.down.len() + self.up.len() + self.all.as_ref().map_or(0, Vec::len)) * size_of::<f32>()
    }
}

/// `x + low up` in place; `up` is `[low's length, x's length]`.
fn combine(x: &mut [f32], low: &[f32], up: &[f32]) {
    for (low, up) in low.iter().zip(up.chunks_exact(x.len())) {
        x.iter_mut().zip(up).for_each(|(x, up)| *x += low * up);
    }
}

/// `x + y` in place.
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
