//! Validators and consensus parameters.

use perihelion_types::{ConsensusParams, Height, Validator, json::Text};
use serde::Serialize;

use super::{Answer, CallError, height_in, uncommitted, write};
use crate::{arguments::Arguments, context::Backend};

/// Validators on a page by default.
const DEFAULT_PER_PAGE: usize = 30;
/// Validators on a page at most.
const MAX_PER_PAGE: usize = 100;

#[derive(Serialize)]
struct Validators<'a> {
    block_height: Height,
    validators: &'a [Validator],
    count: Text<usize>,
    total: Text<usize>,
}

pub(super) fn validators(backend: &Backend, arguments: &Arguments) -> Answer {
    let height = height_in(uncommitted(backend), arguments.integer(0))?;
    let set = backend
        .context
        .store
        .load_validators(height)?
        .ok_or(CallError::NoValidators(height))?;
    let all = set.validators();
    let per_page = match arguments.integer(2) {
        Some(wanted @ 1..) => usize::try_from(wanted).map_or(MAX_PER_PAGE, |n| n.min(MAX_PER_PAGE)),
        _ => DEFAULT_PER_PAGE,
    };
    let pages = all.len().div_ceil(per_page).max(1);
    let page = match arguments.integer(1) {
        None => 1,
        Some(page) => usize::try_from(page)
            .ok()
            .filter(|page| (1..=pages).contains(page))
            .ok_or(CallError::Page { pages, page })?,
    };
    let shown = all.chunks(per_page).nth(page - 1).unwrap_or_default();
    write(&Validators {
        block_height: height,
        validators: shown,
        count: Text(shown.len()),
        total: Text(all.len()),
    })
}

#[derive(Serialize)]
struct Params {
    block_height: Height,
    consensus_params: ConsensusParams,
}

pub(super) fn params(backend: &Backend, arguments: &Arguments) -> Answer {
    let height = height_in(uncommitted(backend), arguments.integer(0))?;
    let params = backend
        .context
        .store
        .load_consensus_params(height)?
        .ok_or(CallError::NoParams(height))?;
    write(&Params {
        block_height: height,
        consensus_params: params,
    })
}
