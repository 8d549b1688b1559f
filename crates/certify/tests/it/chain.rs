//! Small chains with real ed25519 signatures and any validator set at each height.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_certify::{
    Anchor, CertifiedBlock, CommitFault, LastBlock, Run, RunVerdict, SignatureCount, certify_run,
};
use perihelion_crypto::PrivateKey;
use perihelion_types::{
    Block, BlockId, BlockIdFlag, Commit, CommitSig, Data, FetchedBlock, Hash, Header, Height,
    Round, Time, Validator, ValidatorSet, Version,
};

pub(crate) const CHAIN: &str = "pinned-chain";

/// The private key of person `n`.
pub(crate) fn key(n: u8) -> PrivateKey {
    PrivateKey::ed25519_from_secret(&[n])
}

/// A set of people with their powers.
pub(crate) fn set(members: &[(u8, i64)]) -> Arc<ValidatorSet> {
    let validators = members
        .iter()
        .map(|(n, power)| Validator::new(key(*n).public_key(), *power))
        .collect();
    Arc::new(ValidatorSet::new(validators).unwrap())
}

/// People `range`, each with a power of 10.
pub(crate) fn equals(range: std::ops::Range<u8>) -> Arc<ValidatorSet> {
    set(&range.map(|n| (n, 10)).collect::<Vec<_>>())
}

/// What one person does in a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cast {
    /// Precommits the block.
    Block,
    /// Precommits nil.
    Nil,
    /// Is silent.
    Absent,
    /// Precommits the block with a signature that does not hold.
    Forged,
    /// Precommits the block, signed with the key of another person.
    ByKeyOf(u8),
}

/// A commit by exactly the people listed, in this order.
pub(crate) fn commit_by(
    height: i64,
    round: i32,
    block_id: BlockId,
    casts: &[(u8, Cast)],
) -> Commit {
    let mut commit = Commit {
        height: Height::new(height),
        round: Round::new(round),
        block_id,
        signatures: casts
            .iter()
            .enumerate()
            .map(|(index, (n, cast))| place(*n, *cast, height, index))
            .collect(),
    };
    for (index, (n, cast)) in casts.iter().enumerate() {
        let signer = match cast {
            Cast::Block | Cast::Nil | Cast::Forged => *n,
            Cast::ByKeyOf(other) => *other,
            Cast::Absent => continue,
        };
        let message = commit.vote_sign_bytes(CHAIN, index).unwrap();
        let mut signature = key(signer).sign(&message).to_vec();
        if *cast == Cast::Forged {
            signature[40] ^= 1;
        }
        commit.signatures[index].signature = signature.into();
    }
    commit
}

fn place(n: u8, cast: Cast, height: i64, index: usize) -> CommitSig {
    let block_id_flag = match cast {
        Cast::Block | Cast::Forged | Cast::ByKeyOf(_) => BlockIdFlag::Commit,
        Cast::Nil => BlockIdFlag::Nil,
        Cast::Absent => BlockIdFlag::Absent,
    };
    if cast == Cast::Absent {
        return CommitSig {
            block_id_flag,
            validator_address: Bytes::new(),
            timestamp: Time::ZERO,
            signature: Bytes::new(),
        };
    }
    CommitSig {
        block_id_flag,
        validator_address: Bytes::copy_from_slice(key(n).public_key().address().as_bytes()),
        timestamp: Time::new(1_700_000_000 + height, i32::try_from(index).unwrap() + 1),
        signature: Bytes::new(),
    }
}

/// The person with the key of the set's member at `index`.
fn person(set: &ValidatorSet, index: usize) -> u8 {
    let wanted = &set.validators()[index].pub_key;
    (0..=u8::MAX)
        .find(|n| key(*n).public_key() == *wanted)
        .unwrap()
}

/// A chain whose validators at each height are given; the last ones go on.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) initial: i64,
    sets: Vec<Arc<ValidatorSet>>,
    pub(crate) blocks: Vec<Arc<FetchedBlock>>,
}

/// What can be bent in a block before it is hashed.
pub(crate) type Bend<'a> = &'a dyn Fn(&mut Block);

impl Chain {
    /// The chain's first `length` blocks, each committed by all of its validators.
    pub(crate) fn new(sets: &[Arc<ValidatorSet>], length: usize) -> Self {
        Self::from(1, sets, length)
    }

    pub(crate) fn from(initial: i64, sets: &[Arc<ValidatorSet>], length: usize) -> Self {
        let mut chain = Self {
            initial,
            sets: sets.to_vec(),
            blocks: Vec::new(),
        };
        chain.extend(length);
        chain
    }

    /// Adds honest blocks.
    pub(crate) fn extend(&mut self, count: usize) {
        for _ in 0..count {
            let block = self.candidate("honest", self.full_commit());
            self.blocks.push(block);
        }
    }

    /// The height of the next block.
    pub(crate) fn next_height(&self) -> i64 {
        self.initial + i64::try_from(self.blocks.len()).unwrap()
    }

    /// The validators of `height`.
    pub(crate) fn set(&self, height: i64) -> Arc<ValidatorSet> {
        let index = usize::try_from(height - self.initial).unwrap();
        Arc::clone(self.sets.get(index).unwrap_or(self.sets.last().unwrap()))
    }

    pub(crate) fn block(&self, height: i64) -> &Arc<FetchedBlock> {
        &self.blocks[usize::try_from(height - self.initial).unwrap()]
    }

