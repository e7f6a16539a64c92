//! Products of bf16 and int8 with AVX2, which has instructions for neither: bf16 widened to f32, int8 to 16 bits and multiplied in pairs, exactly.

use super::dot::{Columns, Dot, Factor, f32_dot, settle_int8, tiles, to_bf16};
use super::simd::{Avx2, Simd};
use std::arch::x86_64::*;

/// One f32, eight columns at a time.
pub(crate) struct Avx2F32;

// SAFETY: each function needs AVX2 and FMA, which the trait makes the caller's business, and what else the trait demands of pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Dot for Avx2F32 {
    f32_dot!(Avx2);
    tiles!(2: 1 2 3 4 5, 6);
}

/// Pairs of bf16, eight columns at a time.
pub(crate) struct Avx2Bf16;

// SAFETY: as above.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Dot for Avx2Bf16 {
    type S = Avx2;
    const GROUP: usize = 2;
    const WEIGHT: usize = 2;
    tiles!(2: 1 2 3, 4);
    /// The first and the second of each pair.
    type Words = [__m256; 2];
    type Sums = __m256;
    #[inline(always)]
    unsafe fn zero() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> [__m256; 2] {
        unsafe { widen(_mm256_loadu_si256(weights.cast())) }
    }
    #[inline(always)]
    unsafe fn splat(operand: *const u32) -> [__m256; 2] {
        unsafe { widen(_mm256_set1_epi32(operand.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn dot(operand: [__m256; 2], weights: [__m256; 2], sums: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(operand[0], weights[0], _mm256_fmadd_ps(operand[1], weights[1], sums)) }
    }
    #[inline(always)]
    unsafe fn settle(sums: __m256, columns: Columns, _: *const Factor) -> __m256 {
        unsafe { _mm256_add_ps(sums, _mm256_loadu_ps(columns.bias)) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, x: __m256) {
        unsafe {
            let mut numbers = [0f32; 8];
            Avx2::store(numbers.as_mut_ptr(), x);
            to.cast::<[u16; 8]>().write_unaligned(numbers.map(to_bf16));
        }
    }
}

#[inline(always)]
unsafe fn widen(pairs: __m256i) -> [__m256; 2] {
    // SAFETY: the caller's.
    unsafe {
        let (first, second) = (_mm256_slli_epi32::<16>(pairs), _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32)));
        [_mm256_castsi256_ps(first), _mm256_castsi256_ps(second)]
    }
}

/// Pairs of an operand held in 16 bits and of weights widened as they are loaded, eight columns at a time. `vpmaddubsw` would take four numbers at
/// once but cuts sums beyond 16 bits off, which two products of 255 and 127 are.
pub(crate) struct Avx2Int8;

// SAFETY: as above.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Dot for Avx2Int8 {
    type S = Avx2;
    const GROUP: usize = 2;
    const WEIGHT: usize = 1;
    tiles!(2: 1 2 3 4 5, 6);
    type Words = __m256i;
    type Sums = __m256i;
    #[inline(always)]
    unsafe fn zero() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m256i {
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.cast())) }
    }
    #[inline(always)]
    unsafe fn splat(operand: *const u32) -> __m256i {
        unsafe { _mm256_set1_epi32(operand.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(operand: __m256i, weights: __m256i, sums: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(operand, weights)) }
    }
    #[inline(always)]
    unsafe fn settle(sums: __m256i, columns: Columns, row: *const Factor) -> __m256 {
        unsafe { settle_int8::<Avx2>(_mm256_cvtepi32_ps(sums), columns, row) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, x: __m256) {
        unsafe {
            let whole = _mm256_cvtps_epi32(x);
            let halves = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
            _mm_storeu_si128(to.cast(), halves);
        }
    }
}
