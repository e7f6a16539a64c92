//! Bias, activation and gate in one pass.

use super::device::{random, there};
use super::near::{Allowed, DTYPES};
use candle_core::{DType, Result, Tensor};
use vecmill::kernels::device::activation::{Code, bias_activation, gated};

const ALLOWED: Allowed = Allowed { f32: 1e-6, bf16: 2e-2, f16: 2e-3 };

/// Activations in the order of the kernels' codes.
pub fn reference(x: &Tensor, activation: Code) -> Result<Tensor> {
    match activation {
        0 => Ok(x.clone()),
        1 => x.gelu_erf(),
        2 => x.gelu(),
        3 => x.relu(),
        4 => candle_nn::ops::sigmoid(x),
        5 => x.silu(),
        _ => x.tanh(),
    }
}

#[test]
fn bias_activation_and_gate_are_those_of_the_reference() -> Result<()> {
    // Widths that are moved 16 bytes at a time, and such that are not.
    for (dtype, width) in DTYPES.into_iter().flat_map(|dtype| [48, 24, 5, 3].map(|width| (dtype, width))) {
        for activation in 0..7 {
            for biased in [true, false] {
                let x = (random(1, &[9, 2 * width], DType::F32)? * 2.)?.to_dtype(dtype)?;
                let bias = biased.then(|| random(2, &[2 * width], dtype)).transpose()?;
                let shifted = match &bias {
                    Some(bias) => x.to_dtype(DType::F32)?.broadcast_add(&bias.to_dtype(DType::F32)?)?,
                    None => x.to_dtype(DType::F32)?,
                };
                let gate = reference(&shifted.narrow(1, 0, width)?, activation)?;
                let about = format!("width {width}, activation {activation}, bias {biased}");
                let (x, bias) = (there(&x)?, bias.as_ref().map(there).transpose()?);
                ALLOWED.check("gated", dtype, &gated(&x, bias.as_ref(), activation)?, &(gate * shifted.narrow(1, width, width)?)?, &about)?;
                bias_activation(&x, bias.as_ref(), activation)?;
                ALLOWED.check("bias_activation", dtype, &x, &reference(&shifted, activation)?, &about)?;
            }
        }
    }
    Ok(())
}
