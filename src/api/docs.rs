//! The OpenAPI document, generated from the types and handlers it describes, and a page to read it with; both need no key and no internet.

use super::dialect::Dialect;
use super::{health, native, openai, reply};
use crate::wire::Fault;
use crate::wire::fault::NativeEnvelope;
use crate::wire::listing::{Modality, ModelStatus};
use crate::wire::openai::Envelope;
use crate::wire::schema::Order;
use axum::extract::Path;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use std::sync::{Arc, LazyLock};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::Config;

#[derive(OpenApi)]
#[openapi(
    info(title = "Vecmill", description = "Text to vectors, behind the embedding API of the hosted ScaiGrid service and behind OpenAI's."),
    paths(
        native::embed::embed,
        native::models::list,
        native::models::get,
        native::keys::list,
        native::keys::create,
        native::keys::delete,
        native::keys::me,
        native::accounting::list,
        native::accounting::summary,
        native::batch::submit,
        native::batch::list,
        native::batch::status,
        native::batch::cancel,
        native::results::output,
        native::results::errors,
        openai::embeddings::create,
        openai::models::list,
        openai::models::retrieve,
        openai::files::create,
        openai::files::list,
        openai::files::retrieve,
        openai::files::delete,
        openai::files::content,
        openai::batches::create,
        openai::batches::list,
        openai::batches::retrieve,
        openai::batches::cancel,
        health::live,
        health::ready,
        health::metrics,
    ),
    components(schemas(NativeEnvelope, Envelope, Modality, ModelStatus, Order)),
    modifiers(&Aliases, &Faults, &Bearer),
)]
struct Document;

/// The same handlers under other paths.
struct Aliases;

impl Modify for Aliases {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let also = |path: &str| path.strip_prefix("/oai").filter(|short| Dialect::of(short) == Dialect::OpenAi).map(str::to_owned);
        let paths = &mut document.paths.paths;
        let found: Vec<_> = paths.iter().filter_map(|(path, item)| Some((also(path)?, item.clone()))).collect();
        for (path, mut item) in found {
            for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
                operation.operation_id = operation.operation_id.take().map(|id| id + "_v1");
            }
            paths.insert(path, item);
        }
    }
}

/// What may go wrong everywhere; 422 is 400 on the OpenAI layer.
const FAULTS: [(&str, &str); 13] = [
    ("401", "No key, or one that is not known"),
    ("403", "The key lacks a scope, or may not use this model"),
    ("404", "No such model"),
    ("408", "The request arrived too slowly"),
    ("409", "The thing cannot be changed this way"),
    ("413", "The body is too large"),
    ("415", "The body is in an encoding that is not taken"),
    ("422", "A field cannot be accepted"),
    ("429", "Too busy, or over a limit: wait `Retry-After` seconds"),
    ("500", "A fault of the server"),
    ("502", "The computation failed"),
    ("503", "Loading or shutting down"),
    ("504", "Not done within the deadline"),
];

/// Adds `FAULTS` to every operation, in its layer's form.
struct Faults;

impl Modify for Faults {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            if super::observe::is_probe(path) {
                continue;
            }
            let dialect = Dialect::of(path);
            for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
                add_faults(operation, dialect);
            }
        }
    }
}

fn add_faults(operation: &mut Operation, dialect: Dialect) {
    let schema = match dialect {
        Dialect::Native => "NativeFault",
        Dialect::OpenAi => "OpenAiFault",
    };
    for (status, description) in FAULTS {
        let status = if status == "422" && dialect == Dialect::OpenAi { "400" } else { status };
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
        let response = ResponseBuilder::new().description(description).content("application/json", content).build();
        operation.responses.responses.insert(status.to_owned(), response.into());
    }
}

/// The API key.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("Any key, or none, where none is configured")).build();
        document.components.get_or_insert_with(Components::new).add_security_scheme("key", SecurityScheme::Http(scheme));
        document.security = Some(vec![SecurityRequirement::new("key", Vec::<String>::new())]);
    }
}

/// The document. Strings under string keys: this serialisation has no way to fail.
static JSON: LazyLock<Vec<u8>> = LazyLock::new(|| serde_json::to_vec(&Document::openapi()).unwrap_or_default());

/// `GET /openapi.json`.
pub(super) async fn document() -> Response {
    reply::json(JSON.clone())
}

/// Relative, so that the page works behind a proxy that adds a prefix; and no online validator is asked for its opinion.
static PAGE: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::new(["../openapi.json"]).validator_url("none").persist_authorization(true)));

/// `GET /docs/`, and `GET /docs`, which leads there: the page's own links are relative.
pub(super) async fn page(uri: Uri) -> Result<Response, Fault> {
    if uri.path().ends_with('/') { file("index.html") } else { Ok(Redirect::permanent("docs/").into_response()) }
}

/// `GET /docs/{file}`.
pub(super) async fn page_file(Path(name): Path<String>) -> Result<Response, Fault> {
    file(&name)
}

fn file(name: &str) -> Result<Response, Fault> {
    let found = utoipa_swagger_ui::serve(name, PAGE.clone()).map_err(|error| Fault::Backend { reason: error.to_string() })?;
    let Some(file) = found else { return Err(Fault::NotFound { message: "The documentation has no such file".into() }) };
    let mut response = ([(header::CONTENT_TYPE, file.content_type)], file.bytes.into_owned()).into_response();
    if file.gzpipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
