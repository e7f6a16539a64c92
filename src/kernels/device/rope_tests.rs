//! The kernel that norms and turns queries and keys, run thread by thread, against the plain operations in f32.

use super::super::norm::{Weights, norm};
use super::*;
use candle_core::Device;

const TOKENS: usize = 5;

/// Heads of queries, of keys, and of values, which must stay as they are.
const HEADS: [usize; 3] = [3, 2, 2];

fn random(shape: &[usize], dtype: DType) -> Result<Tensor> {
    Tensor::randn(0f32, 1., shape, &Device::Cpu)?.to_dtype(dtype)
}

/// The plain way, in f32.
fn reference(x: &Tensor, norms: Option<&HeadNorms>, angles: Option<&Angles>) -> Result<Tensor> {
    let [queries, keys, values] = HEADS;
    let mut parts = Vec::new();
    for (first, heads, of) in [(0, queries, norms.map(|norms| &norms.query)), (queries, keys, norms.map(|norms| &norms.key))] {
        let mut part = x.narrow(1, first, heads)?.contiguous()?.to_dtype(DType::F32)?;
        if let Some(weights) = of {
            let weight = weights.weight.to_dtype(DType::F32)?;
            let bias = weights.bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?;
            part = norm(&part, &Weights { weight: &weight, bias: bias.as_ref(), rms: weights.rms, eps: weights.eps })?;
        }
        if let Some(angles) = angles {
            let of_tokens = |table: &Tensor| table.index_select(&angles.places, 0);
            part = rotate(&part, &of_tokens(&angles.cos)?, &of_tokens(&angles.sin)?, angles.interleaved)?;
        }
        parts.push(part);
    }
    parts.push(x.narrow(1, queries + keys, values)?.to_dtype(DType::F32)?);
    Tensor::cat(&parts, 1)
}

#[test]
fn norm_and_rotation_are_those_of_the_reference() -> Result<()> {
    let [queries, keys, values] = HEADS;
    for (dim, pairs, dtype, allowed) in [
        (64, 32, DType::F32, 3e-6),
        (7, 2, DType::F32, 3e-6),
        (160, 64, DType::BF16, 3e-2),
        (32, 16, DType::F16, 4e-3),
        (256, 128, DType::BF16, 3e-2),
    ] {
        let weights: Vec<Tensor> = (0..4).map(|_| random(&[dim], dtype)).collect::<Result<_>>()?;
        for (normed, interleaved, turned) in
            [(false, false, true), (false, true, true), (true, false, true), (true, true, true), (true, false, false)]
        {
            for rms in [true, false] {
                let of = |at: usize, eps: f32| Weights { weight: &weights[at], bias: (!rms).then_some(&weights[at + 1]), rms, eps };
                let norms = normed.then(|| HeadNorms { query: of(0, 1e-5), key: of(2, 1e-2) });
                let angle = random(&[9, pairs], DType::F32)?;
                let places = Tensor::new(&[0u32, 1, 8, 0, 3], &Device::Cpu)?;
                let angles = turned.then(|| Ok::<_, candle_core::Error>(Angles { cos: angle.cos()?, sin: angle.sin()?, places, interleaved }));
                let angles = angles.transpose()?;
                let x = random(&[TOKENS, queries + keys + values, dim], dtype)?;
                let want = reference(&x, norms.as_ref(), angles.as_ref())?;
                norm_rotate(&x, queries + keys, queries, norms.as_ref(), angles.as_ref())?;
                let most: f32 = ((x.to_dtype(DType::F32)? - &want)?.abs()? / (want.abs()? + 1.)?)?.flatten_all()?.max(0)?.to_scalar()?;
                assert!(most <= allowed, "{dim} {dtype:?} norms {normed} rms {rms} interleaved {interleaved}: off by {most}");
            }
        }
    }
    Ok(())
}
