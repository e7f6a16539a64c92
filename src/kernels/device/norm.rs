//! Residual and norm in one pass over memory (`norm.cu`).

use super::launch::{Arg, Call, Module, blank, int, pack, suffix};
use candle_core::{Result, Tensor};

/// A norm's weights and what it is.
pub struct Weights<'a> {
    /// `[C]`.
    pub weight: &'a Tensor,
    /// `[C]`; absent for RMSNorm and where it is zero.
    pub bias: Option<&'a Tensor>,
    pub rms: bool,
    pub eps: f32,
}

/// `norm(x)` over the last dimension.
///
/// # Errors
/// A device that fails.
pub fn norm(x: &Tensor, weights: &Weights) -> Result<Tensor> {
    let x = x.contiguous()?;
    let out = blank(x.shape(), &x, x.dtype())?;
    call(&x, None, weights, None)?.write(&out)?;
    Ok(out)
}

/// `x + y` and `norm(x + y)`; the norm's statistics are those of the sum before it is rounded.
///
/// # Errors
/// A device that fails.
pub fn add_norm(x: &Tensor, y: &Tensor, weights: &Weights) -> Result<(Tensor, Tensor)> {
    let (x, y) = (x.contiguous()?, y.contiguous()?);
    // One tensor for both, as one is all that a call writes.
    let shape = [&[2], x.dims()].concat();
    let out = blank(shape, &x, x.dtype())?;
    call(&x, Some(&y), weights, Some(x.elem_count()))?.write(&out)?;
    Ok((out.get(1)?, out.get(0)?))
}

/// As `add_norm`, where the sum itself is not wanted.
///
/// # Errors
/// A device that fails.
pub fn norm_of_sum(x: &Tensor, y: &Tensor, weights: &Weights) -> Result<Tensor> {
    let (x, y) = (x.contiguous()?, y.contiguous()?);
    let out = blank(x.shape(), &x, x.dtype())?;
    call(&x, Some(&y), weights, None)?.write(&out)?;
    Ok(out)
}

/// The normed rows are written first; the sums, if wanted, from number `sum` on.
fn call<'a>(x: &'a Tensor, y: Option<&'a Tensor>, weights: &Weights<'a>, sum: Option<usize>) -> Result<Call<'a>> {
    let width = weights.weight.elem_count();
    let mut tensors = vec![x, weights.weight];
    tensors.extend(y);
    tensors.extend(weights.bias);
    let pack = pack(width, &tensors);
    let threads = (width / pack).next_multiple_of(32).clamp(32, 256);
    Ok(Call {
        module: Module::Norm,
        function: format!("add_norm_{}_{pack}", suffix(x.dtype())?),
        blocks: [x.elem_count() / width.max(1), 1, 1],
        threads,
        shared_bytes: (width + threads / 32) * 4,
        args: vec![
            Arg::Out(0),
            sum.map_or(Arg::Absent, Arg::Out),
            Arg::In(x),
            y.map_or(Arg::Absent, Arg::In),
            Arg::In(weights.weight),
            weights.bias.map_or(Arg::Absent, Arg::In),
            int(width)?,
            Arg::Int(weights.rms.into()),
            Arg::Float(weights.eps),
        ],
    })
}
