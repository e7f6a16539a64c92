//! Products with AVX2. It has no instruction made for bf16, which is widened to f32, and none for int8, which is added in 16 bits as far as that is exact;
//! for the latter some processors have AVX-VNNI beside it.

use super::Level;
use super::dot::{Dot, Element, F32, InWhole, WidenedBf16};
use super::kernel::{Kernel, kernel};
use super::operand::convert;
use super::quant::{Whole, row};
use super::simd_avx2::Avx2;
use std::arch::x86_64::*;

/// What products of an element are multiplied with. Of the 16 registers 12 hold sums, or 8 where a step takes two of weights.
pub(super) fn kernel(level: Level, element: Element) -> &'static Kernel {
    static F32_KERNEL: Kernel = kernel!("avx2,fma", convert, F32<Avx2>, 2 x [6 5 4 3 2 1]);
    static BF16_KERNEL: Kernel = kernel!("avx2,fma", convert, WidenedBf16<Avx2>, 2 x [4 3 2 1]);
    static TWOS_INT8: Kernel = kernel!("avx2,fma", row, TwosInt8, 2 x [4 3 2 1]);
    static VNNI_INT8: Kernel = kernel!("avx2,fma,avxvnni", row, VnniInt8, 2 x [6 5 4 3 2 1]);
    match element {
        Element::F32 => &F32_KERNEL,
        Element::Bf16 => &BF16_KERNEL,
        Element::Int8 if level >= Level::Avx2Vnni => &VNNI_INT8,
        Element::Int8 => &TWOS_INT8,
    }
}

/// Four numbers of eight columns at a time: `vpmaddubsw` adds products of two in 16 bits, where they have room (`Whole::TWOS`), and `vpmaddwd` those
/// of two such sums in 32.
struct TwosInt8;

// SAFETY: each function needs AVX2, which the trait makes the caller's business, and what else the trait demands of pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Dot for TwosInt8 {
    type S = Avx2;
    type Sums = InWhole<Avx2>;
    type Words = __m256i;
    const GROUP: usize = 4;
    const WEIGHT: usize = 1;
    const WHOLE: Option<Whole> = Some(Whole::TWOS);
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(weights.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(operand: *const u32) -> __m256i {
        unsafe { everywhere(operand) }
    }
    #[inline(always)]
    unsafe fn dot(operand: __m256i, weights: __m256i, sums: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(operand, weights), _mm256_set1_epi16(1))) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, x: __m256) {
        unsafe { store_bytes(to, x) }
    }
}

/// Four products of int8 at once by `vpdpbusd`, eight columns at a time.
struct VnniInt8;

// SAFETY: each function needs AVX2 and AVX-VNNI, which the trait makes the caller's business, and what else the trait demands of pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Dot for VnniInt8 {
    type S = Avx2;
    type Sums = InWhole<Avx2>;
    type Words = __m256i;
    const GROUP: usize = 4;
    const WEIGHT: usize = 1;
    const WHOLE: Option<Whole> = Some(Whole::BYTES);
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(weights.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(operand: *const u32) -> __m256i {
        unsafe { everywhere(operand) }
    }
    #[inline(always)]
    unsafe fn dot(operand: __m256i, weights: __m256i, sums: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_avx_epi32(sums, operand, weights) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, x: __m256) {
        unsafe { store_bytes(to, x) }
    }
}

/// Four bytes in every lane.
///
/// # Safety
/// `operand` is good for four bytes, and the processor has AVX2.
#[inline(always)]
unsafe fn everywhere(operand: *const u32) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_set1_epi32(operand.cast::<i32>().read_unaligned()) }
}

/// Eight whole numbers of 0 to 255, in a byte each.
///
/// # Safety
/// `to` is good for 8 bytes, and the processor has AVX2.
#[inline(always)]
unsafe fn store_bytes(to: *mut u8, x: __m256) {
    // SAFETY: the caller's.
    unsafe {
        let whole = _mm256_cvtps_epi32(x);
        let halves = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
        _mm_storel_epi64(to.cast(), _mm_packus_epi16(halves, halves));
    }
}
