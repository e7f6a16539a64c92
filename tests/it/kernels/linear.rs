//! Products with weights, their bias and activation: on a GPU cuBLAS and cuBLASLt, whichever takes the sizes.

use super::activation::reference;
use super::device::{random, there};
use super::near::{Allowed, DTYPES};
use candle_core::{DType, Result};
use vecmill::kernels::device::linear::{map, product};

/// Of a product that is rounded before its bias is added.
const ALLOWED: Allowed = Allowed { f32: 1e-5, bf16: 2e-2, f16: 3e-3 };

#[test]
fn products_with_bias_and_activation_are_those_of_the_reference() -> Result<()> {
    // Rows of whole 16 bytes, which cuBLASLt takes, and others; many tokens and one.
    for (tokens, width, out) in [(37, 64, 48), (1, 384, 1536), (130, 256, 72), (5, 20, 12), (9, 7, 5)] {
        for dtype in DTYPES {
            let x = random(3, &[tokens, width], dtype)?;
            let weight = (random(4, &[out, width], DType::F32)? / (width as f64).sqrt())?.to_dtype(dtype)?;
            let bias = random(5, &[out], dtype)?;
            let want = x.to_dtype(DType::F32)?.matmul(&weight.to_dtype(DType::F32)?.t()?)?;
            let shifted = want.broadcast_add(&bias.to_dtype(DType::F32)?)?;
            let (x, weight, bias) = (there(&x)?, there(&weight)?, there(&bias)?);
            ALLOWED.check("product", dtype, &product(&x, &weight)?, &want, &format!("{tokens} x {width} -> {out}"))?;
            for activation in 0..7 {
                let about = format!("{tokens} x {width} -> {out}, activation {activation}");
                ALLOWED.check("linear", dtype, &map(&x, &weight, Some(&bias), activation)?, &reference(&shifted, activation)?, &about)?;
                ALLOWED.check("linear", dtype, &map(&x, &weight, None, activation)?, &reference(&want, activation)?, &about)?;
            }
        }
    }
    Ok(())
}