    /// The id of the block at `height`, nil below the first.
    pub(crate) fn id(&self, height: i64) -> BlockId {
        if height < self.initial {
            BlockId::NIL
        } else {
            self.block(height).block_id()
        }
    }

    /// A commit for the last block by everyone.
    pub(crate) fn full_commit(&self) -> Commit {
        self.commit(|_| Cast::Block)
    }

    /// A commit for the last block: each of its validators does what `cast` says.
    pub(crate) fn commit(&self, cast: impl Fn(u8) -> Cast) -> Commit {
        let height = self.next_height() - 1;
        if height < self.initial {
            return commit_by(0, 0, BlockId::NIL, &[]);
        }
        self.commit_for(height, self.id(height), 0, cast)
    }

    /// A commit for any block of `height`, in the order of the set of that height.
    pub(crate) fn commit_for(
        &self,
        height: i64,
        block_id: BlockId,
        round: i32,
        cast: impl Fn(u8) -> Cast,
    ) -> Commit {
        let set = self.set(height);
        let casts: Vec<(u8, Cast)> = (0..set.len())
            .map(|index| person(&set, index))
            .map(|n| (n, cast(n)))
            .collect();
        commit_by(height, round, block_id, &casts)
    }

    /// A block that could follow the last one, with another `tag` another block.
    pub(crate) fn candidate(&self, tag: &str, last_commit: Commit) -> Arc<FetchedBlock> {
        self.bent(tag, last_commit, &|_| {})
    }

    /// The same, bent before it is hashed.
    pub(crate) fn bent(&self, tag: &str, last_commit: Commit, bend: Bend<'_>) -> Arc<FetchedBlock> {
        let mut block = self.unhashed(tag, last_commit);
        bend(&mut block);
        fetched(&block)
    }

    fn unhashed(&self, tag: &str, last_commit: Commit) -> Block {
        let height = self.next_height();
        let data = Data::new([format!("{tag} at {height}")]);
        let header = Header {
            version: Version { block: 11, app: 0 },
            chain_id: CHAIN.into(),
            height: Height::new(height),
            time: Time::new(1_700_000_000 + height, 0),
            last_block_id: self.id(height - 1),
            last_commit_hash: last_commit.hash(),
            data_hash: data.hash(),
            validators_hash: self.set(height).hash(),
            next_validators_hash: self.set(height + 1).hash(),
            consensus_hash: Hash::of(b"parameters"),
            app_hash: Bytes::from_static(b"app"),
            last_results_hash: Hash::of(b""),
            evidence_hash: perihelion_types::evidence::hash_list(&[]),
            proposer_address: Bytes::copy_from_slice(
                self.set(height).validators()[0].address.as_bytes(),
            ),
        };
        Block {
            header,
            data,
            evidence: Vec::new(),
            last_commit: Some(last_commit),
        }
    }

    /// The run of `first` to `last`, anchored in the validators of `first`, closed by the chain's
    /// own next block.
    pub(crate) fn run(&self, first: i64, last: i64) -> Run {
        let blocks = (first..=last).map(|height| Arc::clone(self.block(height)));
        self.run_of(blocks.collect(), self.block(last + 1))
    }

    /// The run of any blocks, anchored in the validators of the first one's height.
    pub(crate) fn run_of(
        &self,
        blocks: Vec<Arc<FetchedBlock>>,
        closing: &Arc<FetchedBlock>,
    ) -> Run {
        let first = blocks[0].height();
        Run {
            chain_id: CHAIN.into(),
            anchor: Anchor {
                height: first,
                set: self.set(first.get()),
                next: None,
                confirmed: true,
            },
            previous: self.id(first.get() - 1),
            blocks,
            closing: Arc::clone(closing),
        }
    }

    /// The run from `first` up to the chain's last block, closed by a block with `closing_commit`.
    pub(crate) fn run_closed_by(&self, first: i64, closing_commit: Commit) -> Run {
        let last = self.next_height() - 1;
        let closing = self.candidate("closing", closing_commit);
        let blocks = (first..=last).map(|height| Arc::clone(self.block(height)));
        self.run_of(blocks.collect(), &closing)
    }
}

/// A block as it comes from a peer.
pub(crate) fn fetched(block: &Block) -> Arc<FetchedBlock> {
    Arc::new(FetchedBlock::decode(block.encode(), None).unwrap())
}

/// Heights of what was certified, and how the last block stands.
pub(crate) fn certified(run: &Run) -> (Vec<i64>, LastBlock) {
    let (blocks, last, _) = certified_blocks(run);
    (heights(&blocks), last)
}

pub(crate) fn heights(blocks: &[CertifiedBlock]) -> Vec<i64> {
    blocks.iter().map(|block| block.height().get()).collect()
}

pub(crate) fn certified_blocks(run: &Run) -> (Vec<CertifiedBlock>, LastBlock, SignatureCount) {
    match certify_run(run) {
        (RunVerdict::Certified { blocks, last, .. }, count) => (blocks, last, count),
        (other, _) => panic!("not certified: {other:?}"),
    }
}

pub(crate) fn drifted(run: &Run) {
    let (verdict, _) = certify_run(run);
    assert!(matches!(verdict, RunVerdict::Drifted), "{verdict:?}");
}

/// The fault of a run that makes its closing block suspect.
pub(crate) fn suspect(run: &Run) -> CommitFault {
    match certify_run(run).0 {
        RunVerdict::Suspect { height, fault } => {
            assert_eq!(height, run.closing.height());
            fault
        }
        other => panic!("not suspect: {other:?}"),
    }
}
