//! What the engine counts. One place, so that the code that computes stays readable.

use crate::telemetry as metric;

/// A batch of a model was computed.
pub fn batch(model: &str, texts: usize, tokens: usize) {
    metric::BATCH_TEXTS.observe([model], texts as f64);
    metric::BATCH_TOKENS.observe([model], tokens as f64);
}

/// Tokens that wait now.
pub fn depth(tokens: usize) {
    metric::QUEUE_TOKENS.set([], tokens as f64);
}

/// A non-finite row was computed again in f32.
pub fn repair(model: &str) {
    metric::REPAIRS.add([model], 1);
}

/// A device's thread started or ended.
pub fn device_up(device: &str, up: bool) {
    metric::DEVICE_UP.set([device], f64::from(u8::from(up)));
}
