//! What a model is, as plain data: the description that `encoders` fill in and an executor runs. Computes nothing.
//!
//! Letters used for shapes everywhere: `V` vocabulary, `P` positions, `C` width of the residual stream, `H` heads, `D` width of a head,
//! `F` width of the MLP, `T` tokens of a batch, `B` texts of a batch.

mod fault;
mod weight;

pub use fault::LoadError;
pub use weight::{Bytes, DType, Weight, WeightTable};

/// A transformer encoder: embeddings, then layers. Its output is one row of width `C` per token.
#[derive(Debug, Clone)]
pub struct Network {
    /// `C`.
    pub width: usize,
    /// From ids to the first hidden state.
    pub embeddings: Embeddings,
    /// Applied in order.
    pub layers: Vec<Layer>,
}

/// `norm(tokens[id] + positions[index in its text] + token_type)`.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// `[V, C]`.
    pub tokens: Weight,
    /// Learned absolute positions, `[P, C]`; the first token of a text has row 0.
    pub positions: Weight,
    /// `[types, C]`; a text served here is always the first sentence, so row 0.
    pub token_types: Weight,
    /// Over the sum.
    pub norm: Norm,
}

/// One layer with its norms after the residual additions (post-norm, as in Vaswani et al. 2017):
/// `x = attention_norm(x + attention(x)); x = mlp_norm(x + mlp(x))`.
#[derive(Debug, Clone)]
pub struct Layer {
    pub attention: Attention,
    pub attention_norm: Norm,
    pub mlp: Mlp,
    pub mlp_norm: Norm,
}

/// Multi-head self-attention over the tokens of one text, in both directions.
#[derive(Debug, Clone)]
pub struct Attention {
    /// `H`; divides `C`, and `D = C / H`.
    pub heads: usize,
    /// `[C, C]` each.
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub output: Linear,
}

/// `down(activation(up(x)))`.
#[derive(Debug, Clone)]
pub struct Mlp {
    /// `[F, C]`.
    pub up: Linear,
    pub activation: Activation,
    /// `[C, F]`.
    pub down: Linear,
}

/// `x W^T + b`, with `W` stored `[out, in]` as PyTorch does.
#[derive(Debug, Clone)]
pub struct Linear {
    pub weight: Weight,
    /// `[out]`.
    pub bias: Option<Weight>,
}

/// LayerNorm over the last dimension: `(x - mean) / sqrt(variance + eps) * weight + bias`, the variance being the biased one.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[C]`.
    pub weight: Weight,
    /// `[C]`.
    pub bias: Weight,
    pub eps: f64,
}

/// An element-wise function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x`.
    Identity,
    /// `x / 2 * (1 + erf(x / sqrt 2))`: the definition of GELU (Hendrycks and Gimpel 2016).
    Gelu,
    /// GELU with `tanh(sqrt(2 / pi) * (x + 0.044715 x^3))` for the erf: another function, used only where the model was trained with it.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `x * sigmoid(x)`.
    Silu,
    /// `tanh(x)`.
    Tanh,
}

impl Activation {
    /// Every word, so that a test can count that it drew them all.
    pub const ALL: [Self; 7] = [Self::Identity, Self::Gelu, Self::GeluTanh, Self::Relu, Self::Sigmoid, Self::Silu, Self::Tanh];
}

impl Network {
    /// `V`: ids from here on are not in the embedding table.
    pub fn vocabulary(&self) -> usize {
        self.embeddings.tokens.shape()[0]
    }

    /// `P`: the longest text, in tokens, that the positions reach.
    pub fn positions(&self) -> usize {
        self.embeddings.positions.shape()[0]
    }
}
