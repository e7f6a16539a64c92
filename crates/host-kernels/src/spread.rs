//! Spreading: an orthogonal change of both sides of a product that leaves it as it is and takes the outliers away, before they are quantised.
//!
//! A step of int8 is as large as a block's largest numbers demand, and networks have a few inner dimensions whose numbers are ten times the others'.
//! So each row, of the operand and of the weights alike, is multiplied with random signs and then, in blocks of 64 numbers, the last filled up with
//! zeros, with a Hadamard matrix: every number becomes a sum of all of its block, and their sizes are nearly those of a normal distribution.
//! `(H D x) . (H D w) = B x . w` for blocks of `B`, and `B` is a power of two, so nothing but rounding changes. It needs no texts to calibrate with.
//! (Ashkboos et al., "QuaRot", 2024, and Tseng et al., "QuIP#", 2024, do it to the weights of language models.)

use super::simd::{BLOCK, Scalar, Simd};

/// How a row of some length is spread.
#[derive(Debug, Clone, Default)]
pub(super) struct Spread {
    /// `[K]` rounded up to whole blocks: 1 or -1.
    signs: Vec<f32>,
}

impl Spread {
    /// None: for what is not quantised.
    pub(super) const NONE: &'static Self = &Self { signs: Vec::new() };

    /// That of a row of so many numbers.
    pub(super) fn of(inner: usize) -> Self {
        Self { signs: (0..inner.next_multiple_of(BLOCK)).map(sign).collect() }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.signs.len() * size_of::<f32>()
    }

    /// `H D w / B`, in whole blocks: what a row of weights must be for its products with spread rows to be as before.
    ///
    /// # Panics
    /// If it is longer than the row it was made for, rounded up to whole blocks.
    pub(super) fn weights(&self, row: &[f32]) -> Vec<f32> {
        assert!(row.len() <= self.signs.len());
        let mut spread = Vec::with_capacity(self.signs.len());
        for (block, numbers) in row.chunks(BLOCK).enumerate() {
            let mut filled = [0.; BLOCK];
            filled[..numbers.len()].copy_from_slice(numbers);
            // SAFETY: a whole block, for which there are signs; the scalar level needs nothing of the processor.
            spread.extend_from_slice(&unsafe { self.block::<Scalar>(filled.as_ptr(), block) });
        }
        spread.iter_mut().for_each(|number| *number *= 1. / BLOCK as f32);
        spread
    }

    /// `H D x` for one block of a row.
    ///
    /// # Safety
    /// `x` is good for a block, of which the row has as many; the processor has the level.
    #[inline(always)]
    pub(super) unsafe fn block<S: Simd>(&self, x: *const f32, block: usize) -> S::Block {
        // SAFETY: the caller's.
        unsafe {
            let (mut y, signs) = (S::block(x), S::block(self.signs.as_ptr().add(block * BLOCK)));
            for (y, signs) in y.as_mut().iter_mut().zip(signs.as_ref()) {
                *y = S::mul(*y, *signs);
            }
            mix::<S>(y.as_mut());
            y
        }
    }
}

/// Sums and differences at all distances.
///
/// # Safety
/// As `Simd`.
#[inline(always)]
unsafe fn mix<S: Simd>(y: &mut [S::V]) {
    // SAFETY: the caller's.
    unsafe {
        let mut distance = 1;
        while distance < S::LANES {
            for y in y.iter_mut() {
                *y = S::butterfly(*y, distance);
            }
            distance *= 2;
        }
        // Each written out for the compiler, which then keeps all vectors in registers.
        between::<S, 1>(y);
        between::<S, 2>(y);
        between::<S, 4>(y);
        between::<S, 8>(y);
        between::<S, 16>(y);
        between::<S, 32>(y);
    }
}

/// Sums and differences of vectors that are so many apart, where a block has as many.
///
/// # Safety
/// As `Simd`.
#[inline(always)]
unsafe fn between<S: Simd, const VECTORS: usize>(y: &mut [S::V]) {
    for both in y.chunks_exact_mut(2 * VECTORS) {
        for index in 0..VECTORS {
            let (a, b) = (both[index], both[index + VECTORS]);
            // SAFETY: the caller's.
            (both[index], both[index + VECTORS]) = unsafe { (S::add(a, b), S::sub(a, b)) };
        }
    }
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
        #[inline(always)]
        unsafe fn run<S: Simd>(by: &Spread, x: *const f32, block: usize, y: *mut f32) {
            // SAFETY: the caller's.
            unsafe {
                for (index, vector) in by.block::<S>(x, block).as_ref().iter().enumerate() {
                    S::store(y.add(index * S::LANES), *vector);
                }
            }
        }
        let mut spread = x.to_vec();
        spread.resize(x.len().next_multiple_of(BLOCK), 0.);
        for block in 0..spread.len() / BLOCK {
            let (x, mut y) = (spread[block * BLOCK..].as_ptr(), [0.; BLOCK]);
            let to = y.as_mut_ptr();
            // SAFETY: both are a block.
            at_level!(cpu, run(by: &Spread, x: *const f32, block: usize, to: *mut f32));
            spread[block * BLOCK..][..BLOCK].copy_from_slice(&y);
        }
        spread
    }

    #[test]
    fn spreading_keeps_products_and_is_the_same_at_every_level() {
        for inner in [1, 2, 4, 7, 8, 12, 16, 20, 48, 64, 128, 312, 384] {
            let by = Spread::of(inner);
            let (x, w) = (numbers(1, inner), numbers(2, inner));
            let all: Vec<_> = testing::cpus().into_iter().map(|cpu| [spread(cpu, &by, &x), spread(cpu, &by, &w)]).collect();
            assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{inner}");
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let (plain, spread) = (dot(&x, &w), dot(&all[0][0], &all[0][1]) / BLOCK as f64);
            assert!((plain - spread).abs() < 1e-5, "{inner}: {spread} instead of {plain}");
        }
    }

    #[test]
    fn spreading_takes_an_outlier_away() {
        let mut x = numbers(1, 128);
        x[17] = 100.;
        let spread = spread(testing::cpus()[0], &Spread::of(128), &x);
        let largest = |x: &[f32]| x.iter().fold(0f32, |most, x| most.max(x.abs()));
        // Both are as long as each other, up to the root of what it is spread over.
        assert!(largest(&spread) / 64f32.sqrt() < 0.2 * largest(&x));
    }
}
