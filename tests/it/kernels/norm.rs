//! Residual and norm in one pass.

use super::device::{random, there};
use super::near::{Allowed, DTYPES};
use candle_core::{DType, Result, Tensor};
use vecmill::kernels::device::norm::{Weights, add_norm, norm, norm_of_sum};

/// In f32 it is rows of 2047 numbers, summed in another order, that need most.
const ALLOWED: Allowed = Allowed { f32: 5e-6, bf16: 2e-2, f16: 3e-3 };
const ROWS: usize = 5;

#[test]
fn sum_and_norm_are_those_of_the_reference() -> Result<()> {
    let wide = |x: &Tensor| x.to_dtype(DType::F32);
    for (dtype, width) in DTYPES.into_iter().flat_map(|dtype| [48, 7, 8, 1024, 2047].map(|width| (dtype, width))) {
        let numbers = |seed: u64, shape: &[usize]| (random(seed, shape, DType::F32)? + 0.3)?.to_dtype(dtype);
        let (x, y, weight, bias) = (numbers(1, &[ROWS, width])?, numbers(2, &[ROWS, width])?, numbers(3, &[width])?, numbers(4, &[width])?);
        let sum = (wide(&x)? + wide(&y)?)?;
        let (x_there, y_there, weight_there, bias_there) = (there(&x)?, there(&y)?, there(&weight)?, there(&bias)?);
        for (rms, biased) in [(false, true), (false, false), (true, false)] {
            let reference = |x: &Tensor| match (rms, biased) {
                (true, _) => candle_nn::ops::rms_norm(x, &wide(&weight)?, 1e-5),
                (false, true) => candle_nn::ops::layer_norm(x, &wide(&weight)?, &wide(&bias)?, 1e-5),
                (false, false) => candle_nn::ops::layer_norm(x, &wide(&weight)?, &wide(&weight.zeros_like()?)?, 1e-5),
            };
            let weights = Weights { weight: &weight_there, bias: biased.then_some(&bias_there), rms, eps: 1e-5 };
            let about = format!("width {width}, rms {rms}, bias {biased}");
            ALLOWED.check("norm", dtype, &norm(&x_there, &weights)?, &reference(&wide(&x)?)?, &about)?;
            ALLOWED.check("norm_of_sum", dtype, &norm_of_sum(&x_there, &y_there, &weights)?, &reference(&sum)?, &about)?;
            let (got_sum, got_norm) = add_norm(&x_there, &y_there, &weights)?;
            ALLOWED.check("add_norm", dtype, &got_sum, &sum, &about)?;
            ALLOWED.check("add_norm", dtype, &got_norm, &reference(&sum)?, &about)?;
        }
    }
    Ok(())
}
