use std::{sync::Arc, time::Duration};

use bytes::{BufMut, BytesMut};
use perihelion_types::{Block, BlockIdFlag, ExtendedCommit, FetchedBlock, Hash};

use crate::chain::{Cast, Chain};

/// How a peer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Serves the chain.
    Honest,
    /// Tells its status and never answers a request.
    Silent,
    /// Answers the first request of each connection, and no more.
    Fading,
    /// Serves the chain, and takes three seconds for each status.
    SlowStatus,
    /// Serves the chain, and forgets each request for a height that it has not had before.
    Forgetful,
    /// Says nothing at all.
    Mute,
    /// Sends bodies that do not belong to their headers.
    CorruptBody,
    /// Sends blocks whose last commit has forged signatures.
    ForgedCommit,
    /// Sends the blocks of a fork that outsiders signed.
    StaleFork,
    /// Sends blocks with a bad extended commit, where there should be one.
    BadExtended,
    /// Sends blocks without extended commits.
    NoExtended,
    /// Claims everything and withholds the block of one height.
    Withhold(i64),
    /// Claims everything and withholds every tenth block: says NoBlock to one, nothing to the next.
    WithholdTenths,
    /// Claims a thousand blocks too many.
    Inflated,
    /// Claims the largest height, and says NoBlock.
    MaxHeight,
    /// Claims the largest height, and never answers.
    MaxHeightSilent,
    /// Claims less at each status.
    Lowered,
    /// Claims base above height.
    Impossible,
    /// Says NoBlock to everything, and a hundred times unasked.
    NoBlockFlood,
    /// Sends the right blocks in another encoding.
    OtherEncoding,
    /// Sends a byte now and then, and never a block.
    Drip,
    /// Sends blocks that nobody asked for.
    Unsolicited,
    /// Sends every tenth block with a bit of the id flipped that it names as the one before,
    /// wherever that stands, and withholds the block below.
    LinkForger,
    /// Withholds every tenth block and the one below.
    WithholdPairs,
    /// Sends the block below every tenth with a bit of its application hash flipped, and withholds
    /// every tenth.
    NinthForger,
    /// Claims five blocks, and sends the first with a bit of its validators' hash flipped.
    OtherValidators,
    /// Claims a thousand blocks too many, one more with each status, and never sends those.
    Creeping,
    /// Serves the chain, claims a thousand blocks too many, and answers a request for a block that does
    /// not exist as soon as it does.
    FrontRunner,
    /// Sends a conflicting block that two thirds of the validators signed: the chain is broken.
    Equivocation,
}

/// A peer of a simulation.
#[derive(Debug, Clone)]
pub struct PeerSpec {
    /// How it behaves.
    pub kind: Kind,
    /// One way.
    pub latency: Duration,
    /// Bytes a second that it sends.
    pub bandwidth: u64,
    /// The lowest height that it still has.
    pub base: i64,
    /// How far behind the chain's growing end it is.
    pub lag: i64,
    /// When it joins.
    pub joins: Duration,
    /// When it leaves, and for how long if it comes back.
    pub leaves: Option<(Duration, Option<Duration>)>,
    /// It is configured.
    pub persistent: bool,
}

impl PeerSpec {
    /// A peer that is there from the start, 20 ms away, with 5 MB/s.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            latency: Duration::from_millis(20),
            bandwidth: 5_000_000,
            base: 0,
            lag: 0,
            joins: Duration::ZERO,
            leaves: None,
            persistent: false,
        }
    }

    /// The same, this far away.
    #[must_use]
    pub fn latency_ms(mut self, ms: u64) -> Self {
        self.latency = Duration::from_millis(ms);
        self
    }

    /// The same, with this many bytes a second.
    #[must_use]
    pub fn bandwidth(mut self, bytes: u64) -> Self {
        self.bandwidth = bytes;
        self
    }

    /// The same, with this base.
    #[must_use]
    pub fn base(mut self, base: i64) -> Self {
        self.base = base;
        self
    }

    /// The same, joining then.
    #[must_use]
    pub fn joins_ms(mut self, ms: u64) -> Self {
        self.joins = Duration::from_millis(ms);
        self
    }

    /// The same, leaving then, and coming back after `back_ms`.
    #[must_use]
    pub fn leaves_ms(mut self, ms: u64, back_ms: Option<u64>) -> Self {
        self.leaves = Some((
            Duration::from_millis(ms),
            back_ms.map(Duration::from_millis),
        ));
        self
    }
}

impl Kind {
    /// Whether a peer of this kind must never be punished.
    #[must_use]
    pub fn is_honest(self) -> bool {
        matches!(self, Self::Honest | Self::SlowStatus | Self::Forgetful)
    }
}

/// A block in a peer's answer.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Block(Arc<FetchedBlock>),
    /// One that the decode stage refuses.
    Corrupt,
    NoBlock,
    Nothing,
}

