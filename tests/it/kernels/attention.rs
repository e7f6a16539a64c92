//! Attention against the plain one: every head size, mask and bias on ragged texts.

use super::device::{device, random, there};
use super::near::{Allowed, DTYPES};
use candle_core::{DType, Device, Result, Tensor};
use half::{bf16, f16};
use vecmill::kernels::device::activation::{IDENTITY, bias_activation};
use vecmill::kernels::device::attention::{self, AttnSpec, Bias};
use vecmill::kernels::device::flash::{Tiles, attend};
use vecmill::ragged::Ragged;

/// What rounding weights and results to the format may cost; scores and sums are in f32.
const ALLOWED: Allowed = Allowed { f32: 5e-6, bf16: 2.5e-2, f16: 3e-3 };

/// Texts around the portions' sizes: 16, 32 and 64.
const LENS: [usize; 9] = [1, 17, 64, 3, 65, 16, 40, 2, 33];
const LONG: [usize; 2] = [150, 7];

struct Case {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    spec: AttnSpec,
    lens: &'static [usize],
}

fn case(heads: usize, kv_heads: usize, dim: usize, causal: bool, reach: Option<usize>) -> Case {
    Case { heads, kv_heads, dim, spec: AttnSpec { scale: 1. / (dim as f64).sqrt(), causal, reach }, lens: &LENS }
}

impl Case {
    /// q, k, v as parts of one product.
    fn split(&self, product: &Tensor) -> Result<[Tensor; 3]> {
        let part = |first: usize, heads: usize| product.narrow(1, first, heads);
        Ok([part(0, self.heads)?, part(self.heads, self.kv_heads)?, part(self.heads + self.kv_heads, self.kv_heads)?])
    }

    /// The kernel against the plain attention in f32 on the same rounded numbers.
    fn check_within(&self, bias: &Bias, allowed: &Allowed) -> Result<()> {
        let (segments, heads) = (Ragged::from_lens(self.lens.iter().copied()), self.heads + 2 * self.kv_heads);
        for dtype in DTYPES {
            let product = random(self.dim as u64, &[self.lens.iter().sum(), heads, self.dim], dtype)?;
            let [q, k, v] = self.split(&there(&product)?)?;
            let bias_there = match bias {
                Bias::Slopes(slopes) => Bias::Slopes(there(slopes)?),
                Bias::Distance(table) => Bias::Distance(there(table)?),
                other => other.clone(),
            };
            let got = attend(&q, &k, &v, &Tiles::new(&segments, dtype, &device())?, &self.spec, &bias_there)?;
            let [q, k, v] = self.split(&product.to_dtype(DType::F32)?)?;
            let want = attention::attend(&q, &k, &v, &segments, &self.spec, bias)?;
            allowed.check("attention", dtype, &got, &want, &format!("heads of {}, {:?}", self.dim, self.spec))?;
        }
        Ok(())
    }

    fn check(&self, bias: &Bias) -> Result<()> {
        self.check_within(bias, &ALLOWED)
    }
}

#[test]
fn every_head_size_is_the_plain_attention() -> Result<()> {
    for dim in [32, 64, 96, 128, 256, 8, 24, 40, 80, 192] {
        case(2, 2, dim, false, None).check(&Bias::None)?;
    }
    Ok(())
}

#[test]
fn heads_that_are_not_aligned_are_computed_number_by_number() -> Result<()> {
    for dim in [1, 7, 20, 33] {
        case(2, 1, dim, false, None).check(&Bias::None)?;
    }
    Ok(())
}

#[test]
fn every_mask_hides_what_it_hides() -> Result<()> {
    for (causal, reach) in [(true, None), (false, Some(0)), (false, Some(5)), (true, Some(20)), (false, Some(64)), (true, Some(1000))] {
        case(2, 2, 32, causal, reach).check(&Bias::None)?;
        Case { lens: &LONG, ..case(1, 1, 64, causal, reach) }.check(&Bias::None)?;
    }
    Ok(())
}

#[test]
fn query_heads_share_key_heads() -> Result<()> {
    for (heads, kv_heads) in [(4, 2), (6, 1), (3, 3)] {
        case(heads, kv_heads, 32, true, None).check(&Bias::None)?;
    }
    Ok(())
}

#[test]
fn distance_counts_by_slope_and_by_table() -> Result<()> {
    for (causal, reach) in [(false, None), (true, Some(9))] {
        let case = Case { lens: &LONG, ..case(3, 1, 32, causal, reach) };
        case.check(&Bias::Slopes(Tensor::new(&[0.5f32, 0.03, 0.], &Device::Cpu)?))?;
        case.check(&Bias::Distance(random(1, &[3, 2 * 160 - 1], DType::F32)?))?;
    }
    Ok(())
}

#[test]
fn large_scores_do_not_overflow() -> Result<()> {
    // Scores of hundreds: their own rounding is what the weights show.
    let case = Case { spec: AttnSpec { scale: 40., causal: false, reach: None }, ..case(1, 1, 32, false, None) };
    case.check_within(&Bias::None, &Allowed { f32: 1e-3, ..ALLOWED })
}

#[test]
fn no_text_and_empty_texts_are_no_work() {
    let segments = Ragged::from_lens([0, 2, 0]);
    assert_eq!(Tiles::list(&segments, DType::BF16), [0, 2, 0]);
    assert!(Tiles::list(&Ragged::from_lens([]), DType::F32).is_empty());
}

#[test]
fn the_devices_own_number_formats_are_the_crates() -> Result<()> {
    // Adding zero in a kernel rounds every f32 through the device's format; `half` is the judge.
    let numbers: Vec<f32> = (0..4096u32).map(|i| f32::from_bits(i.wrapping_mul(0x0010_3d51)) % 70_000.).filter(|x| x.is_finite()).collect();
    let f16s: Vec<f16> = numbers.iter().map(|x| f16::from_f32(*x)).collect();
    let bf16s: Vec<bf16> = numbers.iter().map(|x| bf16::from_f32(*x)).collect();
    for (tensor, want) in [(Tensor::new(f16s, &Device::Cpu)?, DType::F16), (Tensor::new(bf16s, &Device::Cpu)?, DType::BF16)] {
        let x = there(&tensor)?.reshape((1, numbers.len()))?;
        bias_activation(&x, None, IDENTITY)?;
        assert_eq!(x.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?, tensor.to_dtype(DType::F32)?.to_vec1::<f32>()?, "{want:?}");
    }
    Ok(())
}
