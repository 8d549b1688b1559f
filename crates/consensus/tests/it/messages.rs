//! What peers may send, right and wrong: who is punished, who is reported, and what is kept.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_consensus::{
    Announce, Effect, Fault, Message, Notice, Step, WalMessage,
    votes::{CATCHUP_ROUNDS_PER_PEER, MAX_CATCHUP_ROUNDS, MAX_MAJ23_CLAIMS},
};
use perihelion_types::{BlockId, Hash, Height, NodeId, PartSetHeader, Proposal, Round, Vote};

use crate::lone::{Lone, PRECOMMIT, PREVOTE, claim, peer};

const NIL: BlockId = BlockId::NIL;

fn send_vote(lone: &mut Lone, vote: Vote) {
    lone.send(peer(1), Message::Vote(Arc::new(vote)));
}

fn prevotes(lone: &Lone, round: i32) -> usize {
    let votes = lone.core.votes().prevotes(Round::new(round));
    votes.map_or(0, |votes| votes.votes().count())
}

#[test]
fn a_vote_with_a_wrong_signature_is_punished() {
    let mut lone = Lone::proposing_in(1);
    let other = lone.others()[0];
    let mut vote = lone.vote_of(other, PREVOTE, 0, NIL);
    vote.timestamp = vote.timestamp.checked_add_nanos(1).unwrap();
    send_vote(&mut lone, vote);
    let index = i32::try_from(other).unwrap();
    assert_eq!(lone.punished(), [Fault::VoteSignature { index }]);
    assert_eq!(prevotes(&lone, 0), 0);
}

#[test]
fn a_wrong_signature_under_a_known_vote_is_punished() {
    let mut lone = Lone::proposing_in(1);
    let other = lone.others()[0];
    let vote = lone.vote_of(other, PREVOTE, 0, NIL);
    send_vote(&mut lone, vote.clone());
    let forged = Vote {
        signature: Bytes::from(vec![1; 64]),
        ..vote
    };
    send_vote(&mut lone, forged);
    let index = i32::try_from(other).unwrap();
    assert_eq!(lone.punished(), [Fault::VoteSignature { index }]);
}

#[test]
fn a_vote_of_no_validator_is_punished() {
    let mut lone = Lone::proposing_in(1);
    let other = lone.others()[0];
    let mut vote = lone.vote_of(other, PREVOTE, 0, NIL);
    vote.validator_index = 4;
    send_vote(&mut lone, vote.clone());
    vote.validator_index = -1;
    send_vote(&mut lone, vote.clone());
    vote.validator_index = i32::try_from(lone.others()[1]).unwrap();
    send_vote(&mut lone, vote.clone());
    assert_eq!(
        lone.punished(),
        [
            Fault::VoteIndex {
                index: 4,
                validators: 4
            },
            Fault::VoteIndex {
                index: -1,
                validators: 4
            },
            Fault::VoteAddress {
                index: vote.validator_index
            },
        ]
    );
    assert_eq!(prevotes(&lone, 0), 0);
}

#[test]
fn votes_of_other_heights_are_ignored_and_nobody_is_blamed() {
    let mut lone = Lone::proposing_in(1);
    let other = lone.others()[0];
    for height in [0, 2, 9, i64::MAX] {
        let mut vote = lone.vote_of(other, PREVOTE, 0, NIL);
        vote.height = Height::new(height);
        send_vote(&mut lone, vote);
    }
    assert_eq!(lone.punished(), []);
    assert_eq!(prevotes(&lone, 0), 0);
}

#[test]
fn a_vote_that_is_known_is_announced_once() {
    let mut lone = Lone::proposing_in(1);
    let vote = lone.vote_of(lone.others()[0], PREVOTE, 0, NIL);
    for _ in 0..3 {
        send_vote(&mut lone, vote.clone());
    }
    let told = lone.announced();
    let told = told.iter().filter(|news| matches!(news, Announce::Vote(_)));
    assert_eq!(told.count(), 1);
}

