//! A connection of a fake teacher and the bodies that go out on it, which may pause, break off or
//! reset. Knows neither requests nor faults.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::vec;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::answer::{Reply, Step};
use super::book::Call;

/// A TCP stream that ends with a reset (RST) instead of a close (FIN) when it was told to.
pub struct Socket {
    stream: TcpStream,
    reset: ResetSwitch,
}

/// Says that a connection is to end with a reset.
pub type ResetSwitch = Arc<AtomicBool>;

impl Socket {
    pub fn new(stream: TcpStream, reset: ResetSwitch) -> Socket {
        Socket { stream, reset }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // Closing with a linger time of zero sends RST; if it cannot be set, the client sees FIN.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A reply's body under way. Holds its call, which ends when the body does.
pub struct ReplyBody {
    first: Option<Bytes>,
    rest: vec::IntoIter<Step>,
    pause: Option<Pin<Box<Sleep>>>,
    length: u64,
    sent: u64,
    call: Option<Call>,
    reset: ResetSwitch,
}

impl ReplyBody {
    pub fn new(reply: Reply, call: Option<Call>, reset: ResetSwitch) -> ReplyBody {
        ReplyBody {
            first: Some(reply.first),
            rest: reply.rest.into_iter(),
            pause: None,
            length: reply.length,
            sent: 0,
            call,
            reset,
        }
    }

    fn send(&mut self, bytes: Bytes) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.sent += bytes.len() as u64;
        if self.sent == self.length
            && let Some(call) = &mut self.call
        {
            call.complete();
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(first) = self.first.take() {
            return self.send(first);
        }
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.rest.next() {
                Some(Step::Send(bytes)) => return self.send(bytes),
                Some(Step::Pause(pause)) => self.pause = Some(Box::pin(tokio::time::sleep(pause))),
                Some(Step::Reset) => {
                    self.reset.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.sent == self.length
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.sent)
    }
}
