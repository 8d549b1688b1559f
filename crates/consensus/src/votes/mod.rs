//! Votes of a round and of a height.

mod height_vote_set;
mod vote_set;

pub use height_vote_set::{CATCHUP_ROUNDS_PER_PEER, HeightVoteSet, MAX_CATCHUP_ROUNDS};
pub use vote_set::{Added, Checked, MAX_MAJ23_CLAIMS, VoteError, VoteSet};
