//! Final blocks.

use std::sync::Arc;

use perihelion_types::{
    Block, BlockId, Commit, ExtendedCommit, FetchedBlock, Height, ValidatorSet,
};

use crate::{
    CommitError, CommitVerification, ExtendedCheck, SignatureCount, verify_extended_commit,
    verify_extended_commits,
};

/// A final block, and what is known of the commit for it. Only this crate can make one, and only
/// one can be applied.
#[derive(Debug, Clone)]
pub struct CertifiedBlock {
    fetched: Arc<FetchedBlock>,
    commit: Option<CommitFor>,
    commit_verified: bool,
    extended_verified: bool,
}

/// Where the commit for a block stands.
#[derive(Debug, Clone)]
enum CommitFor {
    /// The last commit of the block above it.
    InNext(Arc<FetchedBlock>),
    /// By itself.
    Seen(Arc<Commit>),
}

impl CertifiedBlock {
    /// A block that is final by a pin. `next` is the block above it, if its last commit may be
    /// taken for this block's commit; `verified` tells whether that commit passed the light check
    /// against the set that this block's header names.
    pub(crate) fn pinned(
        fetched: Arc<FetchedBlock>,
        next: Option<Arc<FetchedBlock>>,
        verified: bool,
    ) -> Self {
        Self {
            fetched,
            commit: next.map(CommitFor::InNext),
            commit_verified: verified,
            extended_verified: false,
        }
    }

    /// Takes the last commit of `next` for this block's commit: it passed the light check.
    pub(crate) fn set_verified_commit(&mut self, next: Arc<FetchedBlock>) {
        self.commit = Some(CommitFor::InNext(next));
        self.commit_verified = true;
    }

    /// A block that `commit` makes final: for consensus, and for replaying what was stored. `set`
    /// are the validators of its height, from our own state.
    ///
    /// # Errors
    /// When the commit fails the light check.
    pub fn decided(
        block: Arc<FetchedBlock>,
        commit: Commit,
        set: &ValidatorSet,
        chain_id: &str,
    ) -> Result<Self, CommitError> {
        CommitVerification::new(chain_id, set, &commit).light(block.block_id(), block.height())?;
        Ok(Self {
            fetched: block,
            commit: Some(CommitFor::Seen(Arc::new(commit))),
            commit_verified: true,
            extended_verified: false,
        })
    }

    /// A block that the extended commit which came with it makes final, verified in full: the last
    /// block of a peer needs no block above it where vote extensions are enabled.
    ///
    /// # Errors
    /// When there is no extended commit, or it does not hold.
    pub fn decided_extended(
        block: Arc<FetchedBlock>,
        set: &ValidatorSet,
        chain_id: &str,
    ) -> Result<Self, CommitError> {
        let extended = block
            .extended_commit()
            .ok_or(CommitError::NoExtendedCommit)?;
        verify_extended_commit(chain_id, set, block.block_id(), block.height(), extended)?;
        let commit = extended.to_commit();
        Ok(Self {
            fetched: block,
            commit: Some(CommitFor::Seen(Arc::new(commit))),
            commit_verified: true,
            extended_verified: true,
        })
    }

    /// The block as it came, with its exact bytes.
    #[must_use]
    pub fn fetched(&self) -> &Arc<FetchedBlock> {
        &self.fetched
    }

    /// Its height.
    #[must_use]
    pub fn height(&self) -> Height {
        self.fetched.height()
    }

    /// The decoded block.
    #[must_use]
    pub fn block(&self) -> &Block {
        self.fetched.block()
    }

    /// Its id.
    #[must_use]
    pub fn block_id(&self) -> BlockId {
        self.fetched.block_id()
    }

    /// The commit for this block: out of the block above it when that block is final or closed the
    /// run, or the one that decided it. `None` while the block above is not final and its last
    /// commit was not verified.
    #[must_use]
    pub fn commit(&self) -> Option<&Commit> {
        match self.commit.as_ref()? {
            CommitFor::InNext(next) => next.block().last_commit.as_ref(),
            CommitFor::Seen(commit) => Some(commit),
        }
    }

    /// The block above this one, where [`commit`](Self::commit) is its last commit.
    #[must_use]
    pub fn next(&self) -> Option<&FetchedBlock> {
        match self.commit.as_ref()? {
            CommitFor::InNext(next) => Some(next),
            CommitFor::Seen(_) => None,
        }
    }

