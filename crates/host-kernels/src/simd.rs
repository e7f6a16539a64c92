//! Vectors of f32 as kernels see them: one trait, an implementation per level of the processor.

use super::dot::{Dot, ScalarBf16, ScalarF32, ScalarInt8};

/// The most numbers that a vector has at any level.
pub(super) const LANES_MOST: usize = 16;

/// `LANES` numbers side by side.
///
/// # Safety
/// Its functions may be called only where the processor has the level. Pointers must be good for `LANES` numbers; they need no alignment.
pub(super) unsafe trait Simd: Sized {
    const LANES: usize;
    type V: Copy;
    /// Its products by element, and those that attention uses: panels of keys and of heads are better narrow.
    type F32: Dot<S = Self>;
    type Narrow: Dot<S = Self>;
    type Bf16: Dot<S = Self>;
    type NarrowBf16: Dot<S = Self>;
    type Int8: Dot<S = Self>;
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, x: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `b` if either is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// `b` if either is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest whole number.
    unsafe fn round(x: Self::V) -> Self::V;
    /// `2^n` for whole `n` in -126..=127.
    unsafe fn exp2(n: Self::V) -> Self::V;
    /// `negative` where `by` has its sign bit set, else `other`.
    unsafe fn select_sign(by: Self::V, negative: Self::V, other: Self::V) -> Self::V;
    /// Of each two lanes that are `distance` apart, in blocks of twice that, their sum in the first and their difference in the second.
    unsafe fn butterfly(x: Self::V, distance: usize) -> Self::V;
    unsafe fn sum(x: Self::V) -> f32;
    unsafe fn largest(x: Self::V) -> f32;
}

/// One number.
pub(super) struct Scalar;

// SAFETY: needs nothing of the processor.
unsafe impl Simd for Scalar {
    const LANES: usize = 1;
    type V = f32;
    type F32 = ScalarF32;
    type Narrow = ScalarF32;
    type Bf16 = ScalarBf16;
    type NarrowBf16 = ScalarBf16;
    type Int8 = ScalarInt8;
    unsafe fn splat(x: f32) -> f32 {
        x
    }
    unsafe fn load(p: *const f32) -> f32 {
        // SAFETY: good for one number, as the trait demands.
        unsafe { *p }
    }
    unsafe fn store(p: *mut f32, x: f32) {
        // SAFETY: good for one number, as the trait demands.
        unsafe { *p = x }
    }
    unsafe fn add(a: f32, b: f32) -> f32 {
        a + b
    }
    unsafe fn sub(a: f32, b: f32) -> f32 {
        a - b
    }
    unsafe fn mul(a: f32, b: f32) -> f32 {
        a * b
    }
    unsafe fn div(a: f32, b: f32) -> f32 {
        a / b
    }
    unsafe fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    unsafe fn max(a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }
    unsafe fn min(a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
    unsafe fn round(x: f32) -> f32 {
        x.round_ties_even()
    }
    unsafe fn exp2(n: f32) -> f32 {
        f32::from_bits(((n as i32 + 127) as u32) << 23)
    }
    unsafe fn select_sign(by: f32, negative: f32, other: f32) -> f32 {
        if by.is_sign_negative() { negative } else { other }
    }
    unsafe fn butterfly(x: f32, _: usize) -> f32 {
        x
    }
    unsafe fn sum(x: f32) -> f32 {
        x
    }
    unsafe fn largest(x: f32) -> f32 {
        x
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::Simd;
    use crate::dot_avx2::{Avx2Bf16, Avx2F32, Avx2Int8};
    use std::arch::x86_64::*;

    /// Eight numbers.
    pub(crate) struct Avx2;

    // SAFETY: each function needs AVX2 and FMA, which the trait makes the caller's business, and pointers good for eight numbers.
    #[allow(clippy::undocumented_unsafe_blocks)]
    unsafe impl Simd for Avx2 {
        const LANES: usize = 8;
        type V = __m256;
        type F32 = Avx2F32;
        type Narrow = Avx2F32;
        type Bf16 = Avx2Bf16;
        type NarrowBf16 = Avx2Bf16;
        type Int8 = Avx2Int8;
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, x: __m256) {
            unsafe { _mm256_storeu_ps(p, x) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn max(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn min(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_min_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn round(x: __m256) -> __m256 {
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
        }
        #[inline(always)]
        unsafe fn exp2(n: __m256) -> __m256 {
            unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)))) }
        }
        #[inline(always)]
        unsafe fn select_sign(by: __m256, negative: __m256, other: __m256) -> __m256 {
            unsafe { _mm256_blendv_ps(other, negative, by) }
        }
        #[inline(always)]
        unsafe fn butterfly(x: __m256, distance: usize) -> __m256 {
            unsafe {
                let (other, signs) = match distance {
                    1 => (_mm256_permute_ps::<0b10_11_00_01>(x), _mm256_setr_ps(0., -0., 0., -0., 0., -0., 0., -0.)),
                    2 => (_mm256_permute_ps::<0b01_00_11_10>(x), _mm256_setr_ps(0., 0., -0., -0., 0., 0., -0., -0.)),
                    _ => (_mm256_permute2f128_ps::<1>(x, x), _mm256_setr_ps(0., 0., 0., 0., -0., -0., -0., -0.)),
                };
                _mm256_add_ps(other, _mm256_xor_ps(x, signs))
            }
        }
        #[inline(always)]
        unsafe fn sum(x: __m256) -> f32 {
            unsafe {
                let pair = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                let pair = _mm_add_ps(pair, _mm_movehl_ps(pair, pair));
                _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
            }
        }
        #[inline(always)]
        unsafe fn largest(x: __m256) -> f32 {
            unsafe {
                let pair = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                let pair = _mm_max_ps(pair, _mm_movehl_ps(pair, pair));
                _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)))
            }
        }
    }
}
