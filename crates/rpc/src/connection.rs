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

/// Bytes/s that a reader must take at the least; slower only while its patience lasts.
const LEAST_RATE: u64 = 64 << 10;

/// A stream whose writes fail once its reader has been too slow for a time, and whose reads see
/// request targets escaped.
pub(crate) struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// How long writes may still be pending: time pending takes from it, bytes taken add to it.
    left: Duration,
    stuck: Pin<Box<Sleep>>,
    pending_since: Option<Instant>,
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
            left: patience,
            stuck: Box::pin(sleep(patience)),
            pending_since: None,
            targets: Targets::new(),
            held: Vec::new(),
            handed: 0,
        }
    }

    /// What a write has come to, of which so many bytes were taken: an error when the reader has
    /// been too slow.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
        taken: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = result {
            if let Some(since) = self.pending_since.take() {
                self.left = self.left.saturating_sub(since.elapsed());
            }
            if let Ok(value) = &result {
                let bytes = taken(value) as u64;
                let earned = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / LEAST_RATE);
                self.left = self.left.saturating_add(earned).min(self.patience);
            }
            return Poll::Ready(result);
        }
        if self.pending_since.is_none() {
            let now = Instant::now();
            self.pending_since = Some(now);
            self.stuck.as_mut().reset(now + self.left);
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
        self.judge(cx, result, |&bytes| bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, result, |&bytes| bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, result, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, result, |()| 0)
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

    /// Writes `total` bytes to a reader that takes `piece` of them each second; how the write ends.
    async fn write_slowly(total: usize, piece: usize) -> io::Result<()> {
        let (near, mut far) = duplex(piece);
        let mut near = Impatient::new(near, PATIENCE);
        let writer = tokio::spawn(async move { near.write_all(&vec![7; total]).await });
        let mut space = vec![0; piece];
        let mut got = 0;
        while got < total && !writer.is_finished() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let count = far.read(&mut space).await.unwrap();
            assert_eq!(&space[..count], &vec![7; count]);
            got += count;
        }
        writer.await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_all() {
        let least = usize::try_from(LEAST_RATE).unwrap();
        write_slowly(60 * least, least + 100).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_reads_next_to_nothing_is_given_up() {
        let start = Instant::now();
        let error = write_slowly(60 << 10, 1 << 10).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < 2 * PATIENCE);
    }
}
