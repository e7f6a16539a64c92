//! What stands between two attentions: an MLP, plain, gated, or one of several experts.

use super::{Linear, Weight};

/// The position-wise part of a layer.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one per layer, built once")]
pub enum Mlp {
    /// `down(activation(up(x)))`; `up` is `[F, C]`, `down` is `[C, F]`.
    Plain { up: Linear, activation: Activation, down: Linear },
    /// `down(activation(gate(x)) * up(x))` (Shazeer 2020); `gate` and `up` are `[F, C]`, `down` is `[C, F]`.
    Gated { gate: Linear, up: Linear, activation: Activation, down: Linear },
    /// A mixture of experts.
    Experts(Experts),
}

/// `bias + sum over the k largest p_e of p_e * expert_e(x)`, with `p = softmax(router(x))` over all experts and no second scaling.
#[derive(Debug, Clone)]
pub struct Experts {
    /// `[experts, C]`.
    pub router: Linear,
    /// `k`: how many experts compute each token.
    pub top_k: usize,
    pub activation: Activation,
    pub experts: Vec<Expert>,
    /// `[C]`, once per token.
    pub bias: Option<Weight>,
}

/// `activation(x up^T) down`.
#[derive(Debug, Clone)]
pub struct Expert {
    /// `[F, C]`.
    pub up: Weight,
    /// `[F, C]`: stored input first, unlike a `Linear`.
    pub down: Weight,
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
