//! Connections: how many there may be, and what their requests know of them.

use super::Options;
use super::stream::Guarded;
use axum::body::HttpBody;
use axum::extract::Request;
use axum_server::accept::Accept;
use std::future::{Ready, ready};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tower::Service;

/// What a request knows of its connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Connection {
    /// The other end.
    pub(super) peer: Option<IpAddr>,
    /// True for a connection beyond the limit.
    pub(super) crowded: bool,
    /// True while the client may still be sending a body that nobody reads.
    unread: Arc<AtomicBool>,
}

impl Connection {
    /// The request's body has been read to its end.
    pub(super) fn body_was_read(&self) {
        self.unread.store(false, Relaxed);
    }

    /// More has arrived that nobody will read.
    pub(super) fn left_more(&self) {
        self.unread.store(true, Relaxed);
    }

    /// True if a body was left unread.
    pub(super) fn left_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }
}

/// Lets connections in.
#[derive(Clone)]
pub(super) struct Door {
    permits: Arc<Semaphore>,
    /// How many of the permits are for telling clients that there are too many.
    reserve: usize,
    options: Options,
}

impl Door {
    pub(super) fn new(options: &Options) -> Self {
        let reserve = options.max_connections / 16 + 1;
        let permits = options.max_connections.saturating_add(reserve).min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(permits)), reserve, options: options.clone() }
    }
}

impl<S> Accept<TcpStream, S> for Door {
    type Stream = Guarded;
    type Service = Tagged<S>;
    type Future = Ready<io::Result<(Guarded, Tagged<S>)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            return ready(Err(io::Error::other("too many connections")));
        };
        let peer = stream.peer_addr().ok().map(|address| address.ip());
        let connection = Connection { peer, crowded: self.permits.available_permits() < self.reserve, ..Connection::default() };
        // Answers are written whole: waiting for more bytes to send along would only delay them.
        ready(stream.set_nodelay(true).map(|()| {
            let guarded = Guarded::new(stream, connection.clone(), &self.options, permit);
            (guarded, Tagged { inner: service, connection })
        }))
    }
}

/// A service that tells its requests about their connection.
#[derive(Clone)]
pub(super) struct Tagged<S> {
    inner: S,
    connection: Connection,
}

impl<B: HttpBody, S: Service<Request<B>>> Service<Request<B>> for Tagged<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        self.connection.unread.store(!request.body().is_end_stream(), Relaxed);
        request.extensions_mut().insert(self.connection.clone());
        self.inner.call(request)
    }
}
