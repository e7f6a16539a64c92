//! Job inputs that lie elsewhere: which of them the operator lets the server read, and reading one into the store, piece by piece.

mod address;
mod local;
mod place;
mod remote;

pub use address::Network;
pub use place::Place;

use crate::service::jobs::{JobOwner, Upload};
use crate::wire::Fault;
use crate::wire::batch::Source;
use axum::http::Uri;
use std::time::Instant;
use tokio::sync::Semaphore;

/// The field that names an input.
const FIELD: &str = "input_file_url";
/// Inputs fetched at once; one more is answered 429.
const MAX_FETCHES: usize = 4;

/// What may be read. Nothing, unless the operator says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Only what lies below one of these.
    pub places: Vec<Place>,
    /// Addresses that are not public, and may be connected to all the same.
    pub networks: Vec<Network>,
}

/// Reads inputs.
pub(super) struct Inputs {
    options: Options,
    permits: Semaphore,
}

impl Inputs {
    pub(super) fn new(options: Options) -> Self {
        Self { options, permits: Semaphore::new(MAX_FETCHES) }
    }

    /// An input that is a URL becomes a file of its owner; any other stays as it is.
    ///
    /// # Errors
    /// `Validation` on `input_file_url`; `Overloaded`; if the store fails.
    pub(super) async fn bring(&self, api: &super::Api, owner: &JobOwner, source: Source, deadline: Instant) -> Result<Source, Fault> {
        let Source::Url(url) = source else { return Ok(source) };
        let place = self.find(&url).ok_or_else(|| Fault::field(FIELD, self.refusal()))?;
        let _permit = self.permits.try_acquire().map_err(|_| Fault::Overloaded { retry_after_s: 5 })?;
        let mut upload = api.books.jobs.upload(owner, "input.jsonl".to_owned(), "batch").await?;
        let reading = async {
            match place {
                Found::Local(path, root) => local::read(path, root, &mut upload).await,
                Found::Remote(uri) => remote::read(uri, &self.options.networks, &mut upload).await,
            }
        };
        let read = tokio::time::timeout_at(deadline.into(), reading).await;
        let read = read.unwrap_or_else(|_| Err(refuse("did not arrive in time; upload it as a file instead")));
        read?;
        Ok(Source::File(upload.finish(&super::auth::fetcher(owner)).await?.id))
    }

    fn find(&self, url: &str) -> Option<Found<'_>> {
        self.options.places.iter().find_map(|place| match place {
            // Where links and dots lead is looked at when it is read.
            Place::Local { root } => place::local_path(url).filter(|path| path.starts_with(root)).map(|path| Found::Local(path, root)),
            Place::Remote { .. } => {
                let uri = place::plain(url)?;
                place.holds(&uri).then_some(Found::Remote(uri))
            }
        })
    }

    fn refusal(&self) -> String {
        let else_where = if self.options.places.is_empty() { "this server fetches nothing from elsewhere" } else { "this address is not allowed" };
        format!("must be scaigrid://file/FILE_ID: {else_where}; upload the lines as a file, or send them as input_file_base64")
    }
}

/// An input that may be read.
enum Found<'a> {
    Local(std::path::PathBuf, &'a std::path::Path),
    Remote(Uri),
}

fn refuse(message: impl Into<String>) -> Fault {
    Fault::field(FIELD, message)
}

/// Adds a piece; what is wrong with the whole of it is the URL's fault.
async fn push(upload: &mut Upload, bytes: &[u8]) -> Result<(), Fault> {
    upload.push(bytes).await.map_err(|fault| match fault {
        Fault::PayloadTooLarge { limit_bytes } => refuse(format!("holds more than {limit_bytes} bytes")),
        other => other,
    })
}
