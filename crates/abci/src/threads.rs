use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that carry connections. Dropped, what they carry ends; whoever drops them does not wait
/// and may be a task of another runtime.
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    /// Two threads: one that is busy with a large message keeps no other waiting.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(name)
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
    }

    pub(crate) fn handle(&self) -> io::Result<&Handle> {
        let runtime = self.0.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Ok(runtime.handle())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
