//! The client of CometBFT's socket protocol.
//!
//! Requests are written by whoever calls, responses are read by a thread of the connection and
//! matched with the requests in their order. The other side may keep its responses until it gets a
//! `Flush`, so each call that is waited for is followed by one.

use std::{
    collections::VecDeque,
    io::{self, BufReader, Write as _},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use bytes::Bytes;
use prost::{DecodeError, Message};

use super::{
    frame::{FrameError, only_field, put_request, read_frame},
    link::{Link, LostConnection},
    stream::Stream,
    text::decode_response,
};
use crate::{
    AppFault, CallName, Finalized,
    application::Answer,
    calls::Calls,
    types::{RequestFlush, response::Value},
};

/// Requests that wait for their responses at most, flushes among them; as with CometBFT. Who has
/// one more waits. Fewer: the application idles between transactions that are checked together.
const MAX_IN_FLIGHT: usize = 256;

/// Requests that are written without a flush behind them at most. Below half of
/// [`MAX_IN_FLIGHT`], so that who waits for room waits for responses that were asked for.
const MAX_UNFLUSHED: u32 = 100;

/// Bytes read from the socket at once.
const READ_BUFFER: usize = 64 << 10;

/// One connection. Dropped, it is closed.
pub(crate) struct SocketClient(Arc<Inner>);

struct Inner {
    calls: Arc<Calls>,
    link: Arc<Link>,
    stream: Stream,
    writer: Mutex<Writer>,
    waiting: Mutex<Waiting>,
    /// Told when there is room for requests, or never will be.
    room: Condvar,
    is_dropped: AtomicBool,
}

struct Writer {
    stream: Stream,
    buffer: Vec<u8>,
    /// Requests written so far that wanted an answer, and those with a flush behind them.
    written: u64,
    flushed: u64,
    unflushed: u32,
}

#[derive(Default)]
struct Waiting {
    /// In the order of the requests.
    requests: VecDeque<Request>,
    closed: Option<String>,
}

struct Request {
    call: CallName,
    /// `None` where nobody waits for the response.
    answer: Option<SyncSender<Result<Reply, AppFault>>>,
}

/// A response. That to a `FinalizeBlock` is read by itself, and never a value.
pub(super) enum Reply {
    Finalized(Finalized),
    Value(Value),
}

impl Reply {
    pub(super) fn value(self) -> Option<Value> {
        match self {
            Self::Value(value) => Some(value),
            Self::Finalized(_) => None,
        }
    }

    fn answers(&self, call: CallName) -> bool {
        match self {
            Self::Finalized(_) => call == CallName::FinalizeBlock,
            Self::Value(value) => call.is_answered_by(value),
        }
    }

    /// Decodes a `Response`; `None` where it has no value of a known kind.
    fn read(frame: &Bytes) -> Result<Option<Self>, DecodeError> {
        Ok(match only_field(frame) {
            Some((field, body)) if field == CallName::FinalizeBlock.field() + 1 => {
                Some(Self::Finalized(Finalized::read(body)?))
            }
            _ => match decode_response(frame)?.value {
                Some(Value::FinalizeBlock(response)) => Some(Self::Finalized(response.into())),
                value => value.map(Self::Value),
            },
        })
    }
}

impl SocketClient {
    pub(super) fn start(stream: Stream, calls: Arc<Calls>, link: Arc<Link>) -> io::Result<Self> {
        let reader = BufReader::with_capacity(READ_BUFFER, stream.try_clone()?);
        let writer = Writer {
            stream: stream.try_clone()?,
            buffer: Vec::new(),
            written: 0,
            flushed: 0,
            unflushed: 0,
        };
        let inner = Arc::new(Inner {
            calls,
            link: Arc::clone(&link),
            stream,
            writer: Mutex::new(writer),
            waiting: Mutex::default(),
            room: Condvar::new(),
            is_dropped: AtomicBool::new(false),
        });
        let name = format!("abci-{}", inner.calls.connection());
        let reading = Arc::clone(&inner);
        thread::Builder::new()
            .name(name)
            .spawn(move || reading.read_responses(reader))?;
        let closing = Arc::downgrade(&inner);
        link.closes_by(move |reason| {
            if let Some(inner) = closing.upgrade() {
                inner.end(reason);
            }
        });
        Ok(Self(inner))
    }

    /// Sends a request and waits for its response.
    pub(super) fn call(&self, call: CallName, request: &impl Message) -> Result<Reply, AppFault> {
        let (answer, _) = self.0.send(call, request, true)?;
        self.0.wait(&answer)
    }

    /// Sends a request. A flush follows when the first one is waited for, or when many have
    /// gathered.
    pub(super) fn begin<R: 'static>(
        &self,
        call: CallName,
        request: &impl Message,
        pick: impl FnOnce(Reply) -> Result<R, AppFault> + Send + 'static,
    ) -> Result<Answer<R>, AppFault> {
        let (answer, number) = self.0.send(call, request, false)?;
        let inner = Arc::clone(&self.0);
        Ok(Answer::later(move || {
            inner.flush_through(number)?;
            inner.wait(&answer).and_then(pick)
        }))
    }

    /// Sends a request with a flush behind it: the response comes whether or not it is waited for.
    pub(super) fn begin_flushed<R: 'static>(
        &self,
        call: CallName,
        request: &impl Message,
        pick: impl FnOnce(Reply) -> Result<R, AppFault> + Send + 'static,
    ) -> Result<Answer<R>, AppFault> {
        let (answer, _) = self.0.send(call, request, true)?;
        let inner = Arc::clone(&self.0);
        Ok(Answer::later(move || inner.wait(&answer).and_then(pick)))
    }
}