#[test]
fn the_same_vote_with_another_time_counts_once_and_convicts_nobody() {
    let mut lone = Lone::proposing_in(1);
    let other = lone.others()[0];
    for _ in 0..2 {
        let vote = lone.vote_of(other, PREVOTE, 0, NIL);
        send_vote(&mut lone, vote);
        lone.now.time = lone.now.time.checked_add_nanos(5).unwrap();
    }
    assert_eq!(prevotes(&lone, 0), 1);
    assert_eq!((lone.punished().len(), lone.reported().len()), (0, 0));
}

#[test]
fn conflicting_votes_are_reported_once_with_both_votes() {
    let mut lone = Lone::proposing_in(1);
    let other = lone.others()[0];
    let first = lone.vote_of(other, PREVOTE, 0, NIL);
    let second = lone.vote_of(other, PREVOTE, 0, lone.block(0, "a").id());
    let third = lone.vote_of(other, PREVOTE, 0, lone.block(0, "b").id());
    for vote in [&first, &second, &third, &second] {
        send_vote(&mut lone, vote.clone());
    }
    assert_eq!(lone.reported(), [(first, second)]);
    assert_eq!(lone.punished(), []);
    assert_eq!(prevotes(&lone, 0), 1);
}

#[test]
fn a_conflicting_vote_for_the_last_block_is_reported_too() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(3, PREVOTE, 0, block.id());
    let other = lone.others()[0];
    let second = lone.vote_of(other, PRECOMMIT, 0, NIL);
    lone.votes(2, PRECOMMIT, 0, block.id());
    assert_eq!(lone.core.step(), Step::NewHeight);
    send_vote(&mut lone, second.clone());
    assert_eq!(lone.reported().len(), 1);
    assert_eq!(lone.reported()[0].1, second);
}

#[test]
fn an_own_vote_from_elsewhere_is_told_and_not_reported() {
    let mut lone = Lone::proposing_in(1);
    lone.elapse();
    let me = lone.me;
    let vote = lone.vote_of(me, PREVOTE, 0, lone.block(0, "a").id());
    send_vote(&mut lone, vote);
    assert_eq!(lone.reported(), []);
    assert!(matches!(
        lone.noticed()[..],
        [Notice::OwnVoteConflict { .. }]
    ));
}

#[test]
fn votes_of_rounds_that_are_not_due_are_bounded_for_each_peer() {
    let mut lone = Lone::proposing_in(1);
    let other = lone.others()[0];
    // The round after this one is always due.
    let rounds = [1, 7, 100, i32::MAX, 50];
    for round in rounds {
        let vote = lone.vote_of(other, PREVOTE, round, NIL);
        send_vote(&mut lone, vote);
    }
    let open: Vec<i32> = lone.core.votes().rounds().map(Round::get).collect();
    assert_eq!(open, [0, 1, 7, 100]);
    assert_eq!(CATCHUP_ROUNDS_PER_PEER, 2);
    assert_eq!(lone.punished(), []);
    // Another peer may open others; nobody can without a valid vote.
    let mut forged = lone.vote_of(other, PREVOTE, 60, NIL);
    forged.signature = Bytes::from_static(&[9; 64]);
    lone.send(peer(2), Message::Vote(Arc::new(forged)));
    let vote = lone.vote_of(other, PREVOTE, 50, NIL);
    lone.send(peer(2), Message::Vote(Arc::new(vote)));
    assert_eq!(lone.core.votes().rounds().count(), 5);
}

fn stranger(number: usize) -> NodeId {
    let mut id = [7; 20];
    id[..8].copy_from_slice(&number.to_le_bytes());
    NodeId::new(id)
}

