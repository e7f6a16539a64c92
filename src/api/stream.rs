//! One connection's bytes, with the two patiences that hyper lacks: for a client that does not read, and for one that does not stop sending.

use super::Options;
use super::connection::Connection;
use crate::telemetry;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a client that should still be sending may be silent before its connection is closed for good.
const LINGER_IDLE: Duration = Duration::from_secs(2);

/// A TCP connection with limits.
///
/// Writing: ends when the client takes nothing for too long. An answer may be hundreds of megabytes, and hyper would wait for ever.
///
/// Closing: lingers. Closing a socket with unread bytes resets the connection, and the reset throws away the answer that the client has
/// not read yet, such as the 413 that made us stop reading. So our side is shut down first, and what still arrives is read and dropped.
pub(super) struct Guarded {
    stream: TcpStream,
    connection: Connection,
    write_timeout: Duration,
    /// Runs while a write waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    linger_timeout: Duration,
    /// How much may still be read and dropped.
    linger_bytes: usize,
    linger: Option<Linger>,
    _permit: OwnedSemaphorePermit,
}

/// Our side is shut down; reading on.
struct Linger {
    deadline: Instant,
    /// At the deadline, or earlier if the client falls silent.
    end: Pin<Box<Sleep>>,
}

impl Guarded {
    pub(super) fn new(stream: TcpStream, connection: Connection, options: &Options, permit: OwnedSemaphorePermit) -> Self {
        telemetry::CONNECTIONS.move_by([], 1.0);
        Self {
            stream,
            connection,
            write_timeout: options.write_timeout,
            stalled: None,
            linger_timeout: options.linger_timeout,
            linger_bytes: options.linger_bytes,
            linger: None,
            _permit: permit,
        }
    }

    /// Passes on what a write says, unless it has been waiting for too long.
    fn limited<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let limit = self.write_timeout;
        ready!(self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads and drops until the client closes too, or a limit is reached.
    fn poll_linger(&mut self, cx: &mut Context<'_>, linger: &mut Linger) -> Poll<()> {
        let mut scratch = [0; 16 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.linger_bytes = self.linger_bytes.saturating_sub(buffer.filled().len());
                    if self.linger_bytes == 0 {
                        return Poll::Ready(());
                    }
                    linger.end.as_mut().reset(linger.deadline.min(Instant::now() + LINGER_IDLE));
                    self.connection.left_more();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                // Nothing there and nothing to come: an idle connection, closed in peace.
                Poll::Pending if !self.connection.left_unread() => return Poll::Ready(()),
                Poll::Pending => return linger.end.as_mut().poll(cx),
            }
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        telemetry::CONNECTIONS.move_by([], -1.0);
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.limited(cx, outcome)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.limited(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.limited(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut linger = match self.linger.take() {
            Some(linger) => linger,
            None => {
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                let (now, most) = (Instant::now(), self.linger_timeout);
                Linger { deadline: now + most, end: Box::pin(sleep_until(now + most.min(LINGER_IDLE))) }
            }
        };
        let outcome = self.poll_linger(cx, &mut linger);
        self.linger = Some(linger);
        outcome.map(Ok)
    }
}
