//! BERT (Devlin et al. 2018): the network that transformers calls `BertModel`, without its pooler, which sentence-transformers does not use.

use super::json::Json;
use super::parts::{Names, activation, eps, heads, only_word, refuse_switch, size};
use crate::network::{
    Activation, Attention, Embeddings, Layer, LoadError, Mask, Mlp, Network, Norms, PositionBias, Positions, TokenTable, WeightTable,
};
use std::sync::Arc;

/// Describes the network. Sizes that config.json leaves out have the defaults of transformers' `BertConfig`.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    refuse_other_networks(config)?;
    let width = size(config, "hidden_size", 768)?;
    let page = Page {
        names: Names::of(weights, &["bert."], "embeddings.word_embeddings.weight"),
        width,
        heads: heads(config, "num_attention_heads", 12, width)?,
        inner: size(config, "intermediate_size", 3072)?,
        eps: eps(config, "layer_norm_eps", 1e-12)?,
        act: activation(config, "hidden_act", "gelu")?,
    };
    let names = &page.names;
    let tokens = names.get("embeddings.word_embeddings.weight", &[size(config, "vocab_size", 30522)?, width])?;
    let positions = Positions::new(names.get("embeddings.position_embeddings.weight", &[size(config, "max_position_embeddings", 512)?, width])?);
    let embeddings = Embeddings {
        tokens: TokenTable::new(tokens),
        scale: 1.,
        positions: Some(positions.clone()),
        token_types: Some(names.get("embeddings.token_type_embeddings.weight", &[size(config, "type_vocab_size", 2)?, width])?),
        norm: Some(names.layer_norm("embeddings.LayerNorm", width, page.eps)?),
        projection: None,
    };
    let layers = config.usize("num_hidden_layers")?.unwrap_or(12);
    let layers = (0..layers).map(|index| page.layer(index).map(Arc::new)).collect::<Result<_, _>>()?;
    Ok(Network { width, max_tokens: positions.max_tokens(), embeddings, layers, norm: None, adapters: 0 })
}

/// What a BERT config can say that makes it another network than the one described here.
fn refuse_other_networks(config: &Json) -> Result<(), LoadError> {
    only_word(config, "position_embedding_type", "absolute")?;
    refuse_switch(config, "is_decoder", "a causal decoder is not an embedding encoder")?;
    refuse_switch(config, "add_cross_attention", "cross attention is not an embedding encoder")?;
    if config.object("pruned_heads")?.is_some_and(|heads| !heads.is_empty()) {
        return Err(config.refuse("pruned_heads", "pruned heads are not read"));
    }
    Ok(())
}

struct Page<'a> {
    names: Names<'a>,
    width: usize,
    heads: usize,
    inner: usize,
    eps: f64,
    act: Activation,
}

impl Page<'_> {
    fn layer(&self, index: usize) -> Result<Layer, LoadError> {
        let (p, names, width) = (format!("encoder.layer.{index}"), &self.names, self.width);
        let square = |name: &str| names.linear(&format!("{p}.{name}"), width, width, true);
        let head_dim = width / self.heads;
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim,
            query: square("attention.self.query")?,
            key: square("attention.self.key")?,
            value: square("attention.self.value")?,
            output: square("attention.output.dense")?,
            qk_norm: None,
            scale: (head_dim as f64).sqrt().recip(),
            mask: Mask::ALL,
            rope: None,
            bias: PositionBias::None,
        };
        let mlp = Mlp::Plain {
            up: names.linear(&format!("{p}.intermediate.dense"), self.inner, width, true)?,
            activation: self.act,
            down: names.linear(&format!("{p}.output.dense"), width, self.inner, true)?,
        };
        Ok(Layer {
            attention,
            attention_norms: Norms::after(names.layer_norm(&format!("{p}.attention.output.LayerNorm"), width, self.eps)?),
            mlp,
            mlp_norms: Norms::after(names.layer_norm(&format!("{p}.output.LayerNorm"), width, self.eps)?),
            convolution: None,
        })
    }
}
