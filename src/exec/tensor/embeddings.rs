//! From ids to the first hidden state, on the device.

use super::batch::Batch;
use super::linear::LinearOp;
use super::norm::NormOp;
use super::{bytes, device};
use crate::exec::Place;
use crate::kernels::device::linear;
use crate::network::{Embeddings, LoadError, Positions, RowDelta, Weight};
use crate::ragged::Ragged;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// See `network::Embeddings`.
pub(super) struct EmbeddingsOp {
    /// `[V, E]`, or fewer rows with `map`.
    tokens: Tensor,
    map: Option<Arc<[u32]>>,
    /// `[V, 1]`.
    weights: Option<Tensor>,
    adapters: Vec<RowDeltaOp>,
    scale: f64,
    /// The table, its token type added, with what says which row a token has.
    positions: Option<(Tensor, Positions)>,
    /// Row 0 of the token types, `[1, E]`, where there are no positions to add it to.
    token_type: Option<Tensor>,
    norm: Option<NormOp>,
    projection: Option<(LinearOp, Option<NormOp>)>,
}

/// A delta on the table's rows, the scale being part of `up`.
struct RowDeltaOp {
    /// `[V, rank]`.
    down: Tensor,
    /// `[rank, E]`.
    up: Tensor,
    /// What all tokens have alike, `[1, E]`.
    all: Option<Tensor>,
}

impl RowDeltaOp {
    fn new(delta: &RowDelta, place: &Place) -> std::result::Result<Self, LoadError> {
        let up = |up: &Weight| (place.tensor(up)? * delta.scale).map_err(device);
        let all = |(down, rows): &(Weight, Weight)| {
            let (down, up) = (place.tensor(&down.rows(0..1)?)?, up(rows)?);
            up.t().and_then(|up| linear::product(&down, &up)).map_err(device)
        };
        Ok(Self { down: place.tensor(&delta.down)?, up: up(&delta.up)?, all: delta.token_type.as_ref().map(all).transpose()? })
    }

    /// Of the rows of `ids`, `[ids, E]`.
    fn rows_of(&self, ids: &Tensor) -> Result<Tensor> {
        linear::product(&self.down.index_select(ids, 0)?, &self.up.t()?)
    }

    fn weight_bytes(&self) -> usize {
        bytes(&self.down) + bytes(&self.up) + self.all.as_ref().map_or(0, bytes)
    }
}

impl EmbeddingsOp {
    pub(super) fn new(words: &Embeddings, place: &Place) -> std::result::Result<Self, LoadError> {
        let table = &words.tokens;
        let token_type = words.token_types.as_ref().map(|types| place.tensor(&types.rows(0..1)?)).transpose()?;
        let positions = words.positions.as_ref().map(|positions| {
            let rows = place.tensor(&positions.table)?;
            let rows = token_type.as_ref().map_or(Ok(rows.clone()), |first| rows.broadcast_add(first)).map_err(device)?;
            Ok::<_, LoadError>((rows, positions.clone()))
        });
        let positions = positions.transpose()?;
        let weights = table.weights.as_ref().map(|weights| place.tensor(weights)?.unsqueeze(1).map_err(device)).transpose()?;
        let projection = words.projection.as_ref().map(|projection| {
            let norm = projection.norm.as_ref().map(|norm| NormOp::new(norm, place)).transpose()?;
            Ok::<_, LoadError>((LinearOp::new(&projection.linear, place)?, norm))
        });
        Ok(Self {
            tokens: place.tensor(&table.rows)?,
            map: table.map.clone(),
            weights,
            adapters: table.adapters.iter().map(|delta| RowDeltaOp::new(delta, place)).collect::<std::result::Result<_, _>>()?,
            scale: words.scale,
            token_type: if positions.is_some() { None } else { token_type },
            positions,
            norm: words.norm.as_ref().map(|norm| NormOp::new(norm, place)).transpose()?,
            projection: projection.transpose()?,
        })
    }

    /// The table's row of each of these ids, which were checked against the map's length; `None` where that is the id itself.
    pub(super) fn table_rows(&self, ids: &[u32]) -> Option<Vec<u32>> {
        self.map.as_ref().map(|map| ids.iter().map(|id| map[*id as usize]).collect())
    }

    /// The row of each token among the positions; `None` where there are none.
    pub(super) fn position_rows(&self, ids: &[u32], segments: &Ragged) -> Option<Vec<u32>> {
        let (_, positions) = self.positions.as_ref()?;
        Some(segments.ranges().flat_map(|text| positions.rows(&ids[text])).collect())
    }

    /// `[T, C]`.
    pub(super) fn forward(&self, batch: &Batch) -> Result<Tensor> {
        let mut x = self.rows(batch)?;
        if self.scale != 1. {
            x = (x * self.scale)?;
        }
        if let (Some((table, _)), Some(rows)) = (&self.positions, &batch.positions) {
            x = (x + table.index_select(rows, 0)?)?;
        }
        if let Some(first) = &self.token_type {
            x = x.broadcast_add(first)?;
        }
        for (adapter, rows) in &batch.adapters {
            if let Some(all) = self.adapters.get(*adapter).and_then(|delta| delta.all.as_ref()) {
                x = x.index_add(rows, &all.broadcast_as((rows.elem_count(), x.dim(1)?))?.contiguous()?, 0)?;
            }
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        let Some((linear, norm)) = &self.projection else { return Ok(x) };
        let x = linear.forward_each(&x, batch)?;
        norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x))
    }

    /// Each token's own row, `[T, E]`.
    fn rows(&self, batch: &Batch) -> Result<Tensor> {
        let ids = &batch.ids;
        let mut x = self.tokens.index_select(batch.rows.as_ref().unwrap_or(ids), 0)?;
        for (adapter, rows) in &batch.adapters {
            if let Some(delta) = self.adapters.get(*adapter) {
                x = x.index_add(rows, &delta.rows_of(&ids.index_select(rows, 0)?)?, 0)?;
            }
        }
        match &self.weights {
            Some(weights) => x.broadcast_mul(&weights.index_select(ids, 0)?),
            None => Ok(x),
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        let tensors = [Some(&self.tokens), self.weights.as_ref(), self.positions.as_ref().map(|(table, _)| table), self.token_type.as_ref()];
        let tensors: usize = tensors.into_iter().flatten().map(bytes).sum();
        let deltas: usize = self.adapters.iter().map(RowDeltaOp::weight_bytes).sum();
        let norm = |norm: &Option<NormOp>| norm.as_ref().map_or(0, NormOp::weight_bytes);
        let projection = self.projection.as_ref().map_or(0, |(linear, after)| linear.weight_bytes() + norm(after));
        tensors + deltas + norm(&self.norm) + projection
    }
}
