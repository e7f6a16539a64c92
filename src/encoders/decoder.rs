//! What decoders have in common when they are used as encoders: rotated queries and keys in groups, RMS norms before each part, a gated MLP,
//! and a mask that is causal unless the checkpoint says otherwise. Each architecture's page says only what it adds.

use super::json::{Json, short};
use super::parts::{Names, activation, eps, layers, size};
use super::rope::{self, Turn};
use crate::network::{
    Activation, Attention, Embeddings, Layer, LoadError, Mask, Mlp, Network, Norm, NormKind, Norms, Pairing, PositionBias, QkNorm, Rope, TokenTable,
    WeightTable,
};
use std::sync::Arc;

/// What a configuration means where it leaves a field out, as the configuration class in transformers has it.
pub struct Defaults {
    pub vocabulary: usize,
    pub width: usize,
    pub inner: usize,
    pub layers: usize,
    pub heads: usize,
    /// `None`: as many as there are query heads.
    pub kv_heads: Option<usize>,
    /// `None`: the width divided by the heads.
    pub head_dim: Option<usize>,
    pub max_tokens: usize,
    /// The field of the activation, and its default.
    pub activation: (&'static str, &'static str),
}

/// A decoder whose sizes are known. A page changes what its architecture has otherwise than Llama, then asks for the network.
pub struct Decoder<'a> {
    pub config: &'a Json,
    names: Names<'a>,
    pub width: usize,
    pub max_tokens: usize,
    pub layers: usize,
    vocabulary: usize,
    inner: usize,
    heads: usize,
    kv_heads: usize,
    pub head_dim: usize,
    eps: f64,
    activation: Activation,
    pub norm: NormKind,
    /// A second norm on what each part adds to the stream.
    pub sandwich: bool,
    pub qk_norm: bool,
    pub biases: Biases,
    /// On the embeddings.
    pub embedding_scale: f64,
    /// On the scores.
    pub score_scale: f64,
    pub pairing: Pairing,
}

/// Which maps have one.
#[derive(Default)]
pub struct Biases {
    pub qkv: bool,
    pub output: bool,
    pub mlp: bool,
}

/// What differs from layer to layer.
#[derive(Clone)]
pub struct Sight {
    pub mask: Mask,
    pub rope: Arc<Rope>,
}

/// Whether a layer has a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Full,
    Sliding,
}