impl Drop for SocketClient {
    fn drop(&mut self) {
        self.0.is_dropped.store(true, Ordering::Release);
        self.0.end("this node closed it");
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues and writes a request; returns where its response comes, and its number.
    fn send(
        &self,
        call: CallName,
        request: &impl Message,
        flush: bool,
    ) -> Result<(Receiver<Result<Reply, AppFault>>, u64), AppFault> {
        let (answer, answered) = sync_channel(1);
        let mut writer = self.writer();
        self.expect(call, Some(answer))?;
        put_request(call, request, &mut writer.buffer);
        writer.written += 1;
        writer.unflushed += 1;
        let number = writer.written;
        if call == CallName::Flush {
            writer.mark_flushed();
        } else if flush || writer.unflushed >= MAX_UNFLUSHED {
            self.put_flush(&mut writer)?;
        }
        self.write(&mut writer)?;
        Ok((answered, number))
    }

    /// Makes sure that a flush stands behind the request with `number`.
    fn flush_through(&self, number: u64) -> Result<(), AppFault> {
        let mut writer = self.writer();
        if number <= writer.flushed {
            return Ok(());
        }
        self.put_flush(&mut writer)?;
        self.write(&mut writer)
    }

    fn put_flush(&self, writer: &mut Writer) -> Result<(), AppFault> {
        self.expect(CallName::Flush, None)?;
        put_request(CallName::Flush, &RequestFlush {}, &mut writer.buffer);
        writer.mark_flushed();
        Ok(())
    }

    /// Notes a request that is about to be written. The writer's lock is held, so requests are
    /// noted in the order in which they are written.
    fn expect(
        &self,
        call: CallName,
        answer: Option<SyncSender<Result<Reply, AppFault>>>,
    ) -> Result<(), AppFault> {
        let is_full = |it: &mut Waiting| it.closed.is_none() && it.requests.len() >= MAX_IN_FLIGHT;
        let mut waiting = self
            .room
            .wait_while(self.waiting(), is_full)
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &waiting.closed {
            return Err(AppFault::Closed(reason.clone()));
        }
        waiting.requests.push_back(Request { call, answer });
        Ok(())
    }

    fn write(&self, writer: &mut Writer) -> Result<(), AppFault> {
        let Writer { stream, buffer, .. } = writer;
        let written = stream.write_all(buffer);
        buffer.clear();
        // A large block's memory is not kept.
        buffer.shrink_to(READ_BUFFER);
        written.map_err(|error| {
            let reason = format!("a request cannot be written: {error}");
            AppFault::Closed(self.lose(reason))
        })
    }

    fn wait(&self, answer: &Receiver<Result<Reply, AppFault>>) -> Result<Reply, AppFault> {
        answer.recv().unwrap_or_else(|_| {
            let reason = self.waiting().closed.clone().unwrap_or_default();
            Err(AppFault::Closed(reason))
        })
    }

    fn read_responses(&self, mut stream: BufReader<Stream>) {
        let reason = loop {
            match self.read_response(&mut stream) {
                Ok(None) => {}
                Ok(Some(reason)) => break reason,
                Err(error) => break error.to_string(),
            }
        };
        self.lose(reason);
    }

    /// Takes the next response; `Some` is why there can be no other.
    fn read_response(&self, stream: &mut BufReader<Stream>) -> Result<Option<String>, FrameError> {
        let Some(frame) = read_frame(stream)? else {
            return Ok(Some("the application closed it".to_owned()));
        };
        let reply = Reply::read(&frame)?;
        let Some(request) = self.waiting().requests.pop_front() else {
            return Ok(Some("a response came that nobody asked for".to_owned()));
        };
        self.room.notify_all();
        let (answer, end) = match reply {
            Some(Reply::Value(Value::Exception(exception))) => {
                let reason = format!("{} failed: {}", request.call, exception.error);
                (Err(AppFault::Failed(exception.error)), Some(reason))
            }
            Some(reply) if reply.answers(request.call) => (Ok(reply), None),
            other => {
                let what = other.map_or(
                    "a response of no known kind",
                    |_| "the response to another call",
                );
                let reason = format!("{} was answered by {what}", request.call);
                (Err(AppFault::Contradiction(what.to_owned())), Some(reason))
            }
        };
        if let Some(waiter) = request.answer {
            // Who gave up waiting wants no answer.
            let _unwanted = waiter.send(answer);
        }
        Ok(end)
    }

    /// The connection ended by itself; returns why, by whoever found it first.
    fn lose(&self, reason: String) -> String {
        let running = self.link.longest();
        let first = self.end(&reason);
        if !self.is_dropped.load(Ordering::Acquire) {
            self.link.lose(LostConnection {
                connection: self.calls.connection(),
                running,
                reason,
            });
        }
        first
    }

    /// Closes the connection. Who waits for a response gets the reason, the first one that is
    /// given, which is returned.
    fn end(&self, reason: &str) -> String {
        let mut waiting = self.waiting();
        let first = waiting
            .closed
            .get_or_insert_with(|| reason.to_owned())
            .clone();
        // Their senders are dropped, and the waiting ones find the reason.
        waiting.requests.clear();
        drop(waiting);
        self.room.notify_all();
        self.stream.shutdown();
        first
    }
}

impl Writer {
    fn mark_flushed(&mut self) {
        self.flushed = self.written;
        self.unflushed = 0;
    }
}
