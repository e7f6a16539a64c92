//! T5's encoder (Raffel et al. 2020) and its gated successors: what transformers calls `T5EncoderModel` and `MT5EncoderModel`.

use super::json::Json;
use super::parts::{Names, eps, named_activation, refuse_switch, size};
use crate::network::{
    Activation, Attention, Embeddings, Layer, Linear, LoadError, Mask, Mlp, Network, Norm, NormKind, Norms, PositionBias, TokenTable, WeightTable,
};
use std::sync::Arc;

/// Distances have no end, and neither has a text in the reference; this bounds what one text occupies.
const MAX_TOKENS: usize = 32_768;

/// Describes the network. Sizes that config.json leaves out have the defaults of transformers' `T5Config`.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    read(config, weights, &Defaults { vocabulary: 32128, layers: 6, heads: 8, inner: 2048, mlp: "relu" })
}

/// The same with the defaults of `MT5Config`.
pub fn describe_mt5(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    read(config, weights, &Defaults { vocabulary: 250_112, layers: 8, heads: 6, inner: 1024, mlp: "gated-gelu" })
}

struct Defaults {
    vocabulary: usize,
    layers: usize,
    heads: usize,
    inner: usize,
    mlp: &'static str,
}

fn read(config: &Json, weights: &WeightTable, defaults: &Defaults) -> Result<Network, LoadError> {
    refuse_switch(config, "is_decoder", "a causal decoder is not an embedding encoder")?;
    let names = Names::of(weights, &[], "shared.weight");
    let (width, heads) = (size(config, "d_model", 512)?, size(config, "num_heads", defaults.heads)?);
    let page = Page {
        width,
        heads,
        head_dim: size(config, "d_kv", 64)?,
        inner: size(config, "d_ff", defaults.inner)?,
        eps: eps(config, "layer_norm_epsilon", 1e-6)?,
        mlp: activation(config, defaults.mlp)?,
        bias: position_bias(config, &names, heads)?,
        names,
    };
    let names = &page.names;
    // The same table under two names, of which converted checkpoints keep one or both.
    let table = if names.has("shared.weight") { "shared.weight" } else { "encoder.embed_tokens.weight" };
    let tokens = names.get(table, &[size(config, "vocab_size", defaults.vocabulary)?, width])?;
    let embeddings = Embeddings { tokens: TokenTable::new(tokens), scale: 1., positions: None, token_types: None, norm: None, projection: None };
    let layers = (0..size(config, "num_layers", defaults.layers)?).map(|index| page.layer(index).map(Arc::new)).collect::<Result<_, _>>()?;
    let norm = Some(page.norm("encoder.final_layer_norm")?);
    Ok(Network { width, max_tokens: MAX_TOKENS, embeddings, layers, norm, adapters: 0 })
}

/// The first layer's table, which serves all layers.
fn position_bias(config: &Json, names: &Names, heads: usize) -> Result<PositionBias, LoadError> {
    const BUCKETS: &str = "relative_attention_num_buckets";
    const DISTANCE: &str = "relative_attention_max_distance";
    let (buckets, max_distance) = (size(config, BUCKETS, 32)?, size(config, DISTANCE, 128)?);
    if buckets < 4 || max_distance <= buckets / 4 {
        return Err(config.refuse(DISTANCE, format!("{max_distance} leaves no logarithmic buckets of {buckets}")));
    }
    let table = names.get("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", &[buckets, heads])?;
    Ok(PositionBias::Buckets { table, max_distance })
}

/// `feed_forward_proj`: an activation, or `gated-` and one. `gated-gelu` means the tanh form, as the models were trained.
fn activation(config: &Json, default: &str) -> Result<(bool, Activation), LoadError> {
    const FIELD: &str = "feed_forward_proj";
    let word = config.str(FIELD)?.unwrap_or(default);
    let (gated, name) = word.strip_prefix("gated-").map_or((false, word), |name| (true, name));
    let found = if word == "gated-gelu" { Some(Activation::GeluTanh) } else { named_activation(name) };
    let activation = found.ok_or_else(|| config.refuse(FIELD, format!("`{word}` is not an MLP that is computed")))?;
    // What newer files derive from it and repeat.
    if config.bool("is_gated_act")?.is_some_and(|repeated| repeated != gated) {
        return Err(config.refuse("is_gated_act", format!("contradicts {FIELD} `{word}`")));
    }
    match config.str("dense_act_fn")? {
        Some(repeated) if named_activation(repeated) != Some(activation) => {
            Err(config.refuse("dense_act_fn", format!("`{repeated}` contradicts {FIELD} `{word}`")))
        }
        _ => Ok((gated, activation)),
    }
}

struct Page<'a> {
    names: Names<'a>,
    width: usize,
    heads: usize,
    head_dim: usize,
    inner: usize,
    eps: f64,
    mlp: (bool, Activation),
    bias: PositionBias,
}

impl Page<'_> {
    fn norm(&self, name: &str) -> Result<Norm, LoadError> {
        self.names.norm(NormKind::Rms, name, self.width, self.eps)
    }

    fn layer(&self, index: usize) -> Result<Layer, LoadError> {
        let (p, all, width) = (format!("encoder.block.{index}.layer"), self.heads * self.head_dim, self.width);
        let map = |name: &str, out: usize, into: usize| -> Result<Linear, LoadError> { self.names.linear(&format!("{p}.{name}"), out, into, false) };
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: self.head_dim,
            query: map("0.SelfAttention.q", all, width)?,
            key: map("0.SelfAttention.k", all, width)?,
            value: map("0.SelfAttention.v", all, width)?,
            output: map("0.SelfAttention.o", width, all)?,
            qk_norm: None,
            // T5 has none: its queries were trained small instead.
            scale: 1.,
            mask: Mask::ALL,
            rope: None,
            bias: self.bias.clone(),
        };
        let down = map("1.DenseReluDense.wo", width, self.inner)?;
        let mlp = match self.mlp {
            (false, activation) => Mlp::Plain { up: map("1.DenseReluDense.wi", self.inner, width)?, activation, down },
            (true, activation) => Mlp::Gated {
                gate: map("1.DenseReluDense.wi_0", self.inner, width)?,
                up: map("1.DenseReluDense.wi_1", self.inner, width)?,
                activation,
                down,
            },
        };
        let norm = |part: usize| self.norm(&format!("{p}.{part}.layer_norm"));
        Ok(Layer { attention, attention_norms: Norms::before(norm(0)?), mlp, mlp_norms: Norms::before(norm(1)?), convolution: None })
    }
}
