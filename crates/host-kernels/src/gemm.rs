//! Matrix products `x W^T + b` with what follows them: an activation, a product or a sum with what is already there.

use super::dot::{Columns, Dot, Element, Factor, TILE_MOST, VECTORS_MOST};
pub use super::operand::{Operand, Rows};
use super::pack::Packed;
use super::pool::Team;
use super::simd::{LANES_MOST, Simd};
use super::{Act, at_level, math};

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
/// If `out` is too short, or `x` is not in the form that the weights are packed for.
pub fn product(team: &Team, x: Operand, weights: &Packed, out: &mut [f32], stride: usize, how: Into) {
    let columns = weights.columns();
    assert!(columns <= stride && (x.count == 0 || (x.count - 1) * stride + columns <= out.len()), "a product of {columns} columns does not fit");
    assert!((x.element, x.inner, x.group) == (weights.element(), weights.inner(), weights.group()), "an operand of another form than the weights");
    let target = Target { data: out.as_mut_ptr(), stride, how };
    let panels = weights.count();
    let parts = team.threads().min(panels).max(1);
    team.each(parts, &|part| {
        let range = panels * part / parts..panels * (part + 1) / parts;
        for start in (0..x.count).step_by(BLOCK) {
            let rows = start..(start + BLOCK).min(x.count);
            for panel in range.clone() {
                // SAFETY: the asserts above say that every row has its inner numbers and its columns; `panel` is this part's alone.
                unsafe { self::panel(x, rows.clone(), weights, panel, target) }
            }
        }
    });
}

/// One panel over some rows.
///
/// # Safety
/// The rows of `x` are in the weights' form, those of the target reach the panel's columns, and nobody else writes these.
unsafe fn panel(x: Operand, rows: std::ops::Range<usize>, weights: &Packed, index: usize, target: Target) {
    let first = index * weights.width();
    let width = (weights.columns() - first).min(weights.width());
    let panel = Panel { weights: weights.panel(index).as_ptr(), columns: weights.columns_of(index), groups: weights.groups(), width };
    let (from, element, cpu) = (rows.start, weights.element(), weights.cpu());
    // SAFETY: inside the buffers, as the caller promises.
    let (words, out) = unsafe { (x.words.add(from * x.stride), target.data.add(from * target.stride + first)) };
    let factors = x.factors.get(from..).map_or(std::ptr::null(), <[Factor]>::as_ptr);
    let lines = Lines { words, stride: x.stride, count: rows.len(), factors };
    let target = Target { data: out, ..target };
    at_level!(cpu, element_at(element: Element, lines: Lines, panel: Panel, target: Target));
}

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
    /// # Safety
    /// There are more than `count` rows.
    #[inline(always)]
    unsafe fn skip(self, count: usize) -> Self {
        // SAFETY: the caller's; without factors the pointer is never followed.
        unsafe { Self { words: self.words.add(count * self.stride), factors: self.factors.wrapping_add(count), count: self.count - count, ..self } }
    }
}

/// A panel and the columns of it that are not filling.
#[derive(Clone, Copy)]
pub(super) struct Panel {
    pub(super) weights: *const u8,
    pub(super) columns: Columns,
    pub(super) groups: usize,
    pub(super) width: usize,
}

/// # Safety
/// As `panel`, and the processor has the level.
#[inline(always)]
unsafe fn element_at<S: Simd>(element: Element, x: Lines, panel: Panel, target: Target) {
    // SAFETY: the caller's.
    unsafe {
        match element {
            Element::F32 => panel_at::<S::F32>(x, panel, target),
            Element::Bf16 => panel_at::<S::Bf16>(x, panel, target),
            Element::Int8 => panel_at::<S::Int8>(x, panel, target),
        }
    }
}

