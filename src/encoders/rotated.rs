//! What NomicBERT and GTE share: post-norm layers that turn queries and keys, and tensors under either of two sets of names.

use super::parts::Names;
use crate::network::{Attention, Embeddings, Linear, LoadError, Mask, Norms, PositionBias, Rope, TokenTable};
use std::sync::Arc;

/// The names that a checkpoint has, behind those of its layers.
pub struct Layout {
    pub embedding_norm: &'static str,
    pub layers: &'static str,
    pub query_key_value: Maps<3>,
    pub output: &'static str,
    pub attention_norm: &'static str,
    pub up_gate: Maps<2>,
    pub down: &'static str,
    pub mlp_norm: &'static str,
}

/// Maps of one input, in that order: one tensor, or one for each.
pub enum Maps<const N: usize> {
    Stacked(&'static str),
    Each([&'static str; N]),
}

/// The names inside transformers, which a checkpoint has if it was not saved under those that its family had before.
pub const NATIVE: Layout = Layout {
    embedding_norm: "embeddings.LayerNorm",
    layers: "layers",
    query_key_value: Maps::Each(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    output: "self_attn.o_proj",
    attention_norm: "post_attention_layernorm",
    up_gate: Maps::Each(["mlp.up_proj", "mlp.gate_proj"]),
    down: "mlp.down_proj",
    mlp_norm: "post_mlp_layernorm",
};

impl Layout {
    /// The one that this checkpoint has: the native one if it has its first layer, else the other.
    pub fn of<'l>(names: &Names, other: &'l Self) -> &'l Self {
        if names.has("layers.0.self_attn.q_proj.weight") { &NATIVE } else { other }
    }
}

impl<const N: usize> Maps<N> {
    /// The maps of the layer called `layer`, of `outs` rows each.
    pub fn get(&self, names: &Names, layer: &str, outs: [usize; N], into: usize, bias: bool) -> Result<[Linear; N], LoadError> {
        match self {
            Self::Stacked(name) => names.stacked(&format!("{layer}.{name}"), outs, into, bias),
            Self::Each(each) => {
                let mut maps = Vec::with_capacity(N);
                for (name, out) in each.iter().zip(outs) {
                    maps.push(names.linear(&format!("{layer}.{name}"), out, into, bias)?);
                }
                maps.try_into().map_err(|_| LoadError::file(layer, "has other maps than it should"))
            }
        }
    }
}

/// Sizes that attention and norms have in all layers.
pub struct Post<'a> {
    pub names: Names<'a>,
    pub layout: &'a Layout,
    pub width: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub eps: f64,
    /// On queries, keys, values and the output alike.
    pub bias: bool,
    pub rope: Arc<Rope>,
}

impl Post<'_> {
    /// Tokens, their type, a norm. `types` may be 0.
    pub fn embeddings(&self, vocabulary: usize, types: usize) -> Result<Embeddings, LoadError> {
        let table = |name: &str, rows: usize| self.names.get(&format!("embeddings.{name}_embeddings.weight"), &[rows, self.width]);
        Ok(Embeddings {
            tokens: TokenTable::new(table("word", vocabulary)?),
            scale: 1.,
            positions: None,
            token_types: if types == 0 { None } else { Some(table("token_type", types)?) },
            norm: Some(self.names.layer_norm(self.layout.embedding_norm, self.width, self.eps)?),
            projection: None,
        })
    }

    /// The attention of the layer called `layer`.
    pub fn attention(&self, layer: &str) -> Result<Attention, LoadError> {
        let inner = self.heads * self.head_dim;
        let [query, key, value] = self.layout.query_key_value.get(&self.names, layer, [inner; 3], self.width, self.bias)?;
        Ok(Attention {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: self.head_dim,
            query,
            key,
            value,
            output: self.names.linear(&format!("{layer}.{}", self.layout.output), self.width, inner, self.bias)?,
            qk_norm: None,
            scale: (self.head_dim as f64).sqrt().recip(),
            mask: Mask::ALL,
            rope: Some(self.rope.clone()),
            bias: PositionBias::None,
        })
    }

    /// The norm after a part of the layer called `layer`.
    pub fn norm(&self, layer: &str, name: &str) -> Result<Norms, LoadError> {
        self.names.layer_norm(&format!("{layer}.{name}"), self.width, self.eps).map(Norms::after)
    }
}
