//! Why a model's files are refused: which file, which field or tensor of it, and the reason, as facts.

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
