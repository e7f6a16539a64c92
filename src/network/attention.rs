//! Multi-head self-attention over the tokens of one text: projections, what a token may see, and how distance counts.

use super::{Linear, Norm, Rope, Weight};
use std::sync::Arc;

/// `output(softmax(scale * q k^T + bias, masked) v)` per head; `q`, `k` normed and rotated where the network says so, in that order.
#[derive(Debug, Clone)]
pub struct Attention {
    /// `H`, of the queries.
    pub heads: usize,
    /// `G`, of keys and values; divides `H`. Query head `h` reads key head `h / (H / G)`.
    pub kv_heads: usize,
    /// `D`.
    pub head_dim: usize,
    /// `[H D, C]`.
    pub query: Linear,
    /// `[G D, C]`.
    pub key: Linear,
    /// `[G D, C]`.
    pub value: Linear,
    /// `[C, H D]`.
    pub output: Linear,
    pub qk_norm: Option<QkNorm>,
    /// The factor on `q k^T`, usually `1 / sqrt(D)`.
    pub scale: f64,
    pub mask: Mask,
    /// Shared by the layers that rotate alike.
    pub rope: Option<Arc<Rope>>,
    pub bias: PositionBias,
}

/// Norms of queries and keys before they are rotated. A weight of length `D` norms each head by itself, one of length `H D` (`G D` for keys) all
/// heads as one row.
#[derive(Debug, Clone)]
pub struct QkNorm {
    pub query: Norm,
    pub key: Norm,
}

/// Which tokens of its text a token sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mask {
    /// Only itself and what stands before it.
    pub causal: bool,
    /// Only tokens at most this far away.
    pub reach: Option<usize>,
}

impl Mask {
    /// Every token of the text.
    pub const ALL: Self = Self { causal: false, reach: None };

    /// Whether the token at `query` sees the one at `key`.
    pub fn sees(self, query: usize, key: usize) -> bool {
        !(self.causal && key > query) && self.reach.is_none_or(|reach| query.abs_diff(key) <= reach)
    }

    /// True if it hides nothing in a text of that many tokens.
    pub fn is_open(self, tokens: usize) -> bool {
        (!self.causal || tokens <= 1) && self.reach.is_none_or(|reach| tokens <= reach + 1)
    }
}

/// What is added to the scores for the places of query and key.
#[derive(Debug, Clone)]
pub enum PositionBias {
    None,
    /// `-slope * |query - key|`, a slope per head, `[H]` (Press et al. 2022, in both directions).
    Alibi(Arc<[f32]>),
    /// A learned number per head and bucket of distances, `[buckets, H]` (T5, MPNet): half of the buckets for keys at or before the query, half
    /// for those after it; in each half the first half counts exactly, the rest is logarithmic up to `max_distance`.
    Buckets {
        table: Weight,
        max_distance: usize,
    },
    /// Learned vectors per distance, against queries and against keys (He et al. 2020).
    Disentangled(Arc<Disentangled>),
}

/// `scale * (q_i . key(r) + k_j . query(r))` with `r = norm(table)[clamp(bucket(i - j) + span, 0, 2 span - 1)]`, `span` being half of the table's rows.
#[derive(Debug, Clone)]
pub struct Disentangled {
    /// `[2 span, C]`.
    pub table: Weight,
    pub norm: Option<Norm>,
    /// "Content to position": `[H D, C]`.
    pub key: Option<Linear>,
    /// "Position to content": `[H D, C]`.
    pub query: Option<Linear>,
    /// Distances beyond half of `buckets` are told apart logarithmically up to `max_distance`; `None`: each distance for itself.
    pub buckets: Option<usize>,
    pub max_distance: usize,
}

impl PositionBias {
    /// T5's bucket of a distance `key - query`, of `buckets` in all (Raffel et al. 2020).
    pub fn bucket(distance: i64, buckets: usize, max_distance: usize) -> usize {
        let half = buckets / 2;
        let (side, far) = (if distance > 0 { half } else { 0 }, distance.unsigned_abs() as usize);
        let exact = half / 2;
        if far < exact {
            return side + far;
        }
        // In f32 as the reference computes it: at the borders of buckets the rounding decides.
        let ratio = (far as f32 / exact as f32).ln() / (max_distance as f64 / exact as f64).ln() as f32;
        let log = exact + (ratio * (half - exact) as f32) as usize;
        side + log.min(half - 1)
    }
}

impl Disentangled {
    /// Half of the table's rows.
    pub fn span(&self) -> usize {
        self.table.shape()[0] / 2
    }

    /// The table's row for a distance `query - key`.
    pub fn row(&self, distance: i64) -> usize {
        let span = self.span() as i64;
        let bucket = match self.buckets {
            Some(buckets) => log_bucket(distance, buckets as i64, self.max_distance as i64),
            None => distance,
        };
        (bucket + span).clamp(0, 2 * span - 1) as usize
    }
}

/// DeBERTa-v2's `make_log_bucket_position`: exact up to half of the buckets, logarithmic beyond.
fn log_bucket(distance: i64, buckets: i64, max_distance: i64) -> i64 {
    let mid = buckets / 2;
    let far = distance.abs();
    if far <= mid {
        return distance;
    }
    let ratio = (far as f32 / mid as f32).ln() / ((max_distance - 1) as f32 / mid as f32).ln();
    let log = (ratio * (mid - 1) as f32).ceil() as i64 + mid;
    log * distance.signum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_says_who_is_seen() {
        let mask = Mask { causal: true, reach: Some(2) };
        let seen: Vec<usize> = (0..6).filter(|key| mask.sees(4, *key)).collect();
        assert_eq!(seen, [2, 3, 4]);
        let both = Mask { causal: false, reach: Some(1) };
        assert_eq!((0..6).filter(|key| both.sees(4, *key)).count(), 3);
        assert!(both.is_open(2) && !both.is_open(3) && Mask::ALL.is_open(1000) && !mask.is_open(2));
    }

    #[test]
    fn t5_buckets_are_exact_near_and_logarithmic_far() {
        let bucket = |distance| PositionBias::bucket(distance, 32, 128);
        assert_eq!([0, -1, -7, -8, -127, -5000].map(bucket), [0, 1, 7, 8, 15, 15]);
        assert_eq!([1, 7, 8, 127, 5000].map(bucket), [17, 23, 24, 31, 31]);
    }

    #[test]
    fn deberta_buckets_are_odd_and_bounded() {
        for distance in 0..2000 {
            let bucket = log_bucket(distance, 256, 512);
            assert_eq!(log_bucket(-distance, 256, 512), -bucket);
            assert!(distance > 511 || bucket < 256, "{distance}");
        }
        assert_eq!((log_bucket(128, 256, 512), log_bucket(129, 256, 512)), (128, 129));
    }
}
