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