#[test]
fn rounds_that_gone_peers_opened_make_room() {
    let mut lone = Lone::proposing_in(1);
    let (others, honest) = (lone.others(), MAX_CATCHUP_ROUNDS / 2);
    // More than a third is in round 9, and a liar's votes open every other round that there may be.
    for other in &others[..2] {
        let vote = lone.vote_of(*other, PREVOTE, 9, NIL);
        lone.send(stranger(0), Message::Vote(Arc::new(vote)));
    }
    for number in 1..MAX_CATCHUP_ROUNDS {
        assert!(!lone.core.votes().is_crowded());
        let round = i32::try_from(1_000 + number).unwrap();
        let vote = lone.vote_of(others[0], PREVOTE, round, NIL);
        lone.send(stranger(number), Message::Vote(Arc::new(vote)));
    }
    assert!(lone.core.votes().is_crowded());
    lone.core.retain_peers(|peer| *peer == stranger(honest));
    assert!(!lone.core.votes().is_crowded());
    let open: Vec<i32> = lone.core.votes().rounds().map(Round::get).collect();
    assert_eq!(open, [0, 1, 9, i32::try_from(1_000 + honest).unwrap()]);
    // The commit that was shut out comes through now.
    let block = lone.block(7, "a");
    for other in others {
        let vote = lone.vote_of(other, PRECOMMIT, 7, block.id());
        lone.send(stranger(9_999), Message::Vote(Arc::new(vote)));
    }
    assert_eq!(lone.core.commit_round(), Some(Round::new(7)));
}

#[test]
fn claims_of_gone_peers_make_room() {
    let mut lone = Lone::proposing_in(1);
    let (other, block) = (lone.others()[0], lone.block(0, "a"));
    for number in 0..MAX_MAJ23_CLAIMS {
        assert!(!lone.core.votes().is_crowded());
        let mut junk = block.id();
        junk.part_set_header.total = u32::try_from(number + 2).unwrap();
        lone.core.handle_maj23(stranger(number), &claim(0, junk));
    }
    assert!(lone.core.votes().is_crowded());
    let equivocation = lone.vote_of(other, PREVOTE, 0, NIL);
    send_vote(&mut lone, equivocation);
    lone.core.retain_peers(|_| false);
    lone.core.handle_maj23(stranger(0), &claim(0, block.id()));
    let real = lone.vote_of(other, PREVOTE, 0, block.id());
    send_vote(&mut lone, real.clone());
    let counted = lone.core.votes().prevotes(Round::ZERO).unwrap();
    assert_eq!(counted.bits_for(&block.id()).unwrap().count(), 1);
    // Nothing that only a gone peer's claim let count stays.
    lone.core.retain_peers(|_| false);
    let counted = lone.core.votes().prevotes(Round::ZERO).unwrap();
    assert_eq!(counted.bits_for(&block.id()), None);
    assert_eq!(counted.bits_for(&NIL).unwrap().count(), 1);
}

#[test]
fn the_votes_of_a_commit_are_taken_whatever_its_round() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(7, "a");
    // A peer that is ahead gives the commit out.
    lone.votes(3, PRECOMMIT, 7, block.id());
    assert_eq!(lone.core.commit_round(), Some(Round::new(7)));
    lone.send_parts(7, &block);
    assert_eq!(lone.decided, [block.id()]);
}

fn resigned(lone: &Lone, change: impl FnOnce(&mut Proposal)) -> Message {
    let block = lone.block(0, "a");
    let Message::Proposal(proposal) = lone.proposal(0, block.id(), -1) else {
        panic!("no proposal");
    };
    let mut proposal = Proposal::clone(&proposal);
    change(&mut proposal);
    let address = crate::chain::proposer(&lone.state.validators, 0);
    let mut keys = lone.keys.iter();
    let key = keys
        .find(|key| key.public_key().address() == address)
        .unwrap();
    proposal.signature = key.sign(&proposal.sign_bytes(crate::chain::CHAIN_ID));
    Message::Proposal(Arc::new(proposal))
}

