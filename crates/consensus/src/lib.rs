//! Tendermint's round state machine (arXiv:1807.04938), with CometBFT's answers to what the paper
//! leaves open. Pure: no clock, file, socket or randomness; the key that signs is not here either.
//!
//! The owner of a [`Consensus`] feeds it inputs with the moment of each (`handle_*`), drains
//! [`Effect`]s in order (`poll_effect`), and wakes it at its next deadline (`poll_deadline`).
//! While it waits for an answer to a question, a signature or an execution (`is_waiting`), it takes
//! nothing else: what moves it is thus a single sequence, the one in the write-ahead log, and
//! replaying the log leads to the same state.

mod bits;
mod config;
mod effect;
mod input;
mod machine;
mod message;
mod round_state;
mod step;
mod timer;
mod verify;
pub mod votes;

pub use bits::BitArray;
pub use config::ConsensusConfig;
pub use effect::{Announce, Ask, Effect, Fault, Halt, Notice, RoundStep, SignRequest};
pub use input::{Answer, BlockVerdict, LastCommit, Maj23, Now, RequestId, Start};
pub use machine::{Consensus, MAX_DEFERRED_INPUTS, StartError};
pub use message::{Message, TimeoutInfo, WalMessage};
pub use round_state::Candidate;
pub use step::Step;
pub use verify::{EachSignature, Verify};
pub use votes::{HeightVoteSet, VoteSet};
