//! What the engine counts. One place, so that the code that computes stays readable.

use super::queue::{Lane, ModelId};
use std::time::Duration;

/// A batch was computed.
pub fn batch(_model: ModelId, _lane: Lane, _texts: usize, _tokens: usize, _took: Duration) {}
/// Texts left the queue because their deadline had passed.
pub fn expired(_texts: usize) {}
/// Tokens that wait now.
pub fn depth(_tokens: usize) {}
/// A failed batch was split.
pub fn split() {}
/// A non-finite row was computed again.
pub fn repair(_mended: bool) {}
/// The device thread started or ended.
pub fn device_up(_up: bool) {}
