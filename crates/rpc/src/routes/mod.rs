//! The routes: their arguments, and what they answer.

mod app;
mod blocks;
mod forms;
mod genesis;
mod network;
mod sets;
mod status;

use std::ops::RangeInclusive;

use perihelion_abci::AppError;
use perihelion_store::StoreError;
use perihelion_types::{Height, json};
use serde::Serialize;
use thiserror::Error;

use crate::{
    arguments::{Arguments, Kind},
    context::Backend,
};

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
    call: fn(&Backend, &Arguments) -> Answer,
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

    /// The result as JSON. Blocks.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn call(&self, backend: &Backend, arguments: &Arguments) -> Answer {
        (self.call)(backend, arguments)
    }
}

/// A result as JSON.
type Answer = Result<String, CallError>;

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
    route(
        "blockchain",
        &[("minHeight", Kind::Int64), ("maxHeight", Kind::Int64)],
        Cache::Always,
        blocks::blockchain,
    ),
    route("commit", HEIGHT, Cache::When(0), blocks::commit),
    route("consensus_params", HEIGHT, Cache::When(0), sets::params),
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
    route("status", &[], Cache::No, status::status),
    route("sync_status", &[], Cache::No, status::sync_status),
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
        call,
    }
}

/// The route of a name.
pub(crate) fn find(name: &str) -> Option<&'static Route> {
    let index = ROUTES.binary_search_by(|route| route.name.cmp(name));
    index.ok().map(|index| &ROUTES[index])
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
        assert!(find("nothing").is_none());
        assert!(find("").is_none());
    }
}
