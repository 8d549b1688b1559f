//! What consensus asks of the executor: a block to propose, and whether one that is proposed is to
//! be voted for. None of it changes state or store.

use bytes::Bytes;
use perihelion_abci::{
    AppError, AppFault, CallName,
    types::{
        ExtendedCommitInfo, response_process_proposal::ProposalStatus,
        response_verify_vote_extension::VerifyStatus,
    },
};
use perihelion_certify::EvidenceError;
use perihelion_types::{
    Address, Block, Data, Evidence, ExtendedCommit, FetchedBlock, Height, InvalidError, Time, Vote,
    commit::MAX_VOTE_EXTENSION_BYTES, median::MedianTimeError,
};
use thiserror::Error;

use crate::{
    ApplyError, Executor, LastCommit, LastCommitSize, ValidationError,
    execution::not_valid,
    request,
    validation::{validate_against_state, validate_clock},
};

/// Bytes of an own vote without its extension, and of the messages and the log record that carry it,
/// at most. Less, and a vote with the longest extension could neither be logged nor sent.
const OWN_VOTE_BYTES: usize = 512;
/// The longest extension that an own vote may have, in bytes: with the rest of the vote it takes what
/// a message of consensus may.
pub const MAX_OWN_EXTENSION_BYTES: usize = MAX_VOTE_EXTENSION_BYTES - OWN_VOTE_BYTES;

/// What may go into a block: the pools of transactions and of evidence.
pub trait BlockContents {
    /// Evidence that waits, as much as takes `max_bytes` (negative: any) of the encoded list; and
    /// the bytes that it takes.
    fn evidence(&self, max_bytes: i64) -> (Vec<Evidence>, i64);

    /// Transactions that wait, in order, as far as together they take at most `max_bytes` of a
    /// block's data and `max_gas`; negative for no bound.
    fn txs(&self, max_bytes: i64, max_gas: i64) -> Vec<Bytes>;
}

