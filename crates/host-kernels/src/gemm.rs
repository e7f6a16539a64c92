//! Matrix products `x W^T + b` with what follows them: an activation, a product or a sum with what is already there.

use super::kernel::{Kernel, PANEL_MOST, TILE_MOST};
pub use super::operand::{Operand, Rows};
use super::pack::Packed;
use super::pool::Team;
use super::simd::{LANES_MOST, Simd};
use super::tile::{Ahead, Lines, Panel};
use super::{Act, at_level, math};
use std::ops::Range;

/// A panel goes over at most this many rows before the next one comes, so that the rows stay in the second-level cache.
const ROWS_MOST: usize = 192;

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

/// Where a product goes; a pointer that is shared by the threads of a team, each of which writes columns of its own.
#[derive(Clone, Copy)]
struct Target {
    data: *mut f32,
    stride: usize,
    /// Columns that are there.
    width: usize,
    how: Into,
}

// SAFETY: `product` gives each thread columns of its own.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// `x` times all of `weights`, into the first `N` columns of `out`'s rows, which are `stride` apart.
///
/// # Panics
/// If `out` is too short, or `x` is not in the form that the weights are packed for.
pub fn product(team: &Team, x: Operand, weights: &Packed, out: &mut [f32], stride: usize, how: Into) {
    let columns = weights.columns();
    assert!(columns <= stride && (x.count == 0 || (x.count - 1) * stride + columns <= out.len()), "a product of {columns} columns does not fit");
    assert!((x.element, x.inner, x.group) == (weights.element(), weights.inner(), weights.group()), "an operand of another form than the weights");
    let target = Target { data: out.as_mut_ptr(), stride, width: columns, how };
    let panels = weights.count();
    let parts = team.threads().min(panels).max(1);
    team.each(parts, &|part| {
        let range = panels * part / parts..panels * (part + 1) / parts;
        for start in (0..x.count).step_by(ROWS_MOST) {
            let rows = start..(start + ROWS_MOST).min(x.count);
            for panel in range.clone() {
                // SAFETY: the asserts above say that every row has its inner numbers and its columns; `panel` is this part's alone.
                unsafe { self::panel(x, rows.clone(), weights, panel..range.end, target) }
            }
        }
    });
}

/// The first of some panels over some rows.
///
/// # Safety
/// The rows of `x` are in the weights' form, those of the target reach the panel's columns, and nobody else writes these.
unsafe fn panel(x: Operand, rows: Range<usize>, weights: &Packed, panels: Range<usize>, target: Target) {
    let (kernel, cpu, from, index) = (weights.kernel(), weights.cpu(), rows.start, panels.start);
    let ahead = Ahead::first(weights.panel((index + 1).min(panels.end - 1)).as_ptr(), rows.len().div_ceil(kernel.tile));
    let first = index * kernel.panel;
    let panel = Panel { weights: weights.panel(index).as_ptr(), columns: weights.columns_of(index), groups: weights.groups(), ahead };
    let steps = x.steps.as_ptr().wrapping_add(from * x.spans);
    let lines = Lines { words: x.words.wrapping_add(from * x.stride), stride: x.stride, count: rows.len(), steps, spans: x.spans };
    let data = target.data.wrapping_add(from * target.stride + first);
    let target = Target { data, width: (target.width - first).min(kernel.panel), ..target };
    if target.how == Into::Place(Act::Identity) && target.width == kernel.panel {
        // SAFETY: the caller's; the target has a whole panel in every row.
        unsafe { (kernel.multiply)(lines, panel, data, target.stride) }
    } else {
        at_level!(cpu, panel_at(kernel: &Kernel, lines: Lines, panel: Panel, target: Target));
    }
}

