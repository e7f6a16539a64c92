//! DeBERTa v2 and v3 (He et al. 2020, 2021): what transformers calls `DebertaV2Model`. Content and distance meet in the attention scores.

use super::json::Json;
use super::parts::{Names, activation, eps, heads, named_activation, refuse_switch, size};
use crate::network::{
    Activation, Attention, Convolution, Disentangled, Embeddings, Layer, Linear, LoadError, Mask, Mlp, Network, Norm, Norms, PositionBias, Positions,
    Projection, TokenTable, Weight, WeightTable,
};
use serde_json::Value;
use std::sync::Arc;

/// Describes the network. Sizes that config.json leaves out have the defaults of transformers' `DebertaV2Config`.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    refuse_switch(config, "is_decoder", "a causal decoder is not an embedding encoder")?;
    let width = size(config, "hidden_size", 1536)?;
    let heads = heads(config, "num_attention_heads", 24, width)?;
    if let Some(head) = config.usize("attention_head_size")?.filter(|head| *head != width / heads) {
        return Err(config.refuse("attention_head_size", format!("{head} is not hidden_size / num_attention_heads, the only one computed")));
    }
    let page = Page {
        names: Names::of(weights, &["deberta."], "embeddings.word_embeddings.weight"),
        width,
        heads,
        inner: size(config, "intermediate_size", 6144)?,
        eps: eps(config, "layer_norm_eps", 1e-7)?,
        act: activation(config, "hidden_act", "gelu")?,
        kinds: Kinds::read(config)?,
    };
    let distances = page.distances(config)?;
    let mut layers = Vec::new();
    for index in 0..size(config, "num_hidden_layers", 24)? {
        let convolution = if index == 0 { page.convolution(config)? } else { None };
        layers.push(Arc::new(page.layer(index, distances.as_ref(), convolution)?));
    }
    let max_tokens = size(config, "max_position_embeddings", 512)?;
    Ok(Network { width, max_tokens, embeddings: page.embeddings(config, max_tokens)?, layers, norm: None, adapters: 0 })
}

/// Which of the two extra terms the scores have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kinds {
    content_to_position: bool,
    position_to_content: bool,
}

impl Kinds {
    /// `pos_att_type`: a list, or words with `|` between them.
    fn read(config: &Json) -> Result<Self, LoadError> {
        const FIELD: &str = "pos_att_type";
        let words: Vec<String> = match config.get(FIELD) {
            None => Vec::new(),
            Some(Value::String(words)) => words.to_lowercase().split('|').map(|word| word.trim().to_owned()).collect(),
            Some(Value::Array(words)) => words.iter().map(|word| word.as_str().unwrap_or("?").to_owned()).collect(),
            Some(_) => return Err(config.refuse(FIELD, "must be a list or a string")),
        };
        let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
        if let Some(other) = words.iter().find(|word| !["c2p", "p2c"].contains(word)) {
            return Err(config.refuse(FIELD, format!("`{other}` is not computed, only c2p and p2c")));
        }
        Ok(Self { content_to_position: words.contains(&"c2p"), position_to_content: words.contains(&"p2c") })
    }

    /// The terms that are added up, the one between contents included.
    fn terms(self) -> usize {
        1 + usize::from(self.content_to_position) + usize::from(self.position_to_content)
    }
}

/// What all layers know of distances.
struct Distances {
    table: Weight,
    norm: Option<Norm>,
    buckets: Option<usize>,
    max_distance: usize,
    /// Distances go through the maps of the contents.
    shared: bool,
}

struct Page<'a> {
    names: Names<'a>,
    width: usize,
    heads: usize,
    inner: usize,
    eps: f64,
    act: Activation,
    kinds: Kinds,
}

