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
    pub(super) ahead: Ahead,
}

/// Bytes that the processor fetches at once.
const LINE: usize = 64;

static NEAR: [u8; LINE] = [0; LINE];

/// What comes near while a panel is multiplied with a tile: a stretch of the next panel, for which few rows would have to wait.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    next: *const u8,
    /// From one fetch to the next: a part of a line, where the panel has several tiles to come in.
    unit: usize,
}

impl Ahead {
    /// Nothing: the same line, again and again.
    pub(super) const NONE: Self = Self { next: (&raw const NEAR).cast(), unit: 0 };

    /// The stretch of the first of so many tiles.
    #[inline(always)]
    pub(super) fn first(next: *const u8, tiles: usize) -> Self {
        Self { next, unit: LINE / tiles.clamp(1, LINE) }
    }

    /// That of the tile after it, where panels have so many groups and columns.
    #[inline(always)]
    pub(super) fn after(self, groups: usize, columns: usize) -> Self {
        Self { next: self.next.wrapping_add(groups * fetches(columns) * self.unit), ..self }
    }
}

/// Lines that a group of so many columns takes: four bytes each, whatever the element.
const fn fetches(columns: usize) -> usize {
    (columns * size_of::<u32>()).div_ceil(LINE)
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
    let (mut words, mut weights, mut columns, mut next) = (x.words, panel.weights, panel.columns, panel.ahead.next);
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
                for _ in 0..const { fetches(N * D::S::LANES) } {
                    D::S::fetch(next);
                    next = next.wrapping_add(panel.ahead.unit);
                }
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
