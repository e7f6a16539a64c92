//! Products with weights, and what the library fuses into them: bias and activation (cuBLASLt), where that computes the same function.

use super::activation::{self, Code, IDENTITY};
use candle_core::{DType, Device, Result, Tensor};

/// `x w^T`, `x: [T, in]`, `w: [out, in]`; gives `[T, out]`.
///
/// # Errors
/// A device that fails.
pub fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    // Candle multiplies bf16 on no processor. A GPU sums in f32 too, and rounds once.
    if matches!(x.device(), Device::Cpu) && x.dtype() == DType::BF16 {
        return x.to_dtype(DType::F32)?.matmul(&weight.to_dtype(DType::F32)?.t()?)?.to_dtype(DType::BF16);
    }
    x.matmul(&weight.t()?)
}

/// `activation(x w^T + bias)`.
///
/// # Errors
/// A device that fails.
pub fn map(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, activation: Code) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(bias) = bias
        && let Some(y) = super::cublaslt::map(x, weight, bias, activation)?
    {
        return Ok(y);
    }
    let y = product(x, weight)?;
    if bias.is_some() || activation != IDENTITY {
        activation::bias_activation(&y, bias, activation)?;
    }
    Ok(y)
}
