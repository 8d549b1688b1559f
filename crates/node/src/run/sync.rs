//! What blocksync begins with.

use std::num::NonZero;

use perihelion_p2p::SwitchHandle;
use perihelion_pool::{LastCommitKnown, PoolConfig, VerifyMode};
use perihelion_store::Store;
use perihelion_types::{Height, State};

use super::{begin, switch};
use crate::{config::Verify, prepare::Prepared};

/// Whether the last block's own commit is stored and verifies in full: with its vote extensions,
/// where the block after it must be proposed with them.
pub(super) fn last_commit(store: &Store, state: &State) -> anyhow::Result<LastCommitKnown> {
    let height = state.last_block_height;
    if height == Height::ZERO {
        return Ok(LastCommitKnown::Verified);
    }
    if state.consensus_params.vote_extensions_enabled(height) {
        // Consensus begins with it, and it is there where no plain one is: in the middle of a run.
        let extended = store.load_extended_commit(height)?;
        return Ok(known(extended.is_some_and(|extended| {
            let (set, id) = (&state.last_validators, state.last_block_id);
            perihelion_certify::verify_extended_commit(&state.chain_id, set, id, height, &extended)
                .is_ok()
        })));
    }
    let verified = store.load_seen_commit(height)?.is_some_and(|commit| {
        perihelion_certify::verify_commit(
            &state.chain_id,
            &state.last_validators,
            state.last_block_id,
            height,
            &commit,
        )
        .is_ok()
    });
    Ok(known(verified))
}

fn known(verified: bool) -> LastCommitKnown {
    if verified {
        LastCommitKnown::Verified
    } else {
        LastCommitKnown::Missing
    }
}

/// The pool's configuration out of the home's.
pub(super) fn pool_config(
    prepared: &Prepared,
    network: &SwitchHandle,
) -> anyhow::Result<PoolConfig> {
    let sync = &prepared.config.block_sync;
    let defaults = PoolConfig::default();
    let persistent = switch::persistent_peers(&prepared.config)?
        .into_iter()
        .map(|address| address.id)
        // Nobody dials itself, whatever the list of all nodes of a network says.
        .filter(|id| *id != network.id())
        .collect();
    Ok(PoolConfig {
        verify: match sync.verify {
            Verify::Pinned => VerifyMode::Pinned,
            Verify::Every => VerifyMode::Every,
        },
        workers: std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
        schedule: perihelion_schedule::Config {
            window_bytes: window_bytes(prepared),
            window_blocks: size(sync.window_heights),
            peer_allowance: size(sync.peer_requests),
            peer_deadline: sync.peer_timeout,
            reenter_behind: u32::try_from(sync.reenter_behind).unwrap_or(u32::MAX),
            follow: false,
            ..defaults.schedule
        },
        absence: switch::absence(network),
        persistent,
        rules: begin::rules(&prepared.config)?,
        own_address: prepared
            .validator
            .as_ref()
            .map(|key| key.key.public_key().address()),
    })
}

/// Bytes of blocks on their way and in memory at most.
pub(super) fn window_bytes(prepared: &Prepared) -> usize {
    size(prepared.config.block_sync.window_bytes)
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
