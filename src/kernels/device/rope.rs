//! Rotary positions on candle tensors, always computed in f32: in half precision the angles of far positions would lose what they tell apart.

use super::launch::{Arg, Call, Module, int, suffix};
use super::norm::Weights;
use candle_core::{DType, Result, Tensor};

const HEADS_PER_BLOCK: usize = 4;
/// The largest head that the kernel holds in a warp's registers.
const MOST_DIM: usize = 256;

/// Turns the leading `2 n` dimensions of each head of `x: [T, H, D]` by the angles whose cosines and sines are `[T, n]`: dimension `i` with
/// `i + n`, or with its neighbour if `interleaved`.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor, interleaved: bool) -> Result<Tensor> {
    let (tokens, heads, dim) = x.dims3()?;
    let pairs = cos.dim(1)?;
    let turned = x.narrow(2, 0, 2 * pairs)?.to_dtype(DType::F32)?.contiguous()?;
    let turned = if interleaved {
        let halves = turned.reshape((tokens, heads, pairs, 2))?;
        let (a, b) = (halves.narrow(3, 0, 1)?.squeeze(3)?, halves.narrow(3, 1, 1)?.squeeze(3)?);
        let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
        Tensor::stack(&[first, second], 3)?.flatten_from(2)?
    } else {
        candle_nn::rotary_emb::rope_thd(&turned.unsqueeze(0)?, cos, sin)?.squeeze(0)?
    };
    let turned = turned.to_dtype(x.dtype())?;
    if 2 * pairs == dim { Ok(turned) } else { Tensor::cat(&[&turned, &x.narrow(2, 2 * pairs, dim - 2 * pairs)?], 2) }
}

/// Rotary positions for `norm_rotate`.
pub struct Angles {
    /// Cosines and sines, `[P, n]` in f32.
    pub cos: Tensor,
    pub sin: Tensor,
    /// Each token's row of them, `[T]` in u32.
    pub places: Tensor,
    pub interleaved: bool,
}

/// Norms of the heads of queries and of keys.
pub struct HeadNorms<'a> {
    pub query: Weights<'a>,
    pub key: Weights<'a>,
}

/// Whether `norm_rotate` takes heads of `dim` numbers.
pub fn fits(dim: usize) -> bool {
    dim <= MOST_DIM
}

/// Norms the leading `heads` of the heads of `x: [T, ., D]` (the first `queries` as queries, the rest as keys) and turns them, in place and in one
/// kernel; what is absent is left out. Only for a tensor that nobody else holds: a fresh product.
///
/// # Errors
/// Heads that do not fit, a device that fails.
pub fn norm_rotate(x: &Tensor, heads: usize, queries: usize, norms: Option<&HeadNorms>, angles: Option<&Angles>) -> Result<()> {
    let (tokens, all, dim) = x.dims3()?;
    if !fits(dim) || !x.is_contiguous() {
        candle_core::bail!("no kernel turns heads of {dim} in {:?}", x.layout())
    }
    if norms.is_some_and(|norms| norms.query.rms != norms.key.rms) {
        candle_core::bail!("queries and keys have different norms")
    }
    let present = |tensor: Option<_>| tensor.map_or(Arg::Absent, Arg::In);
    let (query, key) = (norms.map(|norms| &norms.query), norms.map(|norms| &norms.key));
    let eps = |norm: Option<&Weights>| Arg::Float(norm.map_or(0., |norm| norm.eps));
    let pairs = angles.map_or(Ok(0), |angles| angles.cos.dim(1))?;
    let call = Call {
        module: Module::Rope,
        function: format!("norm_rotate_{}_{}", suffix(x.dtype())?, if dim <= 128 { 128 } else { 256 }),
        blocks: [(tokens * heads).div_ceil(HEADS_PER_BLOCK), 1, 1],
        threads: HEADS_PER_BLOCK * 32,
        shared_bytes: HEADS_PER_BLOCK * dim * 4,
        args: vec![
            Arg::Out(0),
            present(query.map(|norm| norm.weight)),
            present(query.and_then(|norm| norm.bias)),
            present(key.map(|norm| norm.weight)),
            present(key.and_then(|norm| norm.bias)),
            present(angles.map(|angles| &angles.cos)),
            present(angles.map(|angles| &angles.sin)),
            present(angles.map(|angles| &angles.places)),
            int(tokens)?,
            int(all * dim)?,
            int(heads)?,
            int(queries)?,
            int(dim)?,
            int(pairs)?,
            Arg::Int(angles.is_some_and(|angles| angles.interleaved).into()),
            Arg::Int(norms.is_some_and(|norms| norms.query.rms).into()),
            eps(query),
            eps(key),
        ],
    };
    call.write(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn each_pair_is_turned_by_its_angle_and_the_rest_is_left() -> Result<()> {
        let (tokens, heads, dim, pairs) = (3, 2, 7, 2);
        let x = Tensor::randn(0f32, 1., (tokens, heads, dim), &Device::Cpu)?;
        let angle = |t: usize, p: usize| (t as f32 + 0.5) * (p as f32 + 1.) * 0.7;
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = (0..tokens).flat_map(|t| (0..pairs).map(move |p| f(angle(t, p)))).collect();
            Tensor::from_vec(values, (tokens, pairs), &Device::Cpu)
        };
        let (cos, sin) = (table(f32::cos)?, table(f32::sin)?);
        for interleaved in [false, true] {
            let (got, x) = (rotate(&x, &cos, &sin, interleaved)?.to_vec3::<f32>()?, x.to_vec3::<f32>()?);
            for (t, h) in (0..tokens).flat_map(|t| (0..heads).map(move |h| (t, h))) {
                let mut want = x[t][h].clone();
                for p in 0..pairs {
                    let (i, j) = if interleaved { (2 * p, 2 * p + 1) } else { (p, p + pairs) };
                    let (a, b) = (x[t][h][i], x[t][h][j]);
                    want[i] = a * angle(t, p).cos() - b * angle(t, p).sin();
                    want[j] = a * angle(t, p).sin() + b * angle(t, p).cos();
                }
                for (got, want) in got[t][h].iter().zip(want) {
                    assert!((got - want).abs() < 1e-6, "{got} {want}");
                }
            }
        }
        Ok(())
    }
}
