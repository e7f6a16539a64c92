//! The microkernel: a few rows times one panel, every sum in a register from the first to the last inner number.

use super::dot::{Columns, Dot, Factor, Sums};
use super::simd::Simd;

/// Rows of an operand.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    pub(super) words: *const u32,
    /// In words.
    pub(super) stride: usize,
    pub(super) count: usize,
    /// Int8 only: one per row.
    pub(super) factors: *const Factor,
}

impl Lines {
    /// What is left after `count` of them.
    #[inline(always)]
    pub(super) fn skip(self, count: usize) -> Self {
        let (words, factors) = (self.words.wrapping_add(count * self.stride), self.factors.wrapping_add(count));
        Self { words, factors, count: self.count - count, ..self }
    }
}

/// A panel's weights and what it knows besides.
#[derive(Clone, Copy)]
pub(super) struct Panel {
    pub(super) weights: *const u8,
    pub(super) columns: Columns,
    pub(super) groups: usize,
}

/// `M` rows times one panel of `N` vectors. Rows of `y` are `stride` apart.
///
/// # Safety
/// Operand and panel are in the form of `D` and have as many groups as the panel says; `y` is good for `M` rows; the processor has the level.
#[inline(always)]
pub(super) unsafe fn tile<D: Dot, const M: usize, const N: usize>(x: Lines, panel: Panel, y: *mut f32, stride: usize) {
    let lanes = D::S::LANES;
    let vector = lanes * D::GROUP * D::WEIGHT;
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[D::Sums::zero(); N]; M];
        let mut weights = panel.weights;
        for k in 0..panel.groups {
            let mut b = [D::load(weights); N];
            for (n, b) in b.iter_mut().enumerate() {
                *b = D::load(weights.add(n * vector));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let a = D::splat(x.words.add(m * x.stride + k));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = D::dot(a, b, *sum);
                }
            }
            weights = weights.add(N * vector);
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                let column = n * lanes;
                D::S::store(y.add(m * stride + column), D::Sums::settle(*sum, panel.columns.skip(column), x.factors.wrapping_add(m)));
            }
        }
    }
}