/// Rows times one panel.
///
/// # Safety
/// As `panel`, and the processor has the level.
#[inline(always)]
pub(super) unsafe fn panel_at<D: Dot>(x: Lines, panel: Panel, target: Target) {
    let width = D::SHAPE.panel;
    let mut y = [0f32; TILE_MOST * VECTORS_MOST * LANES_MOST];
    for start in (0..x.count).step_by(D::TILE) {
        // SAFETY: rows `start..start + TILE` or fewer are there; `y` has room for a tile.
        unsafe {
            let tile = Lines { count: (x.count - start).min(D::TILE), ..x.skip(start) };
            let out = target.data.add(start * target.stride);
            if target.how == Into::Place(Act::Identity) && panel.width == width {
                D::tile(tile, panel, out, target.stride);
                continue;
            }
            D::tile(tile, panel, y.as_mut_ptr(), width);
            for (row, column) in (0..tile.count).flat_map(|row| (0..panel.width).step_by(D::S::LANES).map(move |column| (row, column))) {
                let y = D::S::load(y.as_ptr().add(row * width + column));
                finish::<D::S>(y, out.add(row * target.stride + column), panel.width - column, target.how);
            }
        }
    }
}

/// `M` rows times one panel of `N` vectors: every sum stays in a register from the first to the last inner number. Rows of `y` are `stride` apart.
///
/// # Safety
/// As `panel_at`, for `M` rows; `y` is good for them.
#[inline(always)]
pub(super) unsafe fn tile<D: Dot, const M: usize, const N: usize>(x: Lines, panel: Panel, y: *mut f32, stride: usize) {
    let lanes = D::S::LANES;
    let vector = lanes * D::GROUP * D::WEIGHT;
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[D::zero(); N]; M];
        let mut weights = panel.weights;
        for k in 0..panel.groups {
            let mut b = [D::load(weights); N];
            for (n, b) in b.iter_mut().enumerate().skip(1) {
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
                D::S::store(y.add(m * stride + column), D::settle(*sum, panel.columns.skip(column), x.factors.wrapping_add(m)));
            }
        }
    }
}

