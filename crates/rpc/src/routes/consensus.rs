//! Where consensus stands.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Instant, SystemTime},
};

use perihelion_consensus::BitArray;
use perihelion_consensus_reactor::peer::{PartsView, PeerState, View, VotesView};
use perihelion_types::{
    Block, BlockId, FetchedBlock, Hash, Height, PartSetHeader, Proposal, Round, State, Time,
    ValidatorSet,
    json::{Hex, Text},
};
use serde::{Serialize, Serializer};

use super::{Answer, network::moment, write};
use crate::{
    arguments::Arguments,
    context::{Backend, PeerRoundView},
    vote_text::{bits_text, vote_text, voted_text},
};

/// The step before a height's first round.
const NEW_HEIGHT: u8 = 1;
/// No round.
const NONE: Round = Round::new(-1);

/// What is told of a height: out of the state machine, or, while the node is not in consensus, of
/// the height that it would begin with.
enum Picture {
    Running(Arc<View>),
    Idle(Arc<State>),
}

impl Picture {
    fn take(backend: &Backend) -> Self {
        match backend.context.consensus.view() {
            Some(view) => Self::Running(view),
            None => Self::Idle(backend.context.evidence.state()),
        }
    }

    fn view(&self) -> Option<&View> {
        match self {
            Self::Running(view) => Some(view),
            Self::Idle(_) => None,
        }
    }

    fn state(&self) -> &State {
        match self {
            Self::Running(view) => view.state(),
            Self::Idle(state) => state,
        }
    }

    fn height(&self) -> Height {
        match self {
            Self::Running(view) => view.height(),
            Self::Idle(state) => state.next_height(),
        }
    }

    fn round(&self) -> Round {
        self.view().map_or(Round::ZERO, View::round)
    }

    fn step(&self) -> u8 {
        let view = self.view();
        view.map_or(NEW_HEIGHT, |view| view.round_step().step.number())
    }

    fn start_time(&self) -> Time {
        let view = self.view();
        view.map_or(Time::ZERO, |view| wall_time(view.round_step().start_time))
    }

    fn validators(&self) -> &ValidatorSet {
        match self {
            Self::Running(view) => view.validator_set(),
            Self::Idle(state) => &state.validators,
        }
    }

    fn block(&self) -> Option<&FetchedBlock> {
        self.view()?.block().map(AsRef::as_ref)
    }

    fn locked(&self) -> Option<&(Round, Arc<FetchedBlock>)> {
        self.view()?.locked()
    }

    fn valid(&self) -> Option<&(Round, Arc<FetchedBlock>)> {
        self.view()?.valid()
    }

    /// The votes of the rounds up to the next one, which are open too once the first has begun.
    fn votes(&self) -> Vec<RoundVotes> {
        let begun = i32::from(self.step() != NEW_HEIGHT);
        let last = self.round().get().saturating_add(begun);
        let validators = self.validators();
        (0..=last)
            .map(|round| {
                let view = self.view();
                let prevotes = view.and_then(|view| view.prevotes(Round::new(round)));
                let precommits = view.and_then(|view| view.precommits(Round::new(round)));
                let (prevotes, prevotes_bit_array) =
                    votes_text(prevotes.map(AsRef::as_ref), validators);
                let (precommits, precommits_bit_array) =
                    votes_text(precommits.map(AsRef::as_ref), validators);
                RoundVotes {
                    round,
                    prevotes,
                    prevotes_bit_array,
                    precommits,
                    precommits_bit_array,
                }
            })
            .collect()
    }

    fn commit_time(&self) -> Time {
        let decided = self.view().and_then(View::commit_time);
        decided.map_or(Time::ZERO, wall_time)
    }

    fn last_commit(&self) -> Option<LastCommit> {
        let view = self.view()?;
        let votes = view.last_commit()?;
        let (votes, votes_bit_array) = votes_text(Some(votes), &self.state().last_validators);
        let claims = view.last_commit_claims().iter();
        Some(LastCommit {
            votes,
            votes_bit_array,
            peer_maj_23s: claims
                .map(|(peer, block_id)| (peer.to_string(), *block_id))
                .collect(),
        })
    }
}

/// A moment of this process's clock, by the wall's.
fn wall_time(at: Instant) -> Time {
    let (now, wall) = (Instant::now(), SystemTime::now());
    let then = match now.checked_duration_since(at) {
        Some(ago) => wall.checked_sub(ago),
        None => wall.checked_add(at.saturating_duration_since(now)),
    };
    then.map_or(Time::ZERO, moment)
}

