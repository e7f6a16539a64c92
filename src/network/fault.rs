//! Why a model's files are refused: which file, which field or tensor of it, and the reason, as facts.

use super::DType;
use std::io;

/// A model that cannot be served as asked. Always the fault of the files or of the options, never of a request.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file that is missing, unreadable or not what its name says.
    #[error("{file}: {reason}")]
    File { file: String, reason: String },
    /// The operating system could not read a file.
    #[error("{file}: cannot be read: {source}")]
    Io { file: String, source: io::Error },
    /// A field of a JSON file that is missing, malformed, or means something this server does not do.
    #[error("{file}: `{field}`: {reason}")]
    Field { file: String, field: String, reason: String },
    /// A tensor of a checkpoint.
    #[error("{file}: tensor `{tensor}`: {reason}")]
    Tensor { file: String, tensor: String, reason: String },
    /// An option that this model or machine cannot obey.
    #[error("{option}: {reason}")]
    Option { option: &'static str, reason: String },
    /// More memory than there is.
    #[error(
        "not enough memory: in {dtype} this model needs {} MiB (weights {}, activations {}, while loading {}) beside {} MiB for budgets and what was \
         loaded before it, and {source_name} allows {} MiB; serve fewer or smaller models, say a smaller --dtype where the processor computes it (bf16, \
         int8), lower --max-queue-tokens or --max-body-bytes, or give it more memory",
        (weights_bytes + working_bytes + loading_bytes).div_ceil(1 << 20),
        weights_bytes.div_ceil(1 << 20),
        working_bytes.div_ceil(1 << 20),
        loading_bytes.div_ceil(1 << 20),
        taken_bytes.div_ceil(1 << 20),
        allowed_bytes >> 20
    )]
    Memory {
        dtype: DType,
        weights_bytes: u64,
        working_bytes: u64,
        loading_bytes: u64,
        taken_bytes: u64,
        allowed_bytes: u64,
        source_name: &'static str,
    },
    /// The device failed while it was being prepared.
    #[error("the model could not be put on its device")]
    Device(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl LoadError {
    /// A whole file refused.
    pub fn file(file: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::File { file: file.into(), reason: reason.into() }
    }

    /// A field refused.
    pub fn field(file: impl Into<String>, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field { file: file.into(), field: field.into(), reason: reason.into() }
    }

    /// A tensor refused.
    pub fn tensor(file: impl Into<String>, tensor: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Tensor { file: file.into(), tensor: tensor.into(), reason: reason.into() }
    }

    /// An option refused.
    pub fn option(option: &'static str, reason: impl Into<String>) -> Self {
        Self::Option { option, reason: reason.into() }
    }
}
