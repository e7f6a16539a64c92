//! One call of a kernel of this folder, on whatever holds the tensors: a GPU, or in tests the processor, which runs the same source.

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Tensor};

// Without a place that runs kernels, calls are made and refused.
#[cfg_attr(not(any(feature = "cuda", feature = "device-emulation")), expect(dead_code, reason = "read where kernels run"))]
/// One argument of a kernel, in the order of its parameters.
pub(super) enum Arg<'a> {
    /// The tensor that is written, from this number of it on.
    Out(usize),
    /// A tensor that is read, from its first number on; its strides are the caller's business. Never the one that is written.
    In(&'a Tensor),
    /// A tensor that is not there.
    Absent,
    Int(i32),
    Float(f32),
}

#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "read where kernels run"))]
/// A kernel with its grid and arguments.
pub(super) struct Call<'a> {
    /// The compiled file that it is in.
    pub module: Module,
    pub function: String,
    pub blocks: [usize; 3],
    pub threads: usize,
    pub shared_bytes: usize,
    pub args: Vec<Arg<'a>>,
}

/// The files of this folder as they are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Module {
    Activation,
    AttentionF32,
    /// One per head size.
    AttentionHalf(usize),
    Norm,
    Pool,
    Rope,
}

impl Call<'_> {
    /// Runs it; `out` is what `Arg::Out` stands for.
    ///
    /// # Errors
    /// A size that no kernel takes, a device that fails, a place where no kernel runs.
    pub(super) fn write(&self, out: &Tensor) -> Result<()> {
        if self.blocks.contains(&0) {
            return Ok(());
        }
        if self.blocks.iter().any(|blocks| *blocks > i32::MAX as usize) || self.blocks[1..].iter().any(|blocks| *blocks > 65_535) {
            candle_core::bail!("{}: a grid of {:?} blocks is too large", self.function, self.blocks)
        }
        out.inplace_op1(self)
    }
}

impl InplaceOp1 for Call<'_> {
    fn name(&self) -> &'static str {
        "kernel"
    }

    #[cfg(feature = "device-emulation")]
    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        super::emulated::run(self, storage, layout)
    }

    #[cfg(not(feature = "device-emulation"))]
    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        candle_core::bail!("{} runs on a GPU only", self.function)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut candle_core::CudaStorage, layout: &Layout) -> Result<()> {
        super::cuda::run(self, storage, layout)
    }
}

/// A size as kernels take it.
///
/// # Errors
/// More than 2^31 - 1.
pub(super) fn int(size: usize) -> Result<Arg<'static>> {
    i32::try_from(size).map(Arg::Int).map_err(|_| candle_core::Error::Msg(format!("a size of {size} is too large for a kernel")))
}

/// The suffix of a kernel's name for a number format.
///
/// # Errors
/// A format that is not computed in.
pub(super) fn suffix(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::BF16 => Ok("bf16"),
        DType::F16 => Ok("f16"),
        other => candle_core::bail!("no kernel computes in {other:?}"),
    }
}

/// How many numbers of a row one instruction moves: 16 bytes, where all rows are aligned to that, else one number.
pub(super) fn pack(width: usize, tensors: &[&Tensor]) -> usize {
    let numbers = tensors.first().map_or(1, |tensor| 16 / tensor.dtype().size_in_bytes());
    let aligned = |tensor: &&Tensor| tensor.layout().start_offset().is_multiple_of(numbers);
    if width.is_multiple_of(numbers) && tensors.iter().all(aligned) { numbers } else { 1 }
}

/// A tensor of this shape with unknown contents, for a kernel that writes all of it.
pub(super) fn blank(shape: impl Into<candle_core::Shape>, like: &Tensor, dtype: DType) -> Result<Tensor> {
    // SAFETY: numbers are valid whatever their bits; every caller lets a kernel write all of them before anything reads them.
    unsafe { Tensor::empty(shape, dtype, like.device()) }
}
