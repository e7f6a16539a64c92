//! From ids to the first hidden state, on the processor.

use super::Run;
use super::parts::{self, Form};
use crate::exec::weights::numbers;
use crate::kernels::host::Act;
use crate::kernels::host::gemm::{self, Into, Rows};
use crate::kernels::host::norm::{self, Norm};
use crate::kernels::host::operand::Turned;
use crate::kernels::host::pack::Packed;
use crate::network::{Embeddings, LoadError, Positions, TokenTable};
use std::sync::Arc;

/// See `network::Embeddings`.
pub(super) struct EmbeddingsOp {
    /// `[V, E]`, or fewer rows with `map`.
    tokens: Vec<f32>,
    width: usize,
    map: Option<Arc<[u32]>>,
    /// `[V]`.
    weights: Option<Vec<f32>>,
    scale: f32,
    /// The table with what says which row a token has.
    positions: Option<(Vec<f32>, Positions)>,
    /// Row 0 of the token types, `[E]`.
    token_type: Option<Vec<f32>>,
    norm: Option<Norm>,
    /// The map, and the norm behind it.
    projection: Option<(Packed, Option<Norm>)>,
}

impl EmbeddingsOp {
    pub(super) fn new(words: &Embeddings, form: Form) -> Result<Self, LoadError> {
        let Embeddings { tokens, scale, positions, token_types, norm, projection } = words;
        let TokenTable { rows, map, weights, adapters: _ } = tokens;
        let positions = positions.as_ref().map(|positions| Ok::<_, LoadError>((numbers(&positions.table)?, positions.clone())));
        let projection = projection.as_ref().map(|projection| {
            let norm = projection.norm.as_ref().map(parts::norm).transpose()?;
            Ok::<_, LoadError>((parts::linear(&projection.linear, form.exact())?, norm))
        });
        Ok(Self {
            tokens: numbers(rows)?,
            width: rows.shape()[1],
            map: map.clone(),
            weights: weights.as_ref().map(numbers).transpose()?,
            scale: *scale as f32,
            positions: positions.transpose()?,
            token_type: token_types.as_ref().map(|types| numbers(&types.rows(0..1)?)).transpose()?,
            norm: norm.as_ref().map(parts::norm).transpose()?,
            projection: projection.transpose()?,
        })
    }

    /// `[T, C]`. The ids are in the vocabulary.
    pub(super) fn forward(&self, ids: &[u32], run: &Run) -> Vec<f32> {
        let mut x = Vec::with_capacity(ids.len() * self.width);
        for id in ids {
            let row = self.map.as_ref().map_or(*id, |map| map[*id as usize]) as usize;
            let factor = self.scale * self.weights.as_ref().map_or(1., |weights| weights[*id as usize]);
            x.extend(self.tokens[row * self.width..][..self.width].iter().map(|number| number * factor));
        }
        if let Some((table, positions)) = &self.positions {
            let rows = run.texts.iter().flat_map(|text| positions.rows(&ids[text.clone()]));
            for (x, row) in x.chunks_exact_mut(self.width).zip(rows) {
                add(x, &table[row as usize * self.width..][..self.width]);
            }
        }
        if let Some(first) = &self.token_type {
            x.chunks_exact_mut(self.width).for_each(|x| add(x, first));
        }
        if let Some(norm) = &self.norm {
            norm::norm(run.cpu, &mut x, norm);
        }
        match &self.projection {
            Some((projection, after)) => {
                let mut y = vec![0.; ids.len() * projection.columns()];
                let mut turned = Turned::default();
                let rows = turned.operand(run.team, Rows::dense(&x, ids.len(), self.width), projection);
                gemm::product(run.team, rows, projection, &mut y, projection.columns(), Into::Place(Act::Identity));
                if let Some(norm) = after {
                    norm::norm(run.cpu, &mut y, norm);
                }
                y
            }
            None => x,
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        let tables = [Some(&self.tokens), self.weights.as_ref(), self.positions.as_ref().map(|(table, _)| table), self.token_type.as_ref()];
        let tables: usize = tables.into_iter().flatten().map(|table| table.len() * size_of::<f32>()).sum();
        let norm = |norm: &Option<Norm>| norm.as_ref().map_or(0, parts::norm_bytes);
        tables + norm(&self.norm) + self.projection.as_ref().map_or(0, |(map, after)| map.bytes() + norm(after))
    }
}

/// `x + y` in place.
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
