//! A batch on the device: its texts in order of length, what depends on their lengths computed once, and the way back to the caller's order.

use crate::exec::Place;
use crate::network::Rope;
use crate::ragged::{Packed, Ragged};
use candle_core::{Device, Result, Tensor};
use std::sync::Arc;

/// Texts of one length lie side by side, as attention likes them.
pub(super) struct Batch {
    /// `[T]`.
    pub(super) ids: Vec<u32>,
    pub(super) segments: Ragged,
    /// Cosines and sines of each rope of the network, `[T, dim / 2]` in f32.
    pub(super) angles: Vec<(Tensor, Tensor)>,
    /// Each adapter that a text here chooses, with the rows of those texts, `[rows]`.
    pub(super) adapters: Vec<(usize, Tensor)>,
    /// For each row of the caller's batch, its row here; `None` if the order is the same.
    back: Option<Vec<u32>>,
    device: Device,
}

impl Batch {
    pub(super) fn new(packed: &Packed, ropes: &[Arc<Rope>], place: &Place) -> Result<Self> {
        let ranges: Vec<_> = packed.segments.ranges().collect();
        let mut order: Vec<usize> = (0..ranges.len()).collect();
        order.sort_by_key(|text| ranges[*text].len());
        let mut ids = Vec::with_capacity(packed.tokens());
        let mut back = vec![0; packed.tokens()];
        let mut adapters: Vec<(usize, Vec<u32>)> = Vec::new();
        for text in &order {
            let start = ids.len() as u32;
            for row in ranges[*text].clone() {
                back[row] = ids.len() as u32;
                ids.push(packed.ids[row]);
            }
            if let Some(adapter) = packed.adapters.get(*text).copied().flatten() {
                let rows = start..ids.len() as u32;
                match adapters.iter_mut().find(|(known, _)| *known == adapter) {
                    Some((_, known)) => known.extend(rows),
                    None => adapters.push((adapter, rows.collect())),
                }
            }
        }
        let segments = Ragged::from_lens(order.iter().map(|text| ranges[*text].len()));
        let device = place.device.clone();
        let angles = ropes.iter().map(|rope| angles(rope, &segments, &device)).collect::<Result<_>>()?;
        let adapters = adapters.into_iter().map(|(adapter, rows)| Ok((adapter, Tensor::new(rows, &device)?))).collect::<Result<_>>()?;
        Ok(Self { ids, segments, angles, adapters, back: (!order.is_sorted()).then_some(back), device })
    }

    /// Indices on the device.
    pub(super) fn indices(&self, indices: Vec<u32>) -> Result<Tensor> {
        Tensor::new(indices, &self.device)
    }

    /// Length of the longest text.
    pub(super) fn longest(&self) -> usize {
        self.segments.ranges().map(|rows| rows.len()).max().unwrap_or(0)
    }

    /// Rows back in the caller's order.
    pub(super) fn restore(&self, x: &Tensor) -> Result<Tensor> {
        match &self.back {
            Some(back) => x.index_select(&Tensor::new(back.as_slice(), x.device())?, 0),
            None => Ok(x.clone()),
        }
    }
}

/// The tables of all texts, one below the other; texts of one length share theirs.
fn angles(rope: &Rope, segments: &Ragged, device: &Device) -> Result<(Tensor, Tensor)> {
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
