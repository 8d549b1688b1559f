//! The byzantine validators: one mind with all their keys. It sees everything, and signs whatever
//! it likes: two votes in one place, votes without regard to its own locks, late ones, proposals of
//! two blocks, of invalid ones, without their parts; it claims majorities that are none.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_consensus::{Consensus, Maj23, Message};
use perihelion_crypto::PrivateKey;
use perihelion_types::{
    Block, BlockId, Hash, Height, Round, SignedMsgType, State, Time, ValidatorSet, Vote,
};

use super::{gossip::Payload, rng::Rng};
use crate::chain::{self, Built, REJECTED_TX};

/// A signature by nobody.
const FORGED: Bytes = Bytes::from_static(&[3; 64]);

pub(crate) struct Adversary {
    /// Numbers of its nodes and their keys.
    pub(crate) nodes: Vec<(usize, PrivateKey)>,
    /// Counts its transactions.
    made: u64,
}

/// One message, who of the byzantine sends it, after how many ms, and to a chosen half.
pub(crate) struct Sent {
    pub(crate) from: usize,
    pub(crate) payload: Payload,
    pub(crate) delay_ms: u64,
    pub(crate) half: u64,
    /// Not forged.
    pub(crate) is_signed: bool,
}

/// What it does in one turn.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) sent: Vec<Sent>,
    pub(crate) blocks: Vec<Built>,
}

impl Adversary {
    pub(crate) fn new(nodes: Vec<(usize, PrivateKey)>) -> Self {
        Self { nodes, made: 0 }
    }

    /// `known`: blocks of the victim's height.
    pub(crate) fn act(
        &mut self,
        rng: &mut Rng,
        victim: &Consensus,
        known: &[Built],
        time: Time,
    ) -> Turn {
        let mut turn = Turn::default();
        if self.nodes.is_empty() {
            return turn;
        }
        let (number, key) = self.nodes[rng.index(self.nodes.len())].clone();
        let state = Arc::clone(victim.state());
        let set = &state.validators;
        if set.by_address(&key.public_key().address()).is_none() {
            return turn;
        }
        let place = (victim.height(), near(rng, victim.round()));
        if chain::proposer(set, place.1.min(50)) == key.public_key().address() && rng.chance(2, 3) {
            self.propose(rng, victim, known, (number, &key, place, time), &mut turn);
        }
        if let Some(polka) = victim.votes().polka(victim.round())
            && !polka.is_nil()
            && rng.chance(1, 2)
        {
            let here = (victim.height(), victim.round().get());
            self.split(rng, here, polka, (time, &state), &mut turn);
        }
        for _ in 0..rng.within(1..4) {
            let vote = some_vote(rng, &key, set, place, known, time, &state);
            turn.say(rng, number, Message::Vote(Arc::new(vote)));
        }
        if rng.chance(1, 6) {
            let claim = Maj23 {
                height: place.0,
                round: Round::new(place.1),
                vote_type: some_type(rng),
                block_id: some_block(rng, known),
            };
            turn.send(rng, number, Payload::Claim(claim));
        }
        turn
    }

    /// Lets one node see the block decided, and the others go on to the next round.
    fn split(
        &self,
        rng: &mut Rng,
        place: (Height, i32),
        block_id: BlockId,
        (time, state): (Time, &State),
        turn: &mut Turn,
    ) {
        let one = 1_u64 << rng.within(0..8);
        for (number, key) in &self.nodes {
            for (block_id, half) in [(block_id, one), (BlockId::NIL, !one)] {
                let vote_type = SignedMsgType::Precommit;
                if let Some(vote) = signed(key, vote_type, place, block_id, (time, state)) {
                    turn.send_to(half, *number, Message::Vote(Arc::new(vote)));
                }
            }
        }
    }

    /// All its validators vote for a block in both ways, to those who get it.
    fn support(
        &self,
        place: (Height, i32),
        block_id: BlockId,
        half: u64,
        (time, state): (Time, &State),
        turn: &mut Turn,
    ) {
        for (number, key) in &self.nodes {
            for vote_type in [SignedMsgType::Prevote, SignedMsgType::Precommit] {
                if let Some(vote) = signed(key, vote_type, place, block_id, (time, state)) {
                    turn.send_to(half, *number, Message::Vote(Arc::new(vote)));
                }
            }
        }
    }

    fn propose(
        &mut self,
        rng: &mut Rng,
        victim: &Consensus,
        known: &[Built],
        (number, key, place, time): (usize, &PrivateKey, (Height, i32), Time),
        turn: &mut Turn,
    ) {
        for _ in 0..rng.within(1..3) {
            let again = !known.is_empty() && rng.chance(1, 3);
            let block = if again {
                rng.pick(known).clone()
            } else {
                let Some(block) = self.make(rng, victim, key) else {
                    return;
                };
                turn.blocks.push(block.clone());
                block
            };
            let pol = i32::try_from(rng.within(0..3)).unwrap() - 1;
            let proposal = chain::proposal(key, place, pol.min(place.1 - 1), block.id(), time);
            let half = if rng.chance(1, 3) {
                u64::MAX
            } else {
                rng.next()
            };
            turn.send_to(half, number, Message::Proposal(Arc::new(proposal)));
            if rng.chance(1, 2) {
                self.support(place, block.id(), half, (time, victim.state()), turn);
            }
            if rng.chance(3, 4) {
                for index in 0..block.parts.header().total {
                    let part = block.parts.part(index).unwrap().clone();
                    let message = Message::Part {
                        height: place.0,
                        round: Round::new(place.1),
                        part: Arc::new(part),
                    };
                    if rng.chance(9, 10) {
                        turn.send_to(half, number, message);
                    }
                }
            }
        }
    }