/// Rows times one panel by way of the stack, a tile at a time.
///
/// # Safety
/// As `panel`, and the processor has the level.
#[inline(always)]
unsafe fn panel_at<S: Simd>(kernel: &Kernel, x: Lines, mut panel: Panel, target: Target) {
    let mut y = [0f32; TILE_MOST * PANEL_MOST];
    for start in (0..x.count).step_by(kernel.tile) {
        let tile = Lines { count: (x.count - start).min(kernel.tile), ..x.skip(start) };
        // SAFETY: rows `start..start + TILE` or fewer are there; `y` has room for a tile.
        unsafe {
            (kernel.multiply)(tile, panel, y.as_mut_ptr(), kernel.panel);
            panel.ahead = panel.ahead.after(panel.groups, kernel.panel);
            target.how.activate::<S>(y.as_mut_ptr(), tile.count * kernel.panel / S::LANES);
            for row in 0..tile.count {
                let (y, out) = (y.as_ptr().add(row * kernel.panel), target.data.add((start + row) * target.stride));
                for at in (0..target.width).step_by(S::LANES) {
                    finish::<S>(S::load(y.add(at)), out.add(at), target.width - at, target.how);
                }
            }
        }
    }
}

impl Into {
    /// What is done to some vectors before they are put at their places.
    ///
    /// # Safety
    /// As `math::activate_all`.
    #[inline(always)]
    pub(super) unsafe fn activate<S: Simd>(self, y: *mut f32, vectors: usize) {
        if let Self::Place(act) | Self::Gate(act) = self {
            // SAFETY: the caller's.
            unsafe { math::activate_all::<S>(y, vectors, act) }
        }
    }
}

/// Puts one activated vector at its place, of which `width` numbers are there.
///
/// # Safety
/// `out` is good for `min(width, LANES)` numbers.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd>(y: S::V, out: *mut f32, width: usize, how: Into) {
    // SAFETY: the caller's.
    unsafe {
        if width >= S::LANES {
            return S::store(out, combine::<S>(y, out, how));
        }
        // What does not fit goes by way of a whole vector on the stack.
        let mut whole = [0f32; LANES_MOST];
        std::ptr::copy_nonoverlapping(out, whole.as_mut_ptr(), width);
        S::store(whole.as_mut_ptr(), combine::<S>(y, whole.as_ptr(), how));
        std::ptr::copy_nonoverlapping(whole.as_ptr(), out, width);
    }
}

