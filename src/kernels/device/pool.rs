//! From hidden states to one vector per text on the device (`pool.cu`), so that only those are copied back.

use super::launch::{Arg, Call, Module, blank, int, suffix};
use candle_core::{DType, Result, Tensor};

const THREADS: usize = 128;
/// torch's `F.normalize` divides by at least this, so that a zero vector stays zero.
const LEAST_LENGTH: f32 = 1e-12;

/// One row per text, `[B, modes C]` in f32, the modes side by side; `hidden: [T, C]`. `texts: [3 B]` holds of each its first row, its tokens and how
/// many of them belong to a prompt that is left out. A mode is its place in the pipeline's `Mode`: cls, max, mean, mean_sqrt_len, weightedmean,
/// lasttoken.
///
/// # Errors
/// A device that fails.
pub fn pool(hidden: &Tensor, texts: &Tensor, modes: &[i32]) -> Result<Tensor> {
    let (hidden, width, count) = (hidden.contiguous()?, hidden.dim(1)?, texts.elem_count() / 3);
    let out = blank((count, modes.len() * width), &hidden, DType::F32)?;
    for (index, mode) in modes.iter().enumerate() {
        let call = Call {
            module: Module::Pool,
            function: format!("pool_{}", suffix(hidden.dtype())?),
            blocks: [count, width.div_ceil(THREADS), 1],
            threads: THREADS,
            shared_bytes: 0,
            args: vec![Arg::Out(index * width), Arg::In(&hidden), Arg::In(texts), int(width)?, int(modes.len() * width)?, Arg::Int(*mode)],
        };
        call.write(&out)?;
    }
    Ok(out)
}

/// Scales each row of `x: [B, C]` in f32 to unit length in place; a row of zeros stays. Only for a tensor that nobody else holds.
///
/// # Errors
/// A device that fails.
pub fn unit_length(x: &Tensor) -> Result<()> {
    let (rows, width) = x.dims2()?;
    let call = Call {
        module: Module::Pool,
        function: "unit_length".to_owned(),
        blocks: [rows, 1, 1],
        threads: THREADS,
        shared_bytes: THREADS / 32 * 4,
        args: vec![Arg::Out(0), int(width)?, Arg::Float(LEAST_LENGTH)],
    };
    call.write(x)
}
