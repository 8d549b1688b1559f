//! A connection that gives up on a reader who does not read, and takes targets as people type them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::target::Targets;

/// Bytes read at once.
const READ_BYTES: usize = 4096;

/// A stream whose writes fail once none of them has got on for a time, and whose reads see request
/// targets escaped.
pub(crate) struct Impatient<S> {
    stream: S,
    patience: Duration,
    stuck: Pin<Box<Sleep>>,
    is_stuck: bool,
    targets: Targets,
    /// Read, and not handed on from `handed` on.
    held: Vec<u8>,
    handed: usize,
}

impl<S> Impatient<S> {
    pub(crate) fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            stuck: Box::pin(sleep(patience)),
            is_stuck: false,
            targets: Targets::new(),
            held: Vec::new(),
            handed: 0,
        }
    }

    /// What a write has come to: an error when it has been pending for too long.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.is_stuck = false;
            return result;
        }
        if !self.is_stuck {
            self.is_stuck = true;
            self.stuck.as_mut().reset(Instant::now() + self.patience);
        }
        match self.stuck.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.handed == this.held.len() {
            let mut space = [0; READ_BYTES];
            let mut piece = ReadBuf::new(&mut space);
            match Pin::new(&mut this.stream).poll_read(cx, &mut piece) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            this.held.clear();
            this.handed = 0;
            this.targets.pass(piece.filled(), &mut this.held);
        }
        let left = &this.held[this.handed..];
        let count = left.len().min(buf.remaining());
        buf.put_slice(&left[..count]);
        this.handed += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, result)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_is_given_up() {
        let (near, _far) = duplex(16);
        let mut near = Impatient::new(near, PATIENCE);
        let start = Instant::now();
        let error = near.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_all() {
        let (near, mut far) = duplex(16);
        let mut near = Impatient::new(near, PATIENCE);
        let writer = tokio::spawn(async move { near.write_all(&[7; 160]).await });
        let mut got = Vec::new();
        while got.len() < 160 {
            tokio::time::advance(PATIENCE / 2).await;
            let mut piece = [0; 16];
            let count = far.read(&mut piece).await.unwrap();
            got.extend_from_slice(&piece[..count]);
        }
        writer.await.unwrap().unwrap();
        assert_eq!(got, [7; 160]);
    }
}
