//! What consensus begins with: the pools, the signer, the log.

use std::sync::Arc;

use anyhow::Context as _;
use perihelion_consensus_reactor::{
    ConsensusHandle, ConsensusSetup, PoolFollower,
    privval::{FilePrivval, check_sign_state},
    wal,
};
use perihelion_evidence::EvidencePool;
use perihelion_mempool::{Mempool, MempoolConfig, MempoolKind, TxLimits};
use perihelion_p2p::{PeerEvent, SwitchHandle};
use perihelion_store::{Store, lock_store};
use perihelion_types::{RulesByHeight, State};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Basis, begin};
use crate::{
    config::{Config, ConsensusConfig, MempoolType},
    home::DATABASE,
    prepare::{PrepareError, Prepared},
};

/// What waits for a block.
#[derive(Clone)]
pub(super) struct Pools {
    pub(super) mempool: Arc<Mempool>,
    pub(super) evidence: Arc<EvidencePool>,
}

impl Pools {
    /// The pools after the last block of `state`.
    pub(super) fn open(basis: &Basis<'_>, state: &Arc<State>) -> anyhow::Result<Self> {
        let rules = basis.rules;
        let limits = TxLimits::of(state, rules.at(state.next_height()));
        let mempool = Mempool::new(
            mempool_config(&basis.prepared.config),
            basis.apps.mempool.clone(),
            state.last_block_height,
            limits,
        );
        let evidence =
            EvidencePool::open(Arc::clone(basis.store), Arc::clone(state), rules.clone())
                .context("the pool of evidence cannot be opened")?;
        Ok(Self {
            mempool: Arc::new(mempool),
            evidence: Arc::new(evidence),
        })
    }

    /// What keeps the pools at the height of the executor, whoever has it.
    pub(super) fn follower(&self, rules: &RulesByHeight) -> Arc<PoolFollower> {
        let (mempool, evidence) = (Arc::clone(&self.mempool), Arc::clone(&self.evidence));
        Arc::new(PoolFollower::new(mempool, evidence, rules.clone()))
    }
}

/// The mempool's settings out of the home's.
pub(super) fn mempool_config(config: &Config) -> MempoolConfig {
    let mempool = &config.mempool;
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    MempoolConfig {
        kind: match mempool.kind {
            MempoolType::Flood => MempoolKind::Flood,
            // That of the application is refused before anything starts.
            MempoolType::Nop | MempoolType::App => MempoolKind::Nop,
        },
        recheck: mempool.recheck,
        recheck_timeout: mempool.recheck_timeout,
        broadcast: mempool.broadcast,
        size: size(mempool.size),
        max_txs_bytes: mempool.max_txs_bytes,
        cache_size: size(mempool.cache_size),
        keep_invalid_txs_in_cache: mempool.keep_invalid_txs_in_cache,
        max_tx_bytes: size(mempool.max_tx_bytes),
        max_gossip_to_persistent_peers: size(
            mempool.experimental_max_gossip_connections_to_persistent_peers,
        ),
        max_gossip_to_other_peers: size(
            mempool.experimental_max_gossip_connections_to_non_persistent_peers,
        ),
    }
}

/// Fails when to sign with the home's state would risk signing twice. Before anything runs: a state
/// that is older than the chain in the store is found while the node has not changed anything. What is
/// fetched later is looked at when consensus is entered.
pub(super) fn check_signer(prepared: &Prepared, store: &Store) -> anyhow::Result<()> {
    let (Some(key), Some(state)) = (&prepared.validator, &prepared.sign_state) else {
        return Ok(());
    };
    let file = prepared.config.priv_validator_state_file();
    let (key, chain_id) = (key.public_key(), &prepared.genesis.chain_id);
    Ok(check_sign_state(state, &file, &key, chain_id, store)?)
}

/// Fails when the consensus log is damaged where it was durable: before anything runs, since consensus
/// would find it only when it is entered. A node that has the store writes to the log meanwhile.
pub(super) fn check_log(prepared: &Prepared) -> anyhow::Result<()> {
    let config = &prepared.config;
    let lock =
        lock_store(&config.data_dir()).map_err(|error| PrepareError::store(error, config))?;
    let checked = wal::check(&config.wal_file());
    drop(lock);
    let Err(error) = checked else {
        return Ok(());
    };
    let signed = prepared.sign_state.as_ref().map(|state| state.height);
    let Some(signed) = signed.filter(|_| error.is_damage()) else {
        return Err(error.into());
    };
    let is_there = config.data_dir().join(DATABASE).exists();
    let height = if is_there {
        begin::open_store(prepared)?.height().get()
    } else {
        0
    };
    anyhow::bail!("{error}. {}", way_out(signed, height))
}

/// Whether the chain is above what was signed, as far as its store at `height` tells.
fn way_out(signed: i64, height: i64) -> String {
    if height > signed || signed == 0 {
        format!("It is above already: {signed} was signed last, and block {height} is in the store")
    } else {
        format!("Height {signed} was signed last, and the store ends at block {height}")
    }
}

/// Starts consensus, which votes once it is entered.
pub(super) fn start(
    basis: &Basis<'_>,
    pools: &Pools,
    network: &SwitchHandle,
    peers: mpsc::Receiver<PeerEvent>,
    stop: CancellationToken,
) -> anyhow::Result<ConsensusHandle> {
    let prepared = basis.prepared;
    let config = &prepared.config;
    let privval = match &prepared.validator {
        Some(key) => Some(FilePrivval::open(
            key.clone(),
            &config.priv_validator_state_file(),
        )?),
        None => None,
    };
    let setup = ConsensusSetup {
        config: core_config(&config.consensus),
        rules: basis.rules.clone(),
        store: Arc::clone(basis.store),
        mempool: Arc::clone(&pools.mempool),
        evidence: Arc::clone(&pools.evidence),
        events: basis.events.clone(),
        privval,
        wal_file: config.wal_file(),
        double_sign_check_height: config.consensus.double_sign_check_height,
        own_id: network.id(),
        gossip_sleep: config.consensus.peer_gossip_sleep_duration,
        maj23_sleep: config.consensus.peer_query_maj23_sleep_duration,
    };
    Ok(perihelion_consensus_reactor::start(setup, peers, stop)?)
}

/// The settings of rounds out of the home's.
fn core_config(consensus: &ConsensusConfig) -> perihelion_consensus::ConsensusConfig {
    perihelion_consensus::ConsensusConfig {
        timeout_propose: consensus.timeout_propose,
        timeout_propose_delta: consensus.timeout_propose_delta,
        timeout_prevote: consensus.timeout_prevote,
        timeout_prevote_delta: consensus.timeout_prevote_delta,
        timeout_precommit: consensus.timeout_precommit,
        timeout_precommit_delta: consensus.timeout_precommit_delta,
        timeout_commit: consensus.timeout_commit,
        skip_timeout_commit: consensus.skip_timeout_commit,
        create_empty_blocks: consensus.create_empty_blocks,
        create_empty_blocks_interval: consensus.create_empty_blocks_interval,
    }
}

#[cfg(test)]
mod tests {
    use super::way_out;

    #[test]
    fn whether_the_log_can_be_done_without_already_is_told() {
        assert_eq!(
            way_out(27, 31),
            "It is above already: 27 was signed last, and block 31 is in the store"
        );
        for height in [26, 27] {
            let end = format!("signed last, and the store ends at block {height}");
            assert!(way_out(27, height).ends_with(&end));
        }
        assert!(way_out(0, 0).starts_with("It is above already"));
    }
}
