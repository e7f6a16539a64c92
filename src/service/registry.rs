//! The models being served: slugs, short names, and what a client may know of each.

/// A model as clients see it.
#[derive(Debug)]
pub struct Model {
    /// The slug it is listed under.
    pub slug: String,
    /// Its name for people.
    pub display_name: String,
    /// Native vector size.
    pub dimensions: usize,
    /// The longest text it takes, in tokens, special tokens included.
    pub max_tokens: usize,
}
