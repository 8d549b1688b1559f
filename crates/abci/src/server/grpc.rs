//! One connection of gRPC.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use hyper::{body::Incoming, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Context, Poll, Service, http},
    server::Grpc,
};

use super::dispatch::Served;
use crate::{
    CallName,
    remote::{
        codec::{BytesCodec, METHODS},
        frame::{MAX_MESSAGE_BYTES, enclose},
    },
    types,
};

/// Bytes of requests that a node may send ahead of being read. Smaller: large blocks take a round
/// trip for each so many.
const WINDOW_BYTES: u32 = 4 << 20;

/// Answers requests until the node closes the connection.
pub(super) async fn serve<S>(stream: S, app: Arc<Served>) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request: http::Request<Incoming>| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(answer(app, request).await) }
    });
    Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(app: Arc<Served>, request: http::Request<Incoming>) -> http::Response<Body> {
    let path = request.uri().path();
    let method = path.strip_prefix(METHODS).unwrap_or_default();
    let Some(call) = CallName::ALL
        .into_iter()
        .find(|call| call.to_string() == method)
    else {
        return Status::unimplemented(format!("unknown method {path}")).into_http();
    };
    Grpc::new(BytesCodec)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .unary(Method { call, app }, request)
        .await
}

struct Method {
    call: CallName,
    app: Arc<Served>,
}

impl Service<Request<Bytes>> for Method {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = BoxFuture<Self::Response, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (call, app) = (self.call, Arc::clone(&self.app));
        Box::pin(async move {
            // The application blocks.
            tokio::task::spawn_blocking(move || run(call, &app, &request.into_inner()))
                .await
                .map_err(|error| Status::internal(error.to_string()))?
                .map(Response::new)
        })
    }
}

fn run(call: CallName, app: &Served, body: &Bytes) -> Result<Bytes, Status> {
    let undecodable = |error: prost::DecodeError| Status::invalid_argument(error.to_string());
    let request = types::Request::decode(enclose(call.field(), body)).map_err(undecodable)?;
    let request = request
        .value
        .ok_or_else(|| Status::internal("a request of no kind"))?;
    let answer = app.answer(request).map_err(|error| {
        tracing::error!("{error}");
        Status::unknown(error.reason.to_string())
    })?;
    answer.into_body().map_err(undecodable)
}
