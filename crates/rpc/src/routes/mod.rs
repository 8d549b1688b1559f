//! The routes: their arguments, and what they answer.

mod app;
mod blocks;
mod consensus;
mod control;
mod events;
mod forms;
mod genesis;
mod network;
mod orders;
mod sets;
mod status;
mod txs;

use std::{ops::RangeInclusive, time::Duration};

use perihelion_abci::AppError;
use perihelion_certify::EvidenceError;
use perihelion_events::{Cancelled, QueryError, SubscribeError};
use perihelion_mempool::CheckTxError;
use perihelion_p2p::OrderError;
use perihelion_store::StoreError;
use perihelion_types::{Height, json};
use serde::Serialize;
use thiserror::Error;

use crate::{
    arguments::{Arguments, Kind},
    context::Backend,
    peer_argument::PeerError,
    search::SearchError,
};

pub(crate) use events::members as event_members;
pub(crate) use orders::{broadcast_tx_commit, broadcast_tx_sync};

/// How long an answer to a call may be kept by caches on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    /// Not at all.
    No,
    /// A day.
    Always,
    /// A day, when this argument was given.
    When(usize),
}

/// A method that can be called.
pub(crate) struct Route {
    pub(crate) name: &'static str,
    pub(crate) arguments: &'static [(&'static str, Kind)],
    cache: Cache,
    pub(crate) work: Work,
}

/// How a method is worked on.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// On a thread that may block, of those for such calls.
    Blocking(Lane, fn(&Backend, &Arguments) -> Answer),
    /// Where it was called: it hands something on, which takes a moment. So no call that hangs keeps
    /// transactions from being taken.
    AtOnce(fn(&Backend, &Arguments) -> Answer),
    /// `broadcast_tx_sync`: mostly waiting, for the application.
    Check,
    /// `broadcast_tx_commit`: mostly waiting.
    Commit,
}

/// Calls that share threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// What is looked up at known places.
    Lookup,
    /// What is searched for.
    Search,
    /// What is handed on, maybe waiting for the application.
    Order,
}

impl Route {
    /// Whether caches may keep the answer to such a call.
    pub(crate) fn is_cacheable(&self, arguments: &Arguments) -> bool {
        match self.cache {
            Cache::No => false,
            Cache::Always => true,
            Cache::When(index) => arguments.is_given(index),
        }
    }

    /// Whether nothing changes when the same is called again.
    pub(crate) const fn can_be_repeated(&self) -> bool {
        match self.work {
            Work::Blocking(lane, _) => matches!(lane, Lane::Lookup | Lane::Search),
            Work::AtOnce(_) | Work::Check | Work::Commit => false,
        }
    }
}

/// A result as JSON.
pub(crate) type Answer = Result<String, CallError>;

