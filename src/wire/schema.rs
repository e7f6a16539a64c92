//! Bodies that are read or written without a type of their own, for speed: here they have one, for the OpenAPI document. A property-based client
//! among the client tests holds the server to it.

use super::listing::{ListMeta, Pagination};
use super::{Encoding, Meta, Truncate};
use jiff::Timestamp;
use utoipa::ToSchema;

/// Texts to embed.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only the description of the type is used, here and below")]
pub struct EmbedBody {
    /// A served model: its slug, its card's short name or an alias; with `:query`, `:document` or another prompt behind it if wanted.
    #[schema(min_length = 1, examples("sentence-transformers/all-MiniLM-L6-v2"))]
    model: String,
    input: TextInput,
    /// Size of the vectors: the native size, or a smaller one if the model is fit for it.
    #[schema(minimum = 1)]
    dimensions: Option<u32>,
    encoding_format: Option<Encoding>,
    /// What to do with a text longer than the model takes.
    truncate: Option<Truncate>,
    /// The name of one of the model's prompts.
    input_type: Option<String>,
    /// The embedding space of the vectors that these will be compared with; a model with another one is refused.
    expect_space: Option<String>,
}

/// One text, or a list of them.
#[derive(ToSchema)]
#[schema(examples("a single text", json!(["Where do rivers end?", "Rivers flow into the sea."])))]
#[serde(untagged)]
#[allow(dead_code)]
pub enum TextInput {
    One(Text),
    Many(Texts),
}

#[derive(ToSchema)]
#[schema(min_length = 1)]
#[allow(dead_code)]
pub struct Text(String);

/// At least one; how many at most is the server's setting.
#[derive(ToSchema)]
#[schema(min_items = 1)]
#[allow(dead_code)]
pub struct Texts(Vec<Text>);

/// Texts or tokens to embed, in OpenAI's form.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct OpenAiEmbedBody {
    /// A served model: its slug, its card's short name or an alias; with `:query`, `:document` or another prompt behind it if wanted.
    #[schema(min_length = 1, examples("sentence-transformers/all-MiniLM-L6-v2"))]
    model: String,
    input: OpenAiInput,
    /// Size of the vectors: the native size, or a smaller one if the model is fit for it.
    #[schema(minimum = 1)]
    dimensions: Option<u32>,
    encoding_format: Option<Encoding>,
    /// Ignored.
    user: Option<String>,
    /// What to do with a text longer than the model takes. An extension.
    truncate: Option<Truncate>,
    /// The name of one of the model's prompts. An extension.
    input_type: Option<String>,
    /// The embedding space of the vectors that these will be compared with; a model with another one is refused. An extension.
    expect_space: Option<String>,
}

/// One text or a list of them, each a string or an array of token ids of the vocabulary `cl100k_base`.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(dead_code)]
pub enum OpenAiInput {
    Text(Text),
    Texts(Texts),
    Tokens(Tokens),
    TokenLists(TokenLists),
}

/// Control tokens stand for no text.
#[derive(ToSchema)]
#[schema(minimum = 0, maximum = 100255)]
#[allow(dead_code)]
pub struct TokenId(u32);

#[derive(ToSchema)]
#[schema(min_items = 1)]
#[allow(dead_code)]
pub struct Tokens(Vec<TokenId>);

#[derive(ToSchema)]
#[schema(min_items = 1)]
#[allow(dead_code)]
pub struct TokenLists(Vec<Tokens>);

/// Vectors in the order of the texts.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct EmbedAnswer<'a> {
    /// `ok`.
    status: &'static str,
    data: EmbedData,
    meta: Meta<'a>,
}

/// What was computed.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct EmbedData {
    /// The model's name as it was sent.
    model: String,
    data: Vec<EmbedItem>,
    usage: Usage,
}

/// The vector of one text.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct EmbedItem {
    /// The text's place in the request.
    index: u32,
    embedding: Embedding,
    /// Only there, and true, if the text was cut to the model's length.
    #[schema(nullable = false)]
    truncated: Option<bool>,
    /// Only there if the text was cut: how many tokens the whole of it has.
    #[schema(nullable = false)]
    original_tokens: Option<u32>,
}

