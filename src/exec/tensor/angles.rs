//! Rotary angles on the device: for plain operations a row per token of the batch; for the kernels one table per rope that batches share.

use crate::exec::Place;
use crate::kernels::device::rope::Angles;
use crate::network::{Pairing, Rope};
use crate::ragged::Ragged;
use candle_core::{Device, Result, Tensor};
use std::sync::{Arc, Mutex, PoisonError};

/// Shared tables are at least this long, so that few batches make them grow.
const LEAST_TOKENS: usize = 512;

/// The ropes of a network that differ, with the tables that were needed so far.
#[derive(Default)]
pub(super) struct Ropes {
    pub(super) ropes: Vec<Arc<Rope>>,
    shared: Mutex<Vec<Option<Table>>>,
}

/// Cosines and sines of the places 0 to `tokens`, `[tokens, dim / 2]`.
#[derive(Clone)]
struct Table {
    tokens: usize,
    cos: Tensor,
    sin: Tensor,
}

impl Ropes {
    pub(super) fn new(ropes: Vec<Arc<Rope>>) -> Self {
        let shared = Mutex::new(vec![None; ropes.len()]);
        Self { ropes, shared }
    }

    /// Cosines and sines of each rope, `[T, dim / 2]`.
    pub(super) fn by_token(&self, segments: &Ragged, device: &Device) -> Result<Vec<(Tensor, Tensor)>> {
        self.ropes.iter().map(|rope| by_token(rope, segments, device)).collect()
    }

    /// The same as shared tables, where all texts of the batch are turned alike. `places` are the tokens' places in their texts, `rows` in the batch.
    pub(super) fn by_place(&self, segments: &Ragged, places: &Tensor, rows: &Tensor, place: &Place) -> Result<Vec<Angles>> {
        let longest = segments.ranges().map(|rows| rows.len()).max().unwrap_or(0);
        let angles = |(index, rope): (usize, &Arc<Rope>)| {
            let interleaved = rope.pairing == Pairing::Neighbours;
            match rope.same_up_to() {
                Some(end) if longest > end => {
                    let (cos, sin) = by_token(rope, segments, &place.device)?;
                    Ok(Angles { cos, sin, places: rows.clone(), interleaved })
                }
                end => {
                    let Table { cos, sin, .. } = self.shared(index, rope, longest, end, &place.device)?;
                    Ok(Angles { cos, sin, places: places.clone(), interleaved })
                }
            }
        };
        self.ropes.iter().enumerate().map(angles).collect()
    }

    fn shared(&self, index: usize, rope: &Rope, tokens: usize, end: Option<usize>, device: &Device) -> Result<Table> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let known = shared.get(index).cloned().flatten().filter(|table| table.tokens >= tokens);
        if let Some(table) = known {
            return Ok(table);
        }
        let tokens = tokens.next_power_of_two().max(LEAST_TOKENS).min(end.unwrap_or(usize::MAX));
        let (cos, sin) = rope.table(tokens);
        let shape = (tokens, rope.dim / 2);
        let table = Table { tokens, cos: Tensor::from_vec(cos, shape, device)?, sin: Tensor::from_vec(sin, shape, device)? };
        if let Some(place) = shared.get_mut(index) {
            *place = Some(table.clone());
        }
        Ok(table)
    }
}

/// The tables of all texts, one below the other; texts of one length share theirs.
fn by_token(rope: &Rope, segments: &Ragged, device: &Device) -> Result<(Tensor, Tensor)> {
    let (mut cos, mut sin) = (Vec::new(), Vec::new());
    let (mut table, mut len) = ((Vec::new(), Vec::new()), 0);
    for rows in segments.ranges() {
        if rows.len() != len {
            (table, len) = (rope.table(rows.len()), rows.len());
        }
        cos.extend_from_slice(&table.0);
        sin.extend_from_slice(&table.1);
    }
    let shape = (segments.total(), rope.dim / 2);
    Ok((Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?))
}
