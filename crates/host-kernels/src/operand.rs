//! The left side of a product: rows of f32 as they are, or turned into what packed weights are multiplied with.

use super::dot::{Dot, Element};
use super::pack::Packed;
use super::pool::Team;
use super::simd::{LANES_MOST, Simd};
use super::spread::Spread;

/// Rows that one thread turns at a time.
const PART: usize = 64;

/// Rows of a matrix whose row `i` begins at `i * stride`.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
    pub(super) count: usize,
}

impl<'a> Rows<'a> {
    /// `count` rows in a buffer.
    ///
    /// # Panics
    /// If the buffer is too short for them, the last row being `width` long.
    pub fn new(data: &'a [f32], count: usize, width: usize, stride: usize) -> Self {
        assert!(width <= stride && (count == 0 || (count - 1) * stride + width <= data.len()), "{count} rows of {width} in {}", data.len());
        Self { data, stride, count }
    }

    /// Rows side by side without gaps.
    ///
    /// # Panics
    /// As `new`.
    pub fn dense(data: &'a [f32], count: usize, width: usize) -> Self {
        Self::new(data, count, width, width)
    }

    fn reach(self, width: usize) -> bool {
        self.count == 0 || (self.count == 1 || width <= self.stride) && (self.count - 1) * self.stride + width <= self.data.len()
    }
}

/// Rows as the product of one element at one level reads them: four bytes hold one number of f32, two of bf16, four of int8.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    pub(super) words: *const u32,
    /// In words.
    pub(super) stride: usize,
    pub(super) count: usize,
    /// Numbers in a row.
    pub(super) inner: usize,
    /// Int8 only: `[rows, spans]`.
    pub(super) steps: &'a [f32],
    pub(super) spans: usize,
    /// What it may be multiplied with.
    pub(super) element: Element,
    pub(super) group: usize,
}

// SAFETY: words are only read, and live as long as the steps beside them.
unsafe impl Send for Operand<'_> {}
// SAFETY: as above.
unsafe impl Sync for Operand<'_> {}

/// Room for rows that have been turned; kept from call to call.
#[derive(Debug, Default)]
pub struct Turned {
    words: Vec<u32>,
    steps: Vec<f32>,
}

impl Turned {
    /// `x` as the product with `weights` reads it: f32 where it stands, anything else turned into this buffer. It serves every map of the same input
    /// that is packed alike.
    ///
    /// # Panics
    /// If rows are shorter than the weights' inner dimension.
    pub fn operand<'a>(&'a mut self, team: &Team, x: Rows<'a>, weights: &Packed) -> Operand<'a> {
        let (inner, element) = (weights.inner(), weights.element());
        assert!(x.reach(inner), "rows shorter than {inner}");
        let group = weights.group();
        if element == Element::F32 {
            return Operand { words: x.data.as_ptr().cast(), stride: x.stride, count: x.count, inner, steps: &[], spans: 0, element, group };
        }
        let (stride, spans) = (weights.groups(), weights.spans());
        let grow = |len: usize, least: usize| len.max(least);
        self.words.resize(grow(self.words.len(), x.count * stride), 0);
        self.steps.resize(grow(self.steps.len(), x.count * spans), 0.);
        let to = Target { words: self.words.as_mut_ptr(), stride, steps: self.steps.as_mut_ptr(), spans };
        team.each(x.count.div_ceil(PART), &|part| {
            for row in part * PART..((part + 1) * PART).min(x.count) {
                // SAFETY: the row of `x` is `inner` long, as asserted; row and steps of the target are this part's alone.
                unsafe { turn(weights, x.data[row * x.stride..].as_ptr(), to, row) }
            }
        });
        Operand { words: self.words.as_ptr(), stride, count: x.count, inner, steps: &self.steps[..x.count * spans], spans, element, group }
    }
}

#[derive(Clone, Copy)]
struct Target {
    words: *mut u32,
    stride: usize,
    steps: *mut f32,
    spans: usize,
}

// SAFETY: each part writes rows of its own.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// # Safety
/// `x` is good for `[K]`, the target has the row, and nobody else writes it.
unsafe fn turn(weights: &Packed, x: *const f32, to: Target, row: usize) {
    // SAFETY: the caller's: the row is there.
    unsafe {
        let (words, steps) = (to.words.add(row * to.stride), to.steps.add(row * to.spans));
        match weights.element() {
            Element::Int8 => (weights.kernel().numbers)(x, weights.inner(), words.cast(), weights.spread(), steps),
            Element::F32 | Element::Bf16 => weights.kernel().turn(x, weights.inner(), words),
        }
    }
}

/// Each number by itself: it stands for what it is.
///
/// # Safety
/// As `Kernel::numbers`, and the processor has the level.
#[inline(always)]
pub(super) unsafe fn convert<D: Dot>(x: *const f32, width: usize, to: *mut u8, _: &Spread, _: *mut f32) {
    let (lanes, bytes) = (D::S::LANES, 4 / D::GROUP);
    let whole = width / lanes * lanes;
    // SAFETY: the caller's; vectors reach up to `whole`, the rest goes by way of one on the stack.
    unsafe {
        for at in (0..whole).step_by(lanes) {
            D::store(to.add(at * bytes), D::S::load(x.add(at)));
        }
        if whole < width {
            let (mut numbers, mut stored) = ([0f32; LANES_MOST], [0u32; LANES_MOST]);
            std::ptr::copy_nonoverlapping(x.add(whole), numbers.as_mut_ptr(), width - whole);
            D::store(stored.as_mut_ptr().cast(), D::S::load(numbers.as_ptr()));
            std::ptr::copy_nonoverlapping(stored.as_ptr().cast(), to.add(whole * bytes), (width - whole) * bytes);
        }
    }
}
