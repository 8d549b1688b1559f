//! What blocksync begins with.

use std::{collections::BTreeSet, num::NonZero};

use perihelion_p2p::{NodeId, SwitchHandle};
use perihelion_pool::{LastCommitKnown, PoolConfig, VerifyMode};
use perihelion_store::Store;
use perihelion_types::{Height, State};

use super::{begin, switch};
use crate::{
    config::{Config, Verify},
    prepare::Prepared,
};

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
    let block_sync = &prepared.config.block_sync;
    let defaults = PoolConfig::default();
    let persistent = awaited(&prepared.config, network.id())?;
    let workers = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    Ok(PoolConfig {
        verify: match block_sync.verify {
            Verify::Pinned => VerifyMode::Pinned,
            Verify::Every => VerifyMode::Every,
        },
        workers,
        schedule: perihelion_schedule::Config {
            window_bytes: window_bytes(prepared),
            window_blocks: size(block_sync.window_heights),
            peer_allowance: size(block_sync.peer_requests),
            peer_deadline: block_sync.peer_timeout,
            reenter_behind: u32::try_from(block_sync.reenter_behind).unwrap_or(u32::MAX),
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

/// Configured peers that are waited for at the start. Nobody dials itself, whatever the list of all
/// nodes of a network says.
fn awaited(config: &Config, own: NodeId) -> anyhow::Result<BTreeSet<NodeId>> {
    let peers = switch::persistent_peers(config)?.into_iter();
    let ids = peers.map(|address| address.id);
    Ok(ids.filter(|id| *id != own).collect())
}

/// Bytes of blocks on their way and in memory at most.
pub(super) fn window_bytes(prepared: &Prepared) -> usize {
    size(prepared.config.block_sync.window_bytes)
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::Arc;

    use bytes::Bytes;
    use perihelion_crypto::PrivateKey;
    use perihelion_store::{BlockSave, StoreOptions, Sync};
    use perihelion_test_support::{Hex, load_lines};
    use perihelion_types::{
        BlockIdFlag, CommitSig, ConsensusParams, ExtendedCommit, FetchedBlock, Genesis,
        GenesisValidator, Round, Time, commit::ExtendedCommitSig,
    };
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Line {
        block: Hex,
    }

    fn key() -> PrivateKey {
        PrivateKey::ed25519_from_secret(b"the only validator")
    }

    /// The state behind a block of a chain of one validator.
    fn state(block: &FetchedBlock, extensions_from: i64) -> State {
        let mut consensus_params = ConsensusParams::default_v038();
        consensus_params.abci.vote_extensions_enable_height = extensions_from;
        let public = key().public_key();
        let genesis = Genesis {
            genesis_time: Time::new(1_700_000_000, 0),
            chain_id: "alone".to_owned(),
            initial_height: Height::new(1),
            consensus_params,
            validators: vec![GenesisValidator {
                address: public.address(),
                pub_key: public,
                power: 10,
                name: String::new(),
            }],
            app_hash: Bytes::new(),
            app_state: Bytes::new(),
        };
        let mut state = State::from_genesis(&genesis, "").unwrap();
        state.last_block_height = block.height();
        state.last_block_id = block.block_id();
        state.last_validators = Arc::clone(&state.validators);
        state
    }

    /// The block's extended commit, signed.
    fn signed(block: &FetchedBlock) -> ExtendedCommit {
        let address = Bytes::copy_from_slice(key().public_key().address().as_bytes());
        let mut commit = ExtendedCommit {
            height: block.height(),
            round: Round::ZERO,
            block_id: block.block_id(),
            extended_signatures: vec![ExtendedCommitSig {
                commit_sig: CommitSig {
                    block_id_flag: BlockIdFlag::Commit,
                    validator_address: address,
                    timestamp: Time::new(1_700_000_100, 0),
                    signature: Bytes::new(),
                },
                extension: Bytes::from_static(b"seen"),
                extension_signature: Bytes::new(),
            }],
        };
        let vote = commit.vote(0).unwrap();
        let place = &mut commit.extended_signatures[0];
        place.commit_sig.signature = key().sign(&vote.sign_bytes("alone"));
        place.extension_signature = key().sign(&vote.extension_sign_bytes("alone"));
        commit
    }

    /// In the middle of a run of blocks no plain commit is stored beside the extended one.
    #[test]
    fn an_extended_commit_is_the_last_blocks_own_where_extensions_are_enabled() {
        let lines: Vec<Line> = load_lines("chain_basic/blocks.jsonl");
        let raw = lines[0].block.0.clone().into();
        let block = FetchedBlock::decode(raw, None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &StoreOptions::default()).unwrap();
        let save = |extended: Option<&ExtendedCommit>| {
            let save = BlockSave {
                block: &block,
                commit: None,
                extended_commit: extended,
                results: None,
            };
            store.save_block(&save, Sync::No).unwrap();
        };
        let (extended, plain) = (state(&block, 1), state(&block, 0));
        let known = |state| last_commit(&store, state).unwrap();
        save(None);
        assert_eq!(known(&extended), LastCommitKnown::Missing);
        let commit = signed(&block);
        let mut forged = commit.clone();
        forged.extended_signatures[0].extension = Bytes::from_static(b"other");
        save(Some(&forged));
        assert_eq!(known(&extended), LastCommitKnown::Missing);
        save(Some(&commit));
        assert_eq!(known(&extended), LastCommitKnown::Verified);
        // Without extensions it takes a plain one.
        assert_eq!(known(&plain), LastCommitKnown::Missing);
        store
            .save_seen_commit(&commit.to_commit(), Sync::No)
            .unwrap();
        assert_eq!(known(&plain), LastCommitKnown::Verified);
        // Where they are enabled a plain one does not do.
        save(Some(&forged));
        assert_eq!(known(&extended), LastCommitKnown::Missing);
    }

    #[test]
    fn a_node_does_not_wait_for_itself() {
        let (own, other) = (NodeId::new([1; 20]), NodeId::new([2; 20]));
        let mut config = Config::new(std::path::Path::new("home"));
        config.p2p.persistent_peers = format!("{own}@10.0.0.1:26656,{other}@10.0.0.2:26656");
        assert_eq!(awaited(&config, own).unwrap(), BTreeSet::from([other]));
        assert_eq!(awaited(&config, NodeId::new([3; 20])).unwrap().len(), 2);
    }
}
