//! How four bytes along the inner dimension of a product are multiplied and summed: what differs between f32, bf16 and int8 in one microkernel.

use super::Level;
use super::gemm::{Lines, Panel};
use super::simd::{Scalar, Simd};
#[cfg(target_arch = "x86_64")]
use super::simd_avx512::Avx512;

/// What the numbers of a product are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    F32,
    /// Weights and operand rounded to bf16, summed in f32.
    Bf16,
    /// Weights of -127 to 127 by column, an operand of 0 to 255 by row, summed in whole numbers.
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

/// What packing must know of a level's product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Columns of a panel.
    pub(super) panel: usize,
    /// Numbers of the operand in four bytes.
    pub(super) group: usize,
}

/// The least and the step of a quantised row: a number is `least + step * q`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Factor {
    pub step: f32,
    pub least: f32,
}

/// `LANES` columns of what a panel knows besides its weights.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub(super) bias: *const f32,
    /// Int8 only: what 1 stands for.
    pub(super) step: *const f32,
    /// Int8 only: the sum of the column's weights.
    pub(super) sum: *const f32,
}

impl Columns {
    /// Those from the given one.
    #[inline(always)]
    pub(super) fn skip(self, columns: usize) -> Self {
        Self { bias: self.bias.wrapping_add(columns), step: self.step.wrapping_add(columns), sum: self.sum.wrapping_add(columns) }
    }
}

/// The product of one element at one level. An operand's row is `GROUP` numbers in each four bytes; a panel's weights are `GROUP` numbers for each
/// of its columns in turn.
///
/// # Safety
/// As `Simd`: its functions may be called only where the processor has the level. Pointers need no alignment; they are good for `LANES` columns of
/// weights (`load`), four bytes (`splat`), `LANES` numbers of an operand (`store`), `LANES` columns and one row (`settle`).
pub(super) unsafe trait Dot: Sized {
    type S: Simd;
    /// Numbers of an operand in four bytes.
    const GROUP: usize;
    /// Bytes of a weight.
    const WEIGHT: usize;
    /// Rows of a tile, at most `TILE_MOST`, and vectors of columns in a panel. Their product is the number of sums held in registers.
    const TILE: usize;
    const VECTORS: usize;
    type Words: Copy;
    type Sums: Copy;
    unsafe fn zero() -> Self::Sums;
    unsafe fn load(weights: *const u8) -> Self::Words;
    unsafe fn splat(operand: *const u32) -> Self::Words;
    unsafe fn dot(operand: Self::Words, weights: Self::Words, sums: Self::Sums) -> Self::Sums;
    /// What the sums stand for, with the bias.
    unsafe fn settle(sums: Self::Sums, columns: Columns, row: *const Factor) -> <Self::S as Simd>::V;
    /// Numbers as an operand holds them; for int8 they are whole and in 0..=255.
    unsafe fn store(to: *mut u8, x: <Self::S as Simd>::V);
    /// `gemm::tile` for as many rows as there are, up to `TILE`: written by `tiles!`.
    unsafe fn tile(x: Lines, panel: Panel, y: *mut f32, stride: usize);

    /// The same for packing.
    const SHAPE: Shape = Shape { panel: Self::VECTORS * Self::S::LANES, group: Self::GROUP };
}

/// The most rows that a tile has at any level, and the most vectors of a panel.
pub(super) const TILE_MOST: usize = 8;
pub(super) const VECTORS_MOST: usize = 4;

