//! Other names for served models, such as those that clients of a hosted service have in their code. None exists unless the operator sets it.

use super::registry::{Loaded, Model};

/// Another name for a model, and what a request under it means if it does not say so itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    pub name: String,
    /// The slug of the model.
    pub slug: String,
    /// The prompt of requests that name none.
    pub prompt: Option<String>,
    /// The vector size of requests that name none; `None` = native.
    pub dimensions: Option<usize>,
}

/// Vector sizes that clients of the hosted service expect under its names.
const HOSTED_SIZES: [(&str, usize); 5] = [
    ("openai/text-embedding-3-small", 1536),
    ("openai/text-embedding-3-large", 3072),
    ("openai/text-embedding-ada-002", 1536),
    ("google/text-embedding-004", 768),
    ("mistral/mistral-embed", 1024),
];

impl Alias {
    /// Checks it against its model.
    ///
    /// # Errors
    /// The sentence that says which part the model cannot give.
    pub fn check(&self, model: &Model, loaded: &Loaded) -> Result<(), String> {
        let named = |what: &str, error: String| format!("[aliases] {:?}: {what} {error}", self.name);
        if let Err(names) = model.role(&loaded.info, self.prompt.as_deref()) {
            return Err(named(
                "prompt",
                format!("{:?} is not among the model's, which are {}", self.prompt.as_deref().unwrap_or(""), names.0.join(", ")),
            ));
        }
        model.dimensions(&loaded.info, loaded.engine.dim, self.dimensions).map(drop).map_err(|error| named("dimensions", error))
    }
}

/// What to tell an operator who serves vectors of `size` under a hosted model's name, if clients expect another size there.
pub fn size_warning(name: &str, size: usize) -> Option<String> {
    // A client written against OpenAI itself has no prefix.
    let (_, hosted) = HOSTED_SIZES.iter().find(|(hosted, _)| *hosted == name || hosted.split('/').next_back() == Some(name))?;
    (*hosted != size).then(|| format!("{name} has {hosted} dimensions where it is hosted, and {size} here: an index laid out for it will not fit"))
}

#[cfg(test)]
mod tests {
    use super::size_warning;

    #[test]
    fn only_a_hosted_name_with_another_size_is_worth_a_warning() {
        assert_eq!(size_warning("openai/text-embedding-3-small", 1536), None);
        assert_eq!(size_warning("my/model", 384), None);
        for name in ["openai/text-embedding-3-small", "text-embedding-3-small"] {
            let warning = size_warning(name, 384).unwrap();
            assert!(warning.contains("1536") && warning.contains("384"), "{warning}");
        }
    }
}