/// A call has no result. The texts are CometBFT's: clients match them.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    #[error("height must be greater than 0, but got {0}")]
    NotPositive(i64),
    #[error("height {height} must be less than or equal to the current blockchain height {latest}")]
    AboveLatest { height: i64, latest: Height },
    #[error("height {height} is not available, lowest height is {base}")]
    BelowBase { height: i64, base: Height },
    #[error("heights must be non-negative")]
    Negative,
    #[error("min height {min} can't be greater than max height {max}")]
    EmptyRange { min: i64, max: i64 },
    #[error("could not find results for height #{0}")]
    NoResults(Height),
    #[error("node is not persisting finalize block responses")]
    ResultsDiscarded,
    #[error("could not find validator set for height #{0}")]
    NoValidators(Height),
    #[error("could not find consensus params for height #{0}")]
    NoParams(Height),
    #[error("page should be within [1, {pages}] range, given {page}")]
    Page { pages: usize, page: i64 },
    #[error("genesis response is large, please use the genesis_chunked API instead")]
    LargeGenesis,
    #[error("there are {last} chunks, {chunk} is invalid")]
    Chunk { last: usize, chunk: u64 },
    #[error("maximum query length exceeded")]
    LongQuery,
    #[error("the query has more than {0} bytes: search for less at once")]
    LongBlockQuery(usize),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error("expected order_by to be either `asc` or `desc` or empty")]
    Order,
    #[error("the results take more than {0} bytes: ask for fewer on a page")]
    LargePage(usize),
    #[error(
        "the results take more than {} ms: ask for fewer on a page",
        .0.as_millis()
    )]
    SlowPage(Duration),
    #[error("transaction indexing is disabled")]
    NoTxIndex,
    #[error("block indexing is disabled")]
    NoBlockIndex,
    #[error("transaction hash cannot be empty")]
    NoTxHash,
    #[error("tx ({0}) not found")]
    NoTx(String),
    #[error(transparent)]
    CheckTx(CheckTxError),
    #[error("error on broadcastTxCommit: {0}")]
    BroadcastCommit(String),
    #[error("failed to subscribe to tx: {0}")]
    SubscribeToTx(String),
    #[error("timed out waiting for tx to be included in a block")]
    NotCommitted,
    #[error("txSub was canceled (reason: {0})")]
    Cancelled(Cancelled),
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    #[error("no evidence was provided")]
    NoEvidence,
    #[error("evidence.ValidateBasic failed: {0}")]
    EvidenceForm(String),
    #[error("failed to add evidence: Invalid evidence: {0}")]
    Evidence(EvidenceError),
    #[error("failed to add evidence: too much evidence waits for a block")]
    NoRoomForEvidence,
    #[error("failed to add evidence: a vote's index or extension is not what its validator sent")]
    ChangedEvidence,
    #[error("no seeds provided")]
    NoSeeds,
    #[error("no peers provided")]
    NoPeers,
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Dial(#[from] OrderError),
    #[error("subscriptions need a WebSocket")]
    NoSubscription,
    #[error("{0}")]
    Unfinished(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error("the stored results of height {height} cannot be decoded: {reason}")]
    Results { height: Height, reason: String },
    #[error("error marshaling response: {0}")]
    Json(#[from] serde_json::Error),
}

const HEIGHT: &[(&str, Kind)] = &[("height", Kind::Int64)];
const TX: &[(&str, Kind)] = &[("tx", Kind::Base64)];

/// Every route, by name.
pub(crate) static ROUTES: &[Route] = &[
    route("abci_info", &[], Cache::Always, app::info),
    route(
        "abci_query",
        &[
            ("path", Kind::Text),
            ("data", Kind::Hex),
            ("height", Kind::Int64),
            ("prove", Kind::Bool),
        ],
        Cache::No,
        app::query,
    ),
    route("block", HEIGHT, Cache::When(0), blocks::block),
    route(
        "block_by_hash",
        &[("hash", Kind::Base64)],
        Cache::Always,
        blocks::block_by_hash,
    ),
    route("block_results", HEIGHT, Cache::When(0), blocks::results),
    search(
        "block_search",
        &[
            ("query", Kind::Text),
            ("page", Kind::Int),
            ("per_page", Kind::Int),
            ("order_by", Kind::Text),
        ],
        txs::block_search,
    ),
    route(
        "blockchain",
        &[("minHeight", Kind::Int64), ("maxHeight", Kind::Int64)],
        Cache::Always,
        blocks::blockchain,
    ),
    order(
        "broadcast_evidence",
        &[("evidence", Kind::Evidence)],
        orders::broadcast_evidence,
    ),
    offer("broadcast_tx_async", TX, orders::broadcast_tx_async),
    Route {
        name: "broadcast_tx_commit",
        arguments: TX,
        cache: Cache::No,
        work: Work::Commit,
    },
    Route {
        name: "broadcast_tx_sync",
        arguments: TX,
        cache: Cache::No,
        work: Work::Check,
    },
    order("check_tx", TX, orders::check_tx),
    route("commit", HEIGHT, Cache::When(0), blocks::commit),
    route("consensus_params", HEIGHT, Cache::When(0), sets::params),
    route(
        "consensus_state",
        &[],
        Cache::No,
        consensus::consensus_state,
    ),
    route(
        "dump_consensus_state",
        &[],
        Cache::No,
        consensus::dump_consensus_state,
    ),
    route("genesis", &[], Cache::Always, genesis::genesis),
    route(
        "genesis_chunked",
        &[("chunk", Kind::Uint)],
        Cache::Always,
        genesis::chunked,
    ),
    route("header", HEIGHT, Cache::When(0), blocks::header),
    route(
        "header_by_hash",
        &[("hash", Kind::Hex)],
        Cache::Always,
        blocks::header_by_hash,
    ),
    route("health", &[], Cache::No, |_, _| Ok("{}".to_owned())),
    route("net_info", &[], Cache::No, network::net_info),
    route(
        "num_unconfirmed_txs",
        &[],
        Cache::No,
        orders::num_unconfirmed_txs,
    ),
    route("status", &[], Cache::No, status::status),
    route("sync_status", &[], Cache::No, status::sync_status),
    route(
        "tx",
        &[("hash", Kind::Base64), ("prove", Kind::Bool)],
        Cache::Always,
        txs::tx,
    ),
    search(
        "tx_search",
        &[
            ("query", Kind::Text),
            ("prove", Kind::Bool),
            ("page", Kind::Int),
            ("per_page", Kind::Int),
            ("order_by", Kind::Text),
        ],
        txs::tx_search,
    ),
    route(
        "unconfirmed_txs",
        &[("limit", Kind::Int)],
        Cache::No,
        orders::unconfirmed_txs,
    ),
    route(
        "validators",
        &[
            ("height", Kind::Int64),
            ("page", Kind::Int),
            ("per_page", Kind::Int),
        ],
        Cache::When(0),
        sets::validators,
    ),
];

/// The routes that exist only where they are configured.
pub(crate) static UNSAFE_ROUTES: &[Route] = &[
    offer(
        "dial_peers",
        &[
            ("peers", Kind::Texts),
            ("persistent", Kind::Bool),
            ("unconditional", Kind::Bool),
            ("private", Kind::Bool),
        ],
        control::dial_peers,
    ),
    offer("dial_seeds", &[("seeds", Kind::Texts)], control::dial_seeds),
    offer("unsafe_flush_mempool", &[], control::flush_mempool),
];

const fn route(
    name: &'static str,
    arguments: &'static [(&'static str, Kind)],
    cache: Cache,
    call: fn(&Backend, &Arguments) -> Answer,
) -> Route {
    Route {
        name,
        arguments,
        cache,
        work: Work::Blocking(Lane::Lookup, call),
    }
}

