//! The processor's own operations: packed weights, matrix products with what follows them fused in, norms, attention, threads.
//!
//! Every kernel is written once, over `simd::Simd`, and compiled per level; the scalar level is the reference that the others are tested against.
//! A product is written once over `dot::Dot` too, which knows how four bytes of f32, bf16 or int8 are multiplied.
//! A row of a result depends on its own row of the input only, summed in one fixed order: a text's numbers are the same alone, in any batch and
//! on any number of threads, to the bit.

pub mod attention;
mod dot;
#[cfg(target_arch = "x86_64")]
mod dot_avx2;
pub mod gemm;
mod math;
pub mod norm;
pub mod operand;
pub mod pack;
pub mod pool;
mod quant;
pub mod rope;
mod simd;
mod spread;

pub use dot::Element;

/// What the processor can do. Each level runs every kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// One number at a time: runs anywhere, slowly. The reference.
    Scalar,
    /// Eight numbers at a time, with fused multiply-add.
    Avx2,
}

impl Level {
    /// The best level of this machine beyond `Scalar`; `None` if there is none, and candle's own operations are the better choice.
    pub fn best() -> Option<Self> {
        Self::Avx2.is_here().then_some(Self::Avx2)
    }

    /// Whether this machine has it.
    pub fn is_here(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 => false,
        }
    }
}

/// Proof that a level is there: only `Cpu::new` makes one, so kernels need not ask again.
#[derive(Debug, Clone, Copy)]
pub struct Cpu(Level);

impl Cpu {
    /// The level, if this machine has it.
    pub fn new(level: Level) -> Option<Self> {
        level.is_here().then_some(Self(level))
    }

    /// The best level of this machine, if it is worth more than candle's own operations.
    pub fn best() -> Option<Self> {
        Level::best().and_then(Self::new)
    }

    /// Which level it is.
    pub fn level(self) -> Level {
        self.0
    }
}

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

/// Compiles `$body::<S>(args)` for each level and calls the one that `$cpu` proves to be there.
macro_rules! at_level {
    ($cpu:expr, $body:ident($($arg:ident: $kind:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        #[allow(clippy::too_many_arguments)]
        unsafe fn avx2($($arg: $kind),*) {
            // SAFETY: as the caller of `at_level` promises for the body.
            unsafe { $body::<crate::simd::Avx2>($($arg),*) }
        }
        match $cpu.level() {
            // SAFETY: the caller's, for the body; the scalar level needs nothing of the machine.
            crate::Level::Scalar => unsafe { $body::<crate::simd::Scalar>($($arg),*) },
            // SAFETY: the caller's, for the body; a `Cpu` of this level exists only where the machine has it.
            #[cfg(target_arch = "x86_64")]
            crate::Level::Avx2 => unsafe { avx2($($arg),*) },
            #[cfg(not(target_arch = "x86_64"))]
            crate::Level::Avx2 => unreachable!("no such level on this machine"),
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
        [Level::Scalar, Level::Avx2].into_iter().filter_map(Cpu::new).collect()
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
