//! `POST /oai/v1/embeddings`: the native call in OpenAI's forms, with token arrays.

use crate::api::native::embed::{Form, answer, embeds_empty, limits};
use crate::api::observe::Seen;
use crate::api::{Api, Embedder, Shared};
use crate::service::cl100k;
use crate::wire::request::{self, Body, Limits, TokenArrays};
use crate::wire::response::openai_embeddings;
use crate::wire::schema::{EmbeddingList, OpenAiEmbedBody};
use crate::wire::{EmbedRequest, Fault};
use axum::Extension;
use axum::extract::Request;
use axum::response::Response;

/// Text or token arrays to vectors, in OpenAI's form; also at `/v1/embeddings`.
#[utoipa::path(post, path = "/oai/v1/embeddings", tag = "OpenAI", operation_id = "openai_create_embedding", request_body = OpenAiEmbedBody,
    responses((status = 200, description = "The vectors", body = EmbeddingList)))]
pub(in crate::api) async fn create(api: Shared, Extension(seen): Extension<Seen>, request: Request) -> Result<Response, Fault> {
    // Whether a body holds token arrays shows only while it is read.
    let slow_parse = !cl100k::is_loaded();
    answer(api, seen, request, Form { parse, slow_parse, write: |vectors, encoding, model, _| openai_embeddings(vectors, encoding, model) }).await
}

fn parse(body: &[u8], api: &Api) -> Result<EmbedRequest, Fault> {
    read(body.into(), limits(api), api.options.max_token_ids, &*api.embedder)
}

/// Reads a request body of this layer, with at most `max_ids` token ids.
pub(in crate::api) fn read(body: Body, limits: Limits, max_ids: usize, embedder: &dyn Embedder) -> Result<EmbedRequest, Fault> {
    let arrays = TokenArrays { max_ids, decode: &cl100k::decode };
    request::parse_openai(body, limits, arrays, |model| embeds_empty(embedder, model))
}
