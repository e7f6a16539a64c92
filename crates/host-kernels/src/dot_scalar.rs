//! Products of one number at a time: the reference.

use super::dot::{Dot, Element, F32, InWhole, WidenedBf16};
use super::kernel::{Kernel, kernel};
use super::operand::convert;
use super::quant::{Whole, row};
use super::simd::Scalar;

/// What products of an element are multiplied with.
pub(super) fn kernel(element: Element) -> &'static Kernel {
    static F32_KERNEL: Kernel = kernel!(convert, F32<Scalar>, 4 x [2 1]);
    static BF16_KERNEL: Kernel = kernel!(convert, WidenedBf16<Scalar>, 4 x [2 1]);
    static INT8_KERNEL: Kernel = kernel!(row, ScalarInt8, 4 x [2 1]);
    match element {
        Element::F32 => &F32_KERNEL,
        Element::Bf16 => &BF16_KERNEL,
        Element::Int8 => &INT8_KERNEL,
    }
}

/// Four whole numbers of the operand and of the weights.
struct ScalarInt8;

// SAFETY: needs nothing of the processor.
unsafe impl Dot for ScalarInt8 {
    type S = Scalar;
    type Sums = InWhole<Scalar>;
    type Words = [i32; 4];
    const GROUP: usize = 4;
    const WEIGHT: usize = 1;
    // As at the levels that every processor has, whose reference it is.
    const WHOLE: Option<Whole> = Some(Whole::TWOS);
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
    unsafe fn store(to: *mut u8, x: f32) {
        // SAFETY: good for one number, as the trait demands.
        unsafe { *to = x.round_ties_even() as u8 }
    }
}
