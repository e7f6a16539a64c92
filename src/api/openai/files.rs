//! `/files`: uploads streamed into the store, and everything that is kept read back piece by piece.

use crate::api::asked::{Call, Id, Parameters};
use crate::api::connection::Connection;
use crate::api::native::batch::{owner, who};
use crate::api::native::results::{jsonl, stream};
use crate::api::observe::Seen;
use crate::api::{Api, Shared, auth, body, reply};
use crate::service::access::MODELS_USE;
use crate::service::jobs::{FileQuery, FileRow, Upload};
use crate::wire::Fault;
use crate::wire::files::{ANCHOR, EXPIRES_S, FileDeleted, FileObject, Listing, ListingQuery, PURPOSES, listing, to_json};
use crate::wire::schema::{FileForm, Order};
use axum::Extension;
use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::response::Response;
use std::future::Future;
use std::time::Duration;

/// Files in a listing, by default and at most.
const MAX_LIMIT: usize = 10_000;
/// Characters of a form's short fields.
const MAX_FIELD: usize = 200;
/// Fields of a form.
const MAX_FIELDS: usize = 32;
/// Bytes of fields that nobody reads.
const MAX_DROPPED: usize = 64 << 10;

/// Takes a file in.
#[utoipa::path(post, path = "/oai/v1/files", tag = "OpenAI", operation_id = "openai_create_file", request_body(content = FileForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "The file", body = FileObject)))]
pub(in crate::api) async fn create(api: Shared, Extension(seen): Extension<Seen>, request: Request) -> Result<Response, Fault> {
    let key = auth::enter(&api, &seen, request.headers(), Some(MODELS_USE)).await?;
    body::refuse_encodings(request.headers())?;
    let connection = request.extensions().get::<Connection>().cloned();
    let form =
        Multipart::from_request(request, &()).await.map_err(|_| Fault::field("body", "must be a multipart form with the fields file and purpose"))?;
    let mut upload = api.books.jobs.upload(&owner(key.as_deref()), String::new(), PURPOSES[0]).await?;
    read(&api, form, &mut upload).await?;
    let file = upload.finish(&auth::actor(key.as_ref())).await?;
    connection.iter().for_each(Connection::body_was_read);
    Ok(reply::json(to_json(&object(&file))))
}

/// The form's fields; the file goes where it belongs as it comes.
async fn read(api: &Api, mut form: Multipart, upload: &mut Upload) -> Result<(), Fault> {
    let (mut purpose, mut has_file, mut fields, mut dropped) = (None, false, 0, 0);
    let idle = api.options.body_timeout;
    while let Some(mut field) = in_time(idle, form.next_field()).await? {
        fields += 1;
        if fields > MAX_FIELDS {
            return Err(Fault::field("body", format!("has more than {MAX_FIELDS} fields")));
        }
        match field.name().unwrap_or_default() {
            "file" if !has_file => {
                has_file = true;
                upload.name(field.file_name().unwrap_or("file").chars().filter(|c| !c.is_control()).take(MAX_FIELD).collect());
                while let Some(bytes) = in_time(idle, field.chunk()).await? {
                    upload.push(&bytes).await?;
                }
            }
            "file" => return Err(Fault::field("file", "is there twice")),
            "purpose" => purpose = Some(short(idle, field).await?),
            "expires_after[seconds]" => {
                let seconds = short(idle, field).await?.parse().ok().filter(|seconds| EXPIRES_S.contains(seconds));
                let range = || format!("must be a whole number from {} to {}", EXPIRES_S.start(), EXPIRES_S.end());
                upload.expires_after(Duration::from_secs(u64::from(seconds.ok_or_else(|| Fault::field("expires_after", range()))?)));
            }
            "expires_after[anchor]" => {
                if short(idle, field).await? != ANCHOR {
                    return Err(Fault::field("expires_after", format!("anchor must be {ANCHOR}")));
                }
            }
            _ => {
                while let Some(bytes) = in_time(idle, field.chunk()).await? {
                    dropped += bytes.len();
                    if dropped > MAX_DROPPED {
                        return Err(Fault::field("body", format!("has more than {MAX_DROPPED} bytes in fields that are not known")));
                    }
                }
            }
        }
    }
    if !has_file {
        return Err(Fault::field("file", "is required"));
    }
    let purpose = purpose.ok_or_else(|| Fault::field("purpose", "is required"))?;
    let known = PURPOSES.iter().find(|known| **known == purpose);
    upload.purpose(known.ok_or_else(|| Fault::field("purpose", format!("must be one of {}", PURPOSES.join(", "))))?);
    Ok(())
}

