//! How far a kernel's numbers may be from the reference's, which is computed in f32 from the same rounded numbers.

use candle_core::{DType, Device, Result, Tensor};
use std::fmt::Display;

/// The number formats that kernels compute in.
pub const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

/// What rounding may cost in each of them.
pub struct Allowed {
    pub f32: f32,
    pub bf16: f32,
    pub f16: f32,
}

impl Allowed {
    fn of(&self, dtype: DType) -> f32 {
        match dtype {
            DType::BF16 => self.bf16,
            DType::F16 => self.f16,
            _ => self.f32,
        }
    }

    /// Fails if a number is farther from `want` than allowed, in parts of `1 + |want|`. Prints what `scripts/gpu-check ops` makes its table of.
    pub fn check(&self, kernel: &str, dtype: DType, got: &Tensor, want: &Tensor, about: &dyn Display) -> Result<()> {
        assert_eq!(got.dims(), want.dims(), "{kernel} {about}");
        let numbers = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        let (got, want, allowed) = (numbers(got)?, numbers(want)?, self.of(dtype));
        let off = |(got, want): (&f32, &f32)| (got - want).abs() / (1. + want.abs());
        // What is no number is as far away as can be.
        let worst = got.iter().zip(&want).map(off).fold(0f32, |worst, off| if off.is_nan() { f32::INFINITY } else { worst.max(off) });
        println!("kernel {kernel} in {dtype:?}: off by {worst:.1e} of {allowed:.1e}");
        assert!(worst <= allowed, "{kernel} in {dtype:?}, {about}: off by {worst}, allowed {allowed}");
        Ok(())
    }
}