const fn search(
    name: &'static str,
    arguments: &'static [(&'static str, Kind)],
    call: fn(&Backend, &Arguments) -> Answer,
) -> Route {
    Route {
        work: Work::Blocking(Lane::Search, call),
        ..route(name, arguments, Cache::No, call)
    }
}

const fn order(
    name: &'static str,
    arguments: &'static [(&'static str, Kind)],
    call: fn(&Backend, &Arguments) -> Answer,
) -> Route {
    Route {
        work: Work::Blocking(Lane::Order, call),
        ..route(name, arguments, Cache::No, call)
    }
}

const fn offer(
    name: &'static str,
    arguments: &'static [(&'static str, Kind)],
    call: fn(&Backend, &Arguments) -> Answer,
) -> Route {
    Route {
        work: Work::AtOnce(call),
        ..route(name, arguments, Cache::No, call)
    }
}

/// What can be called over a WebSocket alone.
pub(crate) static SUBSCRIBE: Route =
    route("subscribe", &[("query", Kind::Text)], Cache::No, absent);
/// As [`SUBSCRIBE`].
pub(crate) static UNSUBSCRIBE: Route =
    route("unsubscribe", &[("query", Kind::Text)], Cache::No, absent);
/// As [`SUBSCRIBE`].
pub(crate) static UNSUBSCRIBE_ALL: Route = route("unsubscribe_all", &[], Cache::No, absent);

/// The route of a name that can be called over a WebSocket alone.
pub(crate) fn find_subscription(name: &str) -> Option<&'static Route> {
    let routes = [&SUBSCRIBE, &UNSUBSCRIBE, &UNSUBSCRIBE_ALL];
    routes.into_iter().find(|route| route.name == name)
}

/// Subscriptions are worked on where the WebSocket is.
fn absent(_: &Backend, _: &Arguments) -> Answer {
    Err(CallError::NoSubscription)
}

/// The route of a name.
pub(crate) fn find(name: &str) -> Option<&'static Route> {
    let index = ROUTES.binary_search_by(|route| route.name.cmp(name));
    index.ok().map(|index| &ROUTES[index])
}

/// The same of [`UNSAFE_ROUTES`].
pub(crate) fn find_unsafe(name: &str) -> Option<&'static Route> {
    UNSAFE_ROUTES.iter().find(|route| route.name == name)
}

fn write<T: Serialize>(value: &T) -> Answer {
    Ok(json::to_string(value)?)
}

/// The height that a call names, checked against the heights that there are; the upper one when it
/// names none.
fn height_in(range: RangeInclusive<Height>, given: Option<i64>) -> Result<Height, CallError> {
    let (base, latest) = range.into_inner();
    match given {
        None => Ok(latest),
        Some(height) if height <= 0 => Err(CallError::NotPositive(height)),
        Some(height) if height > latest.get() => Err(CallError::AboveLatest { height, latest }),
        Some(height) if height < base.get() => Err(CallError::BelowBase { height, base }),
        Some(height) => Ok(Height::new(height)),
    }
}

/// The heights whose validators and parameters are known: while the node catches up those of its
/// blocks, else one more.
fn uncommitted(backend: &Backend) -> RangeInclusive<Height> {
    let (base, height) = backend.context.store.base_and_height();
    if backend.context.progress.borrow().is_catching_up() {
        base..=height
    } else {
        base..=height.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_found_by_name() {
        for route in ROUTES {
            assert_eq!(find(route.name).map(|r| r.name), Some(route.name));
        }
        for route in UNSAFE_ROUTES {
            assert_eq!(find_unsafe(route.name).map(|r| r.name), Some(route.name));
            assert!(find(route.name).is_none() && !route.can_be_repeated());
        }
        assert!(find("nothing").is_none());
        assert!(find("").is_none());
    }
}
