//! Matrix products `x W^T + b` with what follows them: an activation, a product or a sum with what is already there.

use super::pack::{PANEL, Packed};
use super::pool::Team;
use super::simd::Simd;
use super::{Act, Cpu, at_level, math};

/// Rows of a tile: with two vectors of columns, twelve accumulators.
pub(super) const TILE: usize = 6;
/// A panel goes over at most this many rows before the next one comes, so that the rows stay in the second-level cache.
const BLOCK: usize = 192;

/// What becomes of `y = x W^T + b` at its place in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// `out = act(y)`.
    Place(Act),
    /// `out = out + y`.
    Sum,
    /// `out = act(y) * out`.
    Gate(Act),
}

/// Rows of a matrix whose row `i` begins at `i * stride`.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
    count: usize,
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
}

/// Where a product goes; a pointer that is shared by the threads of a team, each of which writes columns of its own.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) data: *mut f32,
    pub(super) stride: usize,
    pub(super) how: Into,
}

// SAFETY: `product` gives each thread columns of its own.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// `x` times all of `weights`, into the first `N` columns of `out`'s rows, which are `stride` apart.
///
/// # Panics
/// If a buffer is too short.
pub fn product(cpu: Cpu, team: &Team, x: Rows, weights: &Packed, out: &mut [f32], stride: usize, how: Into) {
    let columns = weights.columns();
    assert!(columns <= stride && (x.count == 0 || (x.count - 1) * stride + columns <= out.len()), "a product of {columns} columns does not fit");
    assert!(x.count < 2 || weights.inner() <= x.stride);
    assert!(x.count == 0 || (x.count - 1) * x.stride + weights.inner() <= x.data.len(), "rows shorter than {}", weights.inner());
    let target = Target { data: out.as_mut_ptr(), stride, how };
    let panels = weights.count();
    let parts = team.threads().min(panels).max(1);
    team.each(parts, &|part| {
        let range = panels * part / parts..panels * (part + 1) / parts;
        for start in (0..x.count).step_by(BLOCK) {
            let rows = start..(start + BLOCK).min(x.count);
            for panel in range.clone() {
                // SAFETY: the asserts above say that every row has its inner numbers and its columns; `panel` is this part's alone.
                unsafe { self::panel(cpu, x, rows.clone(), weights, panel, target) }
            }
        }
    });
}

/// One panel over some rows.
///
/// # Safety
/// The rows of `x` are `K` long, those of the target reach the panel's columns, and nobody else writes these.
unsafe fn panel(cpu: Cpu, x: Rows, rows: std::ops::Range<usize>, weights: &Packed, index: usize, target: Target) {
    let width = (weights.columns() - index * PANEL).min(PANEL);
    let panel = Panel { weights: weights.panel(index).as_ptr(), bias: weights.bias(index).as_ptr(), inner: weights.inner(), width };
    let (from, count) = (rows.start, rows.len());
    // SAFETY: inside the buffers, as the caller promises.
    let (x, stride, out) = unsafe { (x.data.as_ptr().add(from * x.stride), x.stride, target.data.add(from * target.stride + index * PANEL)) };
    let target = Target { data: out, ..target };
    at_level!(cpu, panel_at(x: *const f32, stride: usize, count: usize, panel: Panel, target: Target));
}

/// A panel and the columns of it that are not filling.
#[derive(Clone, Copy)]
pub(super) struct Panel {
    pub(super) weights: *const f32,
    pub(super) bias: *const f32,
    pub(super) inner: usize,
    pub(super) width: usize,
}

/// # Safety
/// As `panel`, and the processor has the level.
#[inline(always)]
pub(super) unsafe fn panel_at<S: Simd>(x: *const f32, stride: usize, count: usize, panel: Panel, target: Target) {
    for start in (0..count).step_by(TILE) {
        // SAFETY: rows `start..start + TILE` or fewer are there.
        unsafe {
            let x = x.add(start * stride);
            let target = Target { data: target.data.add(start * target.stride), ..target };
            match count - start {
                1 => by_width::<S, 1>(x, stride, panel, target),
                2 => by_width::<S, 2>(x, stride, panel, target),
                3 => by_width::<S, 3>(x, stride, panel, target),
                4 => by_width::<S, 4>(x, stride, panel, target),
                5 => by_width::<S, 5>(x, stride, panel, target),
                _ => by_width::<S, TILE>(x, stride, panel, target),
            }
        }
    }
}

/// # Safety
/// As `panel_at`, for `M` rows.
#[inline(always)]
unsafe fn by_width<S: Simd, const M: usize>(x: *const f32, stride: usize, panel: Panel, target: Target) {
    // SAFETY: the caller's. The number of vectors in a panel is known when this is compiled.
    unsafe {
        match PANEL / S::LANES {
            2 => tile::<S, M, 2>(x, stride, panel, target),
            _ => tile::<S, M, PANEL>(x, stride, panel, target),
        }
    }
}

