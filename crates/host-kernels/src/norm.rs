//! Norms of rows: LayerNorm and RMSNorm.

use super::simd::Simd;
use super::{Cpu, at_level};

/// What a norm is made of. The bias and the subtraction of the mean are LayerNorm's.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[C]`.
    pub weight: Vec<f32>,
    /// `[C]`, zeros where there is none.
    pub bias: Vec<f32>,
    pub eps: f32,
    /// False for RMSNorm: the rows are scaled as they are.
    pub centred: bool,
}

/// Norms each row of `x`, `[rows, C]`, where it stands.
///
/// # Panics
/// If `x` is not whole rows.
pub fn norm(cpu: Cpu, x: &mut [f32], by: &Norm) {
    norm_strided(cpu, x, by.weight.len(), by);
}

/// The same for the first `C` numbers of rows that begin `stride` apart; the last row may end after its `C` numbers.
///
/// # Panics
/// If the norm's parts differ in size, or a row is cut off.
pub fn norm_strided(cpu: Cpu, x: &mut [f32], stride: usize, by: &Norm) {
    let width = by.weight.len();
    assert!(width > 0 && width == by.bias.len() && width <= stride);
    for row in x.chunks_mut(stride) {
        assert!(row.len() >= width, "a row of {} is normed over {width}", row.len());
        let row = row.as_mut_ptr();
        // SAFETY: row, weight and bias have `width` numbers each.
        at_level!(cpu, row_at(row: *mut f32, by: &Norm));
    }
}

/// # Safety
/// `row` is good for as many numbers as the norm has, and the processor has the level.
#[inline(always)]
unsafe fn row_at<S: Simd>(row: *mut f32, by: &Norm) {
    let width = by.weight.len();
    let whole = width / S::LANES * S::LANES;
    // SAFETY: the caller's; vectors are read up to `whole`, single numbers from there.
    unsafe {
        let mean = if by.centred { sum::<S>(row, width, |x| x, |x| x) / width as f32 } else { 0. };
        let means = S::splat(mean);
        let squares = sum::<S>(
            row,
            width,
            #[inline(always)]
            |x| {
                let d = S::sub(x, means);
                S::mul(d, d)
            },
            |x| (x - mean) * (x - mean),
        );
        let scale = (squares / width as f32 + by.eps).sqrt().recip();
        let scales = S::splat(scale);
        for at in (0..whole).step_by(S::LANES) {
            let x = S::mul(S::sub(S::load(row.add(at)), means), scales);
            S::store(row.add(at), S::fma(x, S::load(by.weight.as_ptr().add(at)), S::load(by.bias.as_ptr().add(at))));
        }
        for at in whole..width {
            *row.add(at) = ((*row.add(at) - mean) * scale).mul_add(by.weight[at], by.bias[at]);
        }
    }
}

/// The sum of a function of each number.
///
/// # Safety
/// As `row_at`.
#[inline(always)]
unsafe fn sum<S: Simd>(row: *const f32, width: usize, f: impl Fn(S::V) -> S::V, g: impl Fn(f32) -> f32) -> f32 {
    let whole = width / S::LANES * S::LANES;
    // SAFETY: the caller's.
    unsafe {
        let mut sums = S::splat(0.);
        for at in (0..whole).step_by(S::LANES) {
            sums = S::add(sums, f(S::load(row.add(at))));
        }
        (whole..width).fold(S::sum(sums), |sum, at| sum + g(*row.add(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cpus, near, numbers};

    #[test]
    fn norms_equal_their_definition() {
        for (width, centred) in [1, 7, 8, 33, 384].into_iter().flat_map(|width| [(width, true), (width, false)]) {
            let (x, weight, bias) = (numbers(1, 3 * width), numbers(2, width), numbers(3, width));
            let by = Norm { weight, bias, eps: 1e-5, centred };
            let mut want = x.clone();
            for row in want.chunks_mut(width) {
                let mean = if centred { row.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64 } else { 0. };
                let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / width as f64;
                for ((x, weight), bias) in row.iter_mut().zip(&by.weight).zip(&by.bias) {
                    *x = ((f64::from(*x) - mean) / (variance + f64::from(by.eps)).sqrt()) as f32 * weight + bias;
                }
            }
            for cpu in cpus() {
                let mut got = x.clone();
                norm(cpu, &mut got, &by);
                near(&got, &want, 2e-5, &format!("{width} {centred} {:?}", cpu.level()));
                let mut apart: Vec<f32> = x.chunks(width).flat_map(|row| [row, &[9., 9.]].concat()).collect();
                norm_strided(cpu, &mut apart, width + 2, &by);
                let rows: Vec<f32> = apart.chunks(width + 2).flat_map(|row| row[..width].to_vec()).collect();
                assert_eq!(rows, got);
                assert!(apart.chunks(width + 2).all(|row| row[width..] == [9., 9.]));
            }
        }
    }
}
