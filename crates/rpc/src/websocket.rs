//! WebSockets: every method that HTTP has, and subscriptions.
//!
//! One task owns a socket: it reads one request, works on it, writes the answer, and meanwhile
//! writes events. Who does not read its answers is read no requests. One task a subscription moves
//! events from the bus to the socket's queue, so that a slow socket slows nobody else: what waits is
//! bounded in number and in bytes, and a write that takes too long ends the connection.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use perihelion_events::{Cancelled, Message as Event, Query, Subscription, query::MAX_QUERY_BYTES};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, interval_at, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message, Utf8Bytes,
        error::CapacityError,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    RpcConfig,
    calls::Calls,
    http::{Connection, Server, plain},
    jsonrpc::{self, ErrorKind, Id},
    routes,
};

/// How long a client may say nothing, not even answer a ping: CometBFT's figure. Shorter than the
/// time between two pings, it would drop all who only listen.
const READ_WAIT: Duration = Duration::from_secs(30);
/// Time between two pings.
const PING_PERIOD: Duration = Duration::from_secs(27);
/// How long one message may take to be written, and an event may wait for a place to wait.
const WRITE_WAIT: Duration = Duration::from_secs(10);
/// Bytes of the buffer for reading: requests are small, and there may be many sockets.
const READ_BUFFER: usize = 4 << 10;
/// KiB of events that wait to be written to one socket at most; a larger one waits alone.
const MAX_QUEUED_KIB: u32 = 16 << 10;

/// What is configured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Bytes of a request.
    max_request: usize,
    /// Events that wait for one subscription.
    subscription_buffer: usize,
    /// Events that wait to be written.
    write_buffer: usize,
    /// Whether a subscription ends when an event finds no place to wait.
    close_on_slow: bool,
}

impl Settings {
    pub(crate) fn of(config: &RpcConfig) -> Self {
        Self {
            max_request: config.max_body_bytes,
            subscription_buffer: config.subscription_buffer_size,
            write_buffer: config.websocket_write_buffer_size.max(1),
            close_on_slow: config.close_on_slow_client,
        }
    }
}

/// Makes a WebSocket of the connection that a request came on.
pub(crate) fn upgrade(
    server: &Arc<Server>,
    connection: Connection,
    mut request: Request,
) -> Response {
    let key = match accept_key(request.method(), request.headers()) {
        Ok(key) => key,
        Err(status) => return refused(status),
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let (calls, settings) = (Arc::clone(&server.calls), server.websocket);
    let tasks = connection.tasks.clone();
    tasks.spawn(async move {
        match upgraded.await {
            Ok(stream) => serve(TokioIo::new(stream), calls, connection, settings).await,
            Err(error) => tracing::debug!(%error, "a connection did not become a WebSocket"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    response
}

/// The answer to a client's key.
fn accept_key(method: &Method, headers: &HeaderMap) -> Result<HeaderValue, StatusCode> {
    if !has_token(headers, header::CONNECTION, "upgrade")
        || !has_token(headers, header::UPGRADE, "websocket")
    {
        return Err(StatusCode::BAD_REQUEST);
    }
    if method != Method::GET {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if !has_token(headers, header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(StatusCode::BAD_REQUEST);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.filter(|key| !key.is_empty());
    let key = key.ok_or(StatusCode::BAD_REQUEST)?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| StatusCode::BAD_REQUEST)
}

/// Whether a header lists a word.
fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        let words = value.as_bytes().split(|byte| *byte == b',');
        words
            .map(<[u8]>::trim_ascii)
            .any(|word| word.eq_ignore_ascii_case(token.as_bytes()))
    })
}

fn refused(status: StatusCode) -> Response {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut response = plain(status, "text/plain; charset=utf-8", format!("{reason}\n"));
    let version = HeaderValue::from_static("13");
    let headers = response.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_VERSION, version);
    response
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    calls: Arc<Calls>,
    connection: Connection,
    settings: Settings,
) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(settings.max_request))
        .max_frame_size(Some(settings.max_request));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let remote = Arc::clone(&connection.caller.remote);
    tracing::debug!(%remote, "a WebSocket opens");
    let (sender, queue) = mpsc::channel(settings.write_buffer);
    let mut session = Session {
        socket,
        calls,
        connection,
        settings,
        queue,
        sender,
        room: Arc::new(Semaphore::new(MAX_QUEUED_KIB as usize)),
        forwarders: JoinSet::new(),
    };
    match session.run().await {
        Ok(()) => tracing::debug!(%remote, "a WebSocket closes"),
        Err(error) => tracing::debug!(%remote, %error, "a WebSocket ends"),
    }
}