#[test]
fn a_proposal_that_its_proposer_did_not_sign_is_ignored() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    let Message::Proposal(proposal) = lone.proposal(0, block.id(), -1) else {
        panic!("no proposal");
    };
    let mut forged = Proposal::clone(&proposal);
    forged.block_id = lone.block(0, "b").id();
    lone.send(peer(1), Message::Proposal(Arc::new(forged)));
    assert_eq!(lone.punished(), []);
    assert!(lone.core.proposal().is_none());
    // The right one still counts.
    lone.send(peer(2), Message::Proposal(proposal));
    assert!(lone.core.proposal().is_some());
}

#[test]
fn a_proof_of_lock_that_is_not_of_an_earlier_round_is_punished() {
    for pol_round in [-2, 0, 1] {
        let mut lone = Lone::proposing_in(1);
        let message = resigned(&lone, |proposal| proposal.pol_round = Round::new(pol_round));
        lone.send(peer(1), message);
        let expected = Fault::PolRound {
            pol_round: Round::new(pol_round),
            round: Round::ZERO,
        };
        assert_eq!(lone.punished(), [expected]);
        assert!(lone.core.proposal().is_none());
    }
}

#[test]
fn a_proposal_of_too_many_parts_is_ignored() {
    // 22020096 bytes are 336 parts.
    for (total, taken) in [(336, true), (337, false), (u32::MAX, false)] {
        let mut lone = Lone::proposing_in(1);
        let message = resigned(&lone, |proposal| {
            proposal.block_id.part_set_header.total = total;
        });
        lone.send(peer(1), message);
        assert_eq!(lone.core.proposal().is_some(), taken, "{total}");
        assert_eq!(lone.core.parts().is_some(), taken, "{total}");
        assert_eq!(lone.punished(), []);
    }
}

#[test]
fn proposals_of_other_places_and_second_ones_are_ignored() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    let later = lone.proposal(1, block.id(), -1);
    lone.send(peer(1), later);
    assert!(lone.core.proposal().is_none());
    lone.propose_without_parts(0, &block, -1);
    let second = lone.proposal(0, lone.block(0, "b").id(), -1);
    lone.send(peer(1), second);
    assert_eq!(lone.core.proposal().unwrap().block_id, block.id());
    assert_eq!(lone.punished(), []);
}

#[test]
fn a_proposal_that_names_another_hash_than_its_block_has_is_not_prevoted() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    let message = resigned(&lone, |proposal| {
        proposal.block_id.hash = Hash::of(b"another");
    });
    lone.send(peer(1), message);
    lone.send_parts(0, &block);
    assert_eq!(lone.core.step(), Step::Propose);
    lone.elapse();
    assert_eq!(lone.voted(), [(PREVOTE, 0, NIL)]);
}

#[test]
fn a_block_of_another_height_is_not_taken() {
    let mut lone = Lone::proposing_in(3);
    let old = lone.block(0, "a");
    lone.decide("b");
    lone.elapse();
    lone.propose(0, &old, -1);
    assert!(lone.core.block().is_none());
    assert!(lone.core.parts().unwrap().is_complete());
}

#[test]
fn a_part_that_its_own_proof_is_not_for_is_punished() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    lone.propose_without_parts(0, &block, -1);
    let mut part = block.parts.part(0).unwrap().clone();
    part.bytes = Bytes::from_static(b"forged");
    let message = Message::Part {
        height: Height::new(1),
        round: Round::ZERO,
        part: Arc::new(part),
    };
    lone.send(peer(1), message);
    assert_eq!(lone.punished(), [Fault::Part { index: 0 }]);
    assert_eq!(lone.core.parts().unwrap().count(), 0);
}

