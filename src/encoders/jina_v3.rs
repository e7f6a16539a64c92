//! Jina embeddings v3 (Sturua et al. 2024): XLM-RoBERTa with rotary positions and one set of low-rank deltas per task. The hub's own layout
//! (class `XLMRobertaLoRA`) and transformers' `JinaEmbeddingsV3Model`, which has no tasks.

use super::json::Json;
use super::parts::{Names, activation, eps, heads, size};
use super::rope::{self, Turn};
use crate::network::{
    Activation, Attention, Embeddings, Layer, Linear, LoadError, LowRank, Mask, Mlp, Network, Norm, Norms, PositionBias, Rope, RowDelta, TokenTable,
    Weight, WeightTable,
};
use std::sync::Arc;

/// Describes a checkpoint of the hub's layout: a `model_type` of XLM-RoBERTa with code of its own.
pub fn describe_hub(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    const POSITIONS: &str = "position_embedding_type";
    match config.str(POSITIONS)? {
        Some("rotary") => {}
        other => return Err(config.refuse(POSITIONS, format!("{other:?} is not computed for this code, only \"rotary\""))),
    }
    let theta = config.f64("rotary_emb_base")?.unwrap_or(10_000.);
    if !(theta.is_finite() && theta > 0.) {
        return Err(config.refuse("rotary_emb_base", format!("must be above 0, but is {theta}")));
    }
    let tasks = config.list("lora_adaptations")?.map_or(0, <[_]>::len);
    if tasks == 0 {
        return Err(config.refuse("lora_adaptations", "is missing or empty: nothing says which tasks the deltas are for"));
    }
    if !config.bool("load_trained_adapters")?.unwrap_or(false) {
        return Err(config.refuse("load_trained_adapters", "is not true: the deltas in the file would not be used"));
    }
    let rank = size(config, "lora_rank", 4)?;
    let alpha = config.f64("lora_alpha")?.unwrap_or(1.);
    let deltas = Some(Deltas { tasks, rank, scale: alpha / rank as f64 });
    read(config, weights, deltas, |head_dim, _| Ok(rope::plain(head_dim, theta)))
}

/// Describes a checkpoint of transformers' own class.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    read(config, weights, None, |dim, max_tokens| rope::read(config, &Turn { dim, theta: 20_000., max_tokens }))
}

fn read(
    config: &Json,
    weights: &WeightTable,
    deltas: Option<Deltas>,
    turn: impl FnOnce(usize, usize) -> Result<Rope, LoadError>,
) -> Result<Network, LoadError> {
    let width = size(config, "hidden_size", 1024)?;
    let heads = heads(config, "num_attention_heads", 16, width)?;
    let max_tokens = size(config, "max_position_embeddings", 8194)?;
    let head_dim = width / heads;
    if !head_dim.is_multiple_of(2) {
        return Err(config.refuse("num_attention_heads", format!("leaves heads of {head_dim} dimensions, which cannot be turned in pairs")));
    }
    let names = Names::of(weights, &["roberta."], "embeddings.token_type_embeddings.weight");
    let page = Page {
        names: if deltas.is_some() { Names::of(weights, &["roberta."], "emb_ln.weight") } else { names },
        deltas,
        width,
        heads,
        inner: size(config, "intermediate_size", 4096)?,
        eps: eps(config, "layer_norm_eps", 1e-5)?,
        act: activation(config, "hidden_act", "gelu")?,
        rope: Arc::new(turn(head_dim, max_tokens)?),
    };
    let embeddings = page.embeddings(config)?;
    let layers = (0..size(config, "num_hidden_layers", 24)?).map(|index| page.layer(index).map(Arc::new)).collect::<Result<_, _>>()?;
    Ok(Network { width, max_tokens, embeddings, layers, norm: None, adapters: page.deltas.map_or(0, |deltas| deltas.tasks) })
}

/// How many sets of deltas each matrix has.
#[derive(Clone, Copy)]
struct Deltas {
    tasks: usize,
    rank: usize,
    /// `lora_alpha / lora_rank`.
    scale: f64,
}

struct Page<'a> {
    names: Names<'a>,
    deltas: Option<Deltas>,
    width: usize,
    heads: usize,
    inner: usize,
    eps: f64,
    act: Activation,
    rope: Arc<Rope>,
}

