//! Eight f32 at a time, with AVX2 and FMA.

use super::simd::{Arith, BLOCK, Simd};
use std::arch::x86_64::*;

/// Eight numbers.
pub(super) struct Avx2;

// SAFETY: each function needs AVX2 and FMA, which the trait makes the caller's business, and pointers good for eight numbers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Arith for Avx2 {
    type V = __m256;
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
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
}

// SAFETY: each function needs AVX2 and FMA, which the trait makes the caller's business, and pointers good for eight numbers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Simd for Avx2 {
    const LANES: usize = 8;
    type Whole = __m256i;
    type Block = [__m256; BLOCK / 8];
    #[inline(always)]
    unsafe fn block(p: *const f32) -> [__m256; BLOCK / 8] {
        unsafe { [0, 1, 2, 3, 4, 5, 6, 7].map(|index| Self::load(p.add(8 * index))) }
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
    #[inline(always)]
    unsafe fn widen(pairs: __m256) -> [__m256; 2] {
        unsafe {
            let bits = _mm256_castps_si256(pairs);
            let (first, second) = (_mm256_slli_epi32::<16>(bits), _mm256_and_si256(bits, _mm256_set1_epi32(0xffff_0000_u32 as i32)));
            [_mm256_castsi256_ps(first), _mm256_castsi256_ps(second)]
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut u8, x: __m256) {
        unsafe {
            let bits = _mm256_castps_si256(x);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            // A NaN is not rounded, which could make it infinite, but made quiet.
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
            let halves = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
            _mm_storeu_si128(to.cast(), _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves)));
        }
    }
    #[inline(always)]
    unsafe fn load_whole(p: *const i32) -> __m256i {
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn of_whole(x: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(x) }
    }
    #[inline(always)]
    unsafe fn fetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
}
