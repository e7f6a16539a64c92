//! A batch on the device: its texts in order of length, what depends on their lengths computed once, and the way back to the caller's order.

use super::angles::Ropes;
use super::embeddings::EmbeddingsOp;
use crate::exec::Place;
use crate::kernels::device::Ops;
use crate::kernels::device::flash::Tiles;
use crate::kernels::device::rope::Angles;
use crate::kernels::device::upload::{Slot, Upload, Uploaded};
use crate::ragged::{Packed, Ragged};
use candle_core::{Result, Tensor};

/// Texts of one length lie side by side, as attention likes them.
pub(super) struct Batch {
    /// `[T]`.
    pub(super) ids: Tensor,
    /// Each token's row of the token table, `[T]`, where that is not its id.
    pub(super) rows: Option<Tensor>,
    /// Each token's row of the position table, `[T]`.
    pub(super) positions: Option<Tensor>,
    pub(super) segments: Ragged,
    pub(super) turns: Turns,
    /// Each adapter that a text here chooses, with the rows of those texts, `[rows]`.
    pub(super) adapters: Vec<(usize, Tensor)>,
    /// Of each text in the caller's order its first row here, its tokens and those that poolings leave out, `[3 B]`.
    pub(super) texts: Tensor,
    /// For each row of the caller's batch, its row here, `[T]`; `None` if the order is the same.
    back: Option<Tensor>,
}

/// What attention needs to know of the batch.
pub(super) enum Turns {
    /// Cosines and sines of each rope of the network, `[T, dim / 2]` in f32.
    Plain(Vec<(Tensor, Tensor)>),
    /// The same for the kernels, and their portions of work.
    Fused { angles: Vec<Angles>, tiles: Tiles },
}

/// The order in which the texts lie here.
struct Order {
    ids: Vec<u32>,
    segments: Ragged,
    adapters: Vec<(usize, Vec<u32>)>,
    texts: Vec<u32>,
    back: Vec<u32>,
    changed: bool,
}

impl Order {
    fn of(packed: &Packed, include_prompt: bool) -> Self {
        let ranges: Vec<_> = packed.segments.ranges().collect();
        let mut order: Vec<usize> = (0..ranges.len()).collect();
        order.sort_by_key(|text| ranges[*text].len());
        let mut ids = Vec::with_capacity(packed.tokens());
        let mut back = vec![0; packed.tokens()];
        let mut texts = vec![0; 3 * ranges.len()];
        let mut adapters: Vec<(usize, Vec<u32>)> = Vec::new();
        for text in &order {
            let start = ids.len() as u32;
            for row in ranges[*text].clone() {
                back[row] = ids.len() as u32;
                ids.push(packed.ids[row]);
            }
            let prompt_len = if include_prompt { 0 } else { packed.prompt_lens.get(*text).copied().unwrap_or(0) };
            texts[3 * text..3 * text + 3].copy_from_slice(&[start, ranges[*text].len() as u32, prompt_len as u32]);
            if let Some(adapter) = packed.adapters.get(*text).copied().flatten() {
                let rows = start..ids.len() as u32;
                match adapters.iter_mut().find(|(known, _)| *known == adapter) {
                    Some((_, known)) => known.extend(rows),
                    None => adapters.push((adapter, rows.collect())),
                }
            }
        }
        let segments = Ragged::from_lens(order.iter().map(|text| ranges[*text].len()));
        Self { ids, segments, adapters, texts, back, changed: !order.is_sorted() }
    }
}

impl Batch {
    /// `include_prompt`: poolings count the prompts' tokens.
    pub(super) fn new(packed: &Packed, include_prompt: bool, embeddings: &EmbeddingsOp, ropes: &Ropes, place: &Place) -> Result<Self> {
        let Order { ids, segments, adapters, texts, back, changed } = Order::of(packed, include_prompt);
        let mut upload = Upload::default();
        let rows = embeddings.table_rows(&ids).map(|rows| upload.add(rows));
        let positions = embeddings.position_rows(&ids, &segments).map(|rows| upload.add(rows));
        let adapters: Vec<_> = adapters.into_iter().map(|(adapter, rows)| (adapter, upload.add(rows))).collect();
        let (texts, back) = (upload.add(texts), changed.then(|| upload.add(back)));
        let fused = (place.ops == Ops::Fused).then(|| Fused::add(&mut upload, &segments, ropes, place));
        let ids = upload.add(ids);
        let there = upload.send(&place.device)?;
        let get = |slot: Option<Slot>| slot.map(|slot| there.get(slot)).transpose();
        let turns = match fused {
            Some(fused) => fused.turns(&there, &segments, ropes, place)?,
            None => Turns::Plain(ropes.by_token(&segments, &place.device)?),
        };
        Ok(Self {
            ids: there.get(ids)?,
            rows: get(rows)?,
            positions: get(positions)?,
            adapters: adapters.into_iter().map(|(adapter, rows)| Ok((adapter, there.get(rows)?))).collect::<Result<_>>()?,
            texts: there.get(texts)?,
            back: get(back)?,
            turns,
            segments,
        })
    }

    /// Length of the longest text.
    pub(super) fn longest(&self) -> usize {
        self.segments.ranges().map(|rows| rows.len()).max().unwrap_or(0)
    }

    /// Rows back in the caller's order.
    pub(super) fn restore(&self, x: &Tensor) -> Result<Tensor> {
        match &self.back {
            Some(back) => x.index_select(back, 0),
            None => Ok(x.clone()),
        }
    }
}

/// What only the kernels need, on its way to the device.
struct Fused {
    list: Vec<u32>,
    tiles: Slot,
    /// Each token's place in its text and in the batch, where there are ropes.
    places: Option<(Slot, Slot)>,
}

impl Fused {
    fn add(upload: &mut Upload, segments: &Ragged, ropes: &Ropes, place: &Place) -> Self {
        let list = Tiles::list(segments, place.candle_dtype());
        let tiles = upload.add(list.iter().copied());
        let places = (!ropes.ropes.is_empty()).then(|| {
            let places = upload.add(segments.ranges().flat_map(|rows| 0..rows.len() as u32));
            (places, upload.add(0..segments.total() as u32))
        });
        Self { list, tiles, places }
    }

    fn turns(self, there: &Uploaded, segments: &Ragged, ropes: &Ropes, place: &Place) -> Result<Turns> {
        let angles = match self.places {
            Some((places, rows)) => ropes.by_place(segments, &there.get(places)?, &there.get(rows)?, place)?,
            None => Vec::new(),
        };
        Ok(Turns::Fused { angles, tiles: Tiles::uploaded(self.list, there.get(self.tiles)?) })
    }
}
