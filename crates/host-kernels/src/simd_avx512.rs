//! Sixteen f32 at a time, with AVX-512 F, BW, VL and DQ: for every level that has these.

use super::simd::{Arith, BLOCK, Simd};
use std::arch::x86_64::*;

/// Sixteen numbers.
pub(super) struct Avx512;

// SAFETY: each function needs AVX-512 F, BW and DQ, which the trait makes the caller's business, and pointers good for sixteen numbers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Arith for Avx512 {
    type V = __m512;
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
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
}

// SAFETY: each function needs AVX-512 F, BW and DQ, which the trait makes the caller's business, and pointers good for sixteen numbers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Simd for Avx512 {
    const LANES: usize = 16;
    type Whole = __m512i;
    type Block = [__m512; BLOCK / 16];
    #[inline(always)]
    unsafe fn block(p: *const f32) -> [__m512; BLOCK / 16] {
        unsafe { [0, 1, 2, 3].map(|index| Self::load(p.add(16 * index))) }
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
    #[inline(always)]
    unsafe fn widen(pairs: __m512) -> [__m512; 2] {
        unsafe {
            let bits = _mm512_castps_si512(pairs);
            let (first, second) = (_mm512_slli_epi32::<16>(bits), _mm512_and_si512(bits, _mm512_set1_epi32(0xffff_0000_u32 as i32)));
            [_mm512_castsi512_ps(first), _mm512_castsi512_ps(second)]
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut u8, x: __m512) {
        unsafe {
            let bits = _mm512_castps_si512(x);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            // A NaN is not rounded, which could make it infinite, but made quiet.
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
            let bits = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000));
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(bits)));
        }
    }
    #[inline(always)]
    unsafe fn load_whole(p: *const i32) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn of_whole(x: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    unsafe fn fetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
}
