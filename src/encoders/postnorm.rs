//! What BERT and its relatives share: summed tables under one norm, then the layer of Vaswani et al. 2017 with its norms after the residuals.

use super::json::Json;
use super::parts::{Names, activation, eps, heads, only_word, refuse_switch, size};
use crate::network::{Activation, Attention, Embeddings, Layer, LoadError, Mask, Mlp, Norms, PositionBias, Positions, TokenTable};
use std::sync::Arc;

/// The names of a layer's parts, behind the layer's own.
pub struct Parts {
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub output: &'static str,
    pub attention_norm: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub mlp_norm: &'static str,
}

/// As BERT names them.
pub const BERT: Parts = Parts {
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    mlp_norm: "output.LayerNorm",
};

/// What config.json need not say, being the default of the reference's configuration class.
pub struct Defaults {
    pub width: usize,
    pub heads: usize,
    pub inner: usize,
    pub activation: &'static str,
    pub vocabulary: usize,
}

/// BERT's, and those of its relatives but for the vocabulary.
pub const BASE: Defaults = Defaults { width: 768, heads: 12, inner: 3072, activation: "gelu", vocabulary: 30522 };

/// What all layers of a network have in common.
pub struct PostNorm<'a> {
    pub names: Names<'a>,
    pub parts: Parts,
    pub width: usize,
    pub heads: usize,
    pub inner: usize,
    pub eps: f64,
    pub activation: Activation,
}

impl<'a> PostNorm<'a> {
    /// Reads the fields that go by the same names from BERT to ALBERT, and refuses those that make it another network.
    ///
    /// # Errors
    /// A field that is malformed or means something that is not computed here.
    pub fn read(config: &Json, names: Names<'a>, parts: Parts, defaults: &Defaults) -> Result<Self, LoadError> {
        refuse_other_networks(config)?;
        let width = size(config, "hidden_size", defaults.width)?;
        Ok(Self {
            names,
            parts,
            width,
            heads: heads(config, "num_attention_heads", defaults.heads, width)?,
            inner: size(config, "intermediate_size", defaults.inner)?,
            eps: eps(config, "layer_norm_eps", 1e-12)?,
            activation: activation(config, "hidden_act", defaults.activation)?,
        })
    }

    /// The tables and their norm, `width` wide; `types` is the number of token types, where the network has them.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub fn embeddings(&self, width: usize, rows: Rows, types: Option<usize>) -> Result<Embeddings, LoadError> {
        let names = &self.names;
        let table = |name: &str, rows: usize| names.get(&format!("embeddings.{name}_embeddings.weight"), &[rows, width]);
        Ok(Embeddings {
            tokens: TokenTable::new(table("word", rows.vocabulary)?),
            scale: 1.,
            positions: Some(Positions { table: table("position", rows.positions)?, offset: rows.offset, uncounted: rows.uncounted }),
            token_types: types.map(|types| table("token_type", types)).transpose()?,
            norm: Some(names.layer_norm("embeddings.LayerNorm", width, self.eps)?),
            projection: None,
        })
    }

    /// `count` layers, each with its own weights, called `prefix.0`, `prefix.1`, ...; all add the same `bias` to their scores.
    ///
    /// # Errors
    /// As `layer`.
    pub fn layers(&self, count: usize, prefix: &str, bias: &PositionBias) -> Result<Vec<Arc<Layer>>, LoadError> {
        (0..count).map(|index| self.layer(&format!("{prefix}.{index}"), bias.clone()).map(Arc::new)).collect()
    }

    /// The layer of that name.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub fn layer(&self, name: &str, bias: PositionBias) -> Result<Layer, LoadError> {
        let (parts, names, width, inner) = (&self.parts, &self.names, self.width, self.inner);
        let linear = |part: &str, out, into| names.linear(&format!("{name}.{part}"), out, into, true);
        let norm = |part: &str| names.layer_norm(&format!("{name}.{part}"), width, self.eps).map(Norms::after);
        let head_dim = width / self.heads;
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim,
            query: linear(parts.query, width, width)?,
            key: linear(parts.key, width, width)?,
            value: linear(parts.value, width, width)?,
            output: linear(parts.output, width, width)?,
            qk_norm: None,
            scale: (head_dim as f64).sqrt().recip(),
            mask: Mask::ALL,
            rope: None,
            bias,
        };
        let mlp = Mlp::Plain { up: linear(parts.up, inner, width)?, activation: self.activation, down: linear(parts.down, width, inner)? };
        Ok(Layer { attention, attention_norms: norm(parts.attention_norm)?, mlp, mlp_norms: norm(parts.mlp_norm)?, convolution: None })
    }
}

/// How many rows the tables have, and which of them a text's first token has.
pub struct Rows {
    pub vocabulary: usize,
    pub positions: usize,
    pub offset: usize,
    pub uncounted: Option<u32>,
}

impl Rows {
    /// Positions from row 0.
    ///
    /// # Errors
    /// A size that is malformed.
    pub fn read(config: &Json, vocabulary: usize) -> Result<Self, LoadError> {
        Ok(Self {
            vocabulary: size(config, "vocab_size", vocabulary)?,
            positions: size(config, "max_position_embeddings", 512)?,
            offset: 0,
            uncounted: None,
        })
    }

    /// Positions from the row after the padding token's, which is not counted where it stands in a text.
    ///
    /// # Errors
    /// As `read`.
    pub fn after_padding(config: &Json, vocabulary: usize, padding: u32) -> Result<Self, LoadError> {
        Ok(Self { offset: padding as usize + 1, uncounted: Some(padding), ..Self::read(config, vocabulary)? })
    }
}

/// Refuses what makes it another network than the one described here.
fn refuse_other_networks(config: &Json) -> Result<(), LoadError> {
    only_word(config, "position_embedding_type", "absolute")?;
    refuse_switch(config, "is_decoder", "a causal decoder is not an embedding encoder")?;
    refuse_switch(config, "add_cross_attention", "cross attention is not an embedding encoder")?;
    if config.object("pruned_heads")?.is_some_and(|heads| !heads.is_empty()) {
        return Err(config.refuse("pruned_heads", "pruned heads are not read"));
    }
    Ok(())
}
