//! Rotary positions on the processor: the angles of each rotation that a network has, once.

use crate::kernels::host::rope::Angles;
use crate::network::{Frequencies, Layer, Pairing, Rope};
use std::sync::Arc;

/// Angles are kept for texts of up to this many tokens; longer ones compute their own.
const KEPT_ANGLES: usize = 8192;

/// The rotations of a network's layers, each once.
pub(super) struct Ropes {
    known: Vec<Arc<RopeOp>>,
    max_tokens: usize,
}

impl Ropes {
    pub(super) fn of(layers: &[Arc<Layer>], max_tokens: usize) -> Self {
        let mut ropes = Self { known: Vec::new(), max_tokens };
        for rope in layers.iter().filter_map(|layer| layer.attention.rope.as_ref()) {
            let one = ropes.get(rope);
            if !ropes.known.iter().any(|known| Arc::ptr_eq(known, &one)) {
                ropes.known.push(one);
            }
        }
        ropes
    }

    /// The one that is known, or a new one.
    pub(super) fn get(&self, rope: &Arc<Rope>) -> Arc<RopeOp> {
        let known = self.known.iter().find(|known| known.rope == *rope).cloned();
        known.unwrap_or_else(|| Arc::new(RopeOp::new(rope.clone(), self.max_tokens)))
    }
}

/// A rotation, with its angles as far as they are kept.
pub(super) struct RopeOp {
    rope: Arc<Rope>,
    kept: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeOp {
    fn new(rope: Arc<Rope>, max_tokens: usize) -> Self {
        // Up to its trained length every text turns alike; beyond it, by its own length.
        let alike = match &rope.frequencies {
            Frequencies::Fixed(_) => max_tokens,
            Frequencies::Dynamic { trained, .. } | Frequencies::ByLength { trained, .. } => *trained,
        };
        let kept = alike.min(max_tokens).min(KEPT_ANGLES);
        let (cos, sin) = rope.table(kept);
        Self { rope, kept, cos, sin }
    }

    /// Calls `turn` with the angles for a text of that length.
    pub(super) fn with(&self, tokens: usize, turn: impl FnOnce(Angles)) {
        let (pairs, interleaved) = (self.rope.dim / 2, self.rope.pairing == Pairing::Neighbours);
        if tokens <= self.kept {
            return turn(Angles { cos: &self.cos, sin: &self.sin, pairs, interleaved });
        }
        let (cos, sin) = self.rope.table(tokens);
        turn(Angles { cos: &cos, sin: &sin, pairs, interleaved });
    }
}