    /// Whether [`commit`](Self::commit) passed the light check, or a stronger one, against the set
    /// that this block's header names. The commits inside a pinned run are final bytes, but need
    /// not have been verified.
    #[must_use]
    pub const fn commit_verified(&self) -> bool {
        self.commit_verified
    }

    /// Verifies the commit by the light check, unless that was done: for the mode that checks every
    /// commit, once the set of the height is known.
    ///
    /// # Errors
    /// When `set` is not the one that the header names, there is no commit, or it does not hold. A
    /// commit inside a final block that does not hold is a reason to halt and blames nobody.
    pub fn verify_commit(
        &mut self,
        chain_id: &str,
        set: &ValidatorSet,
    ) -> Result<SignatureCount, CommitError> {
        if self.commit_verified {
            return Ok(SignatureCount::ZERO);
        }
        self.check_set(set)?;
        let commit = self.commit().ok_or(CommitError::NoCommit)?;
        let count =
            CommitVerification::new(chain_id, set, commit).light(self.block_id(), self.height())?;
        self.commit_verified = true;
        Ok(count)
    }

    /// The extended commit that came with the block, once it was verified in full.
    #[must_use]
    pub fn extended_commit(&self) -> Option<&ExtendedCommit> {
        self.extended_verified
            .then(|| self.fetched.extended_commit())
            .flatten()
    }

    /// Verifies the extended commit that came with the block in full, unless that was done: no pin
    /// covers it. `set` are the validators of the block's height.
    ///
    /// # Errors
    /// When `set` is not the one that the header names, there is no extended commit, or it does not
    /// hold; then discard it and ask elsewhere. Nobody is to blame: servers older than v0.38.22 may
    /// honestly hold a bad one.
    pub fn verify_extended_commit(
        &mut self,
        chain_id: &str,
        set: &ValidatorSet,
    ) -> Result<(), CommitError> {
        Self::verify_extended_commits(chain_id, &mut [(self, set)])
            .pop()
            .unwrap_or(Ok(()))
    }

    /// [`verify_extended_commit`](Self::verify_extended_commit) for each block and the set of its
    /// height, in their order, with the signatures of all in one batch.
    pub fn verify_extended_commits(
        chain_id: &str,
        blocks: &mut [(&mut Self, &ValidatorSet)],
    ) -> Vec<Result<(), CommitError>> {
        let mut checks = Vec::with_capacity(blocks.len());
        let mut results: Vec<Result<bool, CommitError>> = blocks
            .iter()
            .map(|(block, set)| {
                if !block.extended_verified {
                    checks.push(block.extended_check(set)?);
                }
                Ok(block.extended_verified)
            })
            .collect();
        let mut checked = verify_extended_commits(chain_id, &checks).into_iter();
        for ((block, _), result) in blocks.iter_mut().zip(&mut results) {
            if *result == Ok(false) {
                *result = checked.next().unwrap_or(Ok(())).map(|()| true);
                block.extended_verified = result.is_ok();
            }
        }
        results.into_iter().map(|it| it.map(|_| ())).collect()
    }

    fn extended_check<'a>(
        &'a self,
        set: &'a ValidatorSet,
    ) -> Result<ExtendedCheck<'a>, CommitError> {
        self.check_set(set)?;
        let extended = self
            .fetched
            .extended_commit()
            .ok_or(CommitError::NoExtendedCommit)?;
        Ok(ExtendedCheck {
            set,
            block_id: self.block_id(),
            height: self.height(),
            extended,
        })
    }

    /// The same final block with another copy of its extended commit, unverified, when the first
    /// one was bad or missing. `None` when `copy` is another block.
    #[must_use]
    pub fn with_extended_commit_of(&self, copy: Arc<FetchedBlock>) -> Option<Self> {
        (copy.block_id() == self.block_id()).then(|| Self {
            fetched: copy,
            extended_verified: false,
            ..self.clone()
        })
    }

    fn check_set(&self, set: &ValidatorSet) -> Result<(), CommitError> {
        if set.hash() == self.block().header.validators_hash {
            Ok(())
        } else {
            Err(CommitError::OtherSet)
        }
    }
}
