//! Attention that keeps the texts of a packed batch apart: each token sees what its mask lets it see of its own text, and nothing else.

use crate::ragged::Ragged;
use candle_core::{D, DType, Device, Result, Tensor};
use std::borrow::Cow;
use std::ops::Range;

/// Scores of at most this many numbers are held at a time (one query's own scores, if they are more): 64 MiB of f32.
const MAX_SCORES: usize = 16 << 20;

/// What an attention computes.
#[derive(Debug, Clone, Copy)]
pub struct AttnSpec {
    /// The factor on `q k^T`, usually `1 / sqrt(D)`.
    pub scale: f64,
    /// A token sees only itself and what stands before it.
    pub causal: bool,
    /// A token sees only tokens at most this far away.
    pub reach: Option<usize>,
}

/// What is added to the scaled scores; `M` is at least the length of the longest text, and distances are `key - query`.
#[derive(Clone)]
pub enum Bias {
    None,
    /// `-slope * |key - query|`, a slope per head, `[H]` in f32.
    Slopes(Tensor),
    /// A number per head and distance, `[H, 2 M - 1]` in f32; distance 0 is column `M - 1`.
    Distance(Tensor),
    /// Vectors per distance, against queries and keys.
    Disentangled(Disentangling),
}

/// `scale * (q . key[r] + k . query[r])`, `r` being the distance's row.
#[derive(Clone)]
pub struct Disentangling {
    /// `[H, D, R]`, met by the queries.
    pub key: Option<Tensor>,
    /// `[H, D, R]`, met by the keys.
    pub query: Option<Tensor>,
    /// The row of each distance, `[2 M - 1]`.
    pub rows: Vec<u32>,
}

/// `softmax(scale q k^T + bias, masked) v` per text and head over `q: [T, H, D]` and `k, v: [T, G, D]`; the softmax is computed in f32. Query head
/// `h` meets key head `h / (H / G)`.
///
/// Neighbouring texts of one length share a batched product, so a caller that sorts its texts by length gets few, large products.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, segments: &Ragged, spec: &AttnSpec, bias: &Bias) -> Result<Tensor> {
    let heads = q.dim(1)?;
    let bias = &bias.by_distance(segments)?;
    let mut parts = Vec::new();
    for run in runs(segments, heads) {
        let (q, k, v) = (run.split(q)?, run.split(k)?, run.split(v)?);
        let mut blocks = Vec::new();
        for queries in query_blocks(run.len, heads) {
            let block = Block { keys: spec.keys(&queries, run.len), queries, spec, bias };
            blocks.push(block.attend(&q, &k, &v)?);
        }
        // [count, H, len, D] -> [count len, H, D]
        parts.push(Tensor::cat(&blocks, 2)?.transpose(1, 2)?.flatten_to(1)?);
    }
    match parts.is_empty() {
        true => q.zeros_like(),
        false => Tensor::cat(&parts, 0),
    }
}

impl Bias {
    /// Slopes as a table; everything else as it is.
    fn by_distance(&self, segments: &Ragged) -> Result<Cow<'_, Self>> {
        let Self::Slopes(slopes) = self else { return Ok(Cow::Borrowed(self)) };
        let far = segments.ranges().map(|rows| rows.len()).max().unwrap_or(0).max(1) as i64 - 1;
        let distances: Vec<f32> = (-far..=far).map(|distance| -(distance.abs() as f32)).collect();
        let table = slopes.unsqueeze(1)?.broadcast_mul(&Tensor::new(distances, slopes.device())?.unsqueeze(0)?)?;
        Ok(Cow::Owned(Self::Distance(table)))
    }
}

impl AttnSpec {
    /// The keys that any of these queries sees.
    fn keys(&self, queries: &Range<usize>, len: usize) -> Range<usize> {
        let reach = self.reach.unwrap_or(len);
        let end = if self.causal { queries.end } else { queries.end.saturating_add(reach).min(len) };
        queries.start.saturating_sub(reach)..end
    }

    fn sees(&self, query: usize, key: usize) -> bool {
        !(self.causal && key > query) && self.reach.is_none_or(|reach| query.abs_diff(key) <= reach)
    }
}

/// Some queries of texts of one length, with all keys that they see.
struct Block<'a> {
    queries: Range<usize>,
    keys: Range<usize>,
    spec: &'a AttnSpec,
    bias: &'a Bias,
}

