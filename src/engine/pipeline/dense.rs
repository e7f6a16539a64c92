//! sentence-transformers' Dense: a linear map over the pooled vector, an activation, and perhaps the input added back.

use super::Rows;
use crate::encoders::json::Json;
use crate::exec::Place;
use crate::exec::tensor::{LinearOp, activate};
use crate::network::{Activation, Linear, LoadError, Weight, WeightTable};
use candle_core::{Device, Result, Tensor};
use std::path::Path;

/// A Dense module. Few rows pass here, so it computes in f32 wherever the encoder is.
pub struct Dense {
    linear: LinearOp,
    activation: Activation,
    residual: Residual,
    out_features: usize,
}

enum Residual {
    None,
    /// The input itself.
    Input,
    /// The input through a linear map without bias, where the sizes differ.
    Projected(LinearOp),
}

impl Dense {
    /// Reads the module for rows of `dim` numbers.
    ///
    /// # Errors
    /// Sizes that do not fit, an activation or field that is not understood, tensors missing or left over.
    pub fn read(dir: &Path, dim: usize, weights: &WeightTable) -> std::result::Result<Self, LoadError> {
        let json = Json::require(&dir.join("config.json"))?;
        json.only(&["in_features", "out_features", "bias", "activation_function", "module_input_name", "module_output_name", "use_residual"])?;
        only_sentence_embedding(&json)?;
        let size = |field| json.usize(field)?.filter(|size| *size > 0).ok_or_else(|| json.refuse(field, "must be there and at least 1"));
        let (in_features, out_features) = (size("in_features")?, size("out_features")?);
        if in_features != dim {
            return Err(json.refuse("in_features", format!("is {in_features}, but the vectors that arrive have {dim} numbers")));
        }
        let place = Place::reference();
        let mut expected = vec!["linear.weight"];
        let bias = if json.bool("bias")?.unwrap_or(true) {
            expected.push("linear.bias");
            Some(weights.get("linear.bias", &[out_features])?)
        } else {
            None
        };
        let residual = match json.bool("use_residual")?.unwrap_or(false) {
            false => Residual::None,
            true if in_features == out_features => Residual::Input,
            true => {
                expected.push("residual.weight");
                let weight = weights.get("residual.weight", &[out_features, in_features])?;
                Residual::Projected(LinearOp::new(&Linear::new(weight, None), &place)?)
            }
        };
        let linear = Linear::new(weights.get("linear.weight", &[out_features, in_features])?, bias);
        only_tensors(weights, &expected)?;
        Ok(Self { linear: LinearOp::new(&linear, &place)?, activation: activation(&json)?, residual, out_features })
    }

    /// A map `[out, in]` and nothing more.
    ///
    /// # Errors
    /// Weights that are not finite.
    pub fn map(weight: &Weight) -> std::result::Result<Self, LoadError> {
        let linear = LinearOp::new(&Linear::new(weight.clone(), None), &Place::reference())?;
        Ok(Self { linear, activation: Activation::Identity, residual: Residual::None, out_features: weight.shape()[0] })
    }

    /// Size of the rows that leave.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// The same module elsewhere.
    pub(super) fn moved(&self, place: &Place) -> Result<Self> {
        let residual = match &self.residual {
            Residual::None => Residual::None,
            Residual::Input => Residual::Input,
            Residual::Projected(map) => Residual::Projected(map.moved(place)?),
        };
        Ok(Self { linear: self.linear.moved(place)?, activation: self.activation, residual, out_features: self.out_features })
    }

    /// `activation(W x + b)` of each row, and the residual.
    pub(super) fn forward(&self, rows: Rows) -> Result<Rows> {
        let count = rows.data.len() / rows.dim.max(1);
        let y = self.forward_on_device(&Tensor::from_vec(rows.data, (count, rows.dim), &Device::Cpu)?)?;
        Ok(Rows { data: y.flatten_all()?.to_vec1()?, dim: self.out_features })
    }

    /// The same of `[B, dim]` where the module lies.
    pub(super) fn forward_on_device(&self, x: &Tensor) -> Result<Tensor> {
        let y = activate(&self.linear.forward(x)?, self.activation)?;
        match &self.residual {
            Residual::None => Ok(y),
            Residual::Input => y + x,
            Residual::Projected(map) => y + map.forward(x)?,
        }
    }
}

/// The activation by the path of its torch class; absent means Tanh, as in the reference.
fn activation(json: &Json) -> std::result::Result<Activation, LoadError> {
    const FIELD: &str = "activation_function";
    let class = json.str(FIELD)?.unwrap_or("torch.nn.modules.activation.Tanh");
    let name = ["torch.nn.modules.activation.", "torch.nn.modules.linear.", "torch.nn."].iter().find_map(|package| class.strip_prefix(package));
    match name {
        Some("Tanh") => Ok(Activation::Tanh),
        Some("Identity") => Ok(Activation::Identity),
        Some("GELU") => Ok(Activation::Gelu),
        Some("ReLU") => Ok(Activation::Relu),
        Some("SiLU") => Ok(Activation::Silu),
        Some("Sigmoid") => Ok(Activation::Sigmoid),
        _ => Err(json.refuse(FIELD, format!("`{class}` is not computed; known: torch.nn's Tanh, Identity, GELU, ReLU, SiLU, Sigmoid"))),
    }
}

/// Refuses a module that reads or writes anything but the pooled vector.
pub(super) fn only_sentence_embedding(json: &Json) -> std::result::Result<(), LoadError> {
    for field in ["module_input_name", "module_output_name"] {
        if let Some(name) = json.str(field)?.filter(|name| *name != "sentence_embedding") {
            return Err(json.refuse(field, format!("`{name}` is not served, only `sentence_embedding`")));
        }
    }
    Ok(())
}

/// Refuses tensors that the module has no place for, as the reference does.
pub(super) fn only_tensors(weights: &WeightTable, expected: &[&str]) -> std::result::Result<(), LoadError> {
    match weights.names().find(|name| !expected.contains(name)) {
        Some(name) => Err(LoadError::tensor(weights.label(), name, "has no place in this module")),
        None => Ok(()),
    }
}
