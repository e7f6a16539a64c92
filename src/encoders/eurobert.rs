//! EuroBERT (Boizard et al. 2025, arXiv:2503.05500): the layers of Llama without its mask; transformers' `EuroBertModel`.

use super::json::Json;
use super::parts::{Names, activation, eps, heads, layers, size};
use super::rope::{self, Turn};
use crate::network::{
    Activation, Attention, Embeddings, Layer, LoadError, Mask, Mlp, Network, Norm, NormKind, Norms, PositionBias, Rope, TokenTable, WeightTable,
};
use std::sync::Arc;

/// Describes the network. What config.json leaves out has the defaults of transformers' `EuroBertConfig`.
///
/// `pretraining_tp` and `classifier_pooling` concern parts that are not served.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    let width = size(config, "hidden_size", 768)?;
    let heads = heads(config, "num_attention_heads", 12, width)?;
    let kv_heads = size(config, "num_key_value_heads", heads)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(config.refuse("num_key_value_heads", format!("{kv_heads} heads of keys do not divide {heads} heads of queries")));
    }
    let head_dim = size(config, "head_dim", width / heads)?;
    let max_tokens = size(config, "max_position_embeddings", 8192)?;
    let page = Page {
        names: Names::of(weights, &["model."], "embed_tokens.weight"),
        width,
        heads,
        kv_heads,
        head_dim,
        inner: size(config, "intermediate_size", 3072)?,
        eps: eps(config, "rms_norm_eps", 1e-5)?,
        act: activation(config, "hidden_act", "silu")?,
        attention_bias: config.bool("attention_bias")?.unwrap_or(false),
        mlp_bias: config.bool("mlp_bias")?.unwrap_or(false),
        rope: Arc::new(rope::read(config, &Turn { dim: head_dim, theta: 10_000., max_tokens })?),
    };
    let tokens = page.names.get("embed_tokens.weight", &[size(config, "vocab_size", 128_256)?, width])?;
    let tokens = TokenTable::new(tokens);
    let embeddings = Embeddings { tokens, scale: 1., positions: None, token_types: None, norm: None, projection: None };
    let count = layers(config, "num_hidden_layers", 12)?;
    let layers = (0..count).map(|index| page.layer(index).map(Arc::new)).collect::<Result<_, _>>()?;
    Ok(Network { width, max_tokens, embeddings, layers, norm: Some(page.norm("norm")?), adapters: 0 })
}

struct Page<'a> {
    names: Names<'a>,
    width: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    inner: usize,
    eps: f64,
    act: Activation,
    attention_bias: bool,
    mlp_bias: bool,
    rope: Arc<Rope>,
}

impl Page<'_> {
    fn norm(&self, name: &str) -> Result<Norm, LoadError> {
        self.names.norm(NormKind::Rms, name, self.width, self.eps)
    }

    fn layer(&self, index: usize) -> Result<Layer, LoadError> {
        let (p, names, width, inner) = (format!("layers.{index}"), &self.names, self.width, self.inner);
        let (own, shared) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let map = |name: &str, out: usize, into: usize| names.linear(&format!("{p}.self_attn.{name}"), out, into, self.attention_bias);
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            query: map("q_proj", own, width)?,
            key: map("k_proj", shared, width)?,
            value: map("v_proj", shared, width)?,
            output: map("o_proj", width, own)?,
            qk_norm: None,
            scale: (self.head_dim as f64).sqrt().recip(),
            mask: Mask::ALL,
            rope: Some(self.rope.clone()),
            bias: PositionBias::None,
        };
        let map = |name: &str, out: usize, into: usize| names.linear(&format!("{p}.mlp.{name}"), out, into, self.mlp_bias);
        let mlp = Mlp::Gated {
            gate: map("gate_proj", inner, width)?,
            up: map("up_proj", inner, width)?,
            activation: self.act,
            down: map("down_proj", width, inner)?,
        };
        let before = |name: &str| self.norm(&format!("{p}.{name}")).map(Norms::before);
        Ok(Layer { attention, attention_norms: before("input_layernorm")?, mlp, mlp_norms: before("post_attention_layernorm")?, convolution: None })
    }
}
