//! How four bytes along the inner dimension of a product are multiplied and summed: what differs between f32, bf16 and int8 in one microkernel.

use super::quant::Whole;
use super::simd::{Arith, Simd};
use std::marker::PhantomData;

/// What the numbers of a product are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    F32,
    /// Weights and operand rounded to bf16, summed in f32.
    Bf16,
    /// Whole numbers of eight bits with a step for each span of a column of weights or of an operand's row (see `quant`).
    Int8,
}

impl Element {
    /// Bytes of a stored weight.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }
}

/// `LANES` columns of what a panel knows besides its weights.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub(super) bias: *const f32,
    /// Int8 only, of one span: what 1 stands for.
    pub(super) step: *const f32,
    /// Int8 only, of one span: what the products of the weights add up to where the operand is 0.
    pub(super) start: *const i32,
}

impl Columns {
    /// Those from the given one.
    #[inline(always)]
    pub(super) fn skip(self, columns: usize) -> Self {
        Self { bias: self.bias.wrapping_add(columns), step: self.step.wrapping_add(columns), start: self.start.wrapping_add(columns) }
    }

    /// The same of the next span, in a panel of so many.
    #[inline(always)]
    pub(super) fn next(self, panel: usize) -> Self {
        Self { step: self.step.wrapping_add(panel), start: self.start.wrapping_add(panel), ..self }
    }
}

/// One way of multiplying, at the levels that have what it needs. An operand's row is `GROUP` numbers in each four bytes; a panel's weights are `GROUP`
/// numbers for each of its columns in turn.
///
/// # Safety
/// As `Simd`: its functions may be called only where the processor has the level. Pointers need no alignment; they are good for `LANES` columns of
/// weights (`load`), four bytes (`splat`), `LANES` numbers of an operand (`store`).
pub(super) unsafe trait Dot {
    type S: Simd;
    type Sums: Sums<S = Self::S>;
    type Words: Copy;
    /// Numbers of an operand in four bytes.
    const GROUP: usize;
    /// Bytes of a weight.
    const WEIGHT: usize;
    /// Int8 only: what whole numbers may be.
    const WHOLE: Option<Whole> = None;
    unsafe fn load(weights: *const u8) -> Self::Words;
    unsafe fn splat(operand: *const u32) -> Self::Words;
    unsafe fn dot(operand: Self::Words, weights: Self::Words, sums: <Self::Sums as Sums>::Held) -> <Self::Sums as Sums>::Held;
    /// Numbers as an operand holds them; for int8 rounded, ties to even, and within `WHOLE`.
    unsafe fn store(to: *mut u8, x: <Self::S as Arith>::V);
}

/// What a product is summed in, `LANES` columns side by side.
///
/// # Safety
/// As `Dot`; pointers are good for `LANES` columns and, in int8, one step.
pub(super) unsafe trait Sums {
    type S: Simd;
    type Held: Copy;
    unsafe fn start(columns: Columns) -> Self::Held;
    /// What the sums stand for, with what is `there`. `step` is the operand's.
    unsafe fn settle(sums: Self::Held, columns: Columns, step: *const f32, there: <Self::S as Arith>::V) -> <Self::S as Arith>::V;
}

/// Sums of f32.
pub(super) struct InF32<S>(PhantomData<S>);

// SAFETY: needs what `S` needs.
unsafe impl<S: Simd> Sums for InF32<S> {
    type S = S;
    type Held = S::V;
    #[inline(always)]
    unsafe fn start(_: Columns) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::splat(0.) }
    }
    #[inline(always)]
    unsafe fn settle(sums: S::V, _: Columns, _: *const f32, there: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::add(sums, there) }
    }
}

/// Sums of whole numbers. What they stand for is computed by the same operations in the same order at every level.
pub(super) struct InWhole<S>(PhantomData<S>);

// SAFETY: needs what `S` needs.
unsafe impl<S: Simd> Sums for InWhole<S> {
    type S = S;
    type Held = S::Whole;
    #[inline(always)]
    unsafe fn start(columns: Columns) -> S::Whole {
        // SAFETY: the caller's.
        unsafe { S::load_whole(columns.start) }
    }
    #[inline(always)]
    unsafe fn settle(sums: S::Whole, columns: Columns, step: *const f32, there: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::fma(S::mul(S::splat(*step), S::load(columns.step)), S::of_whole(sums), there) }
    }
}

/// One f32.
pub(super) struct F32<S>(PhantomData<S>);

// SAFETY: needs what `S` needs.
unsafe impl<S: Simd> Dot for F32<S> {
    type S = S;
    type Sums = InF32<S>;
    type Words = S::V;
    const GROUP: usize = 1;
    const WEIGHT: usize = 4;
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load(weights.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(operand: *const u32) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::splat(operand.cast::<f32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(operand: S::V, weights: S::V, sums: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::fma(operand, weights, sums) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, x: S::V) {
        // SAFETY: the caller's.
        unsafe { S::store(to.cast(), x) }
    }
}

/// Pairs of bf16 where the processor has no instruction for them: widened to f32.
pub(super) struct WidenedBf16<S>(PhantomData<S>);

// SAFETY: needs what `S` needs.
unsafe impl<S: Simd> Dot for WidenedBf16<S> {
    type S = S;
    type Sums = InF32<S>;
    /// The first and the second of each pair.
    type Words = [S::V; 2];
    const GROUP: usize = 2;
    const WEIGHT: usize = 2;
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> [S::V; 2] {
        // SAFETY: the caller's.
        unsafe { S::widen(S::load(weights.cast())) }
    }
    #[inline(always)]
    unsafe fn splat(operand: *const u32) -> [S::V; 2] {
        // SAFETY: the caller's.
        unsafe { S::widen(S::splat(operand.cast::<f32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn dot(operand: [S::V; 2], weights: [S::V; 2], sums: S::V) -> S::V {
        // In the order of `vdpbf16ps`. SAFETY: the caller's.
        unsafe { S::fma(operand[0], weights[0], S::fma(operand[1], weights[1], sums)) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, x: S::V) {
        // SAFETY: the caller's.
        unsafe { S::store_bf16(to, x) }
    }
}

/// The bits of the nearest bf16, ties to even; NaN stays NaN.
pub(super) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}