/// What a peer of `kind` answers to a request, on a chain that has grown to `tip`.
pub(super) fn answer(kind: Kind, chain: &Chain, fork: &Chain, height: i64, tip: i64) -> Answer {
    if kind == Kind::OtherValidators && height == chain.shape().initial_height {
        return bent(chain, height, |block| {
            block.header.validators_hash = flipped(block.header.validators_hash);
        });
    }
    let honest = || match chain.block(height) {
        Some(block) if height <= tip => Answer::Block(Arc::clone(block)),
        _ => Answer::NoBlock,
    };
    let Some(block) = chain.block(height).filter(|_| height <= tip) else {
        return match kind {
            Kind::Silent | Kind::Mute | Kind::MaxHeightSilent | Kind::Drip | Kind::Creeping => {
                Answer::Nothing
            }
            _ => Answer::NoBlock,
        };
    };
    match kind {
        Kind::Honest
        | Kind::SlowStatus
        | Kind::Forgetful
        | Kind::Lowered
        | Kind::Impossible
        | Kind::Inflated
        | Kind::Unsolicited => honest(),
        Kind::MaxHeight | Kind::NoBlockFlood => Answer::NoBlock,
        Kind::Silent | Kind::Mute | Kind::MaxHeightSilent | Kind::Drip => Answer::Nothing,
        Kind::CorruptBody => Answer::Corrupt,
        Kind::ForgedCommit => Answer::Block(forged_commit(chain, height)),
        Kind::StaleFork | Kind::Equivocation => fork
            .block(height)
            .map_or(Answer::NoBlock, |block| Answer::Block(Arc::clone(block))),
        Kind::NoExtended => Answer::Block(Arc::new(block.without_extended_commit())),
        Kind::BadExtended => Answer::Block(bad_extended(block)),
        Kind::Withhold(withheld) if withheld == height => Answer::Nothing,
        Kind::WithholdTenths if height % 20 == 0 => Answer::NoBlock,
        Kind::WithholdTenths if height % 10 == 0 => Answer::Nothing,
        Kind::Withhold(_) | Kind::WithholdTenths => honest(),
        Kind::OtherEncoding => Answer::Block(Arc::new(other_encoding(block))),
        Kind::LinkForger if height % 10 == 0 => bent(chain, height, |block| {
            let names = &mut block.header.last_block_id;
            names.hash = flipped(names.hash);
            let names = *names;
            if let Some(commit) = &mut block.last_commit {
                commit.block_id = names;
            }
        }),
        Kind::LinkForger | Kind::WithholdPairs if height % 10 == 9 => Answer::Nothing,
        Kind::WithholdPairs | Kind::NinthForger if height % 10 == 0 => Answer::Nothing,
        Kind::NinthForger if height % 10 == 9 => bent(chain, height, |block| {
            let mut hash = block.header.app_hash.to_vec();
            if let Some(byte) = hash.first_mut() {
                *byte ^= 1;
            }
            block.header.app_hash = hash.into();
        }),
        Kind::LinkForger
        | Kind::WithholdPairs
        | Kind::NinthForger
        | Kind::OtherValidators
        | Kind::Creeping
        | Kind::FrontRunner
        | Kind::Fading => honest(),
    }
}

/// The chain's block of a height, changed; it decodes all the same.
fn bent(chain: &Chain, height: i64, bend: impl FnOnce(&mut Block)) -> Answer {
    let Some(block) = chain.block(height) else {
        return Answer::NoBlock;
    };
    let mut forged = block.block().clone();
    bend(&mut forged);
    let extended = block.extended_commit().map(ExtendedCommit::encode);
    let forged = FetchedBlock::decode(forged.encode(), extended);
    Answer::Block(Arc::new(forged.expect("the kit makes blocks that decode")))
}

/// A hash with one bit flipped.
fn flipped(hash: Hash) -> Hash {
    let mut bytes = [0; 32];
    bytes[..hash.as_bytes().len()].copy_from_slice(hash.as_bytes());
    bytes[0] ^= 1;
    Hash::new(bytes)
}

/// The block of a height with a last commit that nobody signed.
fn forged_commit(chain: &Chain, height: i64) -> Arc<FetchedBlock> {
    if height <= chain.shape().initial_height {
        return chain
            .block(height)
            .map(Arc::clone)
            .expect("the chain has its first block");
    }
    let below = height - 1;
    let commit = chain.commit(below, 0, chain.id(below), |_| Cast::Forged);
    // Nobody signed this block, so the best extended commit there is is the real block's.
    let extended = chain
        .block(height)
        .and_then(|block| block.extended_commit());
    let raw = chain.make(height, commit).encode();
    let forged = FetchedBlock::decode(raw, extended.map(ExtendedCommit::encode));
    Arc::new(forged.expect("the kit makes blocks that decode"))
}

/// The same block with a signature of its extended commit bent, or with one that has no business
/// there.
fn bad_extended(block: &FetchedBlock) -> Arc<FetchedBlock> {
    let mut extended = block
        .extended_commit()
        .cloned()
        .unwrap_or_else(|| ExtendedCommit {
            height: block.height(),
            round: perihelion_types::Round::ZERO,
            block_id: block.block_id(),
            extended_signatures: Vec::new(),
        });
    for place in &mut extended.extended_signatures {
        if place.commit_sig.block_id_flag == BlockIdFlag::Commit {
            let mut signature = place.extension_signature.to_vec();
            if let Some(byte) = signature.get_mut(7) {
                *byte ^= 1;
            }
            place.extension_signature = signature.into();
        }
    }
    let decoded = FetchedBlock::decode(block.raw().clone(), Some(extended.encode()));
    Arc::new(decoded.unwrap_or_else(|_| block.without_extended_commit()))
}

/// The same block, its bytes followed by a field that no version knows.
fn other_encoding(block: &FetchedBlock) -> FetchedBlock {
    let mut raw = BytesMut::from(&block.raw()[..]);
    raw.put_slice(&[0xF8, 0x7F, 0x01]);
    let extended = block.extended_commit().map(ExtendedCommit::encode);
    FetchedBlock::decode(raw.freeze(), extended).expect("unknown fields are skipped")
}
