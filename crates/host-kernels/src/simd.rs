//! Vectors of f32 as kernels see them: one trait, an implementation per level of the processor.

use super::dot::to_bf16;

/// The most numbers that a vector has at any level.
pub(super) const LANES_MOST: usize = 16;
/// Numbers of int8 that are spread over each other: as many as AVX2 holds in half of its registers.
pub(super) const BLOCK: usize = 64;

/// Operations on numbers side by side, each by itself.
///
/// # Safety
/// Its functions may be called only where the processor has the level.
pub(super) unsafe trait Arith: Sized {
    type V: Copy;
    unsafe fn splat(x: f32) -> Self::V;
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
}

/// `LANES` numbers side by side.
///
/// # Safety
/// As `Arith`. Pointers must be good for `LANES` numbers, that of `block` for `BLOCK`; they need no alignment.
pub(super) unsafe trait Simd: Arith {
    const LANES: usize;
    /// `LANES` whole numbers of 32 bits.
    type Whole: Copy;
    /// `BLOCK` numbers, in as many vectors as they take.
    type Block: Copy + AsRef<[Self::V]> + AsMut<[Self::V]>;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, x: Self::V);
    unsafe fn block(p: *const f32) -> Self::Block;
    /// Of each two lanes that are `distance` apart, in blocks of twice that, their sum in the first and their difference in the second.
    unsafe fn butterfly(x: Self::V, distance: usize) -> Self::V;
    unsafe fn sum(x: Self::V) -> f32;
    unsafe fn largest(x: Self::V) -> f32;
    /// The first and the second of the two bf16 that each lane's bits are.
    unsafe fn widen(pairs: Self::V) -> [Self::V; 2];
    /// Rounded as by `dot::to_bf16`, into twice `LANES` bytes.
    unsafe fn store_bf16(to: *mut u8, x: Self::V);
    unsafe fn load_whole(p: *const i32) -> Self::Whole;
    /// The nearest f32 to each.
    unsafe fn of_whole(x: Self::Whole) -> Self::V;
    /// Brings the line of an address into the second-level cache. Any address will do.
    unsafe fn fetch(p: *const u8);
}

/// One number.
pub(super) struct Scalar;

// SAFETY: needs nothing of the processor.
unsafe impl Arith for Scalar {
    type V = f32;
    unsafe fn splat(x: f32) -> f32 {
        x
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
}

// SAFETY: needs nothing of the processor.
unsafe impl Simd for Scalar {
    const LANES: usize = 1;
    type Whole = i32;
    type Block = [f32; BLOCK];
    unsafe fn block(p: *const f32) -> [f32; BLOCK] {
        // SAFETY: good for a block, as the trait demands.
        unsafe { p.cast::<[f32; BLOCK]>().read_unaligned() }
    }
    unsafe fn load(p: *const f32) -> f32 {
        // SAFETY: good for one number, as the trait demands.
        unsafe { *p }
    }
    unsafe fn store(p: *mut f32, x: f32) {
        // SAFETY: good for one number, as the trait demands.
        unsafe { *p = x }
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
    unsafe fn widen(pairs: f32) -> [f32; 2] {
        [pairs.to_bits() << 16, pairs.to_bits() & 0xffff_0000].map(f32::from_bits)
    }
    unsafe fn store_bf16(to: *mut u8, x: f32) {
        // SAFETY: good for one number, as the trait demands.
        unsafe { to.cast::<u16>().write_unaligned(to_bf16(x)) }
    }
    unsafe fn load_whole(p: *const i32) -> i32 {
        // SAFETY: good for one number, as the trait demands.
        unsafe { *p }
    }
    unsafe fn of_whole(x: i32) -> f32 {
        x as f32
    }
    unsafe fn fetch(_: *const u8) {}
}