/// A vector: numbers, or its little-endian f32 bytes in base64.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(dead_code)]
pub enum Embedding {
    Float(Vec<f32>),
    Base64(String),
}

/// Tokens computed: special tokens and prompt included, padding never. Both are always equal.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct Usage {
    prompt_tokens: u32,
    total_tokens: u32,
}

/// Vectors in the order of the texts, in OpenAI's form.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct EmbeddingList {
    /// `list`.
    object: &'static str,
    data: Vec<OpenAiEmbedItem>,
    /// The model's name as it was sent.
    model: String,
    usage: Usage,
}

/// The vector of one text, in OpenAI's form.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct OpenAiEmbedItem {
    /// `embedding`.
    object: &'static str,
    #[serde(flatten)]
    item: EmbedItem,
}

/// The native envelope.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct Success<T> {
    /// `ok`.
    status: &'static str,
    data: T,
    meta: Meta<'static>,
}

/// A page of a native listing.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct Page<T> {
    /// `ok`.
    status: &'static str,
    data: PageItems<T>,
    pagination: Pagination<'static>,
    meta: ListMeta<'static>,
}

/// The items of a page.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct PageItems<T> {
    items: Vec<T>,
}

/// A key to be made.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct KeyBody {
    #[schema(min_length = 1)]
    name: String,
    /// The user of the key that makes it, if absent.
    #[schema(min_length = 1)]
    assigned_user_id: Option<String>,
    /// All that the making key may use, if absent.
    models: Option<Vec<String>>,
    /// All that the making key has, if absent.
    scopes: Option<Vec<String>>,
    /// In the future; never, if absent.
    expires_at: Option<Timestamp>,
    #[schema(minimum = 1)]
    requests_per_minute: Option<u32>,
    #[schema(minimum = 1)]
    tokens_per_minute: Option<u32>,
}

/// A batch job to be run; its lines come from exactly one of the two inputs.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct JobBody {
    /// `scaigrid://file/ID` of an uploaded file; an `https`, `http` or `file` address only where the operator allows it.
    input_file_url: Option<String>,
    /// The lines themselves.
    input_file_base64: Option<String>,
    endpoint_completion_window: Option<CompletionWindow>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<()>,
}

/// How long a job may take; `24h` if absent.
#[derive(ToSchema)]
#[allow(dead_code)]
pub enum CompletionWindow {
    #[schema(rename = "24h")]
    Day,
    #[schema(rename = "4h")]
    FourHours,
    #[schema(rename = "1h")]
    Hour,
}

/// A batch to be run, in OpenAI's form.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct BatchBody {
    #[schema(min_length = 1)]
    input_file_id: String,
    /// `/v1/embeddings` or `/oai/v1/embeddings`, as in every line.
    #[schema(min_length = 1)]
    endpoint: String,
    completion_window: CompletionWindow,
    /// Strings only.
    #[schema(value_type = Option<Object>)]
    metadata: Option<()>,
    output_expires_after: Option<ExpiresAfter>,
}

/// How long results are kept.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct ExpiresAfter {
    /// `created_at`: from when they are made.
    anchor: Anchor,
    #[schema(minimum = 3600, maximum = 2_592_000)]
    seconds: u32,
}

/// From when on it is counted.
#[derive(ToSchema)]
#[allow(dead_code)]
pub enum Anchor {
    #[schema(rename = "created_at")]
    CreatedAt,
}

/// A file to be kept.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct FileForm {
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// `batch` for the lines of a batch.
    purpose: String,
    #[schema(rename = "expires_after[anchor]")]
    expires_after_anchor: Option<Anchor>,
    /// From an hour to thirty days.
    #[schema(rename = "expires_after[seconds]", minimum = 3600, maximum = 2_592_000)]
    expires_after_s: Option<u32>,
}

/// The order of a listing by age.
#[derive(ToSchema)]
#[allow(dead_code)]
pub enum Order {
    #[schema(rename = "asc")]
    Asc,
    #[schema(rename = "desc")]
    Desc,
}
