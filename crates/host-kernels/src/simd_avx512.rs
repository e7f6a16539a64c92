//! Sixteen f32 at a time, for every level that has AVX-512; what sets these levels apart is how they multiply bf16 and int8.

use super::dot::Dot;
use super::dot_avx512::{Avx512F32, Avx512Narrow};
use super::simd::Simd;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// The products of a level with AVX-512.
pub(crate) trait Products: Sized {
    type Bf16: Dot<S = Avx512<Self>>;
    type NarrowBf16: Dot<S = Avx512<Self>>;
    type Int8: Dot<S = Avx512<Self>>;
}

/// Sixteen numbers.
pub(crate) struct Avx512<P>(PhantomData<P>);

// SAFETY: each function needs AVX-512 F and DQ, which the trait makes the caller's business, and pointers good for sixteen numbers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl<P: Products> Simd for Avx512<P> {
    const LANES: usize = 16;
    type V = __m512;
    type F32 = Avx512F32<P>;
    type Narrow = Avx512Narrow<P>;
    type Bf16 = P::Bf16;
    type NarrowBf16 = P::NarrowBf16;
    type Int8 = P::Int8;
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn round(x: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
    }
    #[inline(always)]
    unsafe fn exp2(n: __m512) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)))) }
    }
    #[inline(always)]
    unsafe fn select_sign(by: __m512, negative: __m512, other: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(by)), other, negative) }
    }
    #[inline(always)]
    unsafe fn butterfly(x: __m512, distance: usize) -> __m512 {
        unsafe {
            let (other, second): (_, __mmask16) = match distance {
                1 => (_mm512_permute_ps::<0b10_11_00_01>(x), 0xaaaa),
                2 => (_mm512_permute_ps::<0b01_00_11_10>(x), 0xcccc),
                4 => (_mm512_shuffle_f32x4::<0b10_11_00_01>(x, x), 0xf0f0),
                _ => (_mm512_shuffle_f32x4::<0b01_00_11_10>(x, x), 0xff00),
            };
            let signs = _mm512_castsi512_ps(_mm512_maskz_set1_epi32(second, i32::MIN));
            _mm512_add_ps(other, _mm512_xor_ps(x, signs))
        }
    }
    #[inline(always)]
    unsafe fn sum(x: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(x) }
    }
    #[inline(always)]
    unsafe fn largest(x: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(x) }
    }
}
