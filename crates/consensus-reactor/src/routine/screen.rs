//! What of peers' messages is worth a place in the log.
//!
//! The log has every message before it is taken, and the state machine ignores much of what peers
//! send: votes of other heights, parts of other blocks, what is here already. Whoever sends such
//! things without end must not fill the disk with them. So they are passed over before they are
//! logged, by the same rules by which they would be ignored; only what may change something, or
//! convicts its sender, is let through.

use std::collections::BTreeSet;

use bytes::Bytes;
use perihelion_consensus::{
    Consensus, Fault, Message, Step, Verify,
    votes::{Checked, VoteError, VoteSet},
};
use perihelion_types::{
    Height, Part, PeerId, Proposal, Round, SignedMsgType, Vote, merkle::ProofError,
};

/// What is to be done with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Worth {
    /// It is for the state machine.
    Take,
    /// It would be ignored.
    Nothing,
    /// No honest peer sends it.
    Fault(Fault),
}

/// Votes whose extension the application has rejected that are remembered; each was signed by a
/// validator. With fewer, validators that sign many can have the application asked again and again.
const MOST_REJECTED: usize = 1_024;
/// Peers that are remembered for their proposal of a round. With fewer than are connected, some can
/// have proposals without end judged.
const MOST_PROPOSING: usize = 1_024;

/// What is known of the votes of a height that do not count.
#[derive(Debug, Default)]
pub(super) struct Screen {
    height: Option<Height>,
    /// Where validators were caught voting twice: round, type, index.
    caught: BTreeSet<(i32, i32, i32)>,
    /// Signatures of votes and of their extensions.
    rejected: BTreeSet<(Bytes, Bytes)>,
    /// Peers of which a proposal of this round was judged.
    proposing: (Option<Round>, BTreeSet<PeerId>),
}

impl Screen {
    /// The application has rejected the vote's extension. It is not asked again.
    pub(super) fn rejected(&mut self, vote: &Vote) {
        self.enter(vote.height);
        if self.rejected.len() < MOST_REJECTED {
            self.rejected.insert(signatures(vote));
        }
    }

    fn enter(&mut self, height: Height) {
        if self.height != Some(height) {
            *self = Self {
                height: Some(height),
                ..Self::default()
            };
        }
    }

    /// A validator was caught: its further votes of that place are of no use unless somebody claims
    /// a majority for their block.
    pub(super) fn caught(&mut self, vote: &Vote) {
        self.enter(vote.height);
        self.caught.insert(place(vote));
    }

    /// Judges a message of `peer`.
    pub(super) fn judge(
        &mut self,
        core: &Consensus,
        peer: PeerId,
        message: &Message,
        verify: &dyn Verify,
    ) -> Worth {
        match message {
            Message::Proposal(proposal) => self.judge_proposal(core, peer, proposal),
            Message::Part { height, part, .. } if *height == core.height() => {
                worth_of_part(core, part)
            }
            Message::Part { .. } => Worth::Nothing,
            Message::Vote(vote) if vote.height == core.height() => {
                if self.is_known_bad(core, vote) {
                    return Worth::Nothing;
                }
                worth_of(core.votes().check(vote, Some(peer), verify))
            }
            Message::Vote(vote) => match late_precommits(core, vote) {
                Some(votes) => worth_of(votes.check(vote, verify)),
                None => Worth::Nothing,
            },
        }
    }

    /// A false proposal convicts nobody, so one of each peer and round is judged; honest peers send
    /// no other.
    fn judge_proposal(&mut self, core: &Consensus, peer: PeerId, proposal: &Proposal) -> Worth {
        let is_here = (proposal.height, proposal.round) == (core.height(), core.round());
        if !is_here || core.proposal().is_some() {
            return Worth::Nothing;
        }
        self.enter(proposal.height);
        let (round, peers) = &mut self.proposing;
        if round.replace(proposal.round) != Some(proposal.round) {
            peers.clear();
        }
        if peers.contains(&peer) {
            return Worth::Nothing;
        }
        if peers.len() < MOST_PROPOSING {
            peers.insert(peer);
        }
        match core.check_proposal(proposal) {
            Ok(is_useful) => taken_if(is_useful),
            Err(fault) => Worth::Fault(fault),
        }
    }

    fn is_known_bad(&self, core: &Consensus, vote: &Vote) -> bool {
        if self.height != Some(vote.height) {
            return false;
        }
        if self.rejected.contains(&signatures(vote)) {
            return true;
        }
        if !self.caught.contains(&place(vote)) {
            return false;
        }
        let votes = core.votes().votes(vote.round, vote.vote_type);
        !votes.is_some_and(|votes| votes.is_claimed(&vote.block_id))
    }
}

fn signatures(vote: &Vote) -> (Bytes, Bytes) {
    (vote.signature.clone(), vote.extension_signature.clone())
}

fn place(vote: &Vote) -> (i32, i32, i32) {
    let vote_type = vote.vote_type.to_i32();
    (vote.round.get(), vote_type, vote.validator_index)
}

fn taken_if(is_useful: bool) -> Worth {
    if is_useful {
        Worth::Take
    } else {
        Worth::Nothing
    }
}

/// A part that is not here of the block that is collected. That its proof leads to the block is
/// cheap to see; its bytes are hashed only then. Whoever passes parts on has verified them: bytes
/// that are not what their own proof is for convict.
fn worth_of_part(core: &Consensus, part: &Part) -> Worth {
    let wanted = core.parts().filter(|parts| {
        let header = parts.header();
        part.index < header.total
            && part.proof.total == i64::from(header.total)
            && parts.part(part.index).is_none()
            && part
                .proof
                .compute_root()
                .is_ok_and(|root| root[..] == header.hash.as_bytes()[..])
    });
    let Some(parts) = wanted else {
        return Worth::Nothing;
    };
    match part
        .proof
        .verify(parts.header().hash.as_bytes(), &part.bytes)
    {
        Ok(()) => Worth::Take,
        Err(ProofError::Leaf) => Worth::Fault(Fault::Part { index: part.index }),
        Err(_) => Worth::Nothing,
    }
}

/// The precommits for the block below, while late ones are still of use.
fn late_precommits<'a>(core: &'a Consensus, vote: &Vote) -> Option<&'a VoteSet> {
    let is_late = vote.height.next() == core.height()
        && vote.vote_type == SignedMsgType::Precommit
        && core.step() == Step::NewHeight;
    core.last_commit().filter(|_| is_late)
}

fn worth_of(checked: Result<Checked, VoteError>) -> Worth {
    match checked {
        Ok(Checked::New) => Worth::Take,
        Ok(Checked::Known) => Worth::Nothing,
        Err(error) => error.fault().map_or(Worth::Nothing, Worth::Fault),
    }
}
