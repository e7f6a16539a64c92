//! Spreading: an orthogonal change of both sides of a product that leaves it as it is and takes the outliers away, before they are quantised.
//!
//! A step of int8 is as large as a row's largest numbers demand, and networks have a few inner dimensions whose numbers are ten times the others'.
//! So each row, of the operand and of the weights alike, is multiplied with random signs and then, in blocks of up to 128 numbers, with a Hadamard
//! matrix: every number becomes a sum of all of its block, and their sizes are nearly those of a normal distribution. `(H D x) . (H D w) = B x . w`
//! for blocks of `B`, and `B` is a power of two, so nothing but rounding changes. It needs no texts to calibrate with. (Ashkboos et al., "QuaRot",
//! 2024, and Tseng et al., "QuIP#", 2024, do it to the weights of language models.)

use super::simd::{Scalar, Simd};

/// The most numbers that are spread over each other.
const BLOCK_MOST: usize = 128;

/// How a row of some length is spread.
#[derive(Debug, Clone, Default)]
pub(super) struct Spread {
    /// `[K]`: 1 or -1.
    signs: Vec<f32>,
    block: usize,
}

impl Spread {
    /// Blocks as large as the length has them: 128 for 384 or 768, 8 for 312.
    pub(super) fn of(inner: usize) -> Self {
        let block = if inner == 0 { 1 } else { (1 << inner.trailing_zeros()).min(BLOCK_MOST) };
        Self { signs: (0..inner).map(sign).collect(), block }
    }

    /// Numbers of a block.
    #[cfg(test)]
    pub(super) fn block(&self) -> usize {
        self.block
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.signs.len() * size_of::<f32>()
    }

    /// `H D w / B`: what a row of weights must be for its products with spread rows to be as before.
    pub(super) fn weights(&self, row: &[f32]) -> Vec<f32> {
        let mut spread = vec![0.; row.len()];
        // SAFETY: both are as long as asserted, and the scalar level needs nothing of the processor.
        unsafe {
            assert!(row.len() == self.signs.len());
            self.apply::<Scalar>(row.as_ptr(), spread.as_mut_ptr());
        }
        let scale = 1. / self.block as f32;
        spread.iter_mut().for_each(|number| *number *= scale);
        spread
    }

    /// `H D x` in place of `y`, each block by itself.
    ///
    /// # Safety
    /// `x` is good for `[K]`, `y` for that rounded up to whole vectors; the processor has the level.
    #[inline(always)]
    pub(super) unsafe fn apply<S: Simd>(&self, x: *const f32, y: *mut f32) {
        let inner = self.signs.len();
        let whole = inner / S::LANES * S::LANES;
        // SAFETY: the caller's; vectors of `x` and of the signs reach up to `whole`, those of `y` beyond it.
        unsafe {
            for at in (0..whole).step_by(S::LANES) {
                S::store(y.add(at), within::<S>(S::mul(S::load(x.add(at)), S::load(self.signs.as_ptr().add(at))), self.block));
            }
            if whole < inner {
                // Blocks divide the row, so what fills the vector up is in a block of its own.
                S::store(y.add(whole), S::splat(0.));
                (whole..inner).for_each(|at| *y.add(at) = *x.add(at) * self.signs[at]);
                S::store(y.add(whole), within::<S>(S::load(y.add(whole)), self.block));
            }
            let mut distance = S::LANES;
            while distance < self.block {
                // Two steps at once read and write half as often.
                let both = 4 * distance <= self.block;
                let span = if both { 4 * distance } else { 2 * distance };
                for at in (0..inner).step_by(span).flat_map(|start| (start..start + distance).step_by(S::LANES)) {
                    if both { four::<S>(y.add(at), distance) } else { two::<S>(y.add(at), distance) }
                }
                distance = span;
            }
        }
    }
}

