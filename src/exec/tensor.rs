//! Any `Network` on candle tensors, activations packed `[T, C]`: every device, and the reference that other executors are tested against.

use super::Place;
use crate::kernels::device::attention::{AttnSpec, attend};
use crate::network::{Activation, Attention, Layer, Linear, LoadError, Network, Norm};
use crate::ragged::{Packed, Ragged};
use candle_core::{DType, Result, Tensor};

/// A network whose weights lie on the device.
pub struct TensorExecutor {
    embeddings: Embeddings,
    layers: Vec<LayerOp>,
    vocabulary: usize,
    positions: usize,
    weight_bytes: usize,
}

impl TensorExecutor {
    /// Puts a network's weights on the device.
    ///
    /// # Errors
    /// Weights that are not finite, a device that fails or is full.
    pub fn new(network: &Network, place: &Place) -> std::result::Result<Self, LoadError> {
        let embeddings = Embeddings::new(network, place)?;
        let layers = network.layers.iter().map(|layer| LayerOp::new(layer, network.width, place)).collect::<std::result::Result<Vec<_>, _>>()?;
        let weight_bytes = embeddings.weight_bytes() + layers.iter().map(LayerOp::weight_bytes).sum::<usize>();
        Ok(Self { embeddings, layers, vocabulary: network.vocabulary(), positions: network.positions(), weight_bytes })
    }

    /// What the weights occupy on the device.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// The hidden state after the last layer, `[T, C]` in f32, in the order of the batch.
    ///
    /// # Errors
    /// Ids outside the vocabulary, texts that are empty or longer than the positions, a device that fails or is full.
    pub fn run(&self, batch: &Packed) -> Result<Tensor> {
        self.check(batch)?;
        let sorted = Sorted::new(batch);
        let mut x = self.embeddings.forward(&sorted)?;
        for layer in &self.layers {
            x = layer.forward(&x, &sorted.segments)?;
        }
        sorted.restore(&x.to_dtype(DType::F32)?)
    }

    fn check(&self, batch: &Packed) -> Result<()> {
        if let Some(id) = batch.ids.iter().find(|id| **id as usize >= self.vocabulary) {
            candle_core::bail!("token id {id} is outside the vocabulary of {}", self.vocabulary)
        }
        match batch.segments.ranges().map(|rows| rows.len()).find(|len| *len == 0 || *len > self.positions) {
            Some(len) => candle_core::bail!("a text of {len} tokens; the model takes 1 to {}", self.positions),
            None => Ok(()),
        }
    }
}

/// A batch with its texts in order of length, so that attention meets texts of one length side by side.
struct Sorted {
    ids: Vec<u32>,
    positions: Vec<u32>,
    segments: Ragged,
    /// For each row of the original batch, its row here; `None` if the order is the same.
    back: Option<Vec<u32>>,
}

impl Sorted {
    fn new(batch: &Packed) -> Self {
        let ranges: Vec<_> = batch.segments.ranges().collect();
        let mut order: Vec<usize> = (0..ranges.len()).collect();
        order.sort_by_key(|text| ranges[*text].len());
        let mut ids = Vec::with_capacity(batch.tokens());
        let mut positions = Vec::with_capacity(batch.tokens());
        let mut back = vec![0; batch.tokens()];
        for text in &order {
            for (position, row) in ranges[*text].clone().enumerate() {
                back[row] = ids.len() as u32;
                ids.push(batch.ids[row]);
                positions.push(position as u32);
            }
        }
        let segments = Ragged::from_lens(order.iter().map(|text| ranges[*text].len()));
        Self { ids, positions, segments, back: (!order.is_sorted()).then_some(back) }
    }

    fn restore(&self, x: &Tensor) -> Result<Tensor> {
        match &self.back {
            Some(back) => x.index_select(&Tensor::new(back.as_slice(), x.device())?, 0),
            None => Ok(x.clone()),
        }
    }
}

struct Embeddings {
    /// `[V, C]`.
    tokens: Tensor,
    /// Position plus token type 0, `[P, C]`.
    positions: Tensor,
    norm: NormOp,
}

impl Embeddings {
    fn new(network: &Network, place: &Place) -> std::result::Result<Self, LoadError> {
        let words = &network.embeddings;
        let (positions, types) = (place.tensor(&words.positions)?, place.tensor(&words.token_types)?);
        let positions = types.narrow(0, 0, 1).and_then(|first| positions.broadcast_add(&first)).map_err(device)?;
        Ok(Self { tokens: place.tensor(&words.tokens)?, positions, norm: NormOp::new(&words.norm, place)? })
    }

    fn forward(&self, batch: &Sorted) -> Result<Tensor> {
        let at = |indices: &[u32]| Tensor::new(indices, self.tokens.device());
        let tokens = self.tokens.index_select(&at(&batch.ids)?, 0)?;
        let positions = self.positions.index_select(&at(&batch.positions)?, 0)?;
        self.norm.forward(&(tokens + positions)?)
    }

