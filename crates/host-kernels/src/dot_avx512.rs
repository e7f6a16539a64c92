//! Products with AVX-512; those of bf16 and int8: by the instructions that are made for them where the processor has those, else on widened numbers.

use super::dot::{Columns, Dot, Factor, f32_dot, settle_int8, tiles};
use super::simd::Simd;
use super::simd_avx512::{Avx512, Products};
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// AVX-512 alone: F, BW, VL and DQ.
pub(crate) struct Alone;
/// With VNNI too.
pub(crate) struct Vnni;
/// With VNNI and BF16 too.
pub(crate) struct VnniBf16;

impl Products for Alone {
    type Bf16 = WidenedBf16<Self>;
    type NarrowBf16 = WidenedBf16<Self>;
    type Int8 = WidenedInt8<Self>;
}

impl Products for Vnni {
    type Bf16 = WidenedBf16<Self>;
    type NarrowBf16 = WidenedBf16<Self>;
    type Int8 = VnniInt8<Self>;
}

impl Products for VnniBf16 {
    type Bf16 = OwnBf16<Self>;
    type NarrowBf16 = NarrowOwnBf16<Self>;
    type Int8 = VnniInt8<Self>;
}

/// One f32, sixteen columns at a time. Of the 32 registers 24 hold sums, three weights and one the operand.
pub(crate) struct Avx512F32<P>(PhantomData<P>);

// SAFETY: each function needs AVX-512 F, which the trait makes the caller's business, and what else the trait demands of pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl<P: Products> Dot for Avx512F32<P> {
    f32_dot!(Avx512<P>);
    tiles!(3: 1 2 3 4 5 6 7, 8);
}

/// The same with panels as wide as most heads.
pub(crate) struct Avx512Narrow<P>(PhantomData<P>);

// SAFETY: as above.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl<P: Products> Dot for Avx512Narrow<P> {
    f32_dot!(Avx512<P>);
    tiles!(2: 1 2 3 4 5 6 7, 8);
}

/// Everything of `Dot` but the tiles, for pairs of bf16 by `vdpbf16ps`, sixteen columns at a time.
macro_rules! own_bf16_dot {
    () => {
        type S = Avx512<P>;
        const GROUP: usize = 2;
        const WEIGHT: usize = 2;
        type Words = __m512i;
        type Sums = __m512;
        #[inline(always)]
        unsafe fn zero() -> __m512 {
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn load(weights: *const u8) -> __m512i {
            unsafe { _mm512_loadu_si512(weights.cast()) }
        }
        #[inline(always)]
        unsafe fn splat(operand: *const u32) -> __m512i {
            unsafe { _mm512_set1_epi32(operand.cast::<i32>().read_unaligned()) }
        }
        #[inline(always)]
        unsafe fn dot(operand: __m512i, weights: __m512i, sums: __m512) -> __m512 {
            unsafe { _mm512_dpbf16_ps(sums, bf16s(operand), bf16s(weights)) }
        }
        #[inline(always)]
        unsafe fn settle(sums: __m512, columns: Columns, _: *const Factor) -> __m512 {
            unsafe { _mm512_add_ps(sums, _mm512_loadu_ps(columns.bias)) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut u8, x: __m512) {
            unsafe {
                // SAFETY: both are 32 bytes of which every value is valid.
                let halves = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x));
                _mm256_storeu_si256(to.cast(), halves);
            }
        }
    };
}

/// Pairs of bf16 by `vdpbf16ps`. It reads numbers below 1.2e-38 as zero and adds the second of each pair first.
pub(crate) struct OwnBf16<P>(PhantomData<P>);

// SAFETY: each function needs AVX-512 F and BF16, which the trait makes the caller's business, and what else the trait demands of pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl<P: Products> Dot for OwnBf16<P> {
    own_bf16_dot!();
    tiles!(3: 1 2 3 4 5 6 7, 8);
}

/// The same with panels as wide as most heads.
pub(crate) struct NarrowOwnBf16<P>(PhantomData<P>);

// SAFETY: as above.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl<P: Products> Dot for NarrowOwnBf16<P> {
    own_bf16_dot!();
    tiles!(2: 1 2 3 4 5 6 7, 8);
}

