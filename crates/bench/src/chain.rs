//! Blocks of a shape: built on each other, signed by all validators, executed by the built-in
//! application.

use std::{path::Path, sync::Arc, thread};

use bytes::Bytes;
use perihelion_abci::{AppConnections, KvStore, KvStoreOptions};
use perihelion_certify::CertifiedBlock;
use perihelion_crypto::PrivateKey;
use perihelion_state::{Executor, ExecutorConfig};
use perihelion_store::{IndexKind, Store, StoreOptions};
use perihelion_types::{
    Block, BlockId, BlockIdFlag, Commit, CommitSig, CommitSignBytes, ConsensusParams, FetchedBlock,
    Genesis, GenesisValidator, Height, Round, Rules, State, Time, ValidatorSet,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{BenchError, Shape};

const CHAIN_ID: &str = "bench";
/// 2024-01-01T00:00:00Z; blocks are a second apart.
const GENESIS_TIME: Time = Time::new(1_704_067_200, 0);
/// Letters of values; none of them parts key and value.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Some blocks of a shape.
pub(crate) struct Chain {
    pub(crate) genesis: Genesis,
    pub(crate) set: Arc<ValidatorSet>,
    pub(crate) blocks: Vec<CertifiedBlock>,
}

impl Chain {
    /// Makes the blocks, with a store in `folder`, until `stop` says so.
    pub(crate) fn make(
        shape: &Shape,
        folder: &Path,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, BenchError> {
        let keys: Vec<PrivateKey> = (0..shape.validators)
            .map(|number| {
                PrivateKey::ed25519_from_secret(format!("bench/validator/{number}").as_bytes())
            })
            .collect();
        let genesis = genesis(shape, &keys);
        let set = Arc::new(genesis.validator_set().map_err(BenchError::chain)?);
        let signers = in_order(&set, keys)?;
        let mut executor = executor(&genesis, open_store(folder)?)?;
        executor.begin_catch_up();
        let mut last_commit = Commit {
            height: Height::ZERO,
            round: Round::ZERO,
            block_id: BlockId::NIL,
            signatures: Vec::new(),
        };
        let mut blocks = Vec::new();
        for _ in 0..shape.blocks() {
            if stop() {
                return Err(BenchError::Stopped);
            }
            let state = executor.state_arc();
            let block = build(shape, &state, last_commit)?;
            let fetched = FetchedBlock::decode(block.encode(), None).map_err(BenchError::chain)?;
            let commit = sign(&signers, fetched.block_id(), state.next_height());
            last_commit = commit.clone();
            let certified = CertifiedBlock::decided(Arc::new(fetched), commit, &set, CHAIN_ID);
            let certified = certified.map_err(BenchError::chain)?;
            executor.apply(&certified)?;
            blocks.push(certified);
        }
        Ok(Self {
            genesis,
            set,
            blocks,
        })
    }

    /// Bytes of the blocks together.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| raw(block).len()).sum()
    }

    pub(crate) fn chain_id(&self) -> &str {
        &self.genesis.chain_id
    }
}

/// The bytes of a block, as it is on the wire.
pub(crate) fn raw(block: &CertifiedBlock) -> &Bytes {
    block.fetched().raw()
}

pub(crate) fn open_store(folder: &Path) -> Result<Arc<Store>, BenchError> {
    let options = StoreOptions {
        index: IndexKind::Null,
        ..StoreOptions::default()
    };
    Ok(Arc::new(Store::open(folder, &options)?))
}

/// An executor of the application `kvstore`.
pub(crate) fn executor(genesis: &Genesis, store: Arc<Store>) -> Result<Executor, BenchError> {
    let app = KvStore::in_memory(KvStoreOptions::default());
    let app = AppConnections::in_process(Arc::new(app));
    let config = ExecutorConfig::default();
    Ok(Executor::start(
        store,
        genesis,
        app.consensus,
        &app.query,
        config,
    )?)
}

fn genesis(shape: &Shape, keys: &[PrivateKey]) -> Genesis {
    let mut params = ConsensusParams::default_v038();
    // Commit and header beside the transactions.
    params.block.max_bytes = 50_000_000;
    let validators = keys.iter().enumerate().map(|(number, key)| {
        let pub_key = key.public_key();
        GenesisValidator {
            address: pub_key.address(),
            pub_key,
            power: 50 + i64::try_from(number % 100).unwrap_or(0),
            name: format!("{}-{number}", shape.name),
        }
    });
    Genesis {
        genesis_time: GENESIS_TIME,
        chain_id: CHAIN_ID.to_owned(),
        initial_height: Height::new(1),
        consensus_params: params,
        validators: validators.collect(),
        app_hash: Bytes::new(),
        app_state: Bytes::new(),
    }
}

/// The keys in the order of the set.
fn in_order(set: &ValidatorSet, keys: Vec<PrivateKey>) -> Result<Vec<PrivateKey>, BenchError> {
    let mut keys: Vec<_> = keys
        .into_iter()
        .map(|key| (key.public_key().address(), key))
        .collect();
    let of = |member: &perihelion_types::Validator| {
        let place = keys
            .iter()
            .position(|(address, _)| *address == member.address);
        place.map(|place| keys.swap_remove(place).1)
    };
    let ordered: Option<Vec<_>> = set.validators().iter().map(of).collect();
    ordered.ok_or_else(|| BenchError::chain("a validator has no key"))
}

/// The block that follows from the state.
fn build(shape: &Shape, state: &State, last_commit: Commit) -> Result<Block, BenchError> {
    let txs = transactions(shape, state.next_height());
    let proposer = state.validators.proposer();
    let proposer = proposer.ok_or_else(|| BenchError::chain("nobody proposes"))?;
    let made = state.make_block(txs, last_commit, Vec::new(), proposer.address, Rules::V040);
    made.map_err(BenchError::chain)
}

/// Transactions with keys of their own, and values that hardly compress.
fn transactions(shape: &Shape, height: Height) -> Vec<Bytes> {
    let mut draw = StdRng::seed_from_u64(height.get().unsigned_abs());
    let make = |index| {
        let key = format!("{height}.{index}=").into_bytes();
        let mut tx = vec![0; shape.tx_bytes as usize];
        draw.fill_bytes(&mut tx);
        for byte in &mut tx {
            *byte = LETTERS[usize::from(*byte & 63)];
        }
        tx[..key.len()].copy_from_slice(&key);
        Bytes::from(tx)
    };
    (0..shape.txs).map(make).collect()
}

/// The commit of everybody, signed on all cores.
fn sign(signers: &[PrivateKey], block_id: BlockId, height: Height) -> Commit {
    /// Starting a thread takes as long as some signatures.
    const ALONE: usize = 16;
    let round = Round::ZERO;
    let sign_bytes = CommitSignBytes::new(CHAIN_ID, height, round, &block_id);
    let late = |place: usize| i64::try_from(place).unwrap_or(0) * 1_000_000;
    let sign_one = |place: usize, key: &PrivateKey| {
        let nanos = height.get() * 1_000_000_000 + late(place);
        let mut signature = CommitSig {
            block_id_flag: BlockIdFlag::Commit,
            validator_address: Bytes::copy_from_slice(key.public_key().address().as_bytes()),
            timestamp: GENESIS_TIME
                .checked_add_nanos(nanos)
                .unwrap_or(GENESIS_TIME),
            signature: Bytes::new(),
        };
        let message = sign_bytes.of(&signature).expect("the flag is known");
        signature.signature = key.sign(&message);
        signature
    };
    let sign_some = |first: usize, keys: &[PrivateKey]| -> Vec<CommitSig> {
        let places = keys.iter().enumerate();
        places
            .map(|(offset, key)| sign_one(first + offset, key))
            .collect()
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = if signers.len() < ALONE {
        signers.len()
    } else {
        signers.len().div_ceil(threads)
    };
    if share == signers.len() {
        let signatures = sign_some(0, signers);
        return Commit {
            height,
            round,
            block_id,
            signatures,
        };
    }
    let signatures = thread::scope(|scope| {
        let sign_some = &sign_some;
        let parts: Vec<_> = signers
            .chunks(share)
            .enumerate()
            .map(|(part, keys)| scope.spawn(move || sign_some(part * share, keys)))
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().expect("signing does not panic"))
            .collect()
    });
    Commit {
        height,
        round,
        block_id,
        signatures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape {
            name: "test".to_owned(),
            validators: 1_000,
            txs: 2,
            tx_bytes: 64,
        }
    }

    #[test]
    fn blocks_are_as_they_were_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let chain = Chain::make(&shape(), folder.path(), &|| false).unwrap();
        assert_eq!(chain.blocks.len() as u64, shape().blocks());
        for pair in chain.blocks.windows(2) {
            let [below, block] = [&pair[0], &pair[1]].map(CertifiedBlock::block);
            assert_eq!(below.data.iter().count(), 2);
            assert!(below.data.iter().all(|tx| tx.len() == 64));
            let commit = block.last_commit.as_ref().unwrap();
            assert_eq!(commit.signatures.len(), 1_000);
            assert_eq!(commit.block_id, pair[0].block_id());
            assert!(block.header.time > below.header.time);
        }
        let store = open_store(folder.path()).unwrap();
        assert_eq!(
            store.height().get(),
            i64::try_from(chain.blocks.len()).unwrap()
        );
    }

    #[test]
    fn making_ends_when_it_is_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        let made = Chain::make(&shape(), folder.path(), &|| true);
        assert!(matches!(made, Err(BenchError::Stopped)));
    }
}