#[test]
fn parts_of_other_blocks_are_ignored_and_convict_nobody() {
    let mut lone = Lone::proposing_in(1);
    let (block, other) = (lone.block(0, "a"), lone.block(0, "b"));
    lone.send_parts(0, &other);
    assert!(lone.core.parts().is_none(), "none is waited for");
    lone.propose_without_parts(0, &block, -1);
    lone.send_parts(0, &other);
    let mut beyond = other.parts.part(0).unwrap().clone();
    beyond.index = 7;
    for height in [1, 2] {
        let message = Message::Part {
            height: Height::new(height),
            round: Round::ZERO,
            part: Arc::new(beyond.clone()),
        };
        lone.send(peer(1), message);
    }
    assert_eq!(lone.core.parts().unwrap().count(), 0);
    assert_eq!(lone.punished(), []);
    lone.send_parts(0, &block);
    assert_eq!(lone.last_vote(), (PREVOTE, 0, block.id()));
}

#[test]
fn a_claim_lets_conflicting_votes_count() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    // Two equivocators show this node the wrong vote first.
    lone.votes(2, PREVOTE, 0, NIL);
    lone.votes(3, PREVOTE, 0, block.id());
    assert_eq!(lone.core.votes().polka(Round::ZERO), None);
    lone.core.handle_maj23(peer(3), &claim(0, block.id()));
    lone.votes(3, PREVOTE, 0, block.id());
    assert_eq!(lone.core.votes().polka(Round::ZERO), Some(block.id()));
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, block.id()));
}

#[test]
fn two_claims_of_one_peer_are_punished() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    lone.core.handle_maj23(peer(3), &claim(0, block.id()));
    lone.core.handle_maj23(peer(3), &claim(0, block.id()));
    lone.drain();
    assert_eq!(lone.punished(), []);
    lone.core.handle_maj23(peer(3), &claim(0, NIL));
    lone.drain();
    assert_eq!(lone.punished(), [Fault::Maj23 { round: Round::ZERO }]);
    // Other heights and rounds that are not open leave nothing behind.
    let mut other = claim(0, NIL);
    other.height = Height::new(2);
    lone.core.handle_maj23(peer(3), &other);
    other = claim(0, NIL);
    other.round = Round::new(99);
    lone.core.handle_maj23(peer(3), &other);
    lone.drain();
    assert_eq!(lone.punished().len(), 1);
    assert!(lone.core.votes().prevotes(Round::new(99)).is_none());
}

#[test]
fn a_polka_for_an_absurd_number_of_parts_reserves_nothing() {
    let mut lone = Lone::proposing_in(1);
    lone.elapse();
    let absurd = BlockId {
        hash: Hash::of(b"absurd"),
        part_set_header: PartSetHeader {
            total: u32::MAX,
            hash: Hash::of(b"parts"),
        },
    };
    lone.votes(3, PREVOTE, 0, absurd);
    assert!(lone.core.parts().is_none());
    lone.elapse();
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, NIL));
    lone.votes(3, PRECOMMIT, 0, absurd);
    assert!(lone.core.halted().is_some());
}

#[test]
fn every_input_is_logged_before_anything_follows_from_it() {
    let mut lone = Lone::proposing_in(0);
    let id = lone.proposed()[0].2;
    lone.votes(3, PREVOTE, 0, id);
    lone.votes(3, PRECOMMIT, 0, id);
    // Own messages: synced before they are announced; the log synced before each signature.
    let mut logged = Vec::new();
    let mut synced = true;
    for effect in &lone.effects {
        match effect {
            Effect::Append { message, sync } => {
                let WalMessage::Message { peer, message } = message else {
                    synced = *sync;
                    continue;
                };
                let is_own_last = matches!(message, Message::Vote(_) | Message::Part { .. });
                assert_eq!(*sync, peer.is_none() && is_own_last, "{message:?}");
                logged.push(message.clone());
                synced = *sync;
            }
            Effect::SyncWal => synced = true,
            Effect::Sign { .. } => assert!(synced, "signed before the log was synced"),
            Effect::Announce(Announce::Vote(vote)) => {
                assert!(logged.contains(&Message::Vote(Arc::clone(vote))));
            }
            Effect::Announce(Announce::Proposal(proposal)) => {
                assert!(logged.contains(&Message::Proposal(Arc::clone(proposal))));
            }
            _ => {}
        }
    }
    assert!(logged.len() >= 9);
}