#[inline(always)]
fn bf16s(words: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of which every value is valid.
    unsafe { std::mem::transmute(words) }
}

/// Pairs of bf16 widened to f32, sixteen columns at a time.
pub(crate) struct WidenedBf16<P>(PhantomData<P>);

// SAFETY: each function needs AVX-512 F, which the trait makes the caller's business, and what else the trait demands of pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl<P: Products> Dot for WidenedBf16<P> {
    type S = Avx512<P>;
    const GROUP: usize = 2;
    const WEIGHT: usize = 2;
    // Widened weights take two registers each.
    tiles!(2: 1 2 3 4 5 6 7, 8);
    /// The first and the second of each pair.
    type Words = [__m512; 2];
    type Sums = __m512;
    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> [__m512; 2] {
        unsafe { widen(_mm512_loadu_si512(weights.cast())) }
    }
    #[inline(always)]
    unsafe fn splat(operand: *const u32) -> [__m512; 2] {
        unsafe { widen(_mm512_set1_epi32(operand.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn dot(operand: [__m512; 2], weights: [__m512; 2], sums: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(operand[0], weights[0], _mm512_fmadd_ps(operand[1], weights[1], sums)) }
    }
    #[inline(always)]
    unsafe fn settle(sums: __m512, columns: Columns, _: *const Factor) -> __m512 {
        unsafe { _mm512_add_ps(sums, _mm512_loadu_ps(columns.bias)) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, x: __m512) {
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
}

#[inline(always)]
unsafe fn widen(pairs: __m512i) -> [__m512; 2] {
    // SAFETY: the caller's.
    unsafe {
        let (first, second) = (_mm512_slli_epi32::<16>(pairs), _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32)));
        [_mm512_castsi512_ps(first), _mm512_castsi512_ps(second)]
    }
}

/// Four products of int8 at once by `vpdpbusd`, sixteen columns at a time.
pub(crate) struct VnniInt8<P>(PhantomData<P>);

// SAFETY: each function needs AVX-512 F and VNNI, which the trait makes the caller's business, and what else the trait demands of pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl<P: Products> Dot for VnniInt8<P> {
    type S = Avx512<P>;
    const GROUP: usize = 4;
    const WEIGHT: usize = 1;
    tiles!(3: 1 2 3 4 5 6 7, 8);
    type Words = __m512i;
    type Sums = __m512i;
    #[inline(always)]
    unsafe fn zero() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(weights.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(operand: *const u32) -> __m512i {
        unsafe { _mm512_set1_epi32(operand.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(operand: __m512i, weights: __m512i, sums: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, operand, weights) }
    }
    #[inline(always)]
    unsafe fn settle(sums: __m512i, columns: Columns, row: *const Factor) -> __m512 {
        unsafe { settle_int8::<Avx512<P>>(_mm512_cvtepi32_ps(sums), columns, row) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, x: __m512) {
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x))) }
    }
}

/// Pairs of an operand held in 16 bits and of weights widened as they are loaded, sixteen columns at a time.
pub(crate) struct WidenedInt8<P>(PhantomData<P>);

// SAFETY: each function needs AVX-512 F and BW, which the trait makes the caller's business, and what else the trait demands of pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl<P: Products> Dot for WidenedInt8<P> {
    type S = Avx512<P>;
    const GROUP: usize = 2;
    const WEIGHT: usize = 1;
    tiles!(3: 1 2 3 4 5 6 7, 8);
    type Words = __m512i;
    type Sums = __m512i;
    #[inline(always)]
    unsafe fn zero() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m512i {
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(weights.cast())) }
    }
    #[inline(always)]
    unsafe fn splat(operand: *const u32) -> __m512i {
        unsafe { _mm512_set1_epi32(operand.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(operand: __m512i, weights: __m512i, sums: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(sums, _mm512_madd_epi16(operand, weights)) }
    }
    #[inline(always)]
    unsafe fn settle(sums: __m512i, columns: Columns, row: *const Factor) -> __m512 {
        unsafe { settle_int8::<Avx512<P>>(_mm512_cvtepi32_ps(sums), columns, row) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, x: __m512) {
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x))) }
    }
}