/// # Safety
/// `there` is good for a whole vector.
#[inline(always)]
unsafe fn combine<S: Simd>(y: S::V, there: *const f32, how: Into) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        match how {
            Into::Place(_) => y,
            Into::Sum => S::add(y, S::load(there)),
            Into::Gate(_) => S::mul(y, S::load(there)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;
    use crate::dot::{Columns, Element};
    use crate::operand::Turned;
    use crate::quant::{self, Whole};
    use crate::simd::BLOCK;
    use crate::spread::Spread;
    use crate::testing::{cpus, near, numbers};

    fn activated(mut y: f32, how: Into) -> f32 {
        // SAFETY: the scalar level needs nothing, and its vectors have one number.
        unsafe { how.activate::<crate::simd::Scalar>(&mut y, 1) };
        y
    }

    const ELEMENTS: [Element; 3] = [Element::F32, Element::Bf16, Element::Int8];

    fn run(cpu: Cpu, element: Element, team: &Team, x: Rows, map: &Map, there: &[f32], how: Into) -> Vec<f32> {
        let weights = Packed::new(cpu, element, &map.weights, map.inner, &map.bias);
        let (mut out, mut turned) = (there.to_vec(), Turned::default());
        product(team, turned.operand(team, x, &weights), &weights, &mut out, map.columns + 2, how);
        out
    }

    struct Map {
        weights: Vec<f32>,
        bias: Vec<f32>,
        inner: usize,
        columns: usize,
    }

    /// `x W^T + b` of what is left of the numbers in this element, summed in f64.
    fn naive(kernel: &Kernel, element: Element, x: &[f32], map: &Map) -> Vec<f64> {
        let round = |row: &[f32]| -> Vec<f64> { row.iter().map(|x| f64::from(f32::from_bits(u32::from(crate::dot::to_bf16(*x)) << 16))).collect() };
        let spread = Spread::of(map.inner);
        let exact = |row: &[f32]| -> Vec<f64> { row.iter().copied().map(f64::from).collect() };
        let operand: Vec<f64> = match (element, kernel.whole) {
            (Element::Int8, Some(whole)) => {
                let of_span = |span: &[f32]| -> Vec<f64> {
                    let step = f64::from(span.iter().fold(0f32, |most, x| most.max(x.abs()))) / f64::from(whole.zero);
                    span.iter().map(|x| if step > 0. { (f64::from(*x) / step).round_ties_even() * step } else { 0. }).collect()
                };
                spread.weights(x).chunks(whole.span).flat_map(of_span).collect()
            }
            (Element::Bf16, _) => round(x),
            _ => exact(x),
        };
        let columns = map.weights.chunks(map.inner).zip(&map.bias);
        let sums = columns.map(|(row, bias)| {
            let weights = match (element, kernel.whole) {
                (Element::Int8, Some(whole)) => {
                    let of_span = |span: &[f32]| -> Vec<f64> {
                        let step = whole.step(span);
                        span.iter().map(|weight| f64::from(quant::weight(*weight, step)) * f64::from(step)).collect()
                    };
                    spread.weights(row).chunks(whole.span).flat_map(of_span).collect()
                }
                (Element::Bf16, _) => round(row),
                _ => exact(row),
            };
            operand.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>() * if element == Element::Int8 { BLOCK as f64 } else { 1. } + f64::from(*bias)
        });
        sums.collect()
    }

    #[test]
    fn products_equal_their_definition_whatever_the_shape_and_the_team() {
        let teams = [Team::alone(), Team::of(3)];
        for (case, (rows, inner, columns)) in
            [(1, 1, 1), (5, 7, 15), (6, 16, 16), (7, 33, 17), (8, 64, 50), (13, 40, 48), (3, 330, 20), (400, 9, 35)].into_iter().enumerate()
        {
            let (x, there) = (numbers(case as u64, rows * (inner + 3)), numbers(8, rows * (columns + 2)));
            let map = Map { weights: numbers(99, columns * inner), bias: numbers(7, columns), inner, columns };
            for (element, how) in ELEMENTS
                .into_iter()
                .flat_map(|element| [Into::Place(Act::Identity), Into::Place(Act::Gelu), Into::Sum, Into::Gate(Act::Silu)].map(|how| (element, how)))
            {
                for cpu in cpus() {
                    let kernel = Kernel::of(cpu.level(), element);
                    let mut want = there.clone();
                    for r in 0..rows {
                        for (c, y) in naive(kernel, element, &x[r * (inner + 3)..][..inner], &map).into_iter().enumerate() {
                            let place = &mut want[r * (columns + 2) + c];
                            // SAFETY: the scalar level needs nothing, and `place` is good for its one number.
                            *place = unsafe { combine::<crate::simd::Scalar>(activated(y as f32, how), place, how) };
                        }
                    }
                    let [got, twin] = teams.each_ref().map(|team| run(cpu, element, team, Rows::new(&x, rows, inner, inner + 3), &map, &there, how));
                    near(&got, &want, 2e-5, &format!("{element:?} {rows} x {inner} x {columns} {how:?} {:?}", cpu.level()));
                    assert!(got == twin, "the team changes the numbers");
                }
            }
        }
    }

    #[test]
    fn int8_is_the_same_at_levels_of_the_same_whole_numbers_to_the_bit() {
        for (case, (rows, inner, columns)) in [(1, 1, 1), (9, 7, 33), (17, 130, 49), (6, 1536, 50)].into_iter().enumerate() {
            let x = numbers(case as u64, rows * inner);
            let map = Map { weights: numbers(99, columns * inner), bias: numbers(7, columns), inner, columns };
            let there = vec![0.; rows * (columns + 2)];
            let run = |cpu: &Cpu| run(*cpu, Element::Int8, &Team::alone(), Rows::dense(&x, rows, inner), &map, &there, Into::Place(Act::Identity));
            for whole in [Whole::TWOS, Whole::BYTES] {
                let alike = |cpu: &Cpu| Kernel::of(cpu.level(), Element::Int8).whole == Some(whole);
                let all: Vec<Vec<f32>> = cpus().iter().filter(|cpu| alike(cpu)).map(run).collect();
                assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{rows} x {inner} x {columns} {whole:?}");
            }
        }
    }

    #[test]
    fn the_largest_sums_of_int8_are_exact() {
        for cpu in cpus() {
            let kernel = Kernel::of(cpu.level(), Element::Int8);
            let whole = kernel.whole.unwrap();
            let zero = f32::from(whole.zero);
            // The first number of a block is spread to all of them, which are the largest whole numbers then.
            let spread = Spread::of(whole.span + 3);
            let mut x = vec![0.; whole.span + 3];
            for first in (0..x.len()).step_by(BLOCK) {
                x[first] = 1.;
                x[first] = zero * spread.weights(&x)[first].signum();
            }
            let most = whole.two.map_or(127f32, |two| (two / 2.).floor());
            let (groups, spans) = (kernel.groups(x.len()), kernel.spans(x.len()));
            let (mut words, weights) = (vec![0u32; groups], vec![-most as i8 as u8; groups * kernel.group * kernel.panel]);
            let (zeros, ones, mut y) = (vec![0.; kernel.panel], vec![1.; spans * kernel.panel], vec![0.; kernel.panel]);
            let starts = [whole.span, BLOCK].map(|width| vec![width as i32 * (most * zero) as i32; kernel.panel]).concat();
            let columns = Columns { bias: zeros.as_ptr(), step: ones.as_ptr(), start: starts.as_ptr() };
            let mut steps = vec![0.; spans];
            // SAFETY: the operand is one row of the groups that a panel of as many columns as all the rest has.
            unsafe {
                (kernel.numbers)(x.as_ptr(), x.len(), words.as_mut_ptr().cast(), &spread, steps.as_mut_ptr());
                let lines = Lines { words: words.as_ptr(), stride: groups, count: 1, steps: steps.as_ptr(), spans };
                (kernel.multiply)(lines, Panel { weights: weights.as_ptr(), columns, groups, ahead: Ahead::NONE }, y.as_mut_ptr(), kernel.panel);
            }
            assert_eq!(steps, [1., 1.], "{:?}", cpu.level());
            assert!(y.iter().all(|y| *y == -most * zero * (whole.span + BLOCK) as f32), "{:?}: {y:?}", cpu.level());
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_around_it() {
        let x = numbers(1, 21 * 24);
        let map = Map { weights: numbers(2, 50 * 24), bias: vec![0.; 50], inner: 24, columns: 50 };
        for (cpu, element) in cpus().into_iter().flat_map(|cpu| ELEMENTS.map(|element| (cpu, element))) {
            let run = |x: &[f32], rows: usize| {
                run(cpu, element, &Team::alone(), Rows::dense(x, rows, 24), &map, &vec![0.; rows * 52], Into::Place(Act::Identity))
            };
            let alone: Vec<f32> = (0..21).flat_map(|row| run(&x[row * 24..][..24], 1)).collect();
            for rows in 1..=21 {
                assert_eq!(run(&x[..rows * 24], rows), alone[..rows * 52], "{rows} rows: {cpu:?} {element:?}");
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_none_in_int8() {
        let map = Map { weights: numbers(2, 3 * 20), bias: vec![0.; 3], inner: 20, columns: 3 };
        for (cpu, at, wrong) in cpus().into_iter().flat_map(|cpu| [(cpu, 2, f32::NAN), (cpu, 19, f32::NAN), (cpu, 5, f32::INFINITY)]) {
            let mut x = numbers(1, 40);
            x[at] = wrong;
            let got = run(cpu, Element::Int8, &Team::alone(), Rows::dense(&x, 2, 20), &map, &[0.; 10], Into::Place(Act::Identity));
            assert!(got[..3].iter().all(|y| !y.is_finite()) && got[5..8].iter().all(|y| y.is_finite()));
        }
    }

    #[test]
    fn weights_stored_input_first_pack_the_same() {
        let (w, x) = (numbers(3, 5 * 18), numbers(4, 2 * 5));
        let turned: Vec<f32> = (0..5).flat_map(|k| w.iter().skip(k).step_by(5).copied()).collect();
        for (cpu, element) in cpus().into_iter().flat_map(|cpu| ELEMENTS.map(|element| (cpu, element))) {
            let run = |weights: &Packed| {
                let (mut out, mut turned, team) = (vec![0.; 2 * 18], Turned::default(), Team::alone());
                product(&team, turned.operand(&team, Rows::dense(&x, 2, 5), weights), weights, &mut out, 18, Into::Place(Act::Identity));
                out
            };
            assert_eq!(run(&Packed::new(cpu, element, &w, 5, &[])), run(&Packed::transposed(cpu, element, &turned, 18)));
        }
    }
}