    fn weight_bytes(&self) -> usize {
        bytes(&self.tokens) + bytes(&self.positions) + self.norm.weight_bytes()
    }
}

struct LayerOp {
    attention: AttentionOp,
    attention_norm: NormOp,
    up: LinearOp,
    activation: Activation,
    down: LinearOp,
    mlp_norm: NormOp,
}

impl LayerOp {
    fn new(layer: &Layer, width: usize, place: &Place) -> std::result::Result<Self, LoadError> {
        Ok(Self {
            attention: AttentionOp::new(&layer.attention, width, place)?,
            attention_norm: NormOp::new(&layer.attention_norm, place)?,
            up: LinearOp::new(&layer.mlp.up, place)?,
            activation: layer.mlp.activation,
            down: LinearOp::new(&layer.mlp.down, place)?,
            mlp_norm: NormOp::new(&layer.mlp_norm, place)?,
        })
    }

    fn forward(&self, x: &Tensor, segments: &Ragged) -> Result<Tensor> {
        let x = self.attention_norm.forward(&(self.attention.forward(x, segments)? + x)?)?;
        let inner = activate(&self.up.forward(&x)?, self.activation)?;
        self.mlp_norm.forward(&(self.down.forward(&inner)? + &x)?)
    }

    fn weight_bytes(&self) -> usize {
        let linear = self.attention.qkv.weight_bytes() + self.attention.output.weight_bytes() + self.up.weight_bytes() + self.down.weight_bytes();
        linear + self.attention_norm.weight_bytes() + self.mlp_norm.weight_bytes()
    }
}

struct AttentionOp {
    /// Query, key and value in one product, `[3C, C]`.
    qkv: LinearOp,
    output: LinearOp,
    heads: usize,
    head_dim: usize,
    spec: AttnSpec,
}

impl AttentionOp {
    fn new(attention: &Attention, width: usize, place: &Place) -> std::result::Result<Self, LoadError> {
        let parts = [&attention.query, &attention.key, &attention.value];
        let parts = parts.map(|part| LinearOp::new(part, place)).into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
        let head_dim = width / attention.heads;
        Ok(Self {
            qkv: LinearOp::stack(&parts).map_err(device)?,
            output: LinearOp::new(&attention.output, place)?,
            heads: attention.heads,
            head_dim,
            spec: AttnSpec { scale: 1. / (head_dim as f64).sqrt() },
        })
    }

    fn forward(&self, x: &Tensor, segments: &Ragged) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let qkv = self.qkv.forward(x)?.reshape((tokens, 3 * self.heads, self.head_dim))?;
        let part = |index: usize| qkv.narrow(1, index * self.heads, self.heads);
        let mixed = attend(&part(0)?, &part(1)?, &part(2)?, segments, &self.spec)?;
        self.output.forward(&mixed.reshape((tokens, width))?)
    }
}

/// A linear map on the device; public to the pipeline's Dense.
pub(crate) struct LinearOp {
    /// `[out, in]`.
    weight: Tensor,
    bias: Option<Tensor>,
}

impl LinearOp {
    pub(crate) fn new(linear: &Linear, place: &Place) -> std::result::Result<Self, LoadError> {
        let bias = linear.bias.as_ref().map(|bias| place.tensor(bias)).transpose()?;
        Ok(Self { weight: place.tensor(&linear.weight)?, bias })
    }

    /// Linear maps of one input as one map; all have a bias, or none has.
    fn stack(parts: &[Self]) -> Result<Self> {
        let weight = Tensor::cat(&parts.iter().map(|part| &part.weight).collect::<Vec<_>>(), 0)?;
        let biases: Vec<_> = parts.iter().filter_map(|part| part.bias.as_ref()).collect();
        let bias = if biases.len() == parts.len() { Some(Tensor::cat(&biases, 0)?) } else { None };
        Ok(Self { weight, bias })
    }

    /// `[T, in]` -> `[T, out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    fn weight_bytes(&self) -> usize {
        bytes(&self.weight) + self.bias.as_ref().map_or(0, bytes)
    }
}

/// A LayerNorm on the device; its statistics are computed in f32.
pub(crate) struct NormOp {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl NormOp {
    pub(crate) fn new(norm: &Norm, place: &Place) -> std::result::Result<Self, LoadError> {
        Ok(Self { weight: place.tensor(&norm.weight)?, bias: place.tensor(&norm.bias)?, eps: norm.eps as f32 })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::layer_norm(x, &self.weight, &self.bias, self.eps)
    }

    fn weight_bytes(&self) -> usize {
        bytes(&self.weight) + bytes(&self.bias)
    }
}

/// Applies an activation element-wise.
pub(crate) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(x.clone()),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
        Activation::Sigmoid => candle_nn::ops::sigmoid(x),
        Activation::Silu => x.silu(),
        Activation::Tanh => x.tanh(),
    }
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

fn device(error: candle_core::Error) -> LoadError {
    LoadError::Device(error.into())
}
