//! What the whole numbers of int8 stand for: defined here, once, for all levels.
//!
//! Rows of both sides are cut into spans, each with a step of its own, so that small numbers are not rounded as large ones must be. A weight is
//! `step * q` with q in -127..=127; a number of an operand is `step * (q - zero)` with q of 0 or more. A row's numbers depend on nothing but that row. How
//! far all this goes, a level's way of adding says: `Whole`.

use super::dot::Dot;
use super::simd::{Arith, BLOCK, Simd};
use super::spread::Spread;

/// The largest whole number of a weight.
const WEIGHT_MOST: f32 = 127.;

/// What whole numbers may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Whole {
    /// What stands for 0 in an operand; the largest is twice that.
    pub(super) zero: i16,
    /// What two neighbouring weights of one sign may come to, where their products are added in 16 bits.
    pub(super) two: Option<f32>,
    /// Numbers of a row that share a step, whole blocks; the last may be fewer. A sum over a span is exact in f32.
    pub(super) span: usize,
}

impl Whole {
    /// All that eight bits hold, where products are added in 32 bits. That goes so fast that short spans would cost much of it: a span's end takes a
    /// fifth of the instructions that 64 numbers take.
    #[cfg(any(test, target_arch = "x86_64"))]
    pub(super) const BYTES: Self = Self { zero: 127, two: None, span: 4 * BLOCK };
    /// Where two products are added in 16 bits: no sum is beyond `190 * 172 < 2^15`. More for the operand would leave less for the weights, whose noise is
    /// the same for all tokens of a text and so is not averaged. Spans twice as long would be a third noisier, and save a product a fiftieth of its time.
    pub(super) const TWOS: Self = Self { zero: 95, two: Some(172.), span: BLOCK };

    /// What 1 stands for in a span of a column's weights.
    pub(super) fn step(self, span: &[f32]) -> f32 {
        let each = span.iter().fold(0f32, |most, weight| most.max(weight.abs())) / WEIGHT_MOST;
        let Some(most) = self.two else { return each };
        // Rounding makes each of the two larger by one half at the most.
        each.max(span.chunks(2).map(of_one_sign).fold(0f32, f32::max) / (most - 1.))
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
    let whole = if step > 0. { nearest(weight / step) } else { 0. };
    whole.clamp(-WEIGHT_MOST, WEIGHT_MOST) as i8
}

/// As `round_ties_even`, of numbers below `2^22`: that is a call where nothing is known of the processor, and the greater part of what packing took.
fn nearest(x: f32) -> f32 {
    // Numbers from `2^23` to `2^24` are whole, so the sum is rounded to a whole number.
    const WHOLE: f32 = 1.5 * 8_388_608.;
    x + WHOLE - WHOLE
}

/// Blocks that are spread before the first of them is rounded, so that none waits for its step: whole spans.
const AHEAD: usize = 8;

/// A row of an operand spread and as whole numbers, in whole blocks, and the steps of its spans.
///
/// # Safety
/// `x` is good for `width` numbers, for which the spread was made, `to` for whole blocks in the operand's form, `steps` for one of each span; the processor
/// has the level.
#[inline(always)]
pub(super) unsafe fn row<D: Dot>(x: *const f32, width: usize, to: *mut u8, spread: &Spread, steps: *mut f32) {
    let whole = const {
        match D::WHOLE {
            Some(whole) => whole,
            None => panic!("only int8 is quantised"),
        }
    };
    let mut room = [0f32; AHEAD * BLOCK];
    let blocks = width.div_ceil(BLOCK);
    for first in (0..blocks).step_by(AHEAD) {
        let ahead = first..(first + AHEAD).min(blocks);
        // SAFETY: the caller's; what is left of a block goes by way of the stack.
        unsafe {
            for block in ahead.clone() {
                let (mut numbers, room) = (x.add(block * BLOCK), room.as_mut_ptr().add((block - first) * BLOCK));
                let count = (width - block * BLOCK).min(BLOCK);
                if count < BLOCK {
                    room.write_bytes(0, BLOCK);
                    std::ptr::copy_nonoverlapping(numbers, room, count);
                    numbers = room;
                }
                let spread = spread.block::<D::S>(numbers, block);
                for (index, numbers) in spread.as_ref().iter().enumerate() {
                    D::S::store(room.add(index * D::S::LANES), *numbers);
                }
                let (own, step) = (step::<D::S>(spread, whole), steps.add(block * BLOCK / whole.span));
                // The largest of a span's blocks, or what is not a number.
                *step = if (block * BLOCK).is_multiple_of(whole.span) || own > *step || own.is_nan() { own } else { *step };
            }
            for block in ahead {
                let step = *steps.add(block * BLOCK / whole.span);
                round::<D>(room.as_ptr().add((block - first) * BLOCK), step, whole, to.add(block * BLOCK * 4 / D::GROUP));
            }
        }
    }
}

/// What 1 must stand for in a block.
///
/// # Safety
/// The processor has the level.
#[inline(always)]
unsafe fn step<S: Simd>(block: S::Block, whole: Whole) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let zero = S::splat(0.);
        let (mut most, mut least) = (zero, zero);
        for x in block.as_ref() {
            (most, least) = (S::max(*x, most), S::min(*x, least));
        }
        // 0, or NaN where a number was none or infinite, which the largest would not tell: spreading has put it into every number.
        let unknown = block.as_ref().first().map_or(0., |first| S::sum(S::mul(*first, zero)));
        S::largest(S::max(most, S::sub(zero, least))) * f32::from(whole.zero).recip() + unknown
    }
}

/// A block's numbers as whole ones.
///
/// # Safety
/// As `row`, for one block.
#[inline(always)]
unsafe fn round<D: Dot>(x: *const f32, step: f32, whole: Whole, to: *mut u8) {
    // Numbers that are too small to divide by are 0.
    let per_step = if step >= f32::MIN_POSITIVE { step.recip() } else { 0. };
    // SAFETY: the caller's.
    unsafe {
        for (index, x) in D::S::block(x).as_ref().iter().enumerate() {
            let numbers = D::S::fma(*x, D::S::splat(per_step), D::S::splat(f32::from(whole.zero)));
            D::store(to.add(index * D::S::LANES * 4 / D::GROUP), numbers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn the_nearest_whole_number_is_that_of_the_language() {
        for quarter in -600..=600 {
            let x = quarter as f32 / 4.;
            assert_eq!([nearest(x), nearest(x.next_up()), nearest(x.next_down())], [x, x.next_up(), x.next_down()].map(f32::round_ties_even));
        }
    }

    #[test]
    fn no_two_weights_leave_what_16_bits_hold() {
        let most = Whole::TWOS.two.unwrap_or_default();
        assert!(most * 2. * f32::from(Whole::TWOS.zero) <= f32::from(i16::MAX));
        let spike = |at: usize| (0..20).map(|k| if k == at { -3. } else { 1e-3 }).collect();
        let blocks = [vec![0.5; 17], vec![-1e-30; 8], vec![], vec![0.; 9], spike(0), spike(19), numbers(1, 64), numbers(2, 63)];
        for block in blocks {
            let step = Whole::TWOS.step(&block);
            let whole: Vec<f32> = block.iter().map(|weight| f32::from(super::weight(*weight, step))).collect();
            let largest = whole.chunks(2).map(of_one_sign).fold(0f32, f32::max);
            assert!(largest <= most, "{largest} in {block:?}");
            // And they are not smaller than they must be.
            assert!(largest > most - 3. || whole.iter().any(|weight| weight.abs() == 127.) || step == 0., "{largest} in {block:?}");
        }
    }
}