/// Puts one vector at its place, of which `width` numbers are there.
///
/// # Safety
/// `out` is good for `min(width, LANES)` numbers.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd>(y: S::V, out: *mut f32, width: usize, how: Into) {
    // SAFETY: the caller's; what does not fit goes by way of a whole vector on the stack.
    unsafe {
        if width >= S::LANES {
            S::store(out, combine::<S>(y, out, how));
        } else if width > 0 {
            let mut whole = [0f32; LANES_MOST];
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
    use crate::operand::Turned;
    use crate::testing::{cpus, near, numbers};
    use crate::{Cpu, quant};

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
    fn naive(element: Element, x: &[f32], map: &Map) -> Vec<f64> {
        let round = |row: &[f32]| -> Vec<f64> { row.iter().map(|x| f64::from(f32::from_bits(u32::from(crate::dot::to_bf16(*x)) << 16))).collect() };
        let spread = crate::spread::Spread::of(map.inner);
        let exact = |row: &[f32]| -> Vec<f64> { row.iter().copied().map(f64::from).collect() };
        let operand: Vec<f64> = match element {
            Element::F32 => exact(x),
            Element::Bf16 => round(x),
            Element::Int8 => {
                let x = spread.weights(x);
                let (least, most) = x.iter().fold((f32::MAX, f32::MIN), |(least, most), x| (least.min(*x), most.max(*x)));
                let step = f64::from(most - least) / 255.;
                x.iter().map(|x| if step > 0. { (f64::from(x - least) / step).round_ties_even() * step } else { 0. } + f64::from(least)).collect()
            }
        };
        let columns = map.weights.chunks(map.inner).zip(&map.bias);
        let sums = columns.map(|(row, bias)| {
            let weights = match element {
                Element::F32 => exact(row),
                Element::Bf16 => round(row),
                Element::Int8 => {
                    let row = spread.weights(row);
                    let step = quant::column_step(&row);
                    row.iter().map(|weight| f64::from(quant::weight(*weight, step)) * f64::from(step)).collect()
                }
            };
            operand.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>() * if element == Element::Int8 { spread.block() as f64 } else { 1. }
                + f64::from(*bias)
        });
        sums.collect()
    }

    #[test]
    fn products_equal_their_definition_whatever_the_shape_and_the_team() {
        let teams = [Team::alone(), Team::of(3)];
        for (case, (rows, inner, columns)) in
            [(1, 1, 1), (5, 7, 15), (6, 16, 16), (7, 33, 17), (8, 64, 50), (13, 40, 48), (400, 9, 35)].into_iter().enumerate()
        {
            let (x, there) = (numbers(case as u64, rows * (inner + 3)), numbers(8, rows * (columns + 2)));
            let map = Map { weights: numbers(99, columns * inner), bias: numbers(7, columns), inner, columns };
            for (element, how) in ELEMENTS
                .into_iter()
                .flat_map(|element| [Into::Place(Act::Identity), Into::Place(Act::Gelu), Into::Sum, Into::Gate(Act::Silu)].map(|how| (element, how)))
            {
                let mut want = there.clone();
                for r in 0..rows {
                    for (c, y) in naive(element, &x[r * (inner + 3)..][..inner], &map).into_iter().enumerate() {
                        let place = &mut want[r * (columns + 2) + c];
                        // SAFETY: the scalar level needs nothing, and `place` is good for its one number.
                        *place = unsafe { combine::<crate::simd::Scalar>(y as f32, place, how) };
                    }
                }
                for cpu in cpus() {
                    let [got, twin] = teams.each_ref().map(|team| run(cpu, element, team, Rows::new(&x, rows, inner, inner + 3), &map, &there, how));
                    near(&got, &want, 2e-5, &format!("{element:?} {rows} x {inner} x {columns} {how:?} {:?}", cpu.level()));
                    assert!(got == twin, "the team changes the numbers");
                }
            }
        }
    }

    #[test]
    fn int8_is_the_same_at_every_level_to_the_bit() {
        for (case, (rows, inner, columns)) in [(1, 1, 1), (9, 7, 33), (17, 130, 49), (6, 1536, 50)].into_iter().enumerate() {
            let x = numbers(case as u64, rows * inner);
            let map = Map { weights: numbers(99, columns * inner), bias: numbers(7, columns), inner, columns };
            let there = vec![0.; rows * (columns + 2)];
            let all: Vec<Vec<f32>> = cpus()
                .into_iter()
                .map(|cpu| run(cpu, Element::Int8, &Team::alone(), Rows::dense(&x, rows, inner), &map, &there, Into::Place(Act::Identity)))
                .collect();
            assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{rows} x {inner} x {columns}");
        }
    }

    #[test]
    fn the_largest_sums_of_int8_are_exact() {
        // Two products of 255 and -127 are beyond 16 bits; 500 are exact in f32.
        const INNER: usize = 500;
        #[inline(always)]
        unsafe fn run<S: Simd>(y: &mut f32) {
            // SAFETY: the caller's; the operand is a row of INNER numbers, the panel INNER rows of weights, all rounded up, with factors for each column.
            unsafe {
                let (groups, width) = (INNER.div_ceil(S::Int8::GROUP), S::Int8::SHAPE.panel);
                let mut words = vec![0u32; groups + LANES_MOST];
                (0..INNER).for_each(|k| S::Int8::store(words.as_mut_ptr().cast::<u8>().add(k * 4 / S::Int8::GROUP), S::splat(255.)));
                let weights = vec![-127i8 as u8; groups * S::Int8::GROUP * width];
                let (zeros, ones, factor) = (vec![0f32; width], vec![1f32; width], Factor { step: 1., least: 0. });
                let columns = Columns { bias: zeros.as_ptr(), step: ones.as_ptr(), sum: zeros.as_ptr() };
                let x = Lines { words: words.as_ptr(), stride: groups, count: 1, factors: &raw const factor };
                let panel = Panel { weights: weights.as_ptr(), columns, groups, width: 1 };
                panel_at::<S::Int8>(x, panel, Target { data: y, stride: 1, how: Into::Place(Act::Identity) });
            }
        }
        for cpu in cpus() {
            let mut sum = 0f32;
            let y = &mut sum;
            // SAFETY: `y` is good for the one column.
            at_level!(cpu, run(y: &mut f32));
            assert_eq!(sum, -255. * 127. * INNER as f32, "{:?}", cpu.level());
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
            let all = run(&x, 21);
            for row in 0..21 {
                assert_eq!(run(&x[row * 24..][..24], 1), all[row * 52..][..52]);
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