impl Page<'_> {
    fn embeddings(&self, config: &Json, positions: usize) -> Result<Embeddings, LoadError> {
        let narrow = size(config, "embedding_size", self.width)?;
        let get = |name: &str, rows: usize| self.names.get(&format!("embeddings.{name}.weight"), &[rows, narrow]);
        let positions = match config.bool("position_biased_input")?.unwrap_or(true) {
            true => Some(Positions::new(get("position_embeddings", positions)?)),
            false => None,
        };
        let token_types = match config.usize("type_vocab_size")?.unwrap_or(0) {
            0 => None,
            types => Some(get("token_type_embeddings", types)?),
        };
        // The norm stands behind the projection, unlike ELECTRA's.
        let norm = Some(self.names.layer_norm("embeddings.LayerNorm", self.width, self.eps)?);
        let tokens = TokenTable::new(get("word_embeddings", size(config, "vocab_size", 128_100)?)?);
        let plain = Embeddings { tokens, scale: 1., positions, token_types, norm: None, projection: None };
        if narrow == self.width {
            return Ok(Embeddings { norm, ..plain });
        }
        let linear = self.names.linear("embeddings.embed_proj", self.width, narrow, false)?;
        Ok(Embeddings { projection: Some(Projection { linear, norm }), ..plain })
    }

    fn distances(&self, config: &Json) -> Result<Option<Distances>, LoadError> {
        if !config.bool("relative_attention")?.unwrap_or(false) {
            return Ok(None);
        }
        // -1 stands for "none" in both.
        let number = |field: &str| -> Result<Option<usize>, LoadError> {
            match config.f64(field)? {
                Some(number) if number >= 1. => config.usize(field),
                _ => Ok(None),
            }
        };
        let max_distance = number("max_relative_positions")?.map_or_else(|| size(config, "max_position_embeddings", 512), Ok)?;
        let buckets = number("position_buckets")?;
        if let Some(buckets) = buckets.filter(|buckets| *buckets < 2 || max_distance <= buckets / 2 + 1) {
            return Err(config.refuse("position_buckets", format!("{buckets} buckets do not fit distances up to {max_distance}")));
        }
        let span = buckets.unwrap_or(max_distance);
        let table = self.names.get("encoder.rel_embeddings.weight", &[2 * span, self.width])?;
        let norm = self.table_norm(config)?;
        Ok(Some(Distances { table, norm, buckets, max_distance, shared: config.bool("share_att_key")?.unwrap_or(false) }))
    }

    /// `norm_rel_ebd`: words with `|` between them.
    fn table_norm(&self, config: &Json) -> Result<Option<Norm>, LoadError> {
        const FIELD: &str = "norm_rel_ebd";
        let words = config.str(FIELD)?.unwrap_or("none").to_lowercase();
        match words.split('|').map(str::trim).find(|word| !["none", "layer_norm", ""].contains(word)) {
            Some(word) => Err(config.refuse(FIELD, format!("`{word}` is not computed, only layer_norm and none"))),
            None if words.split('|').any(|word| word.trim() == "layer_norm") => {
                self.names.layer_norm("encoder.LayerNorm", self.width, self.eps).map(Some)
            }
            None => Ok(None),
        }
    }

    fn convolution(&self, config: &Json) -> Result<Option<Convolution>, LoadError> {
        let kernel = config.usize("conv_kernel_size")?.unwrap_or(0);
        if kernel == 0 {
            return Ok(None);
        }
        if kernel.is_multiple_of(2) {
            return Err(config.refuse("conv_kernel_size", format!("must be odd, but is {kernel}")));
        }
        let groups = size(config, "conv_groups", 1)?;
        if !self.width.is_multiple_of(groups) {
            return Err(config.refuse("conv_groups", format!("{groups} groups do not divide the width {}", self.width)));
        }
        let act = config.str("conv_act")?.unwrap_or("tanh");
        let activation = named_activation(act).ok_or_else(|| config.refuse("conv_act", format!("`{act}` is not an activation that is computed")))?;
        Ok(Some(Convolution {
            weight: self.names.get("encoder.conv.conv.weight", &[self.width, self.width / groups, kernel])?,
            bias: Some(self.names.get("encoder.conv.conv.bias", &[self.width])?),
            groups,
            activation,
            norm: self.names.layer_norm("encoder.conv.LayerNorm", self.width, self.eps)?,
        }))
    }

    fn layer(&self, index: usize, distances: Option<&Distances>, convolution: Option<Convolution>) -> Result<Layer, LoadError> {
        let (p, names, width) = (format!("encoder.layer.{index}"), &self.names, self.width);
        let square = |name: &str| names.linear(&format!("{p}.attention.{name}"), width, width, true);
        let (query, key, head_dim) = (square("self.query_proj")?, square("self.key_proj")?, width / self.heads);
        let bias = match distances {
            Some(distances) => self.disentangled(distances, (&query, &key), square)?,
            None => PositionBias::None,
        };
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim,
            query,
            key,
            value: square("self.value_proj")?,
            output: square("output.dense")?,
            qk_norm: None,
            scale: ((head_dim * self.kinds.terms()) as f64).sqrt().recip(),
            mask: Mask::ALL,
            rope: None,
            bias,
        };
        let mlp = Mlp::Plain {
            up: names.linear(&format!("{p}.intermediate.dense"), self.inner, width, true)?,
            activation: self.act,
            down: names.linear(&format!("{p}.output.dense"), width, self.inner, true)?,
        };
        let norm = |name: &str| names.layer_norm(&format!("{p}.{name}.LayerNorm"), width, self.eps).map(Norms::after);
        Ok(Layer { attention, attention_norms: norm("attention.output")?, mlp, mlp_norms: norm("output")?, convolution })
    }

    /// The maps of the distances: those of the contents, or their own.
    fn disentangled(
        &self,
        distances: &Distances,
        (query, key): (&Linear, &Linear),
        square: impl Fn(&str) -> Result<Linear, LoadError>,
    ) -> Result<PositionBias, LoadError> {
        let map = |wanted: bool, content: &Linear, own: &str| match (wanted, distances.shared) {
            (false, _) => Ok(None),
            (true, true) => Ok(Some(content.clone())),
            (true, false) => square(own).map(Some),
        };
        Ok(PositionBias::Disentangled(Arc::new(Disentangled {
            table: distances.table.clone(),
            norm: distances.norm.clone(),
            key: map(self.kinds.content_to_position, key, "self.pos_key_proj")?,
            query: map(self.kinds.position_to_content, query, "self.pos_query_proj")?,
            buckets: distances.buckets,
            max_distance: distances.max_distance,
        })))
    }
}
