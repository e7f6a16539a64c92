//! The microkernel: a few rows times one panel, every sum in a register from the first to the last inner number.

use super::dot::{Columns, Dot, Sums};
use super::simd::Simd;

/// Rows of an operand.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    pub(super) words: *const u32,
    /// In words.
    pub(super) stride: usize,
    pub(super) count: usize,
    /// Int8 only: one for each span of a row.
    pub(super) steps: *const f32,
    /// How many these are in a row.
    pub(super) spans: usize,
}

impl Lines {
    /// What is left after `count` of them.
    #[inline(always)]
    pub(super) fn skip(self, count: usize) -> Self {
        let (words, steps) = (self.words.wrapping_add(count * self.stride), self.steps.wrapping_add(count * self.spans));
        Self { words, steps, count: self.count - count, ..self }
    }
}

/// A panel's weights and what it knows besides.
#[derive(Clone, Copy)]
pub(super) struct Panel {
    pub(super) weights: *const u8,
    pub(super) columns: Columns,
    pub(super) groups: usize,
}

/// `M` rows times one panel of `N` vectors, span by span. Rows of `y` are `stride` apart.
///
/// # Safety
/// Operand and panel are in the form of `D` and have as many groups as the panel says; `y` is good for `M` rows; the processor has the level.
#[inline(always)]
pub(super) unsafe fn tile<D: Dot, const M: usize, const N: usize>(x: Lines, panel: Panel, y: *mut f32, stride: usize) {
    let lanes = D::S::LANES;
    let (vector, width) = (lanes * D::GROUP * D::WEIGHT, N * lanes);
    let span = D::WHOLE.map(|whole| whole.span / D::GROUP);
    let (mut words, mut weights, mut columns) = (x.words, panel.weights, panel.columns);
    // SAFETY: the caller's.
    unsafe {
        let mut total = [[D::S::load(columns.bias); N]; M];
        for total in &mut total {
            for (n, total) in total.iter_mut().enumerate() {
                *total = D::S::load(columns.bias.add(n * lanes));
            }
        }
        for index in 0..span.map_or(1, |span| panel.groups.div_ceil(span)) {
            let groups = span.map_or(panel.groups, |span| span.min(panel.groups - index * span));
            let mut sums = [[D::Sums::start(columns); N]; M];
            for sums in &mut sums {
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = D::Sums::start(columns.skip(n * lanes));
                }
            }
            for k in 0..groups {
                let mut b = [D::load(weights); N];
                for (n, b) in b.iter_mut().enumerate() {
                    *b = D::load(weights.add(n * vector));
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let a = D::splat(words.add(m * x.stride + k));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = D::dot(a, b, *sum);
                    }
                }
                weights = weights.add(N * vector);
            }
            for (m, (total, sums)) in total.iter_mut().zip(sums).enumerate() {
                let step = x.steps.wrapping_add(m * x.spans + index);
                for (n, (total, sum)) in total.iter_mut().zip(sums).enumerate() {
                    *total = D::Sums::settle(sum, columns.skip(n * lanes), step, *total);
                }
            }
            (words, columns) = (words.wrapping_add(groups), columns.next(width));
        }
        for (m, total) in total.iter().enumerate() {
            for (n, total) in total.iter().enumerate() {
                D::S::store(y.add(m * stride + n * lanes), *total);
            }
        }
    }
}
