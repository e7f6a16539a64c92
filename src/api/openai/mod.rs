//! OpenAI's surface, `/oai/v1/...` (and `/v1/embeddings`): the same service for clients written for OpenAI's API. One resource per file.

pub(super) mod batches;
pub(super) mod embeddings;
pub(super) mod files;
pub(super) mod host;
pub(super) mod models;
