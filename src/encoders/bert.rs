//! BERT (Devlin et al. 2018): the network that transformers calls `BertModel`, without its pooler, which sentence-transformers does not use.

use super::json::Json;
use super::{activation, size};
use crate::network::{Attention, Embeddings, Layer, Linear, LoadError, Mlp, Network, Norm, Weight, WeightTable};

/// Describes the network. Sizes that config.json leaves out have the defaults of transformers' `BertConfig`.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    refuse_other_networks(config)?;
    let width = size(config, "hidden_size", 768)?;
    let heads = size(config, "num_attention_heads", 12)?;
    if !width.is_multiple_of(heads) {
        return Err(config.refuse("num_attention_heads", format!("{heads} heads do not divide `hidden_size` {width}")));
    }
    let inner = size(config, "intermediate_size", 3072)?;
    let eps = config.f64("layer_norm_eps")?.unwrap_or(1e-12);
    if !(0.0..1.0).contains(&eps) {
        return Err(config.refuse("layer_norm_eps", format!("must be at least 0 and below 1, but is {eps}")));
    }
    let page = Page { names: Names::of(weights), width, heads, inner, eps, act: activation(config, "hidden_act", "gelu")? };
    let embeddings = Embeddings {
        tokens: page.names.get("embeddings.word_embeddings.weight", &[size(config, "vocab_size", 30522)?, width])?,
        positions: page.names.get("embeddings.position_embeddings.weight", &[size(config, "max_position_embeddings", 512)?, width])?,
        token_types: page.names.get("embeddings.token_type_embeddings.weight", &[size(config, "type_vocab_size", 2)?, width])?,
        norm: page.norm("embeddings.LayerNorm")?,
    };
    let layers = config.usize("num_hidden_layers")?.unwrap_or(12);
    let layers = (0..layers).map(|index| page.layer(index)).collect::<Result<_, _>>()?;
    Ok(Network { width, embeddings, layers })
}

/// What a BERT config can say that makes it another network than the one described here.
fn refuse_other_networks(config: &Json) -> Result<(), LoadError> {
    let positions = config.str("position_embedding_type")?.unwrap_or("absolute");
    if positions != "absolute" {
        return Err(config.refuse("position_embedding_type", format!("`{positions}` positions are not computed for bert, only `absolute`")));
    }
    for (field, meaning) in [("is_decoder", "a causal decoder"), ("add_cross_attention", "cross attention")] {
        if config.bool(field)?.unwrap_or(false) {
            return Err(config.refuse(field, format!("{meaning} is not an embedding encoder")));
        }
    }
    if config.object("pruned_heads")?.is_some_and(|heads| !heads.is_empty()) {
        return Err(config.refuse("pruned_heads", "pruned heads are not read"));
    }
    Ok(())
}

struct Page<'a> {
    names: Names<'a>,
    width: usize,
    heads: usize,
    inner: usize,
    eps: f64,
    act: crate::network::Activation,
}

impl Page<'_> {
    fn layer(&self, index: usize) -> Result<Layer, LoadError> {
        let (p, width, inner) = (format!("encoder.layer.{index}"), self.width, self.inner);
        Ok(Layer {
            attention: Attention {
                heads: self.heads,
                query: self.linear(&format!("{p}.attention.self.query"), width, width)?,
                key: self.linear(&format!("{p}.attention.self.key"), width, width)?,
                value: self.linear(&format!("{p}.attention.self.value"), width, width)?,
                output: self.linear(&format!("{p}.attention.output.dense"), width, width)?,
            },
            attention_norm: self.norm(&format!("{p}.attention.output.LayerNorm"))?,
            mlp: Mlp {
                up: self.linear(&format!("{p}.intermediate.dense"), inner, width)?,
                activation: self.act,
                down: self.linear(&format!("{p}.output.dense"), width, inner)?,
            },
            mlp_norm: self.norm(&format!("{p}.output.LayerNorm"))?,
        })
    }

    fn linear(&self, name: &str, rows: usize, columns: usize) -> Result<Linear, LoadError> {
        let weight = self.names.get(&format!("{name}.weight"), &[rows, columns])?;
        let bias = self.names.get(&format!("{name}.bias"), &[rows])?;
        Ok(Linear { weight, bias: Some(bias) })
    }

    /// A LayerNorm; checkpoints converted from TensorFlow call its weight `gamma` and its bias `beta`.
    fn norm(&self, name: &str) -> Result<Norm, LoadError> {
        let [weight, bias] = if self.names.has(&format!("{name}.gamma")) { ["gamma", "beta"] } else { ["weight", "bias"] };
        let get = |part| self.names.get(&format!("{name}.{part}"), &[self.width]);
        Ok(Norm { weight: get(weight)?, bias: get(bias)?, eps: self.eps })
    }
}

/// Tensor names with or without the `bert.` that task models put before them.
struct Names<'a> {
    weights: &'a WeightTable,
    prefix: &'static str,
}

impl<'a> Names<'a> {
    fn of(weights: &'a WeightTable) -> Self {
        let prefix = if weights.has("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
        Self { weights, prefix }
    }

    fn has(&self, name: &str) -> bool {
        self.weights.has(&format!("{}{name}", self.prefix))
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<Weight, LoadError> {
        self.weights.get(&format!("{}{name}", self.prefix), shape)
    }
}
