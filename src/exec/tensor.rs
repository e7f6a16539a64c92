//! Any `Network` on candle tensors, activations packed `[T, C]`: every device, and the reference that other executors are tested against.

mod attention;
mod batch;
mod embeddings;
mod layer;
mod linear;
mod mlp;
mod norm;

pub(crate) use linear::LinearOp;
pub(crate) use mlp::activate;
pub(crate) use norm::NormOp;

use super::{Limits, Place, between};
use crate::network::{LoadError, Network, Rope};
use crate::ragged::Packed;
use batch::Batch;
use candle_core::{DType, Result, Tensor};
use embeddings::EmbeddingsOp;
use layer::LayerOp;
use std::sync::Arc;

/// A network whose weights lie on the device.
pub struct TensorExecutor {
    embeddings: EmbeddingsOp,
    /// Each layer once, and the order in which they are applied.
    layers: Vec<LayerOp>,
    order: Vec<usize>,
    norm: Option<NormOp>,
    /// Those that differ; layers refer to them by index.
    ropes: Vec<Arc<Rope>>,
    limits: Limits,
    place: Place,
}

impl TensorExecutor {
    /// Puts a network's weights on the device.
    ///
    /// # Errors
    /// Weights that are not finite, a device that fails or is full.
    pub fn new(network: &Network, place: &Place) -> std::result::Result<Self, LoadError> {
        let (mut layers, mut held, mut order, mut ropes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for layer in &network.layers {
            let known = held.iter().position(|other| Arc::ptr_eq(other, layer));
            if known.is_none() {
                held.push(layer.clone());
                layers.push(LayerOp::new(layer, &mut ropes, place)?);
            }
            order.push(known.unwrap_or(layers.len() - 1));
        }
        Ok(Self {
            embeddings: EmbeddingsOp::new(&network.embeddings, place)?,
            layers,
            order,
            norm: network.norm.as_ref().map(|norm| NormOp::new(norm, place)).transpose()?,
            ropes,
            limits: Limits::of(network),
            place: place.clone(),
        })
    }

    /// What the weights occupy on the device.
    pub fn weight_bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(LayerOp::weight_bytes).sum();
        self.embeddings.weight_bytes() + layers + self.norm.as_ref().map_or(0, NormOp::weight_bytes)
    }

    /// The hidden state after the last layer, `[T, C]` in f32, in the order of the batch.
    ///
    /// # Errors
    /// Ids outside the vocabulary, texts that are empty or too long, an adapter that there is not, a device that fails or is full.
    pub fn run(&self, batch: &Packed) -> Result<Tensor> {
        self.limits.check(batch)?;
        let batch = Batch::new(batch, &self.ropes, &self.place)?;
        let mut x = self.embeddings.forward(&batch)?;
        for index in &self.order {
            // What a GPU has been told it does in that order; only here does the thread wait for its own work.
            if self.place.device.is_cpu() {
                between::here();
            }
            x = self.layers[*index].forward(&x, &batch)?;
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        batch.restore(&x.to_dtype(DType::F32)?)
    }
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

fn device(error: candle_core::Error) -> LoadError {
    LoadError::Device(error.into())
}