impl Block<'_> {
    /// `q: [count, H, len, D]`, `k, v: [count, G, len, D]` -> `[count, H, queries, D]`.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let (count, heads, _, dim) = q.dims4()?;
        let kv_heads = k.dim(1)?;
        let (rows, columns) = (self.queries.len(), self.keys.len());
        let narrow = |x: &Tensor, range: &Range<usize>| x.narrow(2, range.start, range.len())?.contiguous();
        let q = (narrow(q, &self.queries)? * self.spec.scale)?;
        let (k, v) = (narrow(k, &self.keys)?, narrow(v, &self.keys)?);
        // The heads that share a key head are rows of one product.
        let grouped = |x: &Tensor, last: usize| x.reshape((count * kv_heads, (), last));
        let scores = grouped(&q, dim)?.matmul(&grouped(&k, dim)?.t()?)?.reshape((count, heads, rows, columns))?;
        let scores = self.add_bias(scores, &q, &k)?.to_dtype(DType::F32)?;
        let scores = match self.mask(q.device())? {
            Some(mask) => scores.broadcast_add(&mask)?,
            None => scores,
        };
        let weights = candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(v.dtype())?;
        grouped(&weights, columns)?.matmul(&grouped(&v, dim)?)?.reshape((count, heads, rows, dim))
    }

    fn add_bias(&self, scores: Tensor, q: &Tensor, k: &Tensor) -> Result<Tensor> {
        match self.bias {
            // `attend` has made a table of slopes.
            Bias::None | Bias::Slopes(_) => Ok(scores),
            Bias::Distance(table) => {
                let middle = (table.dim(1)? - 1) / 2;
                let indices = Tensor::new(self.distances(middle).collect::<Vec<_>>(), q.device())?;
                let bias = table.index_select(&indices, 1)?.reshape(((), self.queries.len(), self.keys.len()))?;
                scores.to_dtype(DType::F32)?.broadcast_add(&bias)
            }
            Bias::Disentangled(vectors) => self.disentangle(scores, q, k, vectors),
        }
    }

    fn disentangle(&self, mut scores: Tensor, q: &Tensor, k: &Tensor, vectors: &Disentangling) -> Result<Tensor> {
        let shape = scores.dims4()?;
        let rows: Vec<u32> = self.distances((vectors.rows.len() - 1) / 2).map(|at| vectors.rows[at as usize]).collect();
        let rows = Tensor::from_vec(rows, (1, 1, shape.2, shape.3), q.device())?;
        if let Some(key) = &vectors.key {
            // q carries the scale already.
            let by_row = q.broadcast_matmul(&key.unsqueeze(0)?)?;
            scores = (scores + by_row.gather(&rows.broadcast_as(shape)?.contiguous()?, D::Minus1)?)?;
        }
        if let Some(query) = &vectors.query {
            let by_row = (k.broadcast_matmul(&query.unsqueeze(0)?)? * self.spec.scale)?;
            let turned = rows.t()?.broadcast_as((shape.0, shape.1, shape.3, shape.2))?.contiguous()?;
            scores = (scores + by_row.gather(&turned, D::Minus1)?.t()?)?;
        }
        Ok(scores)
    }

    /// `key - query + middle` for every pair, row by row.
    fn distances(&self, middle: usize) -> impl Iterator<Item = u32> {
        let keys = self.keys.clone();
        self.queries.clone().flat_map(move |query| keys.clone().map(move |key| (key + middle - query) as u32))
    }

    /// 0 where a query sees a key, else minus infinity, `[queries, keys]`; nothing where all is seen.
    fn mask(&self, device: &Device) -> Result<Option<Tensor>> {
        let pairs = || self.queries.clone().flat_map(|query| self.keys.clone().map(move |key| (query, key)));
        if (!self.spec.causal && self.spec.reach.is_none()) || pairs().all(|(query, key)| self.spec.sees(query, key)) {
            return Ok(None);
        }
        let mask: Vec<f32> = pairs().map(|(query, key)| if self.spec.sees(query, key) { 0. } else { f32::NEG_INFINITY }).collect();
        Tensor::from_vec(mask, (self.queries.len(), self.keys.len()), device).map(Some)
    }
}

/// `count` neighbouring texts of `len` tokens each, from row `start`.
struct Run {
    start: usize,
    count: usize,
    len: usize,
}

impl Run {
    /// `[T, H, D]` -> `[count, H, len, D]`.
    fn split(&self, t: &Tensor) -> Result<Tensor> {
        let (_, heads, dim) = t.dims3()?;
        t.narrow(0, self.start, self.count * self.len)?.reshape((self.count, self.len, heads, dim))?.transpose(1, 2)?.contiguous()
    }
}

fn runs(segments: &Ragged, heads: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for rows in segments.ranges().filter(|rows| !rows.is_empty()) {
        let len = rows.len();
        match runs.last_mut() {
            Some(run) if run.len == len && (run.count + 1) * len * len * heads <= MAX_SCORES => run.count += 1,
            _ => runs.push(Run { start: rows.start, count: 1, len }),
        }
    }
    runs
}

/// The queries of a text in portions whose scores fit.
fn query_blocks(len: usize, heads: usize) -> impl Iterator<Item = Range<usize>> {
    let rows = (MAX_SCORES / (len * heads).max(1)).clamp(1, len.max(1));
    (0..len).step_by(rows).map(move |start| start..(start + rows).min(len))
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
