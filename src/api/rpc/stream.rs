//! A connection's bytes, with two bounds that HTTP and WebSocket alike are under.
//!
//! A peer that does not take its answers is not read from either, so that its answers do not pile up; and after
//! [`STALL`] the connection ends. And the connection ends when its place is given to another one, also after HTTP has
//! handed it over to WebSocket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

/// The longest time for which a peer may take no byte that is ready for it. A subscriber is cut off earlier, so that it
/// can still read the reason.
const STALL: Duration = Duration::from_secs(20);

/// A stream under these bounds.
pub(super) struct Bounded<S> {
    stream: S,
    /// The longest stall.
    longest: Duration,
    /// Resolved when the connection has to end.
    end: oneshot::Receiver<()>,
    /// Set while the peer does not take bytes.
    stall: Option<Pin<Box<Sleep>>>,
    /// The reader that waits until the peer takes bytes again.
    reader: Option<Waker>,
    /// The peer has taken no bytes for too long: reading ends, too.
    is_left: bool,
}

impl<S> Bounded<S> {
    /// Bounds a stream. It ends when the second value is dropped.
    pub(super) fn new(stream: S) -> (Self, oneshot::Sender<()>) {
        let (alive, end) = oneshot::channel();
        (Self { stream, longest: STALL, end, stall: None, reader: None, is_left: false }, alive)
    }

    /// Notes whether the peer takes bytes. Fails if it has not for too long.
    fn wrote<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
            return written;
        }
        let longest = self.longest;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + longest)));
        match stall.as_mut().poll(context) {
            Poll::Ready(()) => {
                self.is_left = true;
                if let Some(reader) = self.reader.take() {
                    reader.wake();
                }
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no bytes")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_left {
            this.is_left = Pin::new(&mut this.end).poll(context).is_ready();
        }
        if this.is_left {
            // The reader gets the end of the stream.
            return Poll::Ready(Ok(()));
        }
        if this.stall.is_some() {
            this.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.wrote(context, written)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        this.wrote(context, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(context);
        this.wrote(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_peer_that_takes_no_bytes_is_not_read_and_is_left_after_a_while() {
        let (near, mut far) = tokio::io::duplex(64);
        let (bounded, _alive) = Bounded::new(near);
        let mut bounded = Bounded { longest: Duration::from_millis(50), ..bounded };
        far.write_all(b"question").await.expect("sent");
        let mut question = [0; 8];
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut bounded).poll_write(&mut context, &[0; 64]).is_ready());
        assert!(Pin::new(&mut bounded).poll_write(&mut context, &[0]).is_pending());
        let read = Pin::new(&mut bounded).poll_read(&mut context, &mut ReadBuf::new(&mut question));
        assert!(read.is_pending(), "it is read meanwhile");
        let error = bounded.write_all(&[0]).await.expect_err("too slow");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // A reader that waits gets the end of the stream, too.
        assert_eq!(bounded.read(&mut question).await.expect("an end"), 0);
    }

    #[tokio::test]
    async fn a_peer_that_takes_bytes_again_is_read_again() {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut bounded, _alive) = Bounded::new(near);
        far.write_all(b"question").await.expect("sent");
        let (mut reader, mut writer) = tokio::io::split(&mut bounded);
        let mut question = [0; 8];
        let answering = async {
            writer.write_all(&[0; 100]).await.expect("sent");
        };
        let taking = async {
            tokio::task::yield_now().await;
            far.read_exact(&mut [0; 100]).await.expect("bytes");
        };
        let reading = async {
            tokio::task::yield_now().await;
            reader.read_exact(&mut question).await.expect("read again");
        };
        tokio::join!(answering, reading, taking);
        assert_eq!(&question, b"question");
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_place() {
        let (near, _far) = tokio::io::duplex(64);
        let (mut bounded, alive) = Bounded::new(near);
        let read = tokio::spawn(async move { bounded.read(&mut [0; 8]).await });
        drop(alive);
        assert_eq!(read.await.expect("a task").expect("an end"), 0);
    }
}
