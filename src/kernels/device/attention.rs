//! Attention that keeps the texts of a packed batch apart: each token sees its own text and nothing else.

use crate::ragged::Ragged;
use candle_core::{DType, Result, Tensor};

/// Scores of at most this many numbers are held at a time (one text's own scores, if they are more): 64 MiB of f32.
const MAX_SCORES: usize = 16 << 20;

/// What an attention computes.
#[derive(Debug, Clone, Copy)]
pub struct AttnSpec {
    /// The factor on `q k^T`, usually `1 / sqrt(D)`.
    pub scale: f64,
}

/// `softmax(scale q k^T) v` per text and head, over `[T, H, D]` each; the softmax is computed in f32.
///
/// Neighbouring texts of one length share a batched product, so a caller that sorts its texts by length gets few, large products.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, segments: &Ragged, spec: &AttnSpec) -> Result<Tensor> {
    let (_, heads, _) = q.dims3()?;
    let mut parts = Vec::new();
    for run in runs(segments, heads) {
        let part = |t: &Tensor| run.split(t)?.transpose(1, 2)?.contiguous();
        let scores = (part(q)? * spec.scale)?.matmul(&part(k)?.t()?)?;
        let weights = candle_nn::ops::softmax_last_dim(&scores.to_dtype(DType::F32)?)?.to_dtype(v.dtype())?;
        parts.push(weights.matmul(&part(v)?)?.transpose(1, 2)?.flatten_to(1)?);
    }
    Tensor::cat(&parts, 0)
}

/// `count` neighbouring texts of `len` tokens each, from row `start`.
struct Run {
    start: usize,
    count: usize,
    len: usize,
}

impl Run {
    /// `[T, H, D]` -> `[count, len, H, D]`.
    fn split(&self, t: &Tensor) -> Result<Tensor> {
        let (_, heads, dim) = t.dims3()?;
        t.narrow(0, self.start, self.count * self.len)?.reshape((self.count, self.len, heads, dim))
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

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// The definition, one text, head and query at a time.
    fn naive(q: &[Vec<Vec<f32>>], k: &[Vec<Vec<f32>>], v: &[Vec<Vec<f32>>], segments: &Ragged, scale: f32) -> Vec<Vec<Vec<f32>>> {
        let mut out = v.to_vec();
        for rows in segments.ranges() {
            for (t, h) in rows.clone().flat_map(|t| (0..q[0].len()).map(move |h| (t, h))) {
                let scores: Vec<f32> = rows.clone().map(|s| q[t][h].iter().zip(&k[s][h]).map(|(a, b)| a * b).sum::<f32>() * scale).collect();
                let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let exp: Vec<f32> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f32 = exp.iter().sum();
                for d in 0..out[t][h].len() {
                    out[t][h][d] = rows.clone().zip(&exp).map(|(s, e)| e / sum * v[s][h][d]).sum();
                }
            }
        }
        out
    }

    #[test]
    fn texts_do_not_see_each_other() -> Result<()> {
        let segments = Ragged::from_lens([3, 1, 5, 5, 2, 2, 2, 7]);
        let random = || Tensor::randn(0f32, 1., (segments.total(), 2, 4), &Device::Cpu);
        let (q, k, v) = (random()?, random()?, random()?);
        let got = attend(&q, &k, &v, &segments, &AttnSpec { scale: 0.5 })?.to_vec3::<f32>()?;
        let want = naive(&q.to_vec3()?, &k.to_vec3()?, &v.to_vec3()?, &segments, 0.5);
        for (got, want) in got.iter().flatten().flatten().zip(want.iter().flatten().flatten()) {
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
        Ok(())
    }
}