/// Sum and difference of two vectors.
///
/// # Safety
/// As `Simd`, for vectors at 0 and `distance`.
#[inline(always)]
unsafe fn two<S: Simd>(y: *mut f32, distance: usize) {
    // SAFETY: the caller's.
    unsafe {
        let (a, b) = (S::load(y), S::load(y.add(distance)));
        S::store(y, S::add(a, b));
        S::store(y.add(distance), S::sub(a, b));
    }
}

/// The same at `distance` and then at twice that.
///
/// # Safety
/// As `Simd`, for vectors at 0 to 3 times `distance`.
#[inline(always)]
unsafe fn four<S: Simd>(y: *mut f32, distance: usize) {
    // SAFETY: the caller's.
    unsafe {
        let [a, b, c, d] = [0, 1, 2, 3].map(|index| S::load(y.add(index * distance)));
        let (sum, difference, sum_after, difference_after) = (S::add(a, b), S::sub(a, b), S::add(c, d), S::sub(c, d));
        S::store(y, S::add(sum, sum_after));
        S::store(y.add(distance), S::add(difference, difference_after));
        S::store(y.add(2 * distance), S::sub(sum, sum_after));
        S::store(y.add(3 * distance), S::sub(difference, difference_after));
    }
}

/// The steps at distances below a vector's length.
///
/// # Safety
/// As `Simd`.
#[inline(always)]
unsafe fn within<S: Simd>(x: S::V, block: usize) -> S::V {
    let (mut x, mut distance) = (x, 1);
    while distance < S::LANES {
        if distance < block {
            // SAFETY: the caller's.
            x = unsafe { S::butterfly(x, distance) };
        }
        distance *= 2;
    }
    x
}

/// Without order, and the same for ever: vectors depend on it.
fn sign(index: usize) -> f32 {
    let hash = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    if (hash ^ hash >> 31) & 1 == 0 { 1. } else { -1. }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;
    use crate::{Cpu, at_level, testing};

    fn spread(cpu: Cpu, by: &Spread, x: &[f32]) -> Vec<f32> {
        let mut room = vec![0.; x.len().next_multiple_of(crate::simd::LANES_MOST)];
        let (x, y) = (x.as_ptr(), room.as_mut_ptr());
        #[inline(always)]
        unsafe fn run<S: Simd>(by: &Spread, x: *const f32, y: *mut f32) {
            // SAFETY: the caller's.
            unsafe { by.apply::<S>(x, y) }
        }
        // SAFETY: `x` is as long as the signs, `y` rounded up.
        at_level!(cpu, run(by: &Spread, x: *const f32, y: *mut f32));
        room
    }

    #[test]
    fn spreading_keeps_products_and_is_the_same_at_every_level() {
        for inner in [1, 2, 4, 7, 8, 12, 16, 20, 48, 64, 128, 312, 384] {
            let by = Spread::of(inner);
            assert!(inner % by.block() == 0);
            let (x, w) = (numbers(1, inner), numbers(2, inner));
            let all: Vec<_> = testing::cpus().into_iter().map(|cpu| [spread(cpu, &by, &x), spread(cpu, &by, &w)]).collect();
            assert!(all.windows(2).all(|pair| pair[0].iter().zip(&pair[1]).all(|(a, b)| a[..inner] == b[..inner])), "{inner}");
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).take(inner).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let (plain, spread) = (dot(&x, &w), dot(&all[0][0], &all[0][1]) / by.block() as f64);
            assert!((plain - spread).abs() < 1e-5, "{inner}: {spread} instead of {plain}");
        }
    }

    #[test]
    fn spreading_takes_an_outlier_away() {
        let mut x = numbers(1, 128);
        x[17] = 100.;
        let spread = spread(testing::cpus()[0], &Spread::of(128), &x);
        let largest = |x: &[f32]| x.iter().fold(0f32, |most, x| most.max(x.abs()));
        // Both are as long as each other, up to the root of the block.
        assert!(largest(&spread) / 128f32.sqrt() < 0.15 * largest(&x));
    }
}
