//! The next block, as a proposer makes it.

use bytes::Bytes;

use crate::{
    Address, Block, Commit, Data, Evidence, Header, Rules, State, evidence,
    median::{MedianTimeError, median_time},
};

/// Bytes around header, data, evidence and commit in an encoded block, at most.
const BLOCK_OVERHEAD_BYTES: i64 = 11;

/// The longest encoded header.
const MAX_HEADER_BYTES: i64 = 626;

/// The longest encoded commit without its signatures.
const COMMIT_OVERHEAD_BYTES: i64 = 94;

impl State {
    /// The block that follows this state: the header is filled from it, the time is the median of
    /// `last_commit` by `rules` (at the initial height the genesis time). At the initial height
    /// `last_commit` has no signatures.
    ///
    /// # Errors
    /// When a signature of `last_commit` that counts is of nobody who was a validator.
    pub fn make_block(
        &self,
        txs: impl IntoIterator<Item = impl AsRef<[u8]>>,
        last_commit: Commit,
        evidence: Vec<Evidence>,
        proposer: Address,
        rules: Rules,
    ) -> Result<Block, MedianTimeError> {
        let height = self.next_height();
        let time = if height == self.initial_height {
            self.last_block_time
        } else {
            median_time(&last_commit, &self.last_validators, rules.into())?
        };
        let data = Data::new(txs);
        let header = Header {
            version: self.version,
            chain_id: self.chain_id.clone(),
            height,
            time,
            last_block_id: self.last_block_id,
            last_commit_hash: last_commit.hash(),
            data_hash: data.hash(),
            validators_hash: self.validators.hash(),
            next_validators_hash: self.next_validators.hash(),
            consensus_hash: self.consensus_params.hash(),
            app_hash: self.app_hash.clone(),
            last_results_hash: self.last_results_hash,
            evidence_hash: evidence::hash_list(&evidence),
            proposer_address: Bytes::copy_from_slice(proposer.as_bytes()),
        };
        Ok(Block {
            header,
            data,
            evidence,
            last_commit: Some(last_commit),
        })
    }

    /// How many bytes the transactions of the next block may have, encoded, beside evidence of
    /// `evidence_bytes`: what PrepareProposal is told. `None` where the block's limit leaves no
    /// room even for header and commit.
    #[must_use]
    pub fn max_data_bytes(&self, evidence_bytes: i64, rules: Rules) -> Option<i64> {
        // A place with the longest signature, and its framing.
        let place = if rules == Rules::V038 {
            109 + 2
        } else {
            3355 + 3
        };
        let places = i64::try_from(self.validators.len()).ok()?;
        let commit = places
            .checked_mul(place)?
            .checked_add(COMMIT_OVERHEAD_BYTES)?;
        self.consensus_params
            .max_block_bytes()
            .checked_sub(BLOCK_OVERHEAD_BYTES + MAX_HEADER_BYTES)?
            .checked_sub(commit)?
            .checked_sub(evidence_bytes)
            .filter(|bytes| *bytes >= 0)
    }
}
