//! What pages share: sizes and activations out of config.json, and maps and norms by their names in the checkpoint.

use super::json::Json;
use crate::network::{Activation, Linear, LoadError, Norm, NormKind, Weight, WeightTable};

/// The function that a `hidden_act` names (transformers, `activations.py`).
pub fn activation(config: &Json, field: &str, default: &str) -> Result<Activation, LoadError> {
    let name = config.str(field)?.unwrap_or(default);
    named_activation(name).ok_or_else(|| {
        config.refuse(field, format!("`{name}` is not an activation that is computed; known: gelu, gelu_new, relu, silu, tanh, sigmoid, linear"))
    })
}

/// The function of that name; `None` for a name that is not known.
pub fn named_activation(name: &str) -> Option<Activation> {
    match name {
        "gelu" | "gelu_python" => Some(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate" => Some(Activation::GeluTanh),
        "relu" => Some(Activation::Relu),
        "silu" | "swish" => Some(Activation::Silu),
        "tanh" => Some(Activation::Tanh),
        "sigmoid" => Some(Activation::Sigmoid),
        "linear" => Some(Activation::Identity),
        _ => None,
    }
}

/// No honest size is larger, and the product of two, three times over, can still be counted.
const MAX_SIZE: usize = 1 << 31;

/// Twenty times what the deepest encoders have.
const MAX_LAYERS: usize = 2048;

/// A size that must be there (or have a default) and be at least one.
pub fn size(config: &Json, field: &str, default: usize) -> Result<usize, LoadError> {
    match config.usize(field)?.unwrap_or(default) {
        0 => Err(config.refuse(field, "must be at least 1, but is 0")),
        size if size > MAX_SIZE => Err(config.refuse(field, format!("must be at most {MAX_SIZE}, but is {size}"))),
        size => Ok(size),
    }
}

/// The number of layers, which may be none.
pub fn layers(config: &Json, field: &str, default: usize) -> Result<usize, LoadError> {
    let layers = config.usize(field)?.unwrap_or(default);
    if layers <= MAX_LAYERS { Ok(layers) } else { Err(config.refuse(field, format!("must be at most {MAX_LAYERS}, but is {layers}"))) }
}

/// An epsilon of a norm.
pub fn eps(config: &Json, field: &str, default: f64) -> Result<f64, LoadError> {
    let eps = config.f64(field)?.unwrap_or(default);
    if (0.0..1.0).contains(&eps) { Ok(eps) } else { Err(config.refuse(field, format!("must be at least 0 and below 1, but is {eps}"))) }
}

/// The number of heads, which must divide the width.
pub fn heads(config: &Json, field: &str, default: usize, width: usize) -> Result<usize, LoadError> {
    let heads = size(config, field, default)?;
    if width.is_multiple_of(heads) { Ok(heads) } else { Err(config.refuse(field, format!("{heads} heads do not divide the width {width}"))) }
}

/// Refuses a switch that makes it another network than the page describes.
pub fn refuse_switch(config: &Json, field: &str, meaning: &str) -> Result<(), LoadError> {
    if config.bool(field)?.unwrap_or(false) { Err(config.refuse(field, meaning)) } else { Ok(()) }
}

/// Refuses a word other than `only` (which absence means).
pub fn only_word(config: &Json, field: &str, only: &str) -> Result<(), LoadError> {
    match config.str(field)?.filter(|word| *word != only) {
        Some(word) => Err(config.refuse(field, format!("`{word}` is not computed for this architecture, only `{only}`"))),
        None => Ok(()),
    }
}

/// Tensors by their names, behind the prefix that task models put before them (`bert.`, `model.`).
pub struct Names<'a> {
    weights: &'a WeightTable,
    prefix: &'a str,
}

impl<'a> Names<'a> {
    /// Finds which of the prefixes this checkpoint has, by a tensor that every one of its kind has; none of them: no prefix.
    pub fn of(weights: &'a WeightTable, prefixes: &[&'a str], probe: &str) -> Self {
        let prefix = prefixes.iter().find(|prefix| weights.has(&format!("{prefix}{probe}"))).unwrap_or(&"");
        Self { weights, prefix }
    }

    /// True if there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.weights.has(&format!("{}{name}", self.prefix))
    }

    /// The shape of the tensor of that name, where there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.weights.shape(&format!("{}{name}", self.prefix))
    }

    /// The tensor of that name and shape.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Weight, LoadError> {
        self.weights.get(&format!("{}{name}", self.prefix), shape)
    }

    /// `NAME.weight` `[out, into]` and, where the network has one, `NAME.bias`.
    pub fn linear(&self, name: &str, out: usize, into: usize, bias: bool) -> Result<Linear, LoadError> {
        let weight = self.get(&format!("{name}.weight"), &[out, into])?;
        Ok(Linear::new(weight, self.bias(name, out, bias)?))
    }

    /// Several maps of one input that are stored as one, `[sum of outs, into]`, in that order.
    pub fn stacked<const N: usize>(&self, name: &str, outs: [usize; N], into: usize, bias: bool) -> Result<[Linear; N], LoadError> {
        let total = outs.iter().sum();
        let (weight, bias) = (self.get(&format!("{name}.weight"), &[total, into])?, self.bias(name, total, bias)?);
        let mut maps = Vec::with_capacity(N);
        let mut start = 0;
        for out in outs {
            let rows = start..start + out;
            let bias = bias.as_ref().map(|bias| bias.rows(rows.clone())).transpose()?;
            maps.push(Linear::new(weight.rows(rows)?, bias));
            start += out;
        }
        maps.try_into().map_err(|_| weight.refuse("cannot be split"))
    }

    /// `NAME.bias`; a bias that the network does not have must not be there either.
    fn bias(&self, name: &str, out: usize, wanted: bool) -> Result<Option<Weight>, LoadError> {
        let name = format!("{name}.bias");
        match (wanted, self.has(&name)) {
            (true, _) => self.get(&name, &[out]).map(Some),
            (false, false) => Ok(None),
            (false, true) => Err(self.get(&name, &[out])?.refuse("is there, but config.json says that this map has no bias")),
        }
    }

    /// A LayerNorm; checkpoints converted from TensorFlow call its weight `gamma` and its bias `beta`.
    pub fn layer_norm(&self, name: &str, width: usize, eps: f64) -> Result<Norm, LoadError> {
        let [weight, bias] = if self.has(&format!("{name}.gamma")) { ["gamma", "beta"] } else { ["weight", "bias"] };
        let get = |part| self.get(&format!("{name}.{part}"), &[width]);
        Ok(Norm { kind: NormKind::Layer, weight: get(weight)?, bias: Some(get(bias)?), eps })
    }

    /// A norm that has a weight and no bias: an RMSNorm of either kind, or a LayerNorm without one.
    pub fn norm(&self, kind: NormKind, name: &str, width: usize, eps: f64) -> Result<Norm, LoadError> {
        Ok(Norm { kind, weight: self.get(&format!("{name}.weight"), &[width])?, bias: self.bias(name, width, false)?, eps })
    }
}
