//! The bridge between async callers and the device: submit tokens, await vectors.

pub mod load;
pub mod pipeline;
