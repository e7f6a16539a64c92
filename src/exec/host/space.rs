//! Working memory of a group on its way through the layers, kept from batch to batch.

use super::content::Made;
use crate::kernels::host::operand::Turned;
use std::sync::{Mutex, PoisonError};

/// Buffers, each as long as the largest group so far needed.
#[derive(Default)]
pub(super) struct Space {
    /// What a part of a layer reads, where a norm stands before it: `[T, C]`.
    pub(super) input: Vec<f32>,
    /// What it gives, where a norm stands behind it: `[T, C]`.
    pub(super) output: Vec<f32>,
    /// Queries, keys, values: `[T, (H + 2 G) D]`.
    pub(super) qkv: Vec<f32>,
    /// Their mix: `[T, H D]`.
    pub(super) mixed: Vec<f32>,
    /// What one head makes of distances, where attention is disentangled.
    pub(super) made: Made,
    /// What a convolution makes of a layer's input: `[T, C]`.
    pub(super) beside: Vec<f32>,
    /// The MLP's inner state: `[T, F]`; or each token's neighbours, `[T, K C]`.
    pub(super) inner: Vec<f32>,
    pub(super) products: Products,
}

/// What products need on the way.
#[derive(Default)]
pub(super) struct Products {
    /// Its input in the form that its weights are packed for.
    pub(super) turned: Turned,
    /// The inner state of a low-rank delta: `[T, rank]`.
    pub(super) low: Vec<f32>,
    /// Its result, where something is added to it before it is put in its place.
    pub(super) apart: Vec<f32>,
}

/// Spaces that are not in use.
#[derive(Default)]
pub(super) struct Spaces(Mutex<Vec<Space>>);

impl Spaces {
    /// Held for the moment of taking only.
    pub(super) fn borrow(&self) -> Space {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, space: Space) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(space);
    }
}

/// The first `len` numbers of a buffer, which grows if it must. What stands in them is left over from before.
pub(super) fn fit(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.);
    }
    &mut buffer[..len]
}
