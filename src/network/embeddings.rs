//! From ids to the first hidden state.

use super::{Linear, Norm, Weight};
use std::sync::Arc;

/// `projection(norm(scale * tokens[id] + positions[place] + token_type))`; what is absent is left out.
#[derive(Debug, Clone)]
pub struct Embeddings {
    pub tokens: TokenTable,
    /// A factor on the token's row (Gemma: `sqrt(C)`); 1 for most.
    pub scale: f64,
    pub positions: Option<Positions>,
    /// `[types, E]`; a text served here is always the first sentence, so row 0.
    pub token_types: Option<Weight>,
    pub norm: Option<Norm>,
    /// For embeddings narrower than the network (ALBERT, ELECTRA); without it `E = C`.
    pub projection: Option<Projection>,
}

/// From the width of the embeddings to that of the network.
#[derive(Debug, Clone)]
pub struct Projection {
    /// `[C, E]`.
    pub linear: Linear,
    /// Behind it (DeBERTa).
    pub norm: Option<Norm>,
}

/// One row of width `E` per token id.
#[derive(Debug, Clone)]
pub struct TokenTable {
    /// `[V, E]`, or fewer rows with `map`.
    pub rows: Weight,
    /// The row of each id, `[V]`, where several ids share a row (model2vec with a quantised vocabulary).
    pub map: Option<Arc<[u32]>>,
    /// A factor per id, `[V]` (model2vec).
    pub weights: Option<Weight>,
    /// One per adapter of the network, or none.
    pub adapters: Vec<RowDelta>,
}

/// A delta on the rows of a table, for the texts that choose it: `scale * down[id] up`. Stored like the table, unlike a `LowRank`.
#[derive(Debug, Clone)]
pub struct RowDelta {
    /// `[V, rank]`.
    pub down: Weight,
    /// `[rank, E]`.
    pub up: Weight,
    pub scale: f64,
    /// The same for the token type, added to every token: `down` `[types, rank]`, of which row 0 counts, and `up` `[rank, E]`.
    pub token_type: Option<(Weight, Weight)>,
}

/// Learned absolute positions.
#[derive(Debug, Clone)]
pub struct Positions {
    /// `[P, E]`.
    pub table: Weight,
    /// The row of a text's first token.
    pub offset: usize,
    /// An id that is not counted: it has the row before `offset` wherever it stands, and the tokens after it go on counting without it (RoBERTa
    /// and its kin, where a text may contain the padding token literally).
    pub uncounted: Option<u32>,
}

impl TokenTable {
    /// A plain table.
    pub fn new(rows: Weight) -> Self {
        Self { rows, map: None, weights: None, adapters: Vec::new() }
    }

    /// `V`.
    pub fn vocabulary(&self) -> usize {
        self.map.as_ref().map_or(self.rows.shape()[0], |map| map.len())
    }
}

impl Positions {
    /// Positions counted from row 0.
    pub fn new(table: Weight) -> Self {
        Self { table, offset: 0, uncounted: None }
    }

    /// The longest text that the table reaches, in tokens.
    pub fn max_tokens(&self) -> usize {
        self.table.shape()[0].saturating_sub(self.offset)
    }

    /// The row of each token of one text.
    pub fn rows(&self, ids: &[u32]) -> impl Iterator<Item = u32> {
        let mut next = self.offset as u32;
        ids.iter().map(move |id| {
            if self.uncounted == Some(*id) {
                return self.offset.saturating_sub(1) as u32;
            }
            next += 1;
            next - 1
        })
    }
}
