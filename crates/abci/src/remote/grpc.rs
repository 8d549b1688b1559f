//! The client of ABCI over gRPC: one HTTP/2 connection, never dialled again behind the node's back.

use std::{
    error::Error as _,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
};

use bytes::Bytes;
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, Connection, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::{DecodeError, Message};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    runtime::Handle,
};
use tonic::{
    Status,
    body::Body,
    client::Grpc,
    codegen::{
        BoxFuture, Context, Poll, Service,
        http::{Request, Response, Uri, uri::PathAndQuery},
    },
};

use super::{
    codec::{BytesCodec, METHODS},
    frame::MAX_MESSAGE_BYTES,
    link::{Link, LostConnection},
    stream::Stream,
    text::decode_answer,
};
use crate::{AppFault, CallName, application::Answer, calls::Calls, threads::Threads};

/// Bytes of a response that the application may send ahead of being read. Smaller: large responses
/// take a round trip for each so many.
const WINDOW_BYTES: u32 = 4 << 20;

/// One connection. Dropped, it is closed.
pub(crate) struct GrpcClient {
    threads: Arc<Threads>,
    sender: SendRequest<Body>,
    origin: Uri,
    shared: Arc<Shared>,
}

struct Shared {
    calls: Arc<Calls>,
    link: Arc<Link>,
    /// The connection's socket: HTTP/2 is carried by tasks of its own, which end with it.
    socket: Stream,
    closed: Mutex<Option<String>>,
    is_dropped: AtomicBool,
}

impl GrpcClient {
    /// `authority` is what the application is called in requests.
    pub(super) fn start(
        stream: Stream,
        authority: &str,
        threads: &Arc<Threads>,
        calls: Arc<Calls>,
        link: Arc<Link>,
    ) -> io::Result<Self> {
        let origin = format!("http://{authority}")
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let shared = Arc::new(Shared {
            calls,
            link,
            socket: stream.try_clone()?,
            closed: Mutex::default(),
            is_dropped: AtomicBool::new(false),
        });
        let handle = threads.handle()?;
        let in_runtime = handle.enter();
        let sender = match stream {
            Stream::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                open(handle, TcpStream::from_std(stream)?, &shared)
            }
            Stream::Unix(stream) => {
                stream.set_nonblocking(true)?;
                open(handle, UnixStream::from_std(stream)?, &shared)
            }
        }?;
        drop(in_runtime);
        Ok(Self {
            threads: Arc::clone(threads),
            sender,
            origin,
            shared,
        })
    }

    /// Sends a request and waits for its response.
    pub(super) fn call<R: Message + Default + 'static>(
        &self,
        call: CallName,
        request: &impl Message,
    ) -> Result<R, AppFault> {
        self.begin(call, request, |call, body| decode_answer(call, &body))?
            .wait()
    }

    /// Sends a request, whose response is waited for by [`Answer::wait`], and decoded then.
    pub(super) fn begin<R: 'static>(
        &self,
        call: CallName,
        request: &impl Message,
        decode: fn(CallName, Bytes) -> Result<R, DecodeError>,
    ) -> Result<Answer<R>, AppFault> {
        let path = PathAndQuery::try_from(format!("{METHODS}{call}"))
            .map_err(|error| AppFault::failed(error.to_string()))?;
        let body = Bytes::from(request.encode_to_vec());
        let service = Http2(self.sender.clone());
        let mut client = Grpc::with_origin(service, self.origin.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (answer, answered) = sync_channel(1);
        let handle = self.threads.handle().map_err(closed)?;
        handle.spawn(async move {
            let response = match client.ready().await {
                Ok(()) => client
                    .unary(tonic::Request::new(body), path, BytesCodec)
                    .await
                    .map(tonic::Response::into_inner),
                Err(error) => Err(Status::from_error(Box::new(error))),
            };
            // Who gave up waiting wants no answer.
            let _unwanted = answer.send(response);
        });
        let shared = Arc::clone(&self.shared);
        Ok(Answer::later(move || match answered.recv() {
            Ok(Ok(response)) => decode(call, response)
                .map_err(|error| AppFault::Contradiction(format!("it cannot be decoded: {error}"))),
            Ok(Err(status)) => Err(shared.fault(&status)),
            Err(_) => Err(closed("its threads are gone")),
        }))
    }
}

impl Drop for GrpcClient {
    fn drop(&mut self) {
        self.shared.is_dropped.store(true, Ordering::Release);
        self.shared.end("this node closed it");
    }
}

impl Shared {
    fn closed(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an answer that is no response means.
    fn fault(&self, status: &Status) -> AppFault {
        if let Some(reason) = self.closed().as_deref() {
            return closed(reason);
        }
        match status.source() {
            // Made here, of what the connection said.
            Some(source) => closed(root(source)),
            None => AppFault::Failed(format!(
                "gRPC status {:?}: {}",
                status.code(),
                status.message()
            )),
        }
    }

    fn end(&self, reason: &str) {
        self.closed().get_or_insert_with(|| reason.to_owned());
        self.socket.shutdown();
    }

    fn lose(&self, reason: String) {
        let running = self.link.longest();
        self.end(&reason);
        if !self.is_dropped.load(Ordering::Acquire) {
            self.link.lose(LostConnection {
                connection: self.calls.connection(),
                running,
                reason,
            });
        }
    }
}

/// Begins HTTP/2 on a stream; a task carries it until it ends.
fn open<S>(handle: &Handle, stream: S, shared: &Arc<Shared>) -> io::Result<SendRequest<Body>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (answer, answered) = sync_channel(1);
    handle.spawn(async move {
        let opened = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await;
        let _unwanted = answer.send(opened);
    });
    let opened = answered.recv().map_err(io::Error::other)?;
    let (sender, connection) = opened.map_err(io::Error::other)?;
    handle.spawn(carry(connection, Arc::clone(shared)));
    let closing = Arc::downgrade(shared);
    shared.link.closes_by(move |reason| {
        if let Some(shared) = closing.upgrade() {
            shared.end(reason);
        }
    });
    Ok(sender)
}

async fn carry<S>(connection: Connection<TokioIo<S>, Body, TokioExecutor>, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let reason = match connection.await {
        Ok(()) => "the application closed it".to_owned(),
        Err(error) => format!("{error}: {}", root(&error)),
    };
    shared.lose(reason);
}

/// What an error began with.
fn root(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn closed(reason: impl ToString) -> AppFault {
    AppFault::Closed(reason.to_string())
}

/// HTTP/2 requests as tonic sends them.
struct Http2(SendRequest<Body>);

impl Service<Request<Body>> for Http2 {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<Self::Response, hyper::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
