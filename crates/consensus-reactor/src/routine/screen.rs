//! What of peers' messages is worth a place in the log.
//!
//! The log has every message before it is taken, and the state machine ignores much of what peers
//! send: votes of other heights, parts of other blocks, what is here already. Whoever sends such
//! things without end must not fill the disk with them. So they are passed over before they are
//! logged, by the same rules by which they would be ignored; only what may change something, or
//! convicts its sender, is let through.

use std::collections::{BTreeMap, BTreeSet};

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

/// Votes whose extension the application has rejected that are remembered one by one, so that it is
/// not asked about any of them again.
const MOST_REJECTED: usize = 1_024;
/// Votes of one place that are judged in vain, each signed by its validator: whose extension the
/// application rejects, or which are the same vote with another time. Further ones are passed over.
/// An honest validator has one vote there, and after a crash the same with another extension.
const MOST_IN_VAIN: u8 = 2;
/// Peers that are remembered for their proposal of a round. With fewer than are connected, some can
/// have proposals without end judged.
const MOST_PROPOSING: usize = 1_024;

/// Height, round, type and index of a vote.
type Place = (i64, i32, i32, i32);

/// What is known of the votes of a height that do not count.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// The highest that anything is known of.
    height: Option<Height>,
    /// Where validators were caught voting twice.
    caught: BTreeSet<Place>,
    /// Signatures of votes and of their extensions, as copies: a vote is a piece of its message.
    rejected: BTreeSet<(Bytes, Bytes)>,
    /// How many extensions of a place the application has rejected. As many places as the open
    /// rounds have validators at most, as in those below.
    rejections: BTreeMap<Place, u8>,
    /// How many votes of a place were the same as another but for the time.
    repetitions: BTreeMap<Place, u8>,
    /// Peers of which a proposal of this round was judged.
    proposing: (Option<Round>, BTreeSet<PeerId>),
}

impl Screen {
    /// The application has rejected the vote's extension. It is not asked again.
    pub(super) fn rejected(&mut self, vote: &Vote) {
        self.enter(vote.height);
        if self.rejected.len() < MOST_REJECTED {
            let (vote, extension) = signatures(vote);
            let copies = (
                Bytes::copy_from_slice(&vote),
                Bytes::copy_from_slice(&extension),
            );
            self.rejected.insert(copies);
        }
        count(&mut self.rejections, vote);
    }

    /// Forgets what it knows of rounds of this height that are closed: their votes can come again.
    pub(super) fn forget_closed(&mut self, core: &Consensus) {
        let (height, votes) = (core.height().get(), core.votes());
        let stays =
            |(of, round, ..): &Place| *of != height || votes.prevotes(Round::new(*round)).is_some();
        self.caught.retain(stays);
        self.rejections.retain(|place, _| stays(place));
        self.repetitions.retain(|place, _| stays(place));
    }