    /// A block that follows, one that does not, or one that the application rejects.
    fn make(&mut self, rng: &mut Rng, victim: &Consensus, key: &PrivateKey) -> Option<Built> {
        let state = victim.state();
        let commit = match victim.last_commit() {
            None => chain::no_commit(),
            Some(votes) => votes.commit()?,
        };
        self.made += 1;
        let tx = format!("evil {}", self.made);
        let txs: &[&[u8]] = if rng.chance(1, 5) {
            &[REJECTED_TX]
        } else {
            &[tx.as_bytes()]
        };
        let address = key.public_key().address();
        let mut block = chain::raw_block(state, commit, txs, address);
        if rng.chance(1, 3) {
            spoil(rng, &mut block);
        }
        Some(Built::of(&block))
    }
}

impl Turn {
    fn say(&mut self, rng: &mut Rng, from: usize, message: Message) {
        self.send(rng, from, Payload::Message(message));
    }

    fn send(&mut self, rng: &mut Rng, from: usize, payload: Payload) {
        let delay_ms = if rng.chance(1, 4) {
            rng.within(0..2000)
        } else {
            rng.within(0..20)
        };
        let is_forged = |vote: &Vote| vote.signature == FORGED;
        let is_signed = match &payload {
            Payload::Message(Message::Vote(vote)) => !is_forged(vote),
            _ => true,
        };
        self.sent.push(Sent {
            from,
            payload,
            delay_ms,
            half: rng.next(),
            is_signed,
        });
    }

    fn send_to(&mut self, half: u64, from: usize, message: Message) {
        self.sent.push(Sent {
            from,
            payload: Payload::Message(message),
            delay_ms: 1,
            half,
            is_signed: true,
        });
    }
}

fn near(rng: &mut Rng, round: Round) -> i32 {
    let off = *rng.pick(&[0, 0, 0, 0, 1, 1, -1, 3]);
    if rng.chance(1, 200) {
        return i32::MAX - 1;
    }
    (round.get() + off).max(0)
}

fn some_type(rng: &mut Rng) -> SignedMsgType {
    *rng.pick(&[SignedMsgType::Prevote, SignedMsgType::Precommit])
}

fn some_block(rng: &mut Rng, known: &[Built]) -> BlockId {
    if known.is_empty() || rng.chance(1, 4) {
        BlockId::NIL
    } else {
        rng.pick(known).id()
    }
}

/// A vote with its extension where there is one; `None` when the key is no validator's.
fn signed(
    key: &PrivateKey,
    vote_type: SignedMsgType,
    place: (Height, i32),
    block_id: BlockId,
    (time, state): (Time, &State),
) -> Option<Vote> {
    let set = &state.validators;
    set.by_address(&key.public_key().address())?;
    let vote = chain::vote(key, set, vote_type, place, block_id, time);
    let extends = vote_type == SignedMsgType::Precommit && !block_id.is_nil();
    if extends && state.consensus_params.vote_extensions_enabled(place.0) {
        return Some(chain::extended(key, vote, b"evil"));
    }
    Some(vote)
}

fn some_vote(
    rng: &mut Rng,
    key: &PrivateKey,
    set: &ValidatorSet,
    place: (Height, i32),
    known: &[Built],
    time: Time,
    state: &State,
) -> Vote {
    let (vote_type, block_id) = (some_type(rng), some_block(rng, known));
    let mut vote = chain::vote(key, set, vote_type, place, block_id, time);
    let extends = vote_type == SignedMsgType::Precommit && !block_id.is_nil();
    if extends && state.consensus_params.vote_extensions_enabled(place.0) {
        vote = chain::extended(key, vote, b"evil");
    }
    if rng.chance(1, 40) {
        vote.signature = FORGED;
    }
    vote
}

fn spoil(rng: &mut Rng, block: &mut Block) {
    let header = &mut block.header;
    match rng.within(0..4) {
        0 => header.app_hash = Bytes::from_static(b"wrong"),
        1 => header.time = header.time.checked_add_nanos(1_000).unwrap(),
        2 => header.next_validators_hash = Hash::of(b"others"),
        _ => {
            // The header says of the last commit what it says itself, and it is forged.
            if let Some(commit) = &mut block.last_commit
                && let Some(place) = commit.signatures.first_mut()
                && !place.signature.is_empty()
            {
                place.signature = Bytes::from_static(&[7; 64]);
                header.last_commit_hash = commit.hash();
            } else {
                header.consensus_hash = Hash::of(b"others");
            }
        }
    }
}
