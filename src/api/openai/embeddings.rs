//! `POST /oai/v1/embeddings`: the native call in OpenAI's forms, with token arrays.

use crate::api::native::embed::{Form, answer, embeds_empty, limits};
use crate::api::observe::Seen;
use crate::api::{Api, Shared};
use crate::service::cl100k;
use crate::wire::request::{self, TokenArrays};
use crate::wire::response::openai_embeddings;
use crate::wire::{EmbedRequest, Fault};
use axum::Extension;
use axum::extract::Request;
use axum::response::Response;

/// The handler.
pub(in crate::api) async fn create(api: Shared, Extension(seen): Extension<Seen>, request: Request) -> Result<Response, Fault> {
    // Whether a body holds token arrays shows only while it is read.
    let slow_parse = !cl100k::is_loaded();
    answer(api, seen, request, Form { parse, slow_parse, write: |vectors, encoding, model, _| openai_embeddings(vectors, encoding, model) }).await
}

fn parse(body: &[u8], api: &Api) -> Result<EmbedRequest, Fault> {
    let arrays = TokenArrays { max_ids: api.options.max_token_ids, decode: &cl100k::decode };
    request::parse_openai(body, limits(api), arrays, |model| embeds_empty(&*api.embedder, model))
}
