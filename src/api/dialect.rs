//! Whose forms an answer takes: the hosted service's own, or those of OpenAI's API. Told by the path alone, so that even a 404 has the right one.

/// The two layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Native,
    OpenAi,
}

impl Dialect {
    /// The layer that a path belongs to.
    pub(super) fn of(path: &str) -> Self {
        let first_parts = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if ["/oai", "/v1/embeddings", "/v1/files", "/v1/batches"].into_iter().any(first_parts) { Self::OpenAi } else { Self::Native }
    }

    /// Its name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::OpenAi => "openai",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_one_layer() {
        for path in ["/oai", "/oai/", "/oai/v1/models/a/b", "/oai/nowhere", "/v1/embeddings", "/v1/embeddings/", "/v1/files/x", "/v1/batches"] {
            assert_eq!(Dialect::of(path), Dialect::OpenAi, "{path}");
        }
        for path in ["/", "/v1/models", "/v1/inference/embed", "/oaix", "/v1/embeddingsx", "/v1/oai/v1/models", "/health"] {
            assert_eq!(Dialect::of(path), Dialect::Native, "{path}");
        }
    }
}