/// Something to write that no request waits for.
enum Outgoing {
    Event {
        /// The answer up to what the event adds.
        head: Arc<str>,
        event: Arc<Event>,
        /// Its part of what may wait.
        room: OwnedSemaphorePermit,
    },
    Text(String),
}

/// A request that is being worked on; yields its answer.
type Call = Pin<Box<dyn Future<Output = Bytes> + Send>>;

struct Session<S> {
    socket: WebSocketStream<S>,
    calls: Arc<Calls>,
    connection: Connection,
    settings: Settings,
    queue: mpsc::Receiver<Outgoing>,
    sender: mpsc::Sender<Outgoing>,
    room: Arc<Semaphore>,
    /// One for each subscription; they end with the session.
    forwarders: JoinSet<()>,
}

/// What a session waits for.
enum Turn {
    Stop,
    Read(Option<Result<Message, tungstenite::Error>>),
    Silent,
    Answer(Bytes),
    Send(Outgoing),
    Ping,
}

/// What is done about a request.
enum Handled {
    Reply(String),
    Call(jsonrpc::Request),
    Nothing,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    async fn run(&mut self) -> Result<(), tungstenite::Error> {
        let stop = self.connection.stop.clone();
        let mut ping = interval_at(Instant::now() + PING_PERIOD, PING_PERIOD);
        let mut silent = Instant::now() + READ_WAIT;
        let mut call: Option<Call> = None;
        loop {
            let idle = call.is_none();
            let turn = tokio::select! {
                () = stop.cancelled() => Turn::Stop,
                read = self.socket.next(), if idle => Turn::Read(read),
                () = sleep_until(silent), if idle => Turn::Silent,
                answer = answered(&mut call), if !idle => Turn::Answer(answer),
                // This session has a sender too.
                Some(outgoing) = self.queue.recv() => Turn::Send(outgoing),
                _ = ping.tick() => Turn::Ping,
            };
            match turn {
                Turn::Stop => return self.close(CloseCode::Away).await,
                Turn::Silent => return Ok(()),
                Turn::Read(None) => return Ok(()),
                Turn::Read(Some(read)) => {
                    silent = Instant::now() + READ_WAIT;
                    let text = match self.text(read).await? {
                        Some(text) => text,
                        None => continue,
                    };
                    match self.handle(&text) {
                        Handled::Reply(text) => self.write(Message::text(text)).await?,
                        Handled::Call(request) => call = Some(self.call(request)),
                        Handled::Nothing => {}
                    }
                }
                Turn::Answer(text) => {
                    call = None;
                    // It was text before it was bytes.
                    let text = Utf8Bytes::try_from(text).unwrap_or_default();
                    self.write(Message::Text(text)).await?;
                    silent = Instant::now() + READ_WAIT;
                }
                Turn::Send(Outgoing::Text(text)) => self.write(Message::text(text)).await?,
                Turn::Send(Outgoing::Event { head, event, room }) => {
                    let members = event.text(routes::event_members);
                    let text = format!("{head}{members}}}}}");
                    self.write(Message::text(text)).await?;
                    drop(room);
                }
                Turn::Ping => self.write(Message::Ping(Bytes::new())).await?,
            }
        }
    }

