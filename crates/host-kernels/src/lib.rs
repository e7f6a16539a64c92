//! The processor's own operations: packed weights, matrix products with what follows them fused in, norms, attention, threads.
//!
//! Every kernel is written once, over `simd::Simd`, and compiled for each width of vectors; the scalar one is the reference that the others are
//! tested against. A product is written once over `dot::Dot`, which knows how four bytes of f32, bf16 or int8 are multiplied, and compiled to one
//! `kernel::Kernel` for each way of doing that; all else calls it by pointer.
//! A row of a result depends on its own row of the input only, summed in one fixed order: a text's numbers are the same alone, in any batch and
//! on any number of threads, to the bit.

pub mod attention;
mod bias;
mod dot;
#[cfg(target_arch = "x86_64")]
mod dot_avx2;
#[cfg(target_arch = "x86_64")]
mod dot_avx512;
mod dot_scalar;
pub mod follow;
pub mod gemm;
mod huge;
mod kernel;
mod level;
mod math;
pub mod norm;
pub mod operand;
pub mod pack;
mod panels;
pub mod pool;
mod quant;
pub mod rope;
mod side;
mod simd;
#[cfg(target_arch = "x86_64")]
mod simd_avx2;
#[cfg(target_arch = "x86_64")]
mod simd_avx512;
mod spread;
mod tile;

pub use dot::Element;

pub use level::{Cpu, Level};

/// An element-wise function that a matrix product can end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Identity,
    /// With the erf.
    Gelu,
    GeluTanh,
    Relu,
    Sigmoid,
    Silu,
    Tanh,
}

/// Compiles `$body::<S>(args)` for vectors that need features of the processor.
#[cfg(target_arch = "x86_64")]
macro_rules! with_features {
    ($name:ident, $features:literal, $level:ty, $body:ident($($arg:ident: $kind:ty),*)) => {
        #[target_feature(enable = $features)]
        unsafe fn $name($($arg: $kind),*) {
            // SAFETY: as the caller of `at_level` promises for the body.
            unsafe { $body::<$level>($($arg),*) }
        }
    };
}
#[cfg(target_arch = "x86_64")]
use with_features;

/// Compiles `$body::<S>(args)` for each width of vectors and calls the one that `$cpu` proves to be there.
macro_rules! at_level {
    ($cpu:expr, $body:ident($($arg:ident: $kind:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        crate::with_features!(avx2, "avx2,fma", crate::simd_avx2::Avx2, $body($($arg: $kind),*));
        #[cfg(target_arch = "x86_64")]
        crate::with_features!(avx512, "avx512bw,avx512dq,avx512vl", crate::simd_avx512::Avx512, $body($($arg: $kind),*));
        match $cpu.level() {
            // SAFETY: the caller's, for the body; the scalar level needs nothing of the machine.
            crate::Level::Scalar => unsafe { $body::<crate::simd::Scalar>($($arg),*) },
            // SAFETY: the caller's, for the body; a `Cpu` of this level exists only where the machine has it.
            #[cfg(target_arch = "x86_64")]
            crate::Level::Avx2 | crate::Level::Avx2Vnni => unsafe { avx2($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            crate::Level::Avx512 | crate::Level::Avx512Vnni | crate::Level::Avx512Bf16 => unsafe { avx512($($arg),*) },
            #[cfg(not(target_arch = "x86_64"))]
            level => unreachable!("the level {level} is not of this machine"),
        }
    }};
}
use at_level;

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of kernels share.

    use super::{Cpu, Level};

    /// The levels of this machine.
    pub fn cpus() -> Vec<Cpu> {
        Level::ALL.into_iter().filter_map(Cpu::new).collect()
    }

    /// Numbers in -1..1 from a seed.
    pub fn numbers(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.
        };
        (0..count).map(|_| next()).collect()
    }

    /// Fails where two slices differ by more than `most`.
    pub fn near(got: &[f32], want: &[f32], most: f32, what: &str) {
        assert_eq!(got.len(), want.len(), "{what}");
        for (index, (got, want)) in got.iter().zip(want).enumerate() {
            assert!((got - want).abs() <= most, "{what}: {got} instead of {want} at {index}");
        }
    }
}
