//! JinaBERT v2 (Günther et al. 2023, arXiv:2310.19923): BERT with symmetric ALiBi instead of positions and a gated MLP; and the variant of
//! jina-embeddings-v2-base-code, which also norms queries and keys and adds the residual of its attention twice.

use super::json::Json;
use super::parts::{Names, eps, heads, layers, only_word, refuse_switch, size};
use crate::network::{Activation, Attention, Embeddings, Layer, LoadError, Mask, Mlp, Network, Norms, PositionBias, QkNorm, TokenTable, WeightTable};
use std::sync::Arc;

/// Describes the network. `emb_pooler` and `attn_implementation` concern only the code that comes with the checkpoints.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    refuse_other_networks(config)?;
    let width = size(config, "hidden_size", 768)?;
    let heads = heads(config, "num_attention_heads", 12, width)?;
    let names = Names::of(weights, &["bert."], "embeddings.word_embeddings.weight");
    let page = Page {
        code: names.has("encoder.layer.0.layer_norm_1.weight"),
        names,
        width,
        heads,
        inner: size(config, "intermediate_size", 3072)?,
        eps: eps(config, "layer_norm_eps", 1e-12)?,
        slopes: slopes(heads).into(),
    };
    let table = |name: &str, rows: usize| page.names.get(&format!("embeddings.{name}_embeddings.weight"), &[rows, width]);
    let embeddings = Embeddings {
        tokens: TokenTable::new(table("word", size(config, "vocab_size", 30522)?)?),
        scale: 1.,
        positions: None,
        token_types: Some(table("token_type", size(config, "type_vocab_size", 2)?)?),
        norm: Some(page.names.layer_norm("embeddings.LayerNorm", width, page.eps)?),
        projection: None,
    };
    let count = layers(config, "num_hidden_layers", 12)?;
    let layers = (0..count).map(|index| page.layer(index).map(Arc::new)).collect::<Result<_, _>>()?;
    let max_tokens = size(config, "max_position_embeddings", 512)?;
    Ok(Network { width, max_tokens, embeddings, layers, norm: None, adapters: 0 })
}

/// What the code on the hub can do beside. One of its two versions takes the gate's function from `feed_forward_type`, the other from `hidden_act`,
/// so both must mean GELU.
fn refuse_other_networks(config: &Json) -> Result<(), LoadError> {
    for (field, only) in [("position_embedding_type", "alibi"), ("feed_forward_type", "geglu")] {
        if config.str(field)?.is_none() {
            return Err(config.refuse(field, format!("is missing; only `{only}` is computed for this architecture")));
        }
        only_word(config, field, only)?;
    }
    only_word(config, "hidden_act", "gelu")?;
    refuse_switch(config, "is_decoder", "a causal decoder is not an embedding encoder")?;
    refuse_switch(config, "add_cross_attention", "cross attention is not an embedding encoder")
}

/// One slope per head (Press et al. 2022): `2^(-8 (h + 1) / n)` for `n` heads if that is a power of two; else those of the next lower power, then
/// every second one of the power above.
fn slopes(heads: usize) -> Vec<f32> {
    let geometric = |n: usize| (1..=n).map(move |head| 2f64.powf(-8. * head as f64 / n as f64) as f32);
    let whole = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    geometric(whole).chain(geometric(2 * whole).step_by(2)).take(heads).collect()
}

struct Page<'a> {
    names: Names<'a>,
    /// Layers as the code model has them, which their tensors tell.
    code: bool,
    width: usize,
    heads: usize,
    inner: usize,
    eps: f64,
    slopes: Arc<[f32]>,
}

impl Page<'_> {
    fn layer(&self, index: usize) -> Result<Layer, LoadError> {
        let (p, width) = (format!("encoder.layer.{index}"), self.width);
        let norm = |name: &str| self.names.layer_norm(&format!("{p}.{name}"), width, self.eps);
        let stacked = |name: &str| self.names.stacked(&format!("{p}.mlp.{name}"), [self.inner; 2], width, false);
        let down = |name: &str| self.names.linear(&format!("{p}.mlp.{name}"), width, self.inner, true);
        let attention = self.attention(&p)?;
        let activation = Activation::Gelu;
        if self.code {
            let [up, gate] = stacked("up_gated_layer")?;
            let nested = Some(norm("attention.output.LayerNorm")?);
            return Ok(Layer {
                attention,
                attention_norms: Norms { nested, ..Norms::after(norm("layer_norm_1")?) },
                mlp: Mlp::Gated { gate, up, activation, down: down("down_layer")? },
                mlp_norms: Norms::after(norm("layer_norm_2")?),
                convolution: None,
            });
        }
        let [gate, up] = stacked("gated_layers")?;
        Ok(Layer {
            attention,
            attention_norms: Norms::after(norm("attention.output.LayerNorm")?),
            mlp: Mlp::Gated { gate, up, activation, down: down("wo")? },
            mlp_norms: Norms::after(norm("mlp.layernorm")?),
            convolution: None,
        })
    }

    fn attention(&self, p: &str) -> Result<Attention, LoadError> {
        let (width, head_dim) = (self.width, self.width / self.heads);
        let square = |name: &str| self.names.linear(&format!("{p}.attention.{name}"), width, width, true);
        let norm = |name: &str| self.names.layer_norm(&format!("{p}.attention.self.{name}"), width, self.eps);
        let qk_norm = if self.code { Some(QkNorm { query: norm("layer_norm_q")?, key: norm("layer_norm_k")? }) } else { None };
        Ok(Attention {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim,
            query: square("self.query")?,
            key: square("self.key")?,
            value: square("self.value")?,
            output: square("output.dense")?,
            qk_norm,
            scale: (head_dim as f64).sqrt().recip(),
            mask: Mask::ALL,
            rope: None,
            bias: PositionBias::Alibi(self.slopes.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_paper() {
        assert_eq!(slopes(8), [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
        assert_eq!(slopes(1), [0.00390625]);
        // Four heads' own, then the first and third of eight.
        assert_eq!(slopes(6), [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
        assert_eq!((slopes(12).len(), slopes(12)[8]), (12, 2f32.powf(-0.5)));
    }
}
