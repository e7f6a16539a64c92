//! What a model is, as plain data: the description that `encoders` fill in and an executor runs. Computes nothing.
//!
//! Letters used for shapes everywhere: `V` vocabulary, `P` positions, `E` width of the embeddings, `C` width of the residual stream, `H` query
//! heads, `G` key and value heads, `D` width of a head, `F` width of the MLP, `T` tokens of a batch, `B` texts of a batch.

mod attention;
mod blocks;
mod embeddings;
mod fault;
mod mlp;
mod rope;
mod table;
mod weight;

pub use attention::{Attention, Disentangled, Mask, PositionBias, QkNorm};
pub use blocks::Blocks;
pub use embeddings::{Embeddings, Positions, Projection, RowDelta, TokenTable};
pub use fault::LoadError;
pub use mlp::{Activation, Expert, Experts, Mlp};
pub use rope::{Frequencies, Pairing, Rope};
pub use table::WeightTable;
pub use weight::{Bytes, DType, Stored, Weight};

use std::sync::Arc;

/// A transformer used as an encoder: embeddings, then layers. Its output is one row of width `C` per token.
#[derive(Debug, Clone)]
pub struct Network {
    /// `C`.
    pub width: usize,
    /// The longest text it takes, in tokens: the end of a position table, or what it was trained for.
    pub max_tokens: usize,
    /// From ids to the first hidden state.
    pub embeddings: Embeddings,
    /// Applied in order. A layer that is applied several times (ALBERT) is one `Arc` that stands here several times, and is held once.
    pub layers: Vec<Arc<Layer>>,
    /// After the last layer.
    pub norm: Option<Norm>,
    /// How many sets of low-rank deltas its maps hold; a text may choose one of them.
    pub adapters: usize,
}

/// Attention, then the MLP, each with its norms and its residual connection.
#[derive(Debug, Clone)]
pub struct Layer {
    pub attention: Attention,
    pub attention_norms: Norms,
    pub mlp: Mlp,
    pub mlp_norms: Norms,
    /// Beside both, from the layer's input to its output.
    pub convolution: Option<Convolution>,
}

/// Where the norms of a part `f` stand: `x = after(x + inside(f(before(x))))`. Only `after`: post-norm (Vaswani et al. 2017); only `before`:
/// pre-norm; `before` and `inside`: sandwich. With `nested` the residual is added once more: `x = after(x + nested(x + inside(f(before(x)))))`.
#[derive(Debug, Clone, Default)]
pub struct Norms {
    pub before: Option<Norm>,
    pub inside: Option<Norm>,
    pub nested: Option<Norm>,
    pub after: Option<Norm>,
}

/// `norm(layer(x) + activation(conv(x)))` over the tokens of one text, with zeros beyond its ends (DeBERTa-v2's first layer).
#[derive(Debug, Clone)]
pub struct Convolution {
    /// `[C, C / groups, K]` with `K` odd.
    pub weight: Weight,
    /// `[C]`.
    pub bias: Option<Weight>,
    pub groups: usize,
    pub activation: Activation,
    pub norm: Norm,
}

/// `x W^T + b`, with `W` stored `[out, in]` as PyTorch does.
#[derive(Debug, Clone)]
pub struct Linear {
    pub weight: Weight,
    /// `[out]`.
    pub bias: Option<Weight>,
    /// One per adapter of the network, or none at all.
    pub adapters: Vec<LowRank>,
}

/// A delta on a map, for the texts that choose it: `scale * (x down^T) up^T` (LoRA, Hu et al. 2021).
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[rank, in]`.
    pub down: Weight,
    /// `[out, rank]`.
    pub up: Weight,
    pub scale: f64,
}

/// A norm over the last dimension.
#[derive(Debug, Clone)]
pub struct Norm {
    pub kind: NormKind,
    /// `[C]`.
    pub weight: Weight,
    /// `[C]`; only LayerNorm has one.
    pub bias: Option<Weight>,
    pub eps: f64,
}

/// How a norm is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// `(x - mean) / sqrt(variance + eps) * weight + bias`, the variance being the biased one (Ba et al. 2016).
    Layer,
    /// `x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019).
    Rms,
    /// The same with `1 + weight` (Gemma).
    RmsPlusOne,
}

impl NormKind {
    /// Every word, so that a test can count that it drew them all.
    pub const ALL: [Self; 3] = [Self::Layer, Self::Rms, Self::RmsPlusOne];
}

impl Linear {
    /// A map without adapters.
    pub fn new(weight: Weight, bias: Option<Weight>) -> Self {
        Self { weight, bias, adapters: Vec::new() }
    }
}

impl Norms {
    /// Post-norm.
    pub fn after(norm: Norm) -> Self {
        Self { after: Some(norm), ..Self::default() }
    }

    /// Pre-norm.
    pub fn before(norm: Norm) -> Self {
        Self { before: Some(norm), ..Self::default() }
    }
}

impl Network {
    /// Embeddings with learned positions, then layers, and nothing after them.
    pub fn of_layers(width: usize, embeddings: Embeddings, layers: Vec<Arc<Layer>>) -> Self {
        let max_tokens = embeddings.positions.as_ref().map_or(usize::MAX, Positions::max_tokens);
        Self { width, max_tokens, embeddings, layers, norm: None, adapters: 0 }
    }

    /// `V`: ids from here on are not in the embedding table.
    pub fn vocabulary(&self) -> usize {
        self.embeddings.tokens.vocabulary()
    }

    /// True if it is nothing but its token table: no token knows of another, nor of its place.
    pub fn is_table(&self) -> bool {
        self.layers.is_empty() && self.embeddings.positions.is_none() && self.embeddings.norm.is_none() && self.norm.is_none()
    }
}
