//! modules.json as a pipeline: the encoder, then Pooling, Dense, LayerNorm, Normalize as data.
