//! Norm and rotation of queries and keys in one kernel, in place.

use super::device::{random, there};
use super::near::{Allowed, DTYPES};
use candle_core::{DType, Device, Result, Tensor};
use vecmill::kernels::device::norm::Weights;
use vecmill::kernels::device::rope::{Angles, HeadNorms, norm_rotate, rotate};

const ALLOWED: Allowed = Allowed { f32: 3e-6, bf16: 3e-2, f16: 4e-3 };
/// Heads of queries, of keys, and of values, which must stay as they are.
const HEADS: [usize; 3] = [3, 2, 2];
/// Each token's row among the angles.
const PLACES: [u32; 5] = [0, 1, 8, 0, 3];
const ANGLES: usize = 9;
/// Of queries' and of keys' norms.
const EPS: [f32; 2] = [1e-5, 1e-2];

/// What is done to the heads.
struct Case {
    dim: usize,
    pairs: usize,
    dtype: DType,
    normed: bool,
    rms: bool,
    turned: bool,
    interleaved: bool,
}

impl Case {
    /// A norm's weight and bias.
    fn weights(&self) -> Result<Vec<Tensor>> {
        (0..4).map(|seed| random(seed, &[self.dim], self.dtype)).collect()
    }

    fn angles(&self, put: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Option<Angles>> {
        let angle = random(9, &[ANGLES, self.pairs], DType::F32)?;
        let angles = || Ok(Angles { cos: put(&angle.cos()?)?, sin: put(&angle.sin()?)?, places: put(&places()?)?, interleaved: self.interleaved });
        self.turned.then(angles).transpose()
    }

    /// The plain way, in f32.
    fn reference(&self, x: &Tensor) -> Result<Tensor> {
        let wide = |x: &Tensor| x.to_dtype(DType::F32);
        let ([queries, keys, values], weights, angles) = (HEADS, self.weights()?, self.angles(|x| Ok(x.clone()))?);
        let mut parts = Vec::new();
        for (of, first, heads) in [(0, 0, queries), (1, queries, keys)] {
            let mut part = wide(&x.narrow(1, first, heads)?.contiguous()?)?;
            if self.normed {
                let (weight, bias) = (wide(&weights[2 * of])?, wide(&weights[2 * of + 1])?);
                part = if self.rms {
                    candle_nn::ops::rms_norm(&part, &weight, EPS[of])?
                } else {
                    candle_nn::ops::layer_norm(&part, &weight, &bias, EPS[of])?
                };
            }
            if let Some(angles) = &angles {
                let of_tokens = |table: &Tensor| table.index_select(&angles.places, 0);
                part = rotate(&part, &of_tokens(&angles.cos)?, &of_tokens(&angles.sin)?, self.interleaved)?;
            }
            parts.push(part);
        }
        parts.push(wide(&x.narrow(1, queries + keys, values)?)?);
        Tensor::cat(&parts, 1)
    }

    fn check(&self) -> Result<()> {
        let [queries, keys, values] = HEADS;
        let x = random(5, &[PLACES.len(), queries + keys + values, self.dim], self.dtype)?;
        let weights: Vec<Tensor> = self.weights()?.iter().map(there).collect::<Result<_>>()?;
        let of = |of: usize| Weights { weight: &weights[2 * of], bias: (!self.rms).then_some(&weights[2 * of + 1]), rms: self.rms, eps: EPS[of] };
        let norms = self.normed.then(|| HeadNorms { query: of(0), key: of(1) });
        let got = there(&x)?;
        norm_rotate(&got, queries + keys, queries, norms.as_ref(), self.angles(there)?.as_ref())?;
        let Self { dim, normed, rms, turned, interleaved, .. } = self;
        let about = format!("heads of {dim}, normed {normed}, rms {rms}, turned {turned}, interleaved {interleaved}");
        ALLOWED.check("norm_rotate", self.dtype, &got, &self.reference(&x)?, &about)
    }
}

fn places() -> Result<Tensor> {
    Tensor::new(&PLACES, &Device::Cpu)
}

#[test]
fn norm_and_rotation_are_those_of_the_reference() -> Result<()> {
    for (dtype, (dim, pairs)) in DTYPES.into_iter().flat_map(|dtype| [(64, 32), (7, 2), (160, 64), (32, 16), (256, 128)].map(|size| (dtype, size))) {
        for (normed, interleaved, turned) in
            [(false, false, true), (false, true, true), (true, false, true), (true, true, true), (true, false, false)]
        {
            for rms in [true, false] {
                Case { dim, pairs, dtype, normed, rms, turned, interleaved }.check()?;
            }
        }
    }
    Ok(())
}