/// Each validator's vote, and who has voted with what power.
fn votes_text(votes: Option<&VotesView>, validators: &ValidatorSet) -> (Vec<String>, String) {
    let vote = |index| votes.and_then(|votes| votes.vote(index));
    let members = validators.validators();
    let texts = (0..members.len()).map(|index| vote_text(vote(index).map(AsRef::as_ref)));
    let bits: Vec<bool> = (0..members.len())
        .map(|index| vote(index).is_some())
        .collect();
    let voted = members.iter().zip(&bits).filter(|(_, voted)| **voted);
    let power = voted.map(|(validator, _)| validator.voting_power).sum();
    let total = validators.total_voting_power();
    (texts.collect(), voted_text(&bits, power, total))
}

#[derive(Serialize)]
struct RoundVotes {
    round: i32,
    prevotes: Vec<String>,
    prevotes_bit_array: String,
    precommits: Vec<String>,
    precommits_bit_array: String,
}

#[derive(Serialize)]
struct LastCommit {
    votes: Vec<String>,
    votes_bit_array: String,
    peer_maj_23s: BTreeMap<String, BlockId>,
}

#[derive(Serialize)]
struct Proposer<'a> {
    address: Hex<'a>,
    index: usize,
}

#[derive(Serialize)]
struct Simple<'a> {
    #[serde(rename = "height/round/step")]
    place: String,
    start_time: Time,
    proposal_block_hash: Hash,
    locked_block_hash: Hash,
    valid_block_hash: Hash,
    height_vote_set: Vec<RoundVotes>,
    proposer: Option<Proposer<'a>>,
}

#[derive(Serialize)]
struct ConsensusState<T> {
    round_state: T,
}

/// Height, round and step in one text.
fn place(height: Height, round: Round, step: u8) -> String {
    format!("{height}/{round}/{step}")
}

/// The same of what is being decided.
pub(super) fn place_of(view: &View) -> String {
    let step = view.round_step().step.number();
    place(view.height(), view.round(), step)
}

fn hash_of(candidate: Option<&(Round, Arc<FetchedBlock>)>) -> Hash {
    candidate.map_or(Hash::EMPTY, |(_, block)| block.block_id().hash)
}

pub(super) fn consensus_state(backend: &Backend, _: &Arguments) -> Answer {
    let picture = Picture::take(backend);
    let validators = picture.validators();
    let proposer = validators.proposer().and_then(|proposer| {
        let (index, _) = validators.by_address(&proposer.address)?;
        let address = Hex(proposer.address.as_bytes());
        Some(Proposer { address, index })
    });
    write(&ConsensusState {
        round_state: Simple {
            place: place(picture.height(), picture.round(), picture.step()),
            start_time: picture.start_time(),
            proposal_block_hash: picture
                .block()
                .map_or(Hash::EMPTY, |block| block.block_id().hash),
            locked_block_hash: hash_of(picture.locked()),
            valid_block_hash: hash_of(picture.valid()),
            height_vote_set: picture.votes(),
            proposer,
        },
    })
}

/// Which parts there are of how many.
#[derive(Serialize)]
struct PartsForm {
    #[serde(rename = "count/total")]
    count: String,
    parts_bit_array: Bits,
}

impl PartsForm {
    fn of(bits: &BitArray) -> Self {
        Self {
            count: format!("{}/{}", bits.count(), bits.size()),
            parts_bit_array: Bits::of(bits),
        }
    }

    /// A block that was locked on, or could be, is whole.
    fn whole(block: &FetchedBlock) -> Self {
        let total = block.block_id().part_set_header.total;
        let bits = vec![true; usize::try_from(total).unwrap_or(0)];
        Self {
            count: format!("{total}/{total}"),
            parts_bit_array: Bits(bits),
        }
    }
}

struct Bits(Vec<bool>);

impl Bits {
    fn of(bits: &BitArray) -> Self {
        Self((0..bits.size()).map(|index| bits.get(index)).collect())
    }
}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&bits_text(self.0.iter().copied()))
    }
}

#[derive(Serialize)]
struct Whole<'a> {
    height: Height,
    round: Round,
    step: u8,
    start_time: Time,
    commit_time: Time,
    validators: &'a ValidatorSet,
    proposal: Option<&'a Proposal>,
    proposal_block: Option<&'a Block>,
    proposal_block_parts: Option<PartsForm>,
    locked_round: Round,
    locked_block: Option<&'a Block>,
    locked_block_parts: Option<PartsForm>,
    valid_round: Round,
    valid_block: Option<&'a Block>,
    valid_block_parts: Option<PartsForm>,
    votes: Vec<RoundVotes>,
    commit_round: Round,
    last_commit: Option<LastCommit>,
    last_validators: &'a ValidatorSet,
    triggered_timeout_precommit: bool,
}

