//! From hidden states to one vector per text on the device (`pool.cu`), so that only those are copied back.

use super::launch::{Arg, Call, Module, blank, int, suffix};
use candle_core::{DType, Result, Tensor};

const THREADS: usize = 128;
/// torch's `F.normalize` divides by at least this, so that a zero vector stays zero.
const LEAST_LENGTH: f32 = 1e-12;

/// One row per text, `[B, modes C]` in f32, the modes side by side; `hidden: [T, C]`. `texts: [3 B]` holds of each its first row, its tokens and how
/// many of them belong to a prompt that is left out. A mode is its place in the pipeline's `Mode`: cls, max, mean, mean_sqrt_len, weightedmean,
/// lasttoken.
///
/// # Errors
/// A device that fails.
pub fn pool(hidden: &Tensor, texts: &Tensor, modes: &[i32]) -> Result<Tensor> {
    let (hidden, width, count) = (hidden.contiguous()?, hidden.dim(1)?, texts.elem_count() / 3);
    let out = blank((count, modes.len() * width), &hidden, DType::F32)?;
    for (index, mode) in modes.iter().enumerate() {
        let call = Call {
            module: Module::Pool,
            function: format!("pool_{}", suffix(hidden.dtype())?),
            blocks: [count, width.div_ceil(THREADS), 1],
            threads: THREADS,
            shared_bytes: 0,
            args: vec![Arg::Out(index * width), Arg::In(&hidden), Arg::In(texts), int(width)?, int(modes.len() * width)?, Arg::Int(*mode)],
        };
        call.write(&out)?;
    }
    Ok(out)
}

/// Scales each row of `x: [B, C]` in f32 to unit length in place; a row of zeros stays. Only for a tensor that nobody else holds.
///
/// # Errors
/// A device that fails.
pub fn unit_length(x: &Tensor) -> Result<()> {
    let (rows, width) = x.dims2()?;
    let call = Call {
        module: Module::Pool,
        function: "unit_length".to_owned(),
        blocks: [rows, 1, 1],
        threads: THREADS,
        shared_bytes: THREADS / 32 * 4,
        args: vec![Arg::Out(0), int(width)?, Arg::Float(LEAST_LENGTH)],
    };
    call.write(x)
}

#[cfg(all(test, feature = "device-emulation"))]
mod tests {
    use super::*;
    use candle_core::Device;

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
        let on_device = Tensor::new(texts.concat(), &Device::Cpu)?;
        for (dtype, allowed) in [(DType::F32, 1e-5), (DType::BF16, 1e-5), (DType::F16, 1e-5)] {
            let hidden = Tensor::randn(0f32, 1., (312, width), &Device::Cpu)?.to_dtype(dtype)?;
            let rows = hidden.to_dtype(DType::F32)?.to_vec2::<f32>()?;
            let got = pool(&hidden, &on_device, &modes)?.to_vec2::<f32>()?;
            for (text, got) in texts.iter().zip(got) {
                let [start, len, skip] = text.map(|number| number as usize);
                let want = modes.iter().flat_map(|mode| (0..width).map(move |column| (*mode as usize, column)));
                for (got, (mode, column)) in got.iter().zip(want) {
                    let want = naive(mode, &rows[start..start + len], skip.min(len), column);
                    assert!((got - want).abs() < allowed, "{dtype:?} mode {mode} of {text:?}: {got} instead of {want}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn rows_get_unit_length_and_zeros_stay() -> Result<()> {
        let x = Tensor::new(&[[0f32, 0., 0.], [3., 0., 4.], [1e-3, 2e-3, 2e-3]], &Device::Cpu)?;
        unit_length(&x)?;
        let want = [[0., 0., 0.], [0.6, 0., 0.8], [1. / 3., 2. / 3., 2. / 3.]];
        for (got, want) in x.to_vec2::<f32>()?.iter().flatten().zip(want.iter().flatten()) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        let wide = Tensor::randn(0f32, 1., (4, 300), &Device::Cpu)?;
        unit_length(&wide)?;
        for length in wide.sqr()?.sum(1)?.to_vec1::<f32>()? {
            assert!((length - 1.).abs() < 1e-5, "{length}");
        }
        Ok(())
    }
}
