//! Stages that scale the pooled vector: sentence-transformers' LayerNorm and Normalize.

use super::Rows;
use super::dense::{only_sentence_embedding, only_tensors};
use crate::encoders::json::Json;
use crate::exec::Place;
use crate::exec::tensor::NormOp;
use crate::network::{LoadError, Norm, NormKind, WeightTable};
use candle_core::{Device, Result, Tensor};
use std::path::Path;

/// torch's default for `nn.LayerNorm`, which the module does not change.
const LAYER_NORM_EPS: f64 = 1e-5;

/// torch's `F.normalize` divides by at least this, so that a zero vector stays zero.
const NORMALIZE_EPS: f64 = 1e-12;

/// A LayerNorm module over the pooled vector.
pub struct LayerNorm {
    op: NormOp,
}

impl LayerNorm {
    /// Reads the module for rows of `dim` numbers.
    ///
    /// # Errors
    /// A size that does not fit, a field that is not understood, tensors missing or left over.
    pub fn read(dir: &Path, dim: usize, weights: &WeightTable) -> std::result::Result<Self, LoadError> {
        let json = Json::require(&dir.join("config.json"))?;
        json.only(&["dimension"])?;
        match json.usize("dimension")? {
            Some(size) if size == dim => {}
            size => return Err(json.refuse("dimension", format!("is {size:?}, but the vectors that arrive have {dim} numbers"))),
        }
        only_tensors(weights, &["norm.weight", "norm.bias"])?;
        let (weight, bias) = (weights.get("norm.weight", &[dim])?, weights.get("norm.bias", &[dim])?);
        let norm = Norm { kind: NormKind::Layer, weight, bias: Some(bias), eps: LAYER_NORM_EPS };
        Ok(Self { op: NormOp::new(&norm, &Place::reference())? })
    }

    /// The same module elsewhere.
    pub(super) fn moved(&self, place: &Place) -> Result<Self> {
        Ok(Self { op: self.op.moved(place)? })
    }

    /// Of `[B, dim]` where the module lies.
    pub(super) fn forward_on_device(&self, x: &Tensor) -> Result<Tensor> {
        self.op.forward(x)
    }

    pub(super) fn forward(&self, rows: Rows) -> Result<Rows> {
        let count = rows.data.len() / rows.dim.max(1);
        let x = Tensor::from_vec(rows.data, (count, rows.dim), &Device::Cpu)?;
        Ok(Rows { data: self.op.forward(&x)?.flatten_all()?.to_vec1()?, dim: rows.dim })
    }
}

/// Checks a Normalize module's configuration, which files before 6.0 do not have.
pub(super) fn read_normalize(dir: &Path) -> std::result::Result<(), LoadError> {
    let Some(json) = Json::read(&dir.join("config.json"))? else { return Ok(()) };
    json.only(&["module_input_name", "module_output_name"])?;
    only_sentence_embedding(&json)
}

/// Each row over its Euclidean length.
pub(super) fn normalize(mut rows: Rows) -> Rows {
    for row in rows.data.chunks_exact_mut(rows.dim.max(1)) {
        let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(NORMALIZE_EPS);
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_stays_zero_and_the_rest_gets_unit_length() {
        let rows = normalize(Rows { data: vec![0., 0., 3., 4.], dim: 2 });
        assert_eq!(rows.data, [0., 0., 0.6, 0.8]);
    }
}
