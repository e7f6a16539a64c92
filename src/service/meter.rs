//! What the service counts. One place, so that the use case stays readable. `model` is always a configured slug.

use std::time::Duration;

/// A request's texts became tokens.
pub fn tokenized(_model: &str, _took: Duration) {}
/// Texts were cut to the model's length.
pub fn truncated(_model: &str, _texts: usize) {}
/// A request got its vectors.
pub fn computed(_model: &str, _queue: Duration, _inference: Duration) {}
/// Vectors that are all zero and stay so.
pub fn zeros(_model: &str, _vectors: usize) {}
