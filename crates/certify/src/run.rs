//! What is given to certification and what comes out of it.

use std::sync::Arc;

use perihelion_types::{
    Address, BlockId, Commit, FetchedBlock, Hash, Header, Height, ValidatorSet,
};
use thiserror::Error;

use crate::{CertifiedBlock, CommitError};

/// A validator set that we know from our own state, or by its hash from a certified header: V.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// The height whose validators `set` are; at most that of the run's first block.
    pub height: Height,
    /// The validators of `height`.
    pub set: Arc<ValidatorSet>,
    /// The validators of the height above, when our own state knows them.
    pub next: Option<Arc<ValidatorSet>>,
    /// False for a run that starts at the chain's initial height, where `set` comes from genesis or
    /// from the application and nothing on the chain has confirmed it: nobody is convicted there.
    pub confirmed: bool,
}

/// A linked run of blocks and the block whose last commit closes it.
#[derive(Debug, Clone)]
pub struct Run {
    /// The chain.
    pub chain_id: Arc<str>,
    /// The set whose members pin the run. It may be the set of a height below the run, as long as
    /// everything between is certified.
    pub anchor: Anchor,
    /// The id of the block below the run, applied or certified; nil at the initial height.
    pub previous: BlockId,
    /// The blocks h+1 ..= h+k, at least one.
    pub blocks: Vec<Arc<FetchedBlock>>,
    /// The block h+k+1, whose last commit is for h+k. Nothing is said about it itself.
    pub closing: Arc<FetchedBlock>,
}

/// What certification says of a run.
#[derive(Debug, Clone)]
pub enum RunVerdict {
    /// These blocks are final.
    Certified {
        /// The run's blocks, all of them or all but the last, in order; never none.
        blocks: Vec<CertifiedBlock>,
        /// How the run's last block stands.
        last: LastBlock,
        /// Hash of the validators above the last certified block, as that block's header says. If
        /// it is the hash of a set that is known, that set can anchor the next run.
        next_validators_hash: Hash,
    },
    /// V does not decide: too little of its power is among the signers, or the run is one block
    /// whose own set is not known. Nothing wrong was seen. Halve the run; a single block waits for
    /// the application of the blocks below it, or for a longer run.
    Drifted,
    /// The last commit of a block does not hold, as a rule the closing block's: set that block aside
    /// and ask for its height elsewhere. Guilt is settled when the height is pinned (see
    /// [`crate::run::Standing`]).
    Suspect {
        /// The height of the block that carries the commit.
        height: Height,
        /// What is wrong with it.
        fault: CommitFault,
    },
    /// The same at the initial height, where nobody is convicted; if no peer offers a block that
    /// fits, halt and name both hashes.
    Unfitting {
        /// What does not fit.
        fault: UnfittingFault,
    },
    /// The blocks are no linked run. Convicts nobody until one side is pinned.
    Broken {
        /// The first link that does not hold.
        fault: LinkFault,
    },
    /// A final header contradicts our own state: halt, ban nobody.
    LocalFault {
        /// What contradicts.
        fault: LocalFault,
    },
    /// Only with every commit checked: a final block carries an invalid last commit. Halt, ban
    /// nobody: whoever serves that block serves the chain.
    InvalidFinalCommit {
        /// The height of the block that carries the commit.
        height: Height,
        /// Why the commit does not hold.
        error: CommitError,
    },
}

/// How the last block of a certified run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastBlock {
    /// Final, by its own set.
    Final,
    /// Not final yet: its own set is not known. It starts the next run.
    UnknownSet,
    /// Not final yet: its own set is known, and the commit that pinned the blocks below does not
    /// hold against it; or, with every commit checked, the commit that it carries does not hold.
    Suspect {
        /// The height of the block that carries the commit, and is suspect.
        height: Height,
        /// What is wrong with it.
        fault: CommitFault,
    },
}

/// What is wrong with a closing block's last commit. Each makes the block that carries it suspect,
/// never guilty at once: a byzantine proposer can bend the commit in a block that became final, for
/// the header does not cover the commit's height, round and block id, and an honest server serves
/// that block.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommitFault {
    /// There is none.
    #[error("the block has no last commit")]
    Missing,
    /// It is for another height than the one below its block.
    #[error("the last commit is for height {got}, expected {expected}")]
    Height {
        /// The height below the block.
        expected: Height,
        /// The commit's.
        got: Height,
    },
    /// It is for another block than its block's header names.
    #[error("the last commit is for block {}, the header names {}", got.hash, expected.hash)]
    BlockId {
        /// The header's last block id.
        expected: Box<BlockId>,
        /// The commit's.
        got: Box<BlockId>,
    },
    /// A signature of a member of V does not hold.
    #[error("wrong signature of {address} at index {index} of the last commit")]
    WrongSignature {
        /// The place in the commit.
        index: usize,
        /// The member.
        address: Address,
    },
    /// It fails against the set of its own height, too little power included.
    #[error("the last commit does not hold: {0}")]
    OwnSet(CommitError),
}

/// Why the first block does not fit a set that nothing has confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnfittingFault {
    /// The header names other validators than genesis or the application.
    #[error("the header at {height} names validators {header}, genesis or the application {ours}")]
    ValidatorsHash {
        /// The initial height.
        height: Height,
        /// Hash of our set.
        ours: Hash,
        /// What the header says.
        header: Hash,
    },
    /// The commit does not hold against our set.
    #[error("{0}")]
    Commit(CommitFault),
}

