//! What follows a product, in one pass over memory: its bias, an activation, the gate of a gated MLP (`activation.cu`).

use super::launch::{Arg, Call, Module, blank, int, pack, suffix};
use candle_core::{Result, Tensor};

/// An activation as kernels know it: its place in `network::Activation::ALL`.
pub type Code = i32;
/// No activation.
pub const IDENTITY: Code = 0;
/// GELU by its tanh approximation, which is what cuBLAS calls GELU.
pub const GELU_TANH: Code = 2;
pub const RELU: Code = 3;

const THREADS: usize = 256;
/// Enough blocks for any card; each takes more than one portion where there are more.
const MOST_BLOCKS: usize = 16_384;

/// `x = activation(x + bias)` in place, `x: [T, C]`, `bias: [C]`. Only for a tensor that nobody else holds: a fresh product.
///
/// # Errors
/// A device that fails.
pub fn bias_activation(x: &Tensor, bias: Option<&Tensor>, activation: Code) -> Result<()> {
    let (rows, width) = x.dims2()?;
    let tensors: Vec<&Tensor> = [x].into_iter().chain(bias).collect();
    let pack = pack(width, &tensors);
    let call = Call {
        module: Module::Activation,
        function: format!("bias_activation_{}_{pack}", suffix(x.dtype())?),
        blocks: [(rows * width).div_ceil(THREADS * pack).min(MOST_BLOCKS), 1, 1],
        threads: THREADS,
        shared_bytes: 0,
        args: vec![Arg::Out(0), bias.map_or(Arg::Absent, Arg::In), int(rows)?, int(width)?, Arg::Int(activation)],
    };
    call.write(x)
}

/// `activation(gate + its bias) * (up + its bias)`, `x: [T, 2 F]` being gate and up side by side, `bias: [2 F]`; gives `[T, F]`.
///
/// # Errors
/// A device that fails.
pub fn gated(x: &Tensor, bias: Option<&Tensor>, activation: Code) -> Result<Tensor> {
    let (rows, both) = x.dims2()?;
    let width = both / 2;
    let tensors: Vec<&Tensor> = [x].into_iter().chain(bias).collect();
    let pack = pack(width, &tensors);
    let out = blank((rows, width), x, x.dtype())?;
    let call = Call {
        module: Module::Activation,
        function: format!("gated_{}_{pack}", suffix(x.dtype())?),
        blocks: [(rows * width).div_ceil(THREADS * pack).min(MOST_BLOCKS), 1, 1],
        threads: THREADS,
        shared_bytes: 0,
        args: vec![Arg::Out(0), Arg::In(x), bias.map_or(Arg::Absent, Arg::In), int(rows)?, int(width)?, Arg::Int(activation)],
    };
    call.write(&out)?;
    Ok(out)
}

#[cfg(all(test, feature = "device-emulation"))]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    /// In the order of the kernels' codes.
    fn reference(x: &Tensor, activation: Code) -> Result<Tensor> {
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
        for (width, dtype, allowed) in
            [(48, DType::F32, 1e-6), (5, DType::F32, 1e-6), (64, DType::BF16, 2e-2), (24, DType::F16, 2e-3), (3, DType::BF16, 2e-2)]
        {
            for activation in 0..7 {
                let random = |rows: usize, width: usize| Tensor::randn(0f32, 2., (rows, width), &Device::Cpu)?.to_dtype(dtype);
                let near = |got: &Tensor, want: &Tensor| -> Result<()> {
                    let most: f32 = ((got.to_dtype(DType::F32)? - want)?.abs()? / (want.abs()? + 1.)?)?.flatten_all()?.max(0)?.to_scalar()?;
                    assert!(most <= allowed, "{width} {dtype:?} activation {activation}: off by {most}");
                    Ok(())
                };
                for bias in [Some(random(1, 2 * width)?.squeeze(0)?), None] {
                    let x = random(9, 2 * width)?;
                    let shifted = match &bias {
                        Some(bias) => x.to_dtype(DType::F32)?.broadcast_add(&bias.to_dtype(DType::F32)?)?,
                        None => x.to_dtype(DType::F32)?,
                    };
                    let gate = reference(&shifted.narrow(1, 0, width)?, activation)?;
                    // Before x is changed, which `shifted` may be.
                    let want = reference(&shifted, activation)?.copy()?;
                    near(&gated(&x, bias.as_ref(), activation)?, &(gate * shifted.narrow(1, width, width)?)?)?;
                    bias_activation(&x, bias.as_ref(), activation)?;
                    near(&x, &want)?;
                }
            }
        }
        Ok(())
    }
}
