//! The kernels of attention, run thread by thread, against the plain attention in f32: every head size, mask and bias on ragged texts.

use super::super::attention;
use super::*;
use half::{bf16, f16};

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
    fn tensors(&self, dtype: DType) -> Result<[Tensor; 3]> {
        let (tokens, all) = (self.lens.iter().sum::<usize>(), self.heads + 2 * self.kv_heads);
        let product = Tensor::randn(0f32, 1., (tokens, all, self.dim), &Device::Cpu)?.to_dtype(dtype)?;
        let part = |first: usize, heads: usize| product.narrow(1, first, heads);
        Ok([part(0, self.heads)?, part(self.heads, self.kv_heads)?, part(self.heads + self.kv_heads, self.kv_heads)?])
    }

    /// The largest difference between the kernel and the plain attention on the same rounded numbers.
    fn worst(&self, dtype: DType, bias: &Bias) -> Result<f32> {
        let segments = Ragged::from_lens(self.lens.iter().copied());
        let [q, k, v] = self.tensors(dtype)?;
        let got = attend(&q, &k, &v, &Tiles::new(&segments, dtype, &Device::Cpu)?, &self.spec, bias)?.to_dtype(DType::F32)?;
        let [q, k, v] = [q, k, v].map(|x| x.to_dtype(DType::F32));
        let want = attention::attend(&q?, &k?, &v?, &segments, &self.spec, bias)?;
        (got - want)?.abs()?.flatten_all()?.max(0)?.to_scalar()
    }
}

/// What rounding weights and results to the format may cost; scores and sums are in f32.
fn allowed(dtype: DType) -> f32 {
    match dtype {
        DType::BF16 => 2.5e-2,
        DType::F16 => 3e-3,
        _ => 5e-6,
    }
}

const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

fn check(case: &Case, bias: &Bias) -> Result<()> {
    for dtype in DTYPES {
        let worst = case.worst(dtype, bias)?;
        assert!(worst <= allowed(dtype), "{dtype:?}, heads of {}, {:?}: off by {worst}", case.dim, case.spec);
    }
    Ok(())
}

#[test]
fn every_head_size_is_the_plain_attention() -> Result<()> {
    for dim in [32, 64, 96, 128, 256, 8, 24, 40, 80, 192] {
        check(&case(2, 2, dim, false, None), &Bias::None)?;
    }
    Ok(())
}

#[test]
fn heads_that_are_not_aligned_are_computed_number_by_number() -> Result<()> {
    for dim in [1, 7, 20, 33] {
        check(&case(2, 1, dim, false, None), &Bias::None)?;
    }
    Ok(())
}

#[test]
fn every_mask_hides_what_it_hides() -> Result<()> {
    for (causal, reach) in [(true, None), (false, Some(0)), (false, Some(5)), (true, Some(20)), (false, Some(64)), (true, Some(1000))] {
        check(&case(2, 2, 32, causal, reach), &Bias::None)?;
        check(&Case { lens: &LONG, ..case(1, 1, 64, causal, reach) }, &Bias::None)?;
    }
    Ok(())
}

#[test]
fn query_heads_share_key_heads() -> Result<()> {
    for (heads, kv_heads) in [(4, 2), (6, 1), (3, 3)] {
        check(&case(heads, kv_heads, 32, true, None), &Bias::None)?;
    }
    Ok(())
}

#[test]
fn distance_counts_by_slope_and_by_table() -> Result<()> {
    for (causal, reach) in [(false, None), (true, Some(9))] {
        let case = Case { lens: &LONG, ..case(3, 1, 32, causal, reach) };
        check(&case, &Bias::Slopes(Tensor::new(&[0.5f32, 0.03, 0.], &Device::Cpu)?))?;
        check(&case, &Bias::Distance(Tensor::randn(0f32, 1., (3, 2 * 160 - 1), &Device::Cpu)?))?;
    }
    Ok(())
}

#[test]
fn large_scores_do_not_overflow() -> Result<()> {
    let case = Case { spec: AttnSpec { scale: 40., causal: false, reach: None }, ..case(1, 1, 32, false, None) };
    for dtype in DTYPES {
        // Scores of hundreds: their own rounding is what the weights show.
        let (worst, most) = (case.worst(dtype, &Bias::None)?, allowed(dtype).max(1e-3));
        assert!(worst <= most, "{dtype:?}: off by {worst}");
    }
    Ok(())
}

#[test]
fn no_text_and_empty_texts_are_no_work() -> Result<()> {
    let segments = Ragged::from_lens([0, 2, 0]);
    assert_eq!(Tiles::list(&segments, DType::BF16), [0, 2, 0]);
    assert!(Tiles::list(&Ragged::from_lens([]), DType::F32).is_empty());
    Ok(())
}

#[test]
fn the_grids_own_number_formats_are_the_crates() -> Result<()> {
    // Adding zero in a kernel rounds every f32 through the format of the grid; `half` is the judge.
    let numbers: Vec<f32> = (0..4096u32).map(|i| f32::from_bits(i.wrapping_mul(0x0010_3d51)) % 70_000.).filter(|x| x.is_finite()).collect();
    let f16s: Vec<f16> = numbers.iter().map(|x| f16::from_f32(*x)).collect();
    let bf16s: Vec<bf16> = numbers.iter().map(|x| bf16::from_f32(*x)).collect();
    for (tensor, want) in [(Tensor::new(f16s, &Device::Cpu)?, DType::F16), (Tensor::new(bf16s, &Device::Cpu)?, DType::BF16)] {
        let before = tensor.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let x = tensor.copy()?.reshape((1, numbers.len()))?;
        crate::kernels::device::activation::bias_activation(&x, None, crate::kernels::device::activation::IDENTITY)?;
        assert_eq!(x.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?, before, "{want:?}");
    }
    Ok(())
}
