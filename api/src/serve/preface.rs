use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What a client of HTTP/2 begins with (RFC 9113, 3.4), as far as no method of HTTP/1 does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// A stream of which the beginning has been looked at.
#[derive(Debug)]
pub(super) struct Begun<S> {
    stream: S,
    read: [u8; PREFACE.len()],
    /// What of that is still to be read.
    from: usize,
    to: usize,
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// Reads as much as tells whether the client speaks HTTP/2.
    pub(super) async fn new(stream: S) -> io::Result<(Self, bool)> {
        let mut begun = Self { stream, read: [0; PREFACE.len()], from: 0, to: 0 };
        loop {
            let came = begun.stream.read(&mut begun.read[begun.to..]).await?;
            begun.to += came;
            let read = &begun.read[..begun.to];
            if read == PREFACE {
                return Ok((begun, true));
            }
            if came == 0 || !PREFACE.starts_with(read) {
                return Ok((begun, false));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.from < this.to {
            let taken = buffer.remaining().min(this.to - this.from);
            buffer.put_slice(&this.read[this.from..this.from + taken]);
            this.from += taken;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is seen of a client that sends these parts, one at a time.
    async fn seen(parts: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut begun, is_h2) = Begun::new(one_by_one(parts)).await.unwrap();
        let mut read = Vec::new();
        begun.read_to_end(&mut read).await.unwrap();
        (read, is_h2)
    }

    fn one_by_one(parts: &[&[u8]]) -> impl AsyncRead + Unpin + use<> {
        let empty: Box<dyn AsyncRead + Unpin + Send> = Box::new(tokio::io::empty());
        parts.iter().rev().fold(empty, |rest, part| Box::new(io::Cursor::new(part.to_vec()).chain(rest)))
    }

    #[tokio::test]
    async fn either_version_is_told_by_what_comes_first_and_nothing_is_lost() {
        let h2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore";
        for split in 1..h2.len() {
            let (first, second) = h2.split_at(split);
            assert_eq!(seen(&[first, second]).await, (h2.to_vec(), true), "{split}");
        }
        for h1 in
            [&b"POST / HTTP/1.1\r\n\r\n"[..], b"PRIVATE / HTTP/1.1\r\n\r\n", b"", b"PRI", b"\x16\x03\x01"]
        {
            let (first, second) = h1.split_at(h1.len() / 2);
            assert_eq!(seen(&[h1]).await, (h1.to_vec(), false));
            assert_eq!(seen(&[first, second]).await, (h1.to_vec(), false));
        }
    }
}
