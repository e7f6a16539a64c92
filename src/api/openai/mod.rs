//! OpenAI's surface, `/oai/v1/...`: the same service for clients written for OpenAI's API. One resource per file.

pub(super) mod batches;
pub(super) mod files;
