//! Pooling and unit length.

use super::device::{random, there};
use super::near::{Allowed, DTYPES};
use candle_core::{DType, Device, Result, Tensor};
use vecmill::kernels::device::pool::{pool, unit_length};

/// Sums are in f32 whatever the numbers are.
const ALLOWED: Allowed = Allowed { f32: 1e-5, bf16: 1e-5, f16: 1e-5 };

/// One text's vector by definition; `skip` tokens are left out.
fn naive(mode: usize, rows: &[Vec<f32>], skip: usize, column: usize) -> f32 {
    let counted: Vec<f64> = rows.iter().skip(skip).map(|row| f64::from(row[column])).collect();
    let (count, sum) = (counted.len() as f64, counted.iter().sum::<f64>());
    let weighted = counted.iter().zip(skip + 1..).map(|(x, weight)| x * weight as f64).sum::<f64>();
    let weights = (skip + 1..=rows.len()).sum::<usize>() as f64;
    let value = match (mode, counted.as_slice()) {
        (0, []) => rows.first().map_or(0., |row| f64::from(row[column])),
        (_, []) => 0.,
        (0, all) => all[0],
        (1, all) => all.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        (2, _) => sum / count,
        (3, _) => sum / count.sqrt(),
        (4, _) => weighted / weights,
        (_, all) => all[all.len() - 1],
    };
    value as f32
}

#[test]
fn every_mode_pools_by_its_definition() -> Result<()> {
    let (width, modes) = (130, [0, 1, 2, 3, 4, 5]);
    // First row, tokens, tokens left out: none, some, all, more than there are, of an empty text; not in the order of the rows.
    let texts = [[4u32, 5, 0], [0, 4, 1], [9, 2, 2], [11, 1, 7], [12, 0, 0], [12, 300, 3]];
    let texts_there = there(&Tensor::new(texts.concat(), &Device::Cpu)?)?;
    for dtype in DTYPES {
        let hidden = random(1, &[312, width], dtype)?;
        let rows = hidden.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        let got = pool(&there(&hidden)?, &texts_there, &modes)?;
        for (index, text) in texts.iter().enumerate() {
            let [start, len, skip] = text.map(|number| number as usize);
            for mode in modes.map(|mode| mode as usize) {
                let want: Vec<f32> = (0..width).map(|column| naive(mode, &rows[start..start + len], skip.min(len), column)).collect();
                let got = got.get(index)?.narrow(0, mode * width, width)?;
                ALLOWED.check("pool", dtype, &got, &Tensor::new(want, &Device::Cpu)?, &format!("mode {mode} of {text:?}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn rows_get_unit_length_and_zeros_stay() -> Result<()> {
    let exact = Allowed { f32: 1e-6, ..ALLOWED };
    let x = there(&Tensor::new(&[[0f32, 0., 0.], [3., 0., 4.], [1e-3, 2e-3, 2e-3]], &Device::Cpu)?)?;
    unit_length(&x)?;
    let want = Tensor::new(&[[0f32, 0., 0.], [0.6, 0., 0.8], [1. / 3., 2. / 3., 2. / 3.]], &Device::Cpu)?;
    exact.check("unit_length", DType::F32, &x, &want, &"known rows")?;
    let wide = random(1, &[4, 300], DType::F32)?;
    let x = there(&wide)?;
    unit_length(&x)?;
    exact.check("unit_length", DType::F32, &x, &wide.broadcast_div(&wide.sqr()?.sum_keepdim(1)?.sqrt()?)?, &"random rows")
}
