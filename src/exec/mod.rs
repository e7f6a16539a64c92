//! Runs a `Network` on a `Packed` batch. Knows no text, no file and no pooling.

pub mod tensor;
mod weights;

pub use weights::Place;
