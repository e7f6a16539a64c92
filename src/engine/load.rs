//! From a model's files to a pipeline that is ready to run.

/// What is asked of a model when it is loaded.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--pooling`: the mode for a model that does not say its own.
    pub pooling: Option<String>,
    /// `max_tokens` of `[models."SLUG"]`: raises or lowers the model's own limit, up to its position table.
    pub max_tokens: Option<usize>,
}
