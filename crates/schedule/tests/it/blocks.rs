//! Blocks that are consistent and signed by nobody: the schedule verifies nothing itself.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use perihelion_schedule::Start;
use perihelion_types::{
    Block, BlockId, BlockIdFlag, Commit, CommitSig, Data, FetchedBlock, Hash, Header, Height,
    PeerId, PublicKey, Round, Time, Validator, ValidatorSet, Version,
};

/// Blocks 1 to 40 of the chain, and of two forks of it from 10 and 20 on.
pub(crate) static CHAINS: LazyLock<[Vec<Arc<FetchedBlock>>; 3]> = LazyLock::new(|| {
    let main = extend(Vec::new(), "main");
    let fork = |from: usize, tag: &str| extend(main[..from].to_vec(), tag);
    [main.clone(), fork(10, "fork"), fork(20, "other")]
});

pub(crate) static SET: LazyLock<Arc<ValidatorSet>> = LazyLock::new(|| {
    let member = |n: u8| Validator::new(PublicKey::Ed25519([n; 32]), 10);
    Arc::new(ValidatorSet::new((1..5).map(member).collect()).unwrap())
});

pub(crate) const LENGTH: usize = 40;

fn extend(mut blocks: Vec<Arc<FetchedBlock>>, tag: &str) -> Vec<Arc<FetchedBlock>> {
    while blocks.len() < LENGTH {
        let below = blocks.last().map_or(BlockId::NIL, |block| block.block_id());
        let height = i64::try_from(blocks.len()).unwrap() + 1;
        blocks.push(make(tag, height, below));
    }
    blocks
}

fn make(tag: &str, height: i64, below: BlockId) -> Arc<FetchedBlock> {
    let sign = |validator: &Validator| CommitSig {
        block_id_flag: BlockIdFlag::Commit,
        validator_address: Bytes::copy_from_slice(validator.address.as_bytes()),
        timestamp: Time::new(1_700_000_000 + height, 0),
        signature: Bytes::from_static(&[7; 64]),
    };
    let commit = Commit {
        height: Height::new(height - 1),
        round: Round::ZERO,
        block_id: below,
        signatures: if height == 1 {
            Vec::new()
        } else {
            SET.validators().iter().map(sign).collect()
        },
    };
    let data = Data::new([format!("{tag} {height}")]);
    let header = Header {
        version: Version { block: 11, app: 0 },
        chain_id: "properties".into(),
        height: Height::new(height),
        time: Time::new(1_700_000_000 + height, 0),
        last_block_id: below,
        last_commit_hash: commit.hash(),
        data_hash: data.hash(),
        validators_hash: SET.hash(),
        next_validators_hash: SET.hash(),
        consensus_hash: Hash::of(b"parameters"),
        app_hash: Bytes::new(),
        last_results_hash: Hash::of(b""),
        evidence_hash: perihelion_types::evidence::hash_list(&[]),
        proposer_address: Bytes::copy_from_slice(SET.validators()[0].address.as_bytes()),
    };
    let block = Block {
        header,
        data,
        evidence: Vec::new(),
        last_commit: Some(commit),
    };
    Arc::new(FetchedBlock::decode(block.encode(), None).unwrap())
}

pub(crate) fn peer(number: u8) -> PeerId {
    PeerId::new([number; 20])
}

/// A schedule's start before the first block of the [`CHAINS`].
pub(crate) fn start() -> Start {
    Start {
        initial_height: Height::new(1),
        height: Height::ZERO,
        block_id: BlockId::NIL,
        validators: Arc::clone(&SET),
        next_validators: Arc::clone(&SET),
        last_validators: None,
        last_commit_verified: true,
        extensions_from: None,
        persistent: BTreeSet::new(),
        own_power: 0,
        largest_block: 64 << 10,
    }
}