/// `tiles!(VECTORS: 1 2 3, 4)`: a tile of each number of rows, the last being `TILE`.
macro_rules! tiles {
    ($vectors:literal: $($rows:literal)*, $most:literal) => {
        const TILE: usize = $most;
        const VECTORS: usize = $vectors;
        #[inline(always)]
        unsafe fn tile(x: crate::gemm::Lines, panel: crate::gemm::Panel, y: *mut f32, stride: usize) {
            const { assert!($most <= crate::dot::TILE_MOST && $vectors <= crate::dot::VECTORS_MOST) };
            // SAFETY: the caller's.
            unsafe {
                match x.count {
                    $($rows => crate::gemm::tile::<Self, $rows, $vectors>(x, panel, y, stride),)*
                    _ => crate::gemm::tile::<Self, $most, $vectors>(x, panel, y, stride),
                }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use tiles;

/// One f32 at a time, for the level `$level`: everything of `Dot` but the tiles.
macro_rules! f32_dot {
    ($level:ty) => {
        type S = $level;
        const GROUP: usize = 1;
        const WEIGHT: usize = 4;
        type Words = <$level as crate::simd::Simd>::V;
        type Sums = <$level as crate::simd::Simd>::V;
        #[inline(always)]
        unsafe fn zero() -> Self::Sums {
            unsafe { <$level>::splat(0.) }
        }
        #[inline(always)]
        unsafe fn load(weights: *const u8) -> Self::Words {
            unsafe { <$level>::load(weights.cast()) }
        }
        #[inline(always)]
        unsafe fn splat(operand: *const u32) -> Self::Words {
            unsafe { <$level>::splat(operand.cast::<f32>().read_unaligned()) }
        }
        #[inline(always)]
        unsafe fn dot(operand: Self::Words, weights: Self::Words, sums: Self::Sums) -> Self::Sums {
            unsafe { <$level>::fma(operand, weights, sums) }
        }
        #[inline(always)]
        unsafe fn settle(sums: Self::Sums, columns: crate::dot::Columns, _: *const crate::dot::Factor) -> Self::Sums {
            unsafe { <$level>::add(sums, <$level>::load(columns.bias)) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut u8, x: Self::Sums) {
            unsafe { <$level>::store(to.cast(), x) }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use f32_dot;

/// What a level's product of an element is packed for.
pub(super) fn shape(level: Level, element: Element) -> Shape {
    fn of<S: Simd>(element: Element) -> Shape {
        match element {
            Element::F32 => S::F32::SHAPE,
            Element::Bf16 => S::Bf16::SHAPE,
            Element::Int8 => S::Int8::SHAPE,
        }
    }
    match level {
        Level::Scalar => of::<Scalar>(element),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => of::<super::simd::Avx2>(element),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => of::<Avx512<super::dot_avx512::Alone>>(element),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => of::<Avx512<super::dot_avx512::Vnni>>(element),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Bf16 => of::<Avx512<super::dot_avx512::VnniBf16>>(element),
        #[cfg(not(target_arch = "x86_64"))]
        _ => of::<Scalar>(element),
    }
}

/// One f32, one column at a time.
pub(super) struct ScalarF32;

// SAFETY: needs nothing of the processor.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Dot for ScalarF32 {
    f32_dot!(Scalar);
    tiles!(4: 1, 2);
}

/// `sums` of whole numbers, already f32, as what they stand for: the same operations in the same order at every level.
///
/// # Safety
/// As `Dot::settle`.
#[inline(always)]
pub(super) unsafe fn settle_int8<S: Simd>(sums: S::V, columns: Columns, row: *const Factor) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        let Factor { step, least } = *row;
        let (steps, sum) = (S::load(columns.step), S::load(columns.sum));
        let shifted = S::fma(S::splat(least), S::mul(steps, sum), S::load(columns.bias));
        S::fma(S::splat(step), S::mul(steps, sums), shifted)
    }
}

/// Pairs of bf16, one column at a time.
pub(super) struct ScalarBf16;

// SAFETY: needs nothing of the processor.
unsafe impl Dot for ScalarBf16 {
    type S = Scalar;
    const GROUP: usize = 2;
    const WEIGHT: usize = 2;
    tiles!(4: 1, 2);
    type Words = [f32; 2];
    type Sums = f32;
    unsafe fn zero() -> f32 {
        0.
    }
    unsafe fn load(weights: *const u8) -> [f32; 2] {
        // SAFETY: good for one pair, as the trait demands.
        unsafe { weights.cast::<[u16; 2]>().read_unaligned() }.map(widen)
    }
    unsafe fn splat(operand: *const u32) -> [f32; 2] {
        // SAFETY: good for four bytes, as the trait demands.
        unsafe { Self::load(operand.cast()) }
    }
    unsafe fn dot(operand: [f32; 2], weights: [f32; 2], sums: f32) -> f32 {
        // In the order of `vdpbf16ps`.
        operand[0].mul_add(weights[0], operand[1].mul_add(weights[1], sums))
    }
    unsafe fn settle(sums: f32, columns: Columns, _: *const Factor) -> f32 {
        // SAFETY: good for one column, as the trait demands.
        sums + unsafe { *columns.bias }
    }
    unsafe fn store(to: *mut u8, x: f32) {
        // SAFETY: good for one number, as the trait demands.
        unsafe { to.cast::<u16>().write_unaligned(to_bf16(x)) }
    }
}

/// Pairs of an operand's and the weights' whole numbers, one column at a time.
pub(super) struct ScalarInt8;

// SAFETY: needs nothing of the processor.
unsafe impl Dot for ScalarInt8 {
    type S = Scalar;
    const GROUP: usize = 4;
    const WEIGHT: usize = 1;
    tiles!(4: 1, 2);
    type Words = [i32; 4];
    type Sums = i32;
    unsafe fn zero() -> i32 {
        0
    }
    unsafe fn load(weights: *const u8) -> [i32; 4] {
        // SAFETY: good for four weights, as the trait demands.
        unsafe { weights.cast::<[i8; 4]>().read_unaligned() }.map(i32::from)
    }
    unsafe fn splat(operand: *const u32) -> [i32; 4] {
        // SAFETY: good for four bytes, as the trait demands.
        unsafe { operand.cast::<[u8; 4]>().read_unaligned() }.map(i32::from)
    }
    unsafe fn dot(operand: [i32; 4], weights: [i32; 4], sums: i32) -> i32 {
        operand.iter().zip(weights).fold(sums, |sum, (x, w)| sum + x * w)
    }
    unsafe fn settle(sums: i32, columns: Columns, row: *const Factor) -> f32 {
        // SAFETY: good for one column and one row, as the trait demands.
        unsafe { settle_int8::<Scalar>(sums as f32, columns, row) }
    }
    unsafe fn store(to: *mut u8, x: f32) {
        // SAFETY: good for one number, as the trait demands.
        unsafe { *to = x as u8 }
    }
}

/// A bf16's bits as f32.
fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The bits of the nearest bf16, ties to even; NaN stays NaN.
pub(super) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}