    /// The text of a message that has one.
    async fn text(
        &mut self,
        read: Result<Message, tungstenite::Error>,
    ) -> Result<Option<Bytes>, tungstenite::Error> {
        match read {
            Ok(Message::Text(text)) => Ok(Some(text.into())),
            Ok(Message::Binary(bytes)) => Ok(Some(bytes)),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(None),
            // The answer to it is written by reading on, up to the end.
            Ok(Message::Close(_)) => Ok(None),
            Err(error) => {
                if let tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) = error {
                    self.close(CloseCode::Size).await?;
                }
                Err(error)
            }
        }
    }

    async fn write(&mut self, message: Message) -> Result<(), tungstenite::Error> {
        let writing = timeout(WRITE_WAIT, self.socket.send(message));
        writing
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    async fn close(&mut self, code: CloseCode) -> Result<(), tungstenite::Error> {
        let reason = Utf8Bytes::default();
        self.write(Message::Close(Some(CloseFrame { code, reason })))
            .await
    }

    fn call(&self, request: jsonrpc::Request) -> Call {
        let (calls, caller) = (Arc::clone(&self.calls), self.connection.caller.clone());
        Box::pin(async move {
            let mut share = calls.budget.share(false);
            let misfit = ErrorKind::Internal;
            let (text, _) = calls.one(&mut share, &caller, &request, misfit).await;
            share.finish(text)
        })
    }

    fn handle(&mut self, text: &[u8]) -> Handled {
        match jsonrpc::parse_first(text) {
            Err(complaint) => {
                let data = format!("error unmarshaling request: {complaint}");
                Handled::Reply(jsonrpc::error(None, ErrorKind::Parse, &data))
            }
            Ok(None) => Handled::Nothing,
            Ok(Some(request)) => {
                let Some(route) = routes::find_subscription(&request.method) else {
                    return Handled::Call(request);
                };
                let done = self.subscription(route, &request);
                Handled::Reply(match done {
                    Ok(()) => jsonrpc::success(&request.id, "{}"),
                    Err(data) => jsonrpc::error(Some(&request.id), ErrorKind::Internal, &data),
                })
            }
        }
    }

    /// Subscribes or leaves.
    fn subscription(
        &mut self,
        route: &routes::Route,
        request: &jsonrpc::Request,
    ) -> Result<(), String> {
        let arguments = jsonrpc::arguments_of(route, request);
        let arguments =
            arguments.map_err(|why| format!("error converting json params to arguments: {why}"))?;
        let text = arguments.text(0);
        let parse =
            || Query::parse(text).map_err(|error| format!("failed to parse query: {error}"));
        let events = &self.calls.backend.context.events;
        let remote = &self.connection.caller.remote;
        match route.name {
            "unsubscribe_all" => events.unsubscribe_all(remote).map_err(|e| e.to_string()),
            "unsubscribe" => {
                let query = parse()?;
                events
                    .unsubscribe(remote, &query)
                    .map_err(|e| e.to_string())
            }
            _ => {
                let limits = self.calls.subscription_limits;
                events.check(limits, remote).map_err(|e| e.to_string())?;
                if text.len() > MAX_QUERY_BYTES {
                    return Err("maximum query length exceeded".to_owned());
                }
                let query = parse()?;
                let buffer = self.settings.subscription_buffer;
                let subscription = events
                    .subscribe_within(limits, remote, query, buffer)
                    .map_err(|error| error.to_string())?;
                self.forward(subscription, &request.id, text);
                Ok(())
            }
        }
    }

    /// Has a subscription's events written, under the id and the query that it was made with.
    fn forward(&mut self, subscription: Subscription, id: &Id, query: &str) {
        // Those that have ended are forgotten.
        while self.forwarders.try_join_next().is_some() {}
        let (id_text, query) = (jsonrpc::text_of(id), jsonrpc::text_of(query));
        let head =
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{id_text},\"result\":{{\"query\":{query},");
        let forwarder = Forwarder {
            subscription,
            id: id.clone(),
            head: head.into(),
            sender: self.sender.clone(),
            room: Arc::clone(&self.room),
            close_on_slow: self.settings.close_on_slow,
        };
        self.forwarders.spawn(forwarder.run());
    }
}

/// The answer to the call that is worked on; never, when there is none.
async fn answered(call: &mut Option<Call>) -> Bytes {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

/// Moves one subscription's events to the socket's queue.
struct Forwarder {
    subscription: Subscription,
    id: Id,
    head: Arc<str>,
    sender: mpsc::Sender<Outgoing>,
    room: Arc<Semaphore>,
    close_on_slow: bool,
}

impl Forwarder {
    async fn run(mut self) {
        loop {
            let event = match self.subscription.next().await {
                Ok(event) => event,
                Err(Cancelled::Unsubscribed) => return,
                Err(reason) => return self.tell_end(&reason.to_string()),
            };
            match timeout(WRITE_WAIT, self.queue(event)).await {
                Ok(Some(())) => {}
                Ok(None) => return,
                Err(_) if self.close_on_slow => return self.tell_end("slow client"),
                // This event is lost to it.
                Err(_) => {}
            }
        }
    }

    /// Waits for a place in the queue; `None` when the socket is gone.
    async fn queue(&self, event: Arc<Event>) -> Option<()> {
        let kib = u32::try_from(event.size() / 1024 + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(kib.min(MAX_QUEUED_KIB));
        let room = room.await.ok()?;
        let head = Arc::clone(&self.head);
        let outgoing = Outgoing::Event { head, event, room };
        self.sender.send(outgoing).await.ok()
    }

    /// Tells why no more events come, if there is a place for that.
    fn tell_end(&self, reason: &str) {
        let data = format!("subscription was canceled (reason: {reason})");
        let text = jsonrpc::error(Some(&self.id), ErrorKind::Server, &data);
        if self.sender.try_send(Outgoing::Text(text)).is_err() {
            tracing::debug!(
                reason,
                "a slow client is not told that its subscription has ended"
            );
        }
    }
}
