//! Products with AVX-512; those of bf16 and int8 by the instructions that are made for them, where the processor has those.

use super::Level;
use super::dot::{Dot, Element, F32, InF32, InWhole, WidenedBf16};
use super::kernel::{Kernel, kernel};
use super::operand::convert;
use super::quant::{Whole, row};
use super::simd_avx512::Avx512;
use std::arch::x86_64::*;

/// What products of an element are multiplied with. Of the 32 registers 24 hold sums, or 16 where weights and operand take two each.
pub(super) fn kernel(level: Level, element: Element) -> &'static Kernel {
    static F32_KERNEL: Kernel = kernel!("avx512bw,avx512dq,avx512vl", convert, F32<Avx512>, 3 x [8 7 6 5 4 3 2 1]);
    static BF16_KERNEL: Kernel = kernel!("avx512bw,avx512dq,avx512vl,avx512bf16", convert, OwnBf16, 3 x [8 7 6 5 4 3 2 1]);
    static INT8_KERNEL: Kernel = kernel!("avx512bw,avx512dq,avx512vl,avx512vnni", row, VnniInt8, 3 x [8 7 6 5 4 3 2 1]);
    static TWOS_INT8: Kernel = kernel!("avx512bw,avx512dq,avx512vl", row, TwosInt8, 3 x [8 7 6 5 4 3 2 1]);
    match element {
        Element::F32 => &F32_KERNEL,
        Element::Bf16 if level >= Level::Avx512Bf16 => &BF16_KERNEL,
        Element::Bf16 => &WIDENED_BF16,
        Element::Int8 if level >= Level::Avx512Vnni => &INT8_KERNEL,
        Element::Int8 => &TWOS_INT8,
    }
}

/// The same with panels as wide as most heads, for f32 and bf16.
pub(super) fn narrow(level: Level, element: Element) -> &'static Kernel {
    static F32_KERNEL: Kernel = kernel!("avx512bw,avx512dq,avx512vl", convert, F32<Avx512>, 2 x [8 7 6 5 4 3 2 1]);
    static BF16_KERNEL: Kernel = kernel!("avx512bw,avx512dq,avx512vl,avx512bf16", convert, OwnBf16, 2 x [8 7 6 5 4 3 2 1]);
    match element {
        Element::Bf16 if level >= Level::Avx512Bf16 => &BF16_KERNEL,
        Element::Bf16 => &WIDENED_BF16,
        Element::F32 | Element::Int8 => &F32_KERNEL,
    }
}

static WIDENED_BF16: Kernel = kernel!("avx512bw,avx512dq,avx512vl", convert, WidenedBf16<Avx512>, 2 x [8 7 6 5 4 3 2 1]);

/// Four bytes in every lane.
///
/// # Safety
/// `operand` is good for four bytes, and the processor has AVX-512 F.
#[inline(always)]
unsafe fn everywhere(operand: *const u32) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_set1_epi32(operand.cast::<i32>().read_unaligned()) }
}

/// Sixteen whole numbers of 0 to 255, in a byte each.
///
/// # Safety
/// `to` is good for 16 bytes, and the processor has AVX-512 F.
#[inline(always)]
unsafe fn store_bytes(to: *mut u8, x: __m512) {
    // SAFETY: the caller's.
    unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x))) }
}

/// Pairs of bf16 by `vdpbf16ps`, sixteen columns at a time. It reads numbers below 1.2e-38 as zero and adds the second of each pair first.
struct OwnBf16;

// SAFETY: each function needs AVX-512 F and BF16, which the trait makes the caller's business, and what else the trait demands of pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Dot for OwnBf16 {
    type S = Avx512;
    type Sums = InF32<Avx512>;
    type Words = __m512bh;
    const GROUP: usize = 2;
    const WEIGHT: usize = 2;
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m512bh {
        unsafe { bf16s(_mm512_loadu_si512(weights.cast())) }
    }
    #[inline(always)]
    unsafe fn splat(operand: *const u32) -> __m512bh {
        unsafe { bf16s(everywhere(operand)) }
    }
    #[inline(always)]
    unsafe fn dot(operand: __m512bh, weights: __m512bh, sums: __m512) -> __m512 {
        unsafe { _mm512_dpbf16_ps(sums, operand, weights) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, x: __m512) {
        unsafe {
            // SAFETY: both are 32 bytes of which every value is valid.
            let halves = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x));
            _mm256_storeu_si256(to.cast(), halves);
        }
    }
}

#[inline(always)]
fn bf16s(words: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of which every value is valid.
    unsafe { std::mem::transmute(words) }
}

/// Four products of int8 at once by `vpdpbusd`, sixteen columns at a time.
struct VnniInt8;

// SAFETY: each function needs AVX-512 F and VNNI, which the trait makes the caller's business, and what else the trait demands of pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Dot for VnniInt8 {
    type S = Avx512;
    type Sums = InWhole<Avx512>;
    type Words = __m512i;
    const GROUP: usize = 4;
    const WEIGHT: usize = 1;
    const WHOLE: Option<Whole> = Some(Whole::BYTES);
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(weights.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(operand: *const u32) -> __m512i {
        unsafe { everywhere(operand) }
    }
    #[inline(always)]
    unsafe fn dot(operand: __m512i, weights: __m512i, sums: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, operand, weights) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, x: __m512) {
        unsafe { store_bytes(to, x) }
    }
}

/// Four numbers of sixteen columns at a time, as at level AVX2: `vpmaddubsw` adds products of two in 16 bits, where they have room (`Whole::TWOS`).
struct TwosInt8;

// SAFETY: each function needs AVX-512 F and BW, which the trait makes the caller's business, and what else the trait demands of pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Dot for TwosInt8 {
    type S = Avx512;
    type Sums = InWhole<Avx512>;
    type Words = __m512i;
    const GROUP: usize = 4;
    const WEIGHT: usize = 1;
    const WHOLE: Option<Whole> = Some(Whole::TWOS);
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(weights.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(operand: *const u32) -> __m512i {
        unsafe { everywhere(operand) }
    }
    #[inline(always)]
    unsafe fn dot(operand: __m512i, weights: __m512i, sums: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(sums, _mm512_madd_epi16(_mm512_maddubs_epi16(operand, weights), _mm512_set1_epi16(1))) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, x: __m512) {
        unsafe { store_bytes(to, x) }
    }
}