/// Why a block cannot be made of what consensus gives for it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposalFault {
    /// It is not the next block.
    #[error("the next height is {expected}")]
    Height {
        /// The height that follows the state.
        expected: Height,
    },
    /// There is not one precommit for each validator.
    #[error(transparent)]
    LastCommit(#[from] LastCommitSize),
    /// A precommit is in another's place.
    #[error("precommit {index} has another validator's address")]
    Address {
        /// Its place.
        index: usize,
    },
    /// A precommit has an extension where it must have none, or lacks it.
    #[error("precommit {index}: {error}")]
    Extension {
        /// Its place.
        index: usize,
        /// What is wrong.
        error: InvalidError,
    },
    /// The block's time cannot be told.
    #[error("median time: {0}")]
    Median(#[from] MedianTimeError),
}

impl Executor {
    /// The block to propose at `height`: evidence first, as much as the parameters allow, then the
    /// transactions that the application chooses in PrepareProposal. `last_commit` are the
    /// precommits for the last block; at the initial height it has none.
    ///
    /// `None` where the parameters leave no room even for header and commit.
    ///
    /// # Errors
    /// When the application fails, or returns more than there is room for; when `height` or
    /// `last_commit` do not fit the state ([`ApplyError::Proposal`]).
    pub fn make_block(
        &self,
        height: Height,
        proposer: Address,
        last_commit: &ExtendedCommit,
        contents: &impl BlockContents,
    ) -> Result<Option<Block>, ApplyError> {
        let fault = |fault| ApplyError::Proposal { height, fault };
        let (state, rules) = (&*self.state, self.config.rules.at(height));
        let expected = state.next_height();
        if height != expected {
            return Err(fault(ProposalFault::Height { expected }));
        }
        let local_last_commit = self.local_last_commit(last_commit).map_err(fault)?;
        let params = &state.consensus_params;
        let (mut evidence, bytes) = contents.evidence(params.evidence.max_bytes);
        let mut room = state.max_data_bytes(bytes, rules);
        if room.is_none() && !evidence.is_empty() {
            evidence.clear();
            room = state.max_data_bytes(0, rules);
        }
        let Some(max_tx_bytes) = room else {
            let max = params.block.max_bytes;
            tracing::error!(height = height.get(), max, "no room for header and commit");
            return Ok(None);
        };
        let unbounded = params.block.max_bytes == -1;
        let max_reap_bytes = if unbounded { -1 } else { max_tx_bytes };
        let txs = contents.txs(max_reap_bytes, params.block.max_gas);
        let none: [Bytes; 0] = [];
        let mut block = state
            .make_block(none, last_commit.to_commit(), evidence, proposer, rules)
            .map_err(|error| fault(error.into()))?;
        let request = request::prepare_proposal(&block, txs, max_tx_bytes, local_last_commit);
        let response = self.app.prepare_proposal(&request)?;
        block.data = Data::new(response.txs);
        block.header.data_hash = block.data.hash();
        Ok(Some(block))
    }

    fn local_last_commit(
        &self,
        commit: &ExtendedCommit,
    ) -> Result<ExtendedCommitInfo, ProposalFault> {
        let state = &*self.state;
        if state.next_height() == state.initial_height {
            return Ok(ExtendedCommitInfo::default());
        }
        let enabled = state
            .consensus_params
            .vote_extensions_enabled(state.last_block_height);
        request::extended_commit_info(commit, &state.last_validators, enabled)
    }

    /// Whether a block that somebody proposes, or others voted for, follows from the state: with
    /// every signature of its last commit verified, and its evidence judged by `check_evidence`,
    /// the pool's. With `now`, what the clock says, its time may not be too far ahead. The inner
    /// error is the verdict.
    ///
    /// # Errors
    /// When our own history cannot be read: no verdict on the block.
    pub fn validate_proposed(
        &self,
        block: &FetchedBlock,
        now: Option<Time>,
        check_evidence: impl FnOnce(&[Evidence]) -> Result<(), EvidenceError>,
    ) -> Result<Result<(), ValidationError>, ApplyError> {
        let height = block.height();
        let judge = || {
            let (block, rules) = (block.block(), self.config.rules.at(height));
            validate_against_state(&self.state, block, LastCommit::Verify, rules)?;
            if let Some(now) = now {
                validate_clock(block.header.time, now, self.config.block_time_tolerance)?;
            }
            Ok(check_evidence(&block.evidence)?)
        };
        match judge() {
            Ok(()) => Ok(Ok(())),
            Err(fault) => match not_valid(height, block.block_id(), fault) {
                ApplyError::LocalFault { fault, .. } => Ok(Err(*fault)),
                local => Err(local),
            },
        }
    }

    /// Whether the application accepts a proposed block, which was found to follow from the state.
    ///
    /// # Errors
    /// When the application fails.
    pub fn process_proposal(&self, block: &FetchedBlock) -> Result<bool, ApplyError> {
        let (set, initial) = self.last_validators(block);
        let hash = block.block_id().hash;
        let request = request::process_proposal(block.block(), hash, set, initial)
            .map_err(|size| misfit(block, size))?;
        let response = self.app.process_proposal(&request)?;
        Ok(response.status() == ProposalStatus::Accept)
    }

    /// The extension of this `validator`'s precommit for a block. What the application gives, it
    /// must accept itself, as every other validator asks it to: else nobody would count the vote.
    ///
    /// # Errors
    /// When the application fails, contradicts itself, or gives more than
    /// [`MAX_OWN_EXTENSION_BYTES`].
    pub fn extend_vote(
        &self,
        block: &FetchedBlock,
        validator: Address,
    ) -> Result<Bytes, ApplyError> {
        let (set, initial) = self.last_validators(block);
        let (height, hash) = (block.height(), block.block_id().hash);
        let request = request::extend_vote(block.block(), hash, set, initial)
            .map_err(|size| misfit(block, size))?;
        let extension = self.app.extend_vote(&request)?.vote_extension;
        let size = extension.len();
        if size > MAX_OWN_EXTENSION_BYTES {
            let reason =
                format!("extension of {size} bytes, at most {MAX_OWN_EXTENSION_BYTES} are allowed");
            return Err(contradiction(height, reason));
        }
        if extension.is_empty() {
            return Ok(extension);
        }
        let address = Bytes::copy_from_slice(validator.as_bytes());
        let verify = request::verify_vote_extension(hash, height, address, extension.clone());
        let verified = self.app.verify_vote_extension(&verify)?;
        if verified.status() != VerifyStatus::Accept {
            let reason = "VerifyVoteExtension rejects the extension that ExtendVote gave";
            return Err(contradiction(height, reason.to_owned()));
        }
        Ok(extension)
    }

    /// Whether the application accepts the extension of another validator's precommit.
    ///
    /// # Errors
    /// When the application fails.
    pub fn verify_vote_extension(&self, vote: &Vote) -> Result<bool, ApplyError> {
        let request = request::verify_vote_extension(
            vote.block_id.hash,
            vote.height,
            vote.validator_address.clone(),
            vote.extension.clone(),
        );
        let response = self.app.verify_vote_extension(&request)?;
        Ok(response.status() == VerifyStatus::Accept)
    }

    /// The validators that the block's last commit is of, and whether it is the chain's first.
    fn last_validators(&self, block: &FetchedBlock) -> (&perihelion_types::ValidatorSet, bool) {
        let initial = block.height() == self.state.initial_height;
        (&self.state.last_validators, initial)
    }
}

fn misfit(block: &FetchedBlock, size: LastCommitSize) -> ApplyError {
    not_valid(block.height(), block.block_id(), size.into())
}

fn contradiction(height: Height, reason: String) -> ApplyError {
    ApplyError::Application(AppError {
        call: CallName::ExtendVote,
        height: Some(height),
        reason: AppFault::Contradiction(reason),
    })
}
