//! From a commit to the next height.

use std::sync::Arc;

use perihelion_certify::{CertifiedBlock, CommitError};
use perihelion_types::{FetchedBlock, Height, Rules, State};

use super::{
    Consensus,
    answer::{Pending, Question},
    first_round, later,
};
use crate::{Effect, Halt, Now, Step, WalMessage};

impl Consensus {
    /// Lines 50 to 51: the block is final. It is stored, the height ends in the log, and it is
    /// executed, in this order.
    pub(super) fn finalize(&mut self) {
        let height = self.rs.height;
        let Some(block) = self.rs.block.clone() else {
            return;
        };
        let certified = match self.certify(&block) {
            Ok(certified) => Arc::new(certified),
            Err(fault) => return self.halt(Halt::CommitFault { height, fault }),
        };
        let id = self.new_id();
        self.effects
            .push_back(Effect::Commit(Arc::clone(&certified)));
        // Not by `append`: the log that is replayed does not have it.
        self.effects.push_back(Effect::Append {
            message: WalMessage::EndHeight(height),
            sync: true,
        });
        self.effects.push_back(Effect::Apply {
            id,
            block: certified,
        });
        self.pending = Some(Pending::Asked {
            id,
            question: Question::Apply(block),
        });
    }

    /// The block with its commit, or with its extended commit where extensions are enabled.
    fn certify(&self, block: &Arc<FetchedBlock>) -> Result<CertifiedBlock, CommitError> {
        let rs = &self.rs;
        let extended = rs
            .commit_round
            .and_then(|round| rs.votes.precommits(round)?.extended_commit())
            .ok_or(CommitError::NoCommit)?;
        let (set, chain_id) = (rs.votes.validators(), &self.chain_id);
        if self.extensions_enabled() {
            let block = Arc::new(block.with_extended_commit(extended));
            CertifiedBlock::decided_extended(block, set, chain_id)
        } else {
            CertifiedBlock::decided(Arc::clone(block), extended.to_commit(), set, chain_id)
        }
    }

    /// More than 2/3 precommitted what cannot be applied here.
    pub(super) fn stop_at_commit(&mut self) {
        let height = self.rs.height;
        let Some(block_id) = self.committed() else {
            return;
        };
        let halt = match self.verdict(&block_id) {
            Some(Err(reason)) => Halt::CommittedInvalid {
                height,
                block_id,
                reason: reason.clone(),
            },
            _ => Halt::CommittedUndecodable {
                height,
                block_id,
                reason: "the parts make no block of this height and hash".to_owned(),
            },
        };
        self.halt(halt);
    }

    /// Lines 52 to 54: the next height.
    pub(super) fn applied(
        &mut self,
        now: Now,
        block: &FetchedBlock,
        state: Arc<State>,
        rules: Rules,
    ) {
        let height: Height = self.rs.height;
        if state.last_block_height != height {
            let got = state.last_block_height;
            return self.halt(Halt::WrongState { height, got });
        }
        let decided = self.rs.commit_time.unwrap_or(now.instant);
        let start_time = later(decided, self.config.timeout_commit);
        let next = first_round(&self.chain_id, &state, None, start_time);
        let last = std::mem::replace(&mut self.rs, next);
        self.rs.commit_time = last.commit_time;
        self.rs.last_commit = last
            .commit_round
            .and_then(|round| last.votes.into_precommits(round));
        self.state = state;
        self.rules = rules;
        self.last_header_app_hash = Some(block.block().header.app_hash.clone());
        self.verdicts.clear();
        self.txs_available = false;
        self.timers.clear();
        self.set_timeout(now, Step::NewHeight);
        self.new_step();
    }
}
