//! ModernBERT (Warner et al. 2024): transformers' `ModernBertModel`, pre-norm, gated, with local attention in most layers.

use super::json::{Json, short};
use super::parts::{Names, activation, eps, heads, layers, size};
use super::rope::{self, Turn};
use crate::network::{
    Activation, Attention, Embeddings, Layer, LoadError, Mask, Mlp, Network, Norm, NormKind, Norms, PositionBias, Rope, TokenTable, WeightTable,
};
use std::sync::Arc;

/// Describes the network. What config.json leaves out has the defaults of transformers' `ModernBertConfig`.
///
/// `position_embedding_type`, which old configs have, means nothing to the reference; `tie_word_embeddings` and the keys of classifiers and of the
/// masked-token head concern parts that are not served.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    let width = size(config, "hidden_size", 768)?;
    let heads = heads(config, "num_attention_heads", 12, width)?;
    let max_tokens = size(config, "max_position_embeddings", 8192)?;
    let page = Page {
        names: Names::of(weights, &["model."], "embeddings.tok_embeddings.weight"),
        width,
        heads,
        inner: size(config, "intermediate_size", 1152)?,
        eps: eps(config, "norm_eps", 1e-5)?,
        act: activation(config, "hidden_activation", "gelu")?,
        norm_bias: config.bool("norm_bias")?.unwrap_or(false),
        attention_bias: config.bool("attention_bias")?.unwrap_or(false),
        mlp_bias: config.bool("mlp_bias")?.unwrap_or(false),
    };
    let turn = |theta| Turn { dim: width / heads, theta, max_tokens };
    let global = Kind { mask: Mask::ALL, rope: rotation(config, "full_attention", "global_rope_theta", &turn(160_000.))? };
    let local = Kind {
        mask: Mask { causal: false, reach: Some(reach(config)?) },
        rope: rotation(config, "sliding_attention", "local_rope_theta", &turn(10_000.))?,
    };
    let names = &page.names;
    let tokens = names.get("embeddings.tok_embeddings.weight", &[size(config, "vocab_size", 50368)?, width])?;
    let embeddings = Embeddings {
        tokens: TokenTable::new(tokens),
        scale: 1.,
        positions: None,
        token_types: None,
        norm: Some(page.norm("embeddings.norm")?),
        projection: None,
    };
    let locals = local_layers(config)?;
    let layers = locals.iter().enumerate().map(|(index, is_local)| page.layer(index, if *is_local { &local } else { &global }).map(Arc::new));
    let layers = layers.collect::<Result<_, _>>()?;
    Ok(Network { width, max_tokens, embeddings, layers, norm: Some(page.norm("final_norm")?), adapters: 0 })
}

/// How far a local layer sees to each side: half of the window, `local_attention`; or that half itself, which is called `sliding_window`. A file that
/// has both must mean one.
fn reach(config: &Json) -> Result<usize, LoadError> {
    let half = size(config, "local_attention", 128)? / 2;
    match config.usize("sliding_window")? {
        None => Ok(half),
        Some(_) if config.get("local_attention").is_none() => size(config, "sliding_window", 1),
        Some(other) if other == half => Ok(half),
        Some(other) => Err(config.refuse("sliding_window", format!("is {other}, but half of `local_attention` is {half}"))),
    }
}

/// Whether each layer is local: by `layer_types`, else all but every `global_attn_every_n_layers`-th, counted from the first.
fn local_layers(config: &Json) -> Result<Vec<bool>, LoadError> {
    const FIELD: &str = "layer_types";
    let count = layers(config, "num_hidden_layers", 22)?;
    let Some(kinds) = config.list(FIELD)? else {
        let every = size(config, "global_attn_every_n_layers", 3)?;
        return Ok((0..count).map(|index| !index.is_multiple_of(every)).collect());
    };
    if kinds.len() != count {
        return Err(config.refuse(FIELD, format!("names {} layers, but num_hidden_layers is {count}", kinds.len())));
    }
    let local = |kind: &serde_json::Value| match kind.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(config.refuse(FIELD, format!("{} is not computed; known: full_attention, sliding_attention", short(kind)))),
    };
    kinds.iter().map(local).collect()
}

/// The rotation of one kind of layer: `rope_parameters.KIND`, or the theta of its own that older configs have.
fn rotation(config: &Json, kind: &str, old_theta: &str, turn: &Turn) -> Result<Arc<Rope>, LoadError> {
    let turn = Turn { theta: rope::theta(config, old_theta, turn.theta)?, ..*turn };
    rope::of_kind(config, kind, &turn)?.map_or_else(|| rope::read_beside(config, &turn), Ok).map(Arc::new)
}

/// What differs between global and local layers.
struct Kind {
    mask: Mask,
    rope: Arc<Rope>,
}

struct Page<'a> {
    names: Names<'a>,
    width: usize,
    heads: usize,
    inner: usize,
    eps: f64,
    act: Activation,
    norm_bias: bool,
    attention_bias: bool,
    mlp_bias: bool,
}

impl Page<'_> {
    fn norm(&self, name: &str) -> Result<Norm, LoadError> {
        if self.norm_bias { self.names.layer_norm(name, self.width, self.eps) } else { self.names.norm(NormKind::Layer, name, self.width, self.eps) }
    }

    fn layer(&self, index: usize, kind: &Kind) -> Result<Layer, LoadError> {
        let (p, names, width) = (format!("layers.{index}"), &self.names, self.width);
        let [query, key, value] = names.stacked(&format!("{p}.attn.Wqkv"), [width; 3], width, self.attention_bias)?;
        let head_dim = width / self.heads;
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim,
            query,
            key,
            value,
            output: names.linear(&format!("{p}.attn.Wo"), width, width, self.attention_bias)?,
            qk_norm: None,
            scale: (head_dim as f64).sqrt().recip(),
            mask: kind.mask,
            rope: Some(kind.rope.clone()),
            bias: PositionBias::None,
        };
        let [gate, up] = names.stacked(&format!("{p}.mlp.Wi"), [self.inner; 2], width, self.mlp_bias)?;
        let down = names.linear(&format!("{p}.mlp.Wo"), width, self.inner, self.mlp_bias)?;
        // The embeddings' norm stands right before the first layer, which has none of its own.
        let before = if index == 0 { None } else { Some(self.norm(&format!("{p}.attn_norm"))?) };
        Ok(Layer {
            attention,
            attention_norms: Norms { before, ..Norms::default() },
            mlp: Mlp::Gated { gate, up, activation: self.act, down },
            mlp_norms: Norms::before(self.norm(&format!("{p}.mlp_norm"))?),
            convolution: None,
        })
    }
}