impl<'a> Whole<'a> {
    fn of(picture: &'a Picture) -> Self {
        let view = picture.view();
        let (locked, valid) = (picture.locked(), picture.valid());
        let parts: Option<&PartsView> = view.and_then(|view| view.parts()).map(AsRef::as_ref);
        Self {
            height: picture.height(),
            round: picture.round(),
            step: picture.step(),
            start_time: picture.start_time(),
            commit_time: picture.commit_time(),
            validators: picture.validators(),
            proposal: view.and_then(View::proposal).map(AsRef::as_ref),
            proposal_block: picture.block().map(FetchedBlock::block),
            proposal_block_parts: parts.map(|parts| PartsForm::of(parts.bits())),
            locked_round: locked.map_or(NONE, |(round, _)| *round),
            locked_block: locked.map(|(_, block)| block.block()),
            locked_block_parts: locked.map(|(_, block)| PartsForm::whole(block)),
            valid_round: valid.map_or(NONE, |(round, _)| *round),
            valid_block: valid.map(|(_, block)| block.block()),
            valid_block_parts: valid.map(|(_, block)| PartsForm::whole(block)),
            votes: picture.votes(),
            commit_round: view.and_then(View::commit_round).unwrap_or(NONE),
            last_commit: picture.last_commit(),
            last_validators: &picture.state().last_validators,
            triggered_timeout_precommit: view.is_some_and(View::has_awaited_precommits),
        }
    }
}

#[derive(Serialize)]
struct PeerRoundState {
    height: Height,
    round: Round,
    step: u8,
    start_time: Time,
    proposal: bool,
    proposal_block_part_set_header: PartSetHeader,
    proposal_block_parts: Option<Bits>,
    proposal_pol_round: Round,
    proposal_pol: Option<Bits>,
    prevotes: Option<Bits>,
    precommits: Option<Bits>,
    last_commit_round: Round,
    last_commit: Option<Bits>,
    catchup_commit_round: Round,
    catchup_commit: Option<Bits>,
}

impl PeerRoundState {
    fn of(state: &PeerState) -> Self {
        let parts = state.parts();
        Self {
            height: state.height(),
            round: state.round(),
            step: state.step().map_or(0, |step| step.number()),
            start_time: state.start_time().map_or(Time::ZERO, wall_time),
            proposal: state.has_proposal(),
            proposal_block_part_set_header: parts.map(|parts| parts.header).unwrap_or_default(),
            proposal_block_parts: parts.map(|parts| Bits::of(&parts.bits)),
            proposal_pol_round: state.pol_round().unwrap_or(NONE),
            proposal_pol: state.pol().map(Bits::of),
            prevotes: state.prevotes().map(Bits::of),
            precommits: state.precommits().map(Bits::of),
            last_commit_round: state.last_commit_round(),
            last_commit: state.last_commit().map(Bits::of),
            catchup_commit_round: state.catchup_commit_round().unwrap_or(NONE),
            catchup_commit: state.catchup_commit().map(Bits::of),
        }
    }
}

#[derive(Serialize)]
struct Stats {
    votes: Text<i64>,
    block_parts: Text<i64>,
}

#[derive(Serialize)]
struct PeerStateForm {
    round_state: PeerRoundState,
    stats: Stats,
}

#[derive(Serialize)]
struct PeerForm {
    node_address: String,
    peer_state: PeerStateForm,
}

impl PeerForm {
    fn of(peer: &PeerRoundView) -> Self {
        Self {
            node_address: peer.node_address.clone(),
            peer_state: PeerStateForm {
                round_state: PeerRoundState::of(&peer.state),
                stats: Stats {
                    votes: Text(peer.votes),
                    block_parts: Text(peer.block_parts),
                },
            },
        }
    }
}

#[derive(Serialize)]
struct Dump<'a> {
    round_state: Whole<'a>,
    peers: Vec<PeerForm>,
}

pub(super) fn dump_consensus_state(backend: &Backend, _: &Arguments) -> Answer {
    let picture = Picture::take(backend);
    let peers = backend.context.consensus.peers();
    write(&Dump {
        round_state: Whole::of(&picture),
        peers: peers.iter().map(PeerForm::of).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_peers_are_told_as_cometbft_tells_them() {
        let block_id = BlockId {
            hash: Hash::of(b"block"),
            part_set_header: PartSetHeader {
                total: 2,
                hash: Hash::of(b"parts"),
            },
        };
        let last_commit = LastCommit {
            votes: Vec::new(),
            votes_bit_array: String::new(),
            peer_maj_23s: BTreeMap::from([("ab".repeat(20), block_id)]),
        };
        let (hash, parts) = (Hash::of(b"block"), Hash::of(b"parts"));
        let peer = "ab".repeat(20);
        assert_eq!(
            serde_json::to_string(&last_commit).ok(),
            Some(format!(
                "{{\"votes\":[],\"votes_bit_array\":\"\",\"peer_maj_23s\":{{\"{peer}\":\
                 {{\"hash\":\"{hash}\",\"parts\":{{\"total\":2,\"hash\":\"{parts}\"}}}}}}}}"
            ))
        );
    }
}
