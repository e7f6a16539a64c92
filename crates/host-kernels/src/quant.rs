//! What the whole numbers of int8 stand for: defined here, once, for all levels.
//!
//! A weight is `step * q` with q in -127..=127 and a step for each column; a number of an operand is `least + step * q` with q of 0 or more and both
//! for each row. A row's numbers depend on nothing but that row. How far both go, a level's way of adding says: `Whole`.

use super::dot::{Dot, Factor};
use super::simd::Simd;

/// The largest whole number of a weight.
const WEIGHT_MOST: f32 = 127.;

/// What whole numbers may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Whole {
    /// The largest of an operand.
    pub(super) operand: f32,
    /// What two neighbouring weights of one sign may come to, where their products are added in 16 bits.
    pub(super) two: Option<f32>,
}

impl Whole {
    /// All that eight bits hold, where products are added in 32 bits.
    pub(super) const BYTES: Self = Self { operand: 255., two: None };
    /// Where two products are added in 16 bits: no sum is beyond `225 * 145 < 2^15`. More for the operand would leave less for the weights; with these
    /// both lose about the same against `BYTES`.
    pub(super) const TWOS: Self = Self { operand: 225., two: Some(145.) };

    /// What 1 stands for in a column of weights.
    pub(super) fn column_step(self, row: &[f32]) -> f32 {
        let each = row.iter().fold(0f32, |most, weight| most.max(weight.abs())) / WEIGHT_MOST;
        let Some(most) = self.two else { return each };
        // Rounding makes each of the two larger by one half at the most.
        each.max(row.chunks(2).map(of_one_sign).fold(0f32, f32::max) / (most - 1.))
    }
}

/// What those of two weights come to that have one sign, the larger of both.
fn of_one_sign(two: &[f32]) -> f32 {
    let sums = two.iter().fold((0f32, 0f32), |(above, below), weight| (above + weight.max(0.), below - weight.min(0.)));
    sums.0.max(sums.1)
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
        let step = (most - least) / D::WHOLE.operand + unknown;
        // A row of equal numbers has no step.
        let per_step = if step > 0. { step.recip() } else { 0. };
        for at in (0..whole).step_by(lanes) {
            D::store(to.add(at * bytes), whole_numbers::<D>(D::S::load(x.add(at)), least, per_step));
        }
        if whole < width {
            let (mut numbers, mut stored) = ([least; super::simd::LANES_MOST], [0u32; super::simd::LANES_MOST]);
            std::ptr::copy_nonoverlapping(x.add(whole), numbers.as_mut_ptr(), width - whole);
            D::store(stored.as_mut_ptr().cast(), whole_numbers::<D>(D::S::load(numbers.as_ptr()), least, per_step));
            std::ptr::copy_nonoverlapping(stored.as_ptr().cast(), to.add(whole * bytes), (width - whole) * bytes);
        }
        Factor { step, least }
    }
}

/// # Safety
/// As `Simd`.
#[inline(always)]
unsafe fn whole_numbers<D: Dot>(x: <D::S as Simd>::V, least: f32, per_step: f32) -> <D::S as Simd>::V {
    // SAFETY: the caller's.
    unsafe {
        let steps = D::S::mul(D::S::sub(x, D::S::splat(least)), D::S::splat(per_step));
        D::S::min(D::S::max(D::S::round(steps), D::S::splat(0.)), D::S::splat(D::WHOLE.operand))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn no_two_weights_leave_what_16_bits_hold() {
        let most = Whole::TWOS.two.unwrap_or_default();
        assert!(most * Whole::TWOS.operand <= f32::from(i16::MAX));
        let spike = |at: usize| (0..20).map(|k| if k == at { -3. } else { 1e-3 }).collect();
        let rows = [vec![0.5; 17], vec![-1e-30; 8], vec![], vec![0.; 9], spike(0), spike(19), numbers(1, 384), numbers(2, 1539)];
        for row in rows {
            let step = Whole::TWOS.column_step(&row);
            let whole: Vec<f32> = row.iter().map(|weight| f32::from(super::weight(*weight, step))).collect();
            let largest = whole.chunks(2).map(of_one_sign).fold(0f32, f32::max);
            assert!(largest <= most, "{largest} in {row:?}");
            // And they are not smaller than they must be.
            assert!(largest > most - 3. || whole.iter().any(|weight| weight.abs() == 127.) || step == 0., "{largest} in {row:?}");
        }
    }
}