/// `M` rows times one panel of `N` vectors: every sum stays in a register from the first to the last inner number.
///
/// # Safety
/// As `panel_at`, for `M` rows.
#[inline(always)]
unsafe fn tile<S: Simd, const M: usize, const N: usize>(x: *const f32, stride: usize, panel: Panel, target: Target) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[S::splat(0.); N]; M];
        let mut weights = panel.weights;
        for k in 0..panel.inner {
            let mut b = [S::splat(0.); N];
            for (n, b) in b.iter_mut().enumerate() {
                *b = S::load(weights.add(n * S::LANES));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let a = S::splat(*x.add(m * stride + k));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = S::fma(a, b, *sum);
                }
            }
            weights = weights.add(PANEL);
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                let column = n * S::LANES;
                let y = S::add(*sum, S::load(panel.bias.add(column)));
                finish::<S>(y, target.data.add(m * target.stride + column), panel.width.saturating_sub(column), target.how);
            }
        }
    }
}

/// Puts one vector at its place, of which `width` numbers are there.
///
/// # Safety
/// `out` is good for `min(width, LANES)` numbers.
#[inline(always)]
unsafe fn finish<S: Simd>(y: S::V, out: *mut f32, width: usize, how: Into) {
    // SAFETY: the caller's; what does not fit goes by way of a whole vector on the stack.
    unsafe {
        if width >= S::LANES {
            S::store(out, combine::<S>(y, out, how));
        } else if width > 0 {
            let mut whole = [0f32; PANEL];
            std::ptr::copy_nonoverlapping(out, whole.as_mut_ptr(), width);
            let y = combine::<S>(y, whole.as_ptr(), how);
            S::store(whole.as_mut_ptr(), y);
            std::ptr::copy_nonoverlapping(whole.as_ptr(), out, width);
        }
    }
}

/// # Safety
/// `there` is good for a whole vector.
#[inline(always)]
unsafe fn combine<S: Simd>(y: S::V, there: *const f32, how: Into) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        match how {
            Into::Place(act) => math::activate::<S>(y, act),
            Into::Sum => S::add(y, S::load(there)),
            Into::Gate(act) => S::mul(math::activate::<S>(y, act), S::load(there)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cpus, near, numbers};

    #[test]
    fn products_equal_their_definition_whatever_the_shape_and_the_team() {
        let team = [Team::alone(), Team::of(3)];
        for (case, (rows, inner, columns)) in [(1, 1, 1), (5, 7, 15), (6, 16, 16), (7, 33, 17), (13, 40, 48), (400, 9, 35)].into_iter().enumerate() {
            let (x, w) = (numbers(case as u64, rows * (inner + 3)), numbers(99, columns * inner));
            let (bias, there) = (numbers(7, columns), numbers(8, rows * (columns + 2)));
            let weights = Packed::new(&w, inner, &bias);
            for how in [Into::Place(Act::Identity), Into::Place(Act::Gelu), Into::Sum, Into::Gate(Act::Silu)] {
                let mut want = there.clone();
                for (r, c) in (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))) {
                    let y = (0..inner).fold(0f32, |sum, k| x[r * (inner + 3) + k].mul_add(w[c * inner + k], sum)) + bias[c];
                    let place = &mut want[r * (columns + 2) + c];
                    // SAFETY: the scalar level needs nothing, and `place` is good for its one number.
                    *place = unsafe { combine::<crate::simd::Scalar>(y, place, how) };
                }
                let mut all = Vec::new();
                for (cpu, team) in cpus().into_iter().flat_map(|cpu| team.iter().map(move |team| (cpu, team))) {
                    let mut got = there.clone();
                    product(cpu, team, Rows::new(&x, rows, inner, inner + 3), &weights, &mut got, columns + 2, how);
                    near(&got, &want, 1e-5, &format!("{rows} x {inner} x {columns} {how:?} {:?}", cpu.level()));
                    all.push((cpu.level(), got));
                }
                assert!(all.iter().all(|(level, got)| all.iter().all(|(other, twin)| level != other || got == twin)), "the team changes the numbers");
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_around_it() {
        let (x, w) = (numbers(1, 11 * 24), numbers(2, 20 * 24));
        let weights = Packed::new(&w, 24, &[]);
        for cpu in cpus() {
            let run = |x: &[f32], rows: usize| {
                let mut out = vec![0.; rows * 20];
                product(cpu, &Team::alone(), Rows::dense(x, rows, 24), &weights, &mut out, 20, Into::Place(Act::Identity));
                out
            };
            let all = run(&x, 11);
            for row in 0..11 {
                assert_eq!(run(&x[row * 24..][..24], 1), all[row * 20..][..20]);
            }
        }
    }

    #[test]
    fn weights_stored_input_first_pack_the_same() {
        let w = numbers(3, 5 * 18);
        let (x, cpu) = (numbers(4, 2 * 5), cpus()[0]);
        let run = |weights: &Packed| {
            let mut out = vec![0.; 2 * 18];
            product(cpu, &Team::alone(), Rows::dense(&x, 2, 5), weights, &mut out, 18, Into::Place(Act::Identity));
            out
        };
        assert_eq!(run(&Packed::new(&w, 5, &[])), run(&Packed::transposed(&transpose(&w, 18, 5), 18)));
    }

    fn transpose(w: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        (0..columns).flat_map(|c| (0..rows).map(move |r| w[r * columns + c])).collect()
    }
}
