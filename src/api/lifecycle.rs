//! From the first request to the last: who is still running, and that nobody new comes in once the server is to stop.

use super::connection::Connection;
use super::{Api, Shared};
use crate::wire::Fault;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Notify;

/// When a client turned away because of a shutdown may try again: by then another instance has taken over.
const RETRY_AFTER_DRAIN_S: u32 = 5;

/// Counts requests until the server stops.
#[derive(Default)]
pub(super) struct Lifecycle {
    draining: AtomicBool,
    running: AtomicUsize,
    /// Told when the last running request ends.
    idle: Notify,
}

impl Lifecycle {
    pub(super) fn draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    /// Lets nobody in any more, and waits until nobody is inside, `limit` at most.
    pub(super) async fn drain(&self, limit: Duration) {
        self.draining.store(true, SeqCst);
        let emptied = async {
            while self.running.load(SeqCst) > 0 {
                self.idle.notified().await;
            }
        };
        if tokio::time::timeout(limit, emptied).await.is_err() {
            tracing::warn!(running = self.running.load(SeqCst), "requests still run at the end of the time given to them");
        }
    }

    fn leave(&self) {
        if self.running.fetch_sub(1, SeqCst) == 1 {
            self.idle.notify_one();
        }
    }
}

/// One running request.
struct Running(Arc<Api>);

impl Running {
    fn enter(api: Arc<Api>) -> Option<Self> {
        // Counted first, checked second: `drain` either sees this request or turns it away.
        api.lifecycle.running.fetch_add(1, SeqCst);
        let running = Self(api);
        (!running.0.lifecycle.draining()).then_some(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lifecycle.leave();
    }
}

/// Turns requests away during a shutdown, and on connections beyond the limit. Health and metrics are always answered.
pub(super) async fn gate(api: Shared, request: Request, next: Next) -> Response {
    if super::observe::is_probe(request.uri().path()) {
        return next.run(request).await;
    }
    let Some(_running) = Running::enter(api.0) else {
        let fault = Fault::ModelUnavailable { reason: "The server is shutting down".into(), retry_after_s: Some(RETRY_AFTER_DRAIN_S) };
        return last_on_its_connection(fault);
    };
    if request.extensions().get::<Connection>().is_some_and(|connection| connection.crowded) {
        return last_on_its_connection(Fault::Overloaded { retry_after_s: 1 });
    }
    next.run(request).await
}

fn last_on_its_connection(fault: Fault) -> Response {
    (super::reply::CLOSE, fault).into_response()
}
