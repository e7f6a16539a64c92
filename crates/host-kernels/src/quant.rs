//! What the whole numbers of int8 stand for: defined here, once, and the same at every level.
//!
//! A weight is `step * q` with q in -127..=127 and a step for each column; a number of an operand is `least + step * q` with q in 0..=255 and both for
//! each row. A row's numbers depend on nothing but that row.

use super::dot::{Dot, Factor};
use super::simd::Simd;

/// The largest whole number of a weight, and of an operand.
const WEIGHT_MOST: f32 = 127.;
const OPERAND_MOST: f32 = 255.;

/// What 1 stands for in a column of weights.
pub(super) fn column_step(row: &[f32]) -> f32 {
    row.iter().fold(0f32, |most, weight| most.max(weight.abs())) / WEIGHT_MOST
}

/// A weight as a whole number.
pub(super) fn weight(weight: f32, step: f32) -> i8 {
    // A column of nothing but zeros has no step.
    let whole = if step > 0. { (weight / step).round_ties_even() } else { 0. };
    whole.clamp(-WEIGHT_MOST, WEIGHT_MOST) as i8
}

/// A row of an operand as whole numbers, and what they stand for.
///
/// # Safety
/// `x` is good for `width` numbers and `to` for as many in the operand's form; the processor has the level.
#[inline(always)]
pub(super) unsafe fn row<D: Dot>(x: *const f32, width: usize, to: *mut u8) -> Factor {
    let (lanes, bytes) = (D::S::LANES, 4 / D::GROUP);
    let whole = width / lanes * lanes;
    // SAFETY: the caller's; vectors reach up to `whole`, the rest goes by way of one on the stack.
    unsafe {
        let (mut least, mut most) = (f32::INFINITY, f32::NEG_INFINITY);
        // 0, or NaN where a number is none or infinite: neither least nor most would tell.
        let mut unknown = 0.;
        if whole > 0 {
            let (mut low, mut high, mut wrong) = (D::S::load(x), D::S::load(x), D::S::splat(0.));
            for at in (0..whole).step_by(lanes) {
                let numbers = D::S::load(x.add(at));
                (low, high) = (D::S::min(numbers, low), D::S::max(numbers, high));
                wrong = D::S::fma(numbers, D::S::splat(0.), wrong);
            }
            // The least is the largest of what is turned round.
            (least, most) = (-D::S::largest(D::S::sub(D::S::splat(0.), low)), D::S::largest(high));
            unknown = D::S::sum(wrong);
        }
        for at in whole..width {
            (least, most, unknown) = (least.min(*x.add(at)), most.max(*x.add(at)), unknown + *x.add(at) * 0.);
        }
        let step = (most - least) / OPERAND_MOST + unknown;
        // A row of equal numbers has no step.
        let per_step = if step > 0. { step.recip() } else { 0. };
        for at in (0..whole).step_by(lanes) {
            D::store(to.add(at * bytes), whole_numbers::<D::S>(D::S::load(x.add(at)), least, per_step));
        }
        if whole < width {
            let (mut numbers, mut stored) = ([least; super::simd::LANES_MOST], [0u32; super::simd::LANES_MOST]);
            std::ptr::copy_nonoverlapping(x.add(whole), numbers.as_mut_ptr(), width - whole);
            D::store(stored.as_mut_ptr().cast(), whole_numbers::<D::S>(D::S::load(numbers.as_ptr()), least, per_step));
            std::ptr::copy_nonoverlapping(stored.as_ptr().cast(), to.add(whole * bytes), (width - whole) * bytes);
        }
        Factor { step, least }
    }
}

/// # Safety
/// As `Simd`.
#[inline(always)]
unsafe fn whole_numbers<S: Simd>(x: S::V, least: f32, per_step: f32) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        let steps = S::mul(S::sub(x, S::splat(least)), S::splat(per_step));
        S::min(S::max(S::round(steps), S::splat(0.)), S::splat(OPERAND_MOST))
    }
}
