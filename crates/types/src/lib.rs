//! Blocks, commits, validator sets, evidence, parameters, genesis: hashes, sign bytes, rules and
//! JSON forms. Pure: no clock, no file, no socket.
//!
//! A value of these types is what arrived or what was read, with lengths that its Rust type
//! implies; whether it obeys the protocol's stateless rules is said by its `validate_basic`.
//! Decoding from protobuf (`TryFrom`) refuses what CometBFT's `FromProto` refuses; a block's bytes are
//! read as CometBFT's decoder reads them ([`gogo`]).

pub mod block;
pub mod block_id;
pub mod block_meta;
pub mod bounds;
pub mod canonical;
pub mod commit;
pub mod data;
mod error;
pub mod evidence;
pub mod fetched;
pub mod genesis;
pub mod gogo;
pub mod hash;
pub mod header;
pub mod height;
pub mod json;
pub mod light;
mod make_block;
pub mod median;
pub mod merkle;
pub mod params;
pub mod part_set;
pub mod proposal;
pub mod results;
mod rules;
pub mod state;
pub mod time;
pub mod tx;
pub mod validator;
pub mod validator_set;
pub mod vote;
mod wire;

pub use block::Block;
pub use block_id::{BlockId, PartSetHeader};
pub use block_meta::BlockMeta;
pub use canonical::CommitSignBytes;
pub use commit::{BlockIdFlag, Commit, CommitSig, ExtendedCommit, ExtendedCommitSig};
pub use data::Data;
pub use error::{DecodeError, InvalidError};
pub use evidence::{DuplicateVoteEvidence, Evidence, LightClientAttackEvidence};
pub use fetched::{FetchedBlock, Hold};
pub use genesis::{Genesis, GenesisDefaults, GenesisError, GenesisValidator};
pub use hash::Hash;
pub use header::{Header, Version};
pub use height::{Height, HeightRange, Round};
pub use light::{LightBlock, SignedHeader};
pub use median::{MedianTimeRule, median_time};
pub use params::{ConsensusParams, ParamsUpdate};
pub use part_set::{Part, PartSet};
pub use perihelion_crypto::{Address, KeyType, NodeId, NodeId as PeerId, PublicKey};
pub use proposal::Proposal;
pub use results::DeterministicResult;
pub use rules::{Rules, RulesByHeight, RulesOrderError};
pub use state::State;
pub use time::Time;
pub use validator::Validator;
pub use validator_set::ValidatorSet;
pub use vote::{SignedMsgType, Vote};