/// A field of a few characters.
async fn short(idle: Duration, mut field: Field<'_>) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    while let Some(more) = in_time(idle, field.chunk()).await? {
        bytes.extend_from_slice(&more);
        if bytes.len() > MAX_FIELD {
            break;
        }
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| text.len() <= MAX_FIELD)
        .ok_or_else(|| Fault::field("body", "has a field that is too long or not UTF-8"))
}

/// The next piece of the form. Of a large file that is slow every piece has the time that a whole request has.
async fn in_time<T>(idle: Duration, piece: impl Future<Output = Result<T, MultipartError>>) -> Result<T, Fault> {
    match tokio::time::timeout(idle, piece).await {
        Ok(piece) => piece.map_err(|_| Fault::field("body", "broke off, or is no multipart form")),
        Err(_) => Err(Fault::RequestTimeout { limit_ms: u64::try_from(idle.as_millis()).unwrap_or(u64::MAX) }),
    }
}

/// The caller's files.
#[utoipa::path(get, path = "/oai/v1/files", tag = "OpenAI", operation_id = "openai_list_files", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 10000),
    ("after" = Option<String>, Query, description = "The last id of the page before"),
    ("order" = Option<Order>, Query, description = "`desc`, the newest first, if absent"),
    ("purpose" = Option<String>, Query, description = "Only files for this"),
),
    responses((status = 200, description = "The caller's files", body = Listing<FileObject>)))]
pub(in crate::api) async fn list(call: Call, parameters: Parameters) -> Result<Response, Fault> {
    let key = call.enter(Some(MODELS_USE)).await?;
    let query = ListingQuery::parse(parameters.read()?.pairs(), MAX_LIMIT, MAX_LIMIT)?;
    let (tenant, user) = who(key.as_ref());
    let ListingQuery { limit, after, oldest_first, purpose } = query;
    let query = FileQuery { tenant: tenant.to_owned(), user: user.to_owned(), purpose, after, oldest_first, limit: limit + 1 };
    let files = call.api.books.jobs.files(&query).await?.iter().map(object).collect();
    Ok(reply::json(listing(files, limit, |file: &FileObject| file.id.clone())))
}

/// One file, without its content.
#[utoipa::path(get, path = "/oai/v1/files/{id}", tag = "OpenAI", operation_id = "openai_get_file", params(("id" = String, Path)),
    responses((status = 200, description = "The file", body = FileObject)))]
pub(in crate::api) async fn retrieve(call: Call, Id(id): Id) -> Result<Response, Fault> {
    Ok(reply::json(to_json(&object(&find(&call, &id).await?))))
}

/// The content of a file.
#[utoipa::path(get, path = "/oai/v1/files/{id}/content", tag = "OpenAI", operation_id = "openai_get_file_content", params(("id" = String, Path)),
    responses((status = 200, description = "The bytes of the file", body = String, content_type = "application/jsonl")))]
pub(in crate::api) async fn content(call: Call, Id(id): Id) -> Result<Response, Fault> {
    let file = find(&call, &id).await?;
    // An empty file is a file, though the store has no piece of it.
    if file.bytes == 0 { Ok(jsonl(Body::empty(), 0)) } else { stream(&call.api, &file.id, file.bytes).await }
}

/// Removes a file.
#[utoipa::path(delete, path = "/oai/v1/files/{id}", tag = "OpenAI", operation_id = "openai_delete_file", params(("id" = String, Path)),
    responses((status = 200, description = "The file is gone", body = FileDeleted)))]
pub(in crate::api) async fn delete(call: Call, Id(id): Id) -> Result<Response, Fault> {
    let key = call.enter(Some(MODELS_USE)).await?;
    let (tenant, user) = who(key.as_ref());
    call.api.books.jobs.delete_file(&id, tenant, user, &auth::actor(key.as_ref())).await?;
    Ok(reply::json(to_json(&FileDeleted { id: &id, object: "file", deleted: true })))
}

async fn find(call: &Call, id: &str) -> Result<FileRow, Fault> {
    let key = call.enter(Some(MODELS_USE)).await?;
    let (tenant, user) = who(key.as_ref());
    call.api.books.jobs.file(id, tenant, user).await
}

fn object(file: &FileRow) -> FileObject {
    FileObject {
        id: file.id.clone(),
        object: "file",
        bytes: file.bytes,
        created_at: file.created_ms / 1000,
        expires_at: file.expires_ms.map(|ms| ms / 1000),
        filename: file.filename.clone(),
        purpose: file.purpose.clone(),
        status: "processed",
    }
}
