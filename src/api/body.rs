//! Request bodies: read within limits of size, time and memory.

use super::Api;
use super::connection::Connection;
use crate::telemetry;
use crate::wire::Fault;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The memory that all request bodies share.
pub(super) struct HeldBytes(Arc<Semaphore>);

impl HeldBytes {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Room for `bytes` more, or nothing: nobody waits while holding memory.
    fn take(&self, bytes: usize) -> Option<Hold> {
        let permit = self.0.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()?;
        telemetry::BODY_BYTES.move_by([], bytes as f64);
        Some(Hold(permit))
    }
}

/// A share of that memory, given back on drop.
pub(super) struct Hold(OwnedSemaphorePermit);

impl Hold {
    fn merge(&mut self, mut other: Hold) {
        if let Some(permit) = other.0.split(other.0.num_permits()) {
            self.0.merge(permit);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        telemetry::BODY_BYTES.move_by([], -(self.0.num_permits() as f64));
    }
}

/// A whole body, and the room it fills. The room is kept until the request ends, for its texts outlive its bytes.
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    pub(super) hold: Hold,
}

/// Reads a whole body.
///
/// # Errors
/// `UnsupportedMediaType`, `PayloadTooLarge`, `RequestTimeout`; `Overloaded` if all bodies together fill their memory;
/// `Validation` on field `body` if it breaks off.
pub(super) async fn read(api: &Api, request: Request) -> Result<Held, Fault> {
    let (head, body) = request.into_parts();
    refuse_encodings(&head.headers)?;
    let limit = api.options.max_body_bytes;
    let too_large = Fault::PayloadTooLarge { limit_bytes: limit as u64 };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large);
    }
    let time = api.options.body_timeout;
    match tokio::time::timeout(time, collect(&api.held, body, limit)).await {
        Ok(Ok(held)) => {
            if let Some(connection) = head.extensions.get::<Connection>() {
                connection.body_was_read();
            }
            Ok(held)
        }
        Ok(Err(Incomplete::TooLarge)) => Err(too_large),
        Ok(Err(Incomplete::NoRoom)) => Err(Fault::Overloaded { retry_after_s: 1 }),
        Ok(Err(Incomplete::BrokenOff)) => Err(Fault::field("body", "broke off before its end")),
        Err(_) => Err(Fault::RequestTimeout { limit_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX) }),
    }
}

enum Incomplete {
    TooLarge,
    NoRoom,
    BrokenOff,
}

/// Room is taken for what has arrived, not for what was announced: a slow client holds no more than it has sent.
async fn collect(room: &HeldBytes, mut body: Body, limit: usize) -> Result<Held, Incomplete> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(announced.min(64 << 10));
    let mut hold = room.take(0).ok_or(Incomplete::NoRoom)?;
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.map_err(|_| Incomplete::BrokenOff)?.into_data() else { continue };
        if chunk.len() > limit - bytes.len() {
            return Err(Incomplete::TooLarge);
        }
        hold.merge(room.take(chunk.len()).ok_or(Incomplete::NoRoom)?);
        bytes.extend_from_slice(&chunk);
    }
    Ok(Held { bytes, hold })
}

/// Bodies are taken as they are.
///
/// # Errors
/// `UnsupportedMediaType`.
pub(super) fn refuse_encodings(headers: &HeaderMap) -> Result<(), Fault> {
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let value = String::from_utf8_lossy(value.as_bytes());
        if let Some(encoding) = value.split(',').map(str::trim).find(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity")) {
            return Err(Fault::UnsupportedMediaType { encoding: encoding.to_owned() });
        }
    }
    Ok(())
}