    /// Forgets what it knows of heights below. Late votes of the one below are no reason to forget
    /// what is known of this one.
    fn enter(&mut self, height: Height) {
        if self.height < Some(height) {
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
                let votes = core.votes();
                if self.is_known_bad(votes.votes(vote.round, vote.vote_type), vote) {
                    return Worth::Nothing;
                }
                let checked = votes.check(vote, Some(peer), verify);
                self.worth_of(vote, checked)
            }
            Message::Vote(vote) => match late_precommits(core, vote) {
                Some(votes) if !self.is_known_bad(Some(votes), vote) => {
                    let checked = votes.check(vote, verify);
                    self.worth_of(vote, checked)
                }
                _ => Worth::Nothing,
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

    /// Whether a vote is of no use by what is known of its place in `votes`, before any signature is
    /// verified.
    fn is_known_bad(&self, votes: Option<&VoteSet>, vote: &Vote) -> bool {
        let place = place(vote);
        let is_over = |counts: &BTreeMap<Place, u8>| counts.get(&place) >= Some(&MOST_IN_VAIN);
        let rejects = is_over(&self.rejections) && !vote.block_id.is_nil();
        if rejects || self.rejected.contains(&signatures(vote)) {
            return true;
        }
        if is_over(&self.repetitions) && votes.is_some_and(|votes| votes.has_same(vote)) {
            return true;
        }
        self.caught.contains(&place) && !votes.is_some_and(|votes| votes.is_claimed(&vote.block_id))
    }

    fn worth_of(&mut self, vote: &Vote, checked: Result<Checked, VoteError>) -> Worth {
        if matches!(checked, Err(VoteError::SignedTwice { .. })) {
            self.enter(vote.height);
            count(&mut self.repetitions, vote);
        }
        worth_of(checked)
    }
}

fn count(counts: &mut BTreeMap<Place, u8>, vote: &Vote) {
    let count = counts.entry(place(vote)).or_default();
    *count = count.saturating_add(1);
}

fn signatures(vote: &Vote) -> (Bytes, Bytes) {
    (vote.signature.clone(), vote.extension_signature.clone())
}

fn place(vote: &Vote) -> Place {
    let (height, round) = (vote.height.get(), vote.round.get());
    (height, round, vote.vote_type.to_i32(), vote.validator_index)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Instant,
    };

    use perihelion_consensus::{
        Answer, ConsensusConfig, EachSignature, Effect, LastCommit, Now, Start,
        votes::{CATCHUP_ROUNDS_PER_PEER, MAX_CATCHUP_ROUNDS},
    };
    use perihelion_crypto::PrivateKey;
    use perihelion_types::{
        BlockId, ConsensusParams, Genesis, GenesisValidator, Hash, NodeId, PartSetHeader,
        PublicKey, Rules, State, Time,
    };

    use super::*;

    /// Counts how many signatures are verified.
    #[derive(Debug, Default)]
    struct Counted(AtomicUsize);

    impl Verify for Counted {
        fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed);
            EachSignature.verify(key, message, signature)
        }
    }

    impl Counted {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    fn key() -> PrivateKey {
        PrivateKey::ed25519_from_secret(b"validator")
    }

    /// At height 1 of a chain with one validator, as who follows it.
    fn core() -> Consensus {
        let mut params = ConsensusParams::default_v038();
        params.abci.vote_extensions_enable_height = 1;
        let genesis = Genesis {
            genesis_time: Time::new(1_700_000_000, 0),
            chain_id: "screen".to_owned(),
            initial_height: Height::new(1),
            consensus_params: params,
            validators: vec![GenesisValidator {
                address: key().public_key().address(),
                pub_key: key().public_key(),
                power: 10,
                name: String::new(),
            }],
            app_hash: Bytes::new(),
            app_state: Bytes::new(),
        };
        let start = Start {
            state: Arc::new(State::from_genesis(&genesis, "0").unwrap()),
            rules: Rules::V038,
            own_key: None,
            last_commit: LastCommit::None,
            last_header_app_hash: None,
        };
        let mut core = Consensus::new(now(), ConsensusConfig::default(), start).unwrap();
        core.start(now());
        while core.poll_effect().is_some() {}
        core
    }

    fn now() -> Now {
        Now {
            instant: Instant::now(),
            time: Time::new(1_700_000_001, 0),
        }
    }

    fn block(byte: u8) -> BlockId {
        BlockId {
            hash: Hash::of(&[byte]),
            part_set_header: PartSetHeader {
                total: 1,
                hash: Hash::of(&[byte, byte]),
            },
        }
    }

    fn vote(vote_type: SignedMsgType, block_id: BlockId, nanos: i32) -> Vote {
        vote_in(Round::ZERO, vote_type, block_id, nanos)
    }

    fn vote_in(round: Round, vote_type: SignedMsgType, block_id: BlockId, nanos: i32) -> Vote {
        let address = key().public_key().address();
        let mut vote = Vote {
            vote_type,
            height: Height::new(1),
            round,
            block_id,
            timestamp: Time::new(1_700_000_002, nanos),
            validator_address: Bytes::copy_from_slice(address.as_bytes()),
            validator_index: 0,
            signature: Bytes::new(),
            extension: Bytes::new(),
            extension_signature: Bytes::new(),
        };
        vote.signature = key().sign(&vote.sign_bytes("screen"));
        if vote_type == SignedMsgType::Precommit {
            vote.extension_signature = key().sign(&vote.extension_sign_bytes("screen"));
        }
        vote
    }

    fn judge(screen: &mut Screen, core: &Consensus, vote: &Vote, verify: &Counted) -> Worth {
        let message = Message::Vote(Arc::new(vote.clone()));
        screen.judge(core, NodeId::new([1; 20]), &message, verify)
    }

    /// Takes a vote as the routine does, with an application that rejects every extension; whether
    /// the vote was taken, and so logged.
    fn take_rejected(screen: &mut Screen, core: &mut Consensus, peer: NodeId, vote: &Vote) -> bool {
        let message = Message::Vote(Arc::new(vote.clone()));
        if screen.judge(core, peer, &message, &EachSignature) != Worth::Take {
            return false;
        }
        core.handle_message(now(), peer, message);
        while let Some(effect) = core.poll_effect() {
            if let Effect::Ask { id, .. } = effect {
                screen.rejected(vote);
                core.handle_answer(now(), id, Answer::ExtensionAccepted(false));
            }
        }
        true
    }

    fn precommit_in(round: i32) -> Vote {
        vote_in(Round::new(round), SignedMsgType::Precommit, block(1), 0)
    }

    #[test]
    fn the_same_vote_with_another_time_is_verified_twice_at_most() {
        let (mut screen, mut core, verify) = (Screen::default(), core(), Counted::default());
        let first = vote(SignedMsgType::Prevote, block(1), 0);
        assert_eq!(judge(&mut screen, &core, &first, &verify), Worth::Take);
        let message = Message::Vote(Arc::new(first.clone()));
        core.handle_message(now(), NodeId::new([1; 20]), message);
        while core.poll_effect().is_some() {}
        verify.take();
        for nanos in 1..100 {
            let again = vote(SignedMsgType::Prevote, block(1), nanos);
            assert_eq!(judge(&mut screen, &core, &again, &verify), Worth::Nothing);
        }
        assert_eq!(verify.take(), 2);
        assert_eq!(judge(&mut screen, &core, &first, &verify), Worth::Nothing);
        // Its vote for another block is evidence.
        let other = vote(SignedMsgType::Prevote, block(2), 0);
        assert_eq!(judge(&mut screen, &core, &other, &verify), Worth::Take);
    }

    #[test]
    fn a_place_whose_extensions_were_rejected_is_passed_over() {
        let (mut screen, core, verify) = (Screen::default(), core(), Counted::default());
        let mut asked = 0;
        for nanos in 0..100 {
            for byte in [1, 2] {
                let vote = vote(SignedMsgType::Precommit, block(byte), nanos);
                if judge(&mut screen, &core, &vote, &verify) == Worth::Take {
                    screen.rejected(&vote);
                    asked += 1;
                }
            }
        }
        assert_eq!(asked, 2);
        // What says nothing of a block has no extension.
        let mut nil = vote(SignedMsgType::Precommit, BlockId::NIL, 0);
        nil.extension_signature = Bytes::new();
        assert_eq!(judge(&mut screen, &core, &nil, &verify), Worth::Take);
        let prevote = vote(SignedMsgType::Prevote, block(1), 0);
        assert_eq!(judge(&mut screen, &core, &prevote, &verify), Worth::Take);
    }

    /// Each round is a place of its own, and there is no end of rounds.
    #[test]
    fn rejected_votes_of_rounds_that_are_not_due_are_logged_for_two_rounds_of_a_peer() {
        let (mut screen, mut core) = (Screen::default(), core());
        let mut take = |peer, round| {
            let vote = precommit_in(round);
            take_rejected(&mut screen, &mut core, NodeId::new([peer; 20]), &vote)
        };
        let logged = (2..1_002).filter(|round| take(1, *round)).count();
        assert_eq!(logged, CATCHUP_ROUNDS_PER_PEER);
        // The next round is always due, and another peer has room of its own.
        assert!(take(1, 1) && take(2, 900));
        assert_eq!(screen.rejections.len(), CATCHUP_ROUNDS_PER_PEER + 2);
    }

    /// Whoever comes again under other names has room again, at the cost of what was known.
    #[test]
    fn rounds_that_are_closed_are_forgotten() {
        let (mut screen, mut core) = (Screen::default(), core());
        for number in 0..1_000_u16 {
            if core.votes().is_crowded() {
                core.retain_peers(|_| false);
                screen.forget_closed(&core);
            }
            let mut id = [0; 20];
            id[..2].copy_from_slice(&number.to_le_bytes());
            let vote = precommit_in(2 + i32::from(number));
            assert!(take_rejected(
                &mut screen,
                &mut core,
                NodeId::new(id),
                &vote
            ));
            assert!(screen.rejections.len() <= MAX_CATCHUP_ROUNDS);
        }
        let last = precommit_in(1_001);
        assert!(screen.rejections.contains_key(&place(&last)));
    }

    /// A vote comes as a piece of its message, which has up to 1 MiB.
    #[test]
    fn what_is_remembered_of_a_vote_does_not_keep_its_message() {
        let mut screen = Screen::default();
        let message = Bytes::from(vec![7; 1 << 20]);
        let mut vote = vote(SignedMsgType::Precommit, block(1), 0);
        vote.signature = message.slice(..64);
        vote.extension_signature = message.slice(64..128);
        screen.rejected(&vote);
        assert!(screen.rejected.contains(&signatures(&vote)));
        drop(vote);
        assert!(message.is_unique());
    }

    /// What came late of the height below is no reason to forget.
    #[test]
    fn heights_above_alone_make_it_forget() {
        let (mut screen, core, verify) = (Screen::default(), core(), Counted::default());
        let bad = vote(SignedMsgType::Precommit, block(1), 0);
        screen.rejected(&bad);
        let mut below = bad.clone();
        below.height = Height::ZERO;
        screen.caught(&below);
        assert_eq!(judge(&mut screen, &core, &bad, &verify), Worth::Nothing);
        let mut above = bad.clone();
        above.height = Height::new(2);
        screen.caught(&above);
        assert_eq!(judge(&mut screen, &core, &bad, &verify), Worth::Take);
    }
}