impl<'a> Decoder<'a> {
    /// Reads the sizes, and refuses what no decoder here computes.
    pub fn read(config: &'a Json, weights: &'a WeightTable, defaults: &Defaults) -> Result<Self, LoadError> {
        refuse_other_networks(config)?;
        let width = size(config, "hidden_size", defaults.width)?;
        let heads = size(config, "num_attention_heads", defaults.heads)?;
        let kv_heads = size(config, "num_key_value_heads", defaults.kv_heads.unwrap_or(heads))?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(config.refuse("num_key_value_heads", format!("{kv_heads} heads of keys do not divide {heads} heads of queries")));
        }
        let head_dim = match (config.get("head_dim"), defaults.head_dim) {
            (None, None) if !width.is_multiple_of(heads) => {
                return Err(
                    config.refuse("num_attention_heads", format!("{heads} heads do not divide the width {width}, and there is no `head_dim`"))
                );
            }
            (None, None) => width / heads,
            (_, default) => size(config, "head_dim", default.unwrap_or(width))?,
        };
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(config.refuse("head_dim", format!("heads of {head_dim} dimensions cannot be turned in pairs")));
        }
        let (field, default) = defaults.activation;
        Ok(Self {
            config,
            names: Names::of(weights, &["model."], "embed_tokens.weight"),
            width,
            max_tokens: size(config, "max_position_embeddings", defaults.max_tokens)?,
            layers: layers(config, "num_hidden_layers", defaults.layers)?,
            vocabulary: size(config, "vocab_size", defaults.vocabulary)?,
            inner: size(config, "intermediate_size", defaults.inner)?,
            heads,
            kv_heads,
            head_dim,
            eps: eps(config, "rms_norm_eps", 1e-6)?,
            activation: activation(config, field, default)?,
            norm: NormKind::Rms,
            sandwich: false,
            qk_norm: false,
            biases: Biases::default(),
            embedding_scale: 1.,
            score_scale: (head_dim as f64).sqrt().recip(),
            pairing: Pairing::Halves,
        })
    }

    /// What rotary positions need to know, theta being the architecture's own.
    pub fn turn(&self, theta: f64) -> Turn {
        Turn { dim: self.head_dim, theta, max_tokens: self.max_tokens }
    }

    /// The one rotation of all layers.
    pub fn rope(&self, theta: f64) -> Result<Arc<Rope>, LoadError> {
        rope::read(self.config, &self.turn(theta)).map(|rope| Arc::new(Rope { pairing: self.pairing, ..rope }))
    }

    /// Whether a token sees only what stands before it: always, unless `is_causal` is false, which transformers reads for every decoder.
    pub fn causal(&self) -> Result<bool, LoadError> {
        Ok(self.config.bool("is_causal")?.unwrap_or(true))
    }

    /// The mask of layers with a window of that many tokens, the own one counted: to the left if causal. In both directions transformers lets a
    /// token see as many on each side, its own not counted.
    pub fn window(causal: bool, tokens: usize) -> Mask {
        Mask { causal, reach: Some(if causal { tokens.saturating_sub(1) } else { tokens }) }
    }

    /// `layer_types`, one for each layer; where it is absent, what `default` says of each.
    pub fn kinds(&self, default: impl Fn(usize) -> Kind) -> Result<Vec<Kind>, LoadError> {
        const FIELD: &str = "layer_types";
        let Some(list) = self.config.list(FIELD)? else { return Ok((0..self.layers).map(default).collect()) };
        if list.len() < self.layers {
            return Err(self.config.refuse(FIELD, format!("names {} layers of {}", list.len(), self.layers)));
        }
        let kind = |value: &serde_json::Value| match value.as_str() {
            Some("full_attention") => Ok(Kind::Full),
            Some("sliding_attention") => Ok(Kind::Sliding),
            _ => Err(self.config.refuse(FIELD, format!("{} is not computed; known: full_attention, sliding_attention", short(value)))),
        };
        list[..self.layers].iter().map(kind).collect()
    }

    /// The size of the windows: `default` where the field is absent, none where it is `null`.
    pub fn window_tokens(&self, default: usize) -> Result<Option<usize>, LoadError> {
        const FIELD: &str = "sliding_window";
        if self.config.says(FIELD) && self.config.get(FIELD).is_none() { Ok(None) } else { size(self.config, FIELD, default).map(Some) }
    }

    /// The network, each layer seeing as `sights` says.
    pub fn network(&self, sights: &[Sight]) -> Result<Network, LoadError> {
        let tokens = self.names.get("embed_tokens.weight", &[self.vocabulary, self.width])?;
        let embeddings = Embeddings {
            tokens: TokenTable::new(tokens),
            scale: self.embedding_scale,
            positions: None,
            token_types: None,
            norm: None,
            projection: None,
        };
        let layers = sights.iter().enumerate().map(|(index, sight)| self.layer(index, sight).map(Arc::new)).collect::<Result<_, _>>()?;
        let norm = Some(self.norm("norm", self.width)?);
        Ok(Network { width: self.width, max_tokens: self.max_tokens, embeddings, layers, norm, adapters: 0 })
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm, LoadError> {
        self.names.norm(self.norm, name, width, self.eps)
    }

    fn layer(&self, index: usize, sight: &Sight) -> Result<Layer, LoadError> {
        let p = format!("layers.{index}");
        let norm = |name: &str| self.norm(&format!("{p}.{name}"), self.width).map(Some);
        let (attention_norms, mlp_norms) = if self.sandwich {
            let both = |before: &str, inside: &str| Ok::<_, LoadError>(Norms { before: norm(before)?, inside: norm(inside)?, ..Norms::default() });
            (both("input_layernorm", "post_attention_layernorm")?, both("pre_feedforward_layernorm", "post_feedforward_layernorm")?)
        } else {
            let before = |name: &str| norm(name).map(|before| Norms { before, ..Norms::default() });
            (before("input_layernorm")?, before("post_attention_layernorm")?)
        };
        let linear = |name: &str, out: usize, into: usize| self.names.linear(&format!("{p}.mlp.{name}"), out, into, self.biases.mlp);
        let mlp = Mlp::Gated {
            gate: linear("gate_proj", self.inner, self.width)?,
            up: linear("up_proj", self.inner, self.width)?,
            activation: self.activation,
            down: linear("down_proj", self.width, self.inner)?,
        };
        Ok(Layer { attention: self.attention(&format!("{p}.self_attn"), sight)?, attention_norms, mlp, mlp_norms, convolution: None })
    }

    fn attention(&self, p: &str, sight: &Sight) -> Result<Attention, LoadError> {
        let (names, biases) = (&self.names, &self.biases);
        let (inner, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let norm = |name: &str| self.norm(&format!("{p}.{name}"), self.head_dim);
        Ok(Attention {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            query: names.linear(&format!("{p}.q_proj"), inner, self.width, biases.qkv)?,
            key: names.linear(&format!("{p}.k_proj"), kv, self.width, biases.qkv)?,
            value: names.linear(&format!("{p}.v_proj"), kv, self.width, biases.qkv)?,
            output: names.linear(&format!("{p}.o_proj"), self.width, inner, biases.output)?,
            qk_norm: if self.qk_norm { Some(QkNorm { query: norm("q_norm")?, key: norm("k_norm")? }) } else { None },
            scale: self.score_scale,
            mask: sight.mask,
            rope: Some(sight.rope.clone()),
            bias: PositionBias::None,
        })
    }
}

/// What a decoder's config can say that makes it another network than the ones described here.
fn refuse_other_networks(config: &Json) -> Result<(), LoadError> {
    if config.get("attn_logit_softcapping").is_some() {
        return Err(config.refuse("attn_logit_softcapping", "capped scores are not computed"));
    }
    Ok(())
}

/// Gemma's field for a mask that is open to both sides: transformers reads it for Gemma alone, so elsewhere it is unclear what was meant.
pub fn refuse_gemma_switch(config: &Json) -> Result<(), LoadError> {
    super::parts::refuse_switch(config, "use_bidirectional_attention", "is read for Gemma only; decoders like this one say `is_causal`")
}