impl Page<'_> {
    /// The matrix of that name, which parametrised checkpoints call another.
    fn matrix(&self, name: &str, shape: &[usize]) -> Result<Weight, LoadError> {
        match self.deltas {
            Some(_) => self.names.get(&format!("{name}.parametrizations.weight.original"), shape),
            None => self.names.get(&format!("{name}.weight"), shape),
        }
    }

    /// `lora_A` and `lora_B` of a matrix, a part per task.
    fn parts(&self, name: &str, deltas: Deltas, a: [usize; 2], b: [usize; 2]) -> Result<Vec<(Weight, Weight)>, LoadError> {
        let get = |part: &str, [rows, columns]: [usize; 2]| {
            self.names.get(&format!("{name}.parametrizations.weight.0.{part}"), &[deltas.tasks, rows, columns])
        };
        let (a, b) = (get("lora_A", a)?, get("lora_B", b)?);
        (0..deltas.tasks).map(|task| Ok((a.part(task)?, b.part(task)?))).collect()
    }

    /// Maps of one input stored as one, `[N out, into]`, with `lora_A` `[tasks, rank, into]` and `lora_B` `[tasks, N out, rank]`.
    fn maps<const N: usize>(&self, name: &str, out: usize, into: usize) -> Result<[Linear; N], LoadError> {
        let (matrix, bias) = (self.matrix(name, &[N * out, into])?, self.names.get(&format!("{name}.bias"), &[N * out])?);
        let parts = match self.deltas {
            Some(deltas) => self.parts(name, deltas, [deltas.rank, into], [N * out, deltas.rank])?,
            None => Vec::new(),
        };
        let scale = self.deltas.map_or(0., |deltas| deltas.scale);
        let map = |index: usize| -> Result<Linear, LoadError> {
            let rows = index * out..(index + 1) * out;
            let delta = |(down, up): &(Weight, Weight)| Ok(LowRank { down: down.clone(), up: up.rows(rows.clone())?, scale });
            let adapters = parts.iter().map(delta).collect::<Result<_, LoadError>>()?;
            Ok(Linear { weight: matrix.rows(rows.clone())?, bias: Some(bias.rows(rows.clone())?), adapters })
        };
        let maps = (0..N).map(map).collect::<Result<Vec<_>, _>>()?;
        maps.try_into().map_err(|_| matrix.refuse("cannot be split"))
    }

    fn map(&self, name: &str, out: usize, into: usize) -> Result<Linear, LoadError> {
        self.maps::<1>(name, out, into).map(|[map]| map)
    }

    /// The norm under the hub's name or under that of transformers' class.
    fn norm(&self, [hub, class]: [&str; 2]) -> Result<Norm, LoadError> {
        let name = if self.names.has(&format!("{hub}.weight")) { hub } else { class };
        self.names.layer_norm(name, self.width, self.eps)
    }

    fn embeddings(&self, config: &Json) -> Result<Embeddings, LoadError> {
        const WORDS: &str = "embeddings.word_embeddings";
        const TYPES: &str = "embeddings.token_type_embeddings";
        let (words, types) = (size(config, "vocab_size", 250_002)?, size(config, "type_vocab_size", 1)?);
        let mut tokens = TokenTable::new(self.matrix(WORDS, &[words, self.width])?);
        if let Some(deltas) = self.deltas {
            let parts = |name: &str, rows: usize| self.parts(name, deltas, [rows, deltas.rank], [deltas.rank, self.width]);
            let delta = |((down, up), token_type)| RowDelta { down, up, scale: deltas.scale, token_type: Some(token_type) };
            tokens.adapters = parts(WORDS, words)?.into_iter().zip(parts(TYPES, types)?).map(delta).collect();
        }
        Ok(Embeddings {
            tokens,
            scale: 1.,
            positions: None,
            token_types: Some(self.matrix(TYPES, &[types, self.width])?),
            norm: Some(self.norm(["emb_ln", "embeddings.LayerNorm"])?),
            projection: None,
        })
    }

    fn layer(&self, index: usize) -> Result<Layer, LoadError> {
        let (hub, class, width) = (format!("encoder.layers.{index}"), format!("layers.{index}"), self.width);
        let is_hub = self.names.has(&format!("{hub}.norm1.weight"));
        let p = if is_hub { &hub } else { &class };
        let part = |name: &str| self.map(&format!("{p}.{name}"), width, width);
        let ([query, key, value], output) = if is_hub {
            (self.maps::<3>(&format!("{p}.mixer.Wqkv"), width, width)?, part("mixer.out_proj")?)
        } else {
            ([part("self_attn.q_proj")?, part("self_attn.k_proj")?, part("self_attn.v_proj")?], part("self_attn.o_proj")?)
        };
        let head_dim = width / self.heads;
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim,
            query,
            key,
            value,
            output,
            qk_norm: None,
            scale: (head_dim as f64).sqrt().recip(),
            mask: Mask::ALL,
            rope: Some(self.rope.clone()),
            bias: PositionBias::None,
        };
        let mlp = Mlp::Plain {
            up: self.map(&format!("{p}.mlp.fc1"), self.inner, width)?,
            activation: self.act,
            down: self.map(&format!("{p}.mlp.fc2"), width, self.inner)?,
        };
        let norm = |[hub_name, name]: [&str; 2]| self.norm([&format!("{hub}.{hub_name}"), &format!("{class}.{name}")]).map(Norms::after);
        Ok(Layer {
            attention,
            attention_norms: norm(["norm1", "post_attention_layernorm"])?,
            mlp,
            mlp_norms: norm(["norm2", "post_mlp_layernorm"])?,
            convolution: None,
        })
    }
}
