//! The form of `block_validation*.json`: blocks, right and bent, against states.

use serde::Deserialize;

use crate::{Hex, Moment, Verdict, load};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What it is, for people.
    pub about: String,
    /// What made it.
    pub made_by: String,
    /// What the verdicts are, for people.
    pub verdicts: String,
    /// States by name.
    pub states: Vec<StateCase>,
    /// The next blocks of these states.
    pub cases: Vec<Case>,
}

impl File {
    /// Reads a file of this form.
    #[must_use]
    pub fn load(file: &str) -> Self {
        load(file)
    }
}

/// A state, and what evidence needs of the chain below it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateCase {
    /// Its name.
    pub name: String,
    /// `tendermint.state.State`; the fields below are parts of it.
    pub state: Hex,
    /// The chain.
    pub chain_id: String,
    /// Its first height.
    pub initial_height: i64,
    /// The last block's height.
    pub last_block_height: i64,
    /// The last block's time.
    pub last_block_time: Moment,
    /// The last block's id.
    pub last_block_id: LastBlockId,
    /// The application's hash.
    pub app_hash: Hex,
    /// Root over the last results.
    pub last_results_hash: Hex,
    /// `tendermint.types.ConsensusParams`.
    pub consensus_params: Hex,
    /// `tendermint.types.ValidatorSet` of the next block.
    pub validators: Hex,
    /// And of the one after.
    pub next_validators: Hex,
    /// The application's version.
    pub version_app: u64,
    /// The chain below.
    pub history: Vec<Past>,
}

/// A block id.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastBlockId {
    /// The header's hash.
    pub hash: Hex,
    /// The part set's root.
    pub parts_hash: Hex,
    /// The number of parts.
    pub parts_total: u32,
}

/// One height of the chain below a state.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Past {
    /// The height.
    pub height: i64,
    /// `tendermint.types.Header`.
    pub header: Hex,
    /// `tendermint.types.Commit` for it.
    pub commit: Hex,
    /// `tendermint.types.ValidatorSet`.
    pub validators: Hex,
}

/// A block and what CometBFT said of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What is bent.
    pub name: String,
    /// The state's name.
    pub state: String,
    /// `tendermint.types.Block`.
    pub block: Hex,
    /// The hash of its header.
    pub header_hash: Hex,
    /// Of the block alone.
    pub validate_basic: Verdict,
    /// Of decoding it.
    pub from_proto: Verdict,
    /// Against the state.
    pub validate_block: Verdict,
    /// Against the state, the last commit being trusted.
    pub skip_last_commit: Verdict,
    /// v0.40's, once it has validated the right block with the same header.
    #[serde(default)]
    pub after_the_right_block: Option<Verdict>,
}