/// Why blocks are no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LinkFault {
    /// A run has at least one block.
    #[error("a run without blocks")]
    Empty,
    /// The run starts below the height whose validators are known.
    #[error("the run starts at {first}, below its anchor at {anchor}")]
    BelowAnchor {
        /// The first block's height.
        first: Height,
        /// The anchor's.
        anchor: Height,
    },
    /// Heights do not follow one another.
    #[error("block of height {got} where {expected} belongs")]
    Height {
        /// One above the block before.
        expected: Height,
        /// The block's.
        got: Height,
    },
    /// A block of another chain.
    #[error("the block at {height} is of another chain")]
    ChainId {
        /// The block's height.
        height: Height,
    },
    /// `last_block_id` is not the id of the block below.
    #[error("the block at {height} does not link to the block below it")]
    LastBlockId {
        /// The height of the block that does not link.
        height: Height,
    },
}

/// A final header that our own state contradicts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LocalFault {
    /// The header names other validators than our state.
    #[error("final block {} at {height} names validators {header}, our state {ours}", block_id.hash)]
    ValidatorsHash {
        /// The block's height.
        height: Height,
        /// The block.
        block_id: BlockId,
        /// Hash of our set.
        ours: Hash,
        /// What the header says.
        header: Hash,
    },
}

/// What a verdict means for the peers that sent the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The sender lied: ban it.
    Guilty,
    /// Set aside; guilty when a block of other content is pinned, cleared when this one is.
    Suspect,
    /// Nobody is to blame.
    Nobody,
}

impl RunVerdict {
    /// Whom the verdict alone blames: at most the sender of the closing block, as a suspect.
    ///
    /// Guilty at once are only bodies that are not their header's, and those are refused when they
    /// are decoded (`FetchedBlock::decode`).
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Suspect { .. }
            | Self::Certified {
                last: LastBlock::Suspect { .. },
                ..
            } => Blame::Suspect,
            Self::Certified {
                last: LastBlock::Final | LastBlock::UnknownSet,
                ..
            }
            | Self::Drifted
            | Self::Unfitting { .. }
            | Self::Broken { .. }
            | Self::LocalFault { .. }
            | Self::InvalidFinalCommit { .. } => Blame::Nobody,
        }
    }
}

/// How a peer's copy of a block compares with the block that was pinned at its height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The same bytes.
    Same,
    /// The same content in other bytes. An honest sender cannot be told from a liar.
    OtherEncoding,
    /// The same header, but another last commit: height, round or block id, which the header does
    /// not cover.
    OtherCommit,
    /// Another header.
    OtherHeader,
}

impl Standing {
    /// Compares `copy` with the final block of its height.
    #[must_use]
    pub fn compare(copy: &FetchedBlock, pinned: &CertifiedBlock) -> Self {
        if copy.block_id() == pinned.block_id() {
            Self::Same
        } else if copy.block_id().hash != pinned.block_id().hash {
            Self::OtherHeader
        } else if copy.block() == pinned.block() {
            Self::OtherEncoding
        } else {
            Self::OtherCommit
        }
    }

    /// What that says of the sender. `suspect`: whether the copy's last commit was found faulty
    /// (never at the initial height).
    #[must_use]
    pub const fn blame(self, suspect: bool) -> Blame {
        match self {
            Self::Same | Self::OtherEncoding => Blame::Nobody,
            Self::OtherCommit if suspect => Blame::Guilty,
            Self::OtherCommit => Blame::Nobody,
            Self::OtherHeader => Blame::Guilty,
        }
    }
}

impl Run {
    /// The run's last block, h+k.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn target(&self) -> Result<&Arc<FetchedBlock>, LinkFault> {
        self.blocks.last().ok_or(LinkFault::Empty)
    }

    /// Checks chain, heights and links of all blocks and of the closing one.
    pub(crate) fn check_links(&self) -> Result<(), LinkFault> {
        let first = self.blocks.first().ok_or(LinkFault::Empty)?.height();
        if first < self.anchor.height {
            return Err(LinkFault::BelowAnchor {
                first,
                anchor: self.anchor.height,
            });
        }
        let mut below = self.previous;
        let mut expected = first;
        for fetched in self.blocks.iter().chain([&self.closing]) {
            self.check_link(&fetched.block().header, expected, below)?;
            below = fetched.block_id();
            expected = expected.next();
        }
        Ok(())
    }

    fn check_link(
        &self,
        header: &Header,
        expected: Height,
        below: BlockId,
    ) -> Result<(), LinkFault> {
        let height = header.height;
        if height != expected {
            return Err(LinkFault::Height {
                expected,
                got: height,
            });
        }
        if header.chain_id != *self.chain_id {
            return Err(LinkFault::ChainId { height });
        }
        if header.last_block_id != below {
            return Err(LinkFault::LastBlockId { height });
        }
        Ok(())
    }

    /// The commit for `target`, out of the closing block, when it is for that block at all.
    pub(crate) fn closing_commit(&self, target: &FetchedBlock) -> Result<&Commit, CommitFault> {
        let commit = self
            .closing
            .block()
            .last_commit
            .as_ref()
            .ok_or(CommitFault::Missing)?;
        if commit.height != target.height() {
            return Err(CommitFault::Height {
                expected: target.height(),
                got: commit.height,
            });
        }
        if commit.block_id != target.block_id() {
            return Err(CommitFault::BlockId {
                expected: Box::new(target.block_id()),
                got: Box::new(commit.block_id),
            });
        }
        Ok(commit)
    }
}
