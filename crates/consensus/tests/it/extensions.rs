//! Vote extensions: from the height that the parameters name.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_consensus::{
    Ask, ConsensusConfig, Effect, LastCommit, Message, SignRequest, Step,
    votes::CATCHUP_ROUNDS_PER_PEER,
};
use perihelion_types::{Height, Round, Vote};

use crate::lone::{Lone, PRECOMMIT, PREVOTE, peer};

/// Extensions from height 2; not the proposer of the first heights' round 0.
fn lone(from: i64) -> Lone {
    let mut lone = Lone::with(&[10; 4], from, ConsensusConfig::default(), 3);
    lone.begin();
    lone
}

fn asked(lone: &Lone, wanted: fn(&Ask) -> bool) -> usize {
    let asks = lone.effects.iter().filter_map(|effect| match effect {
        Effect::Ask { ask, .. } => Some(ask),
        _ => None,
    });
    asks.filter(|ask| wanted(ask)).count()
}

fn extended(lone: &Lone) -> usize {
    asked(lone, |ask| matches!(ask, Ask::ExtendVote { .. }))
}

fn verified(lone: &Lone) -> usize {
    asked(lone, |ask| matches!(ask, Ask::VerifyExtension { .. }))
}

fn signs_extension(lone: &Lone) -> Vec<bool> {
    let mut signs = Vec::new();
    for effect in &lone.effects {
        if let Effect::Sign {
            request: SignRequest::Vote { extension, .. },
            ..
        } = effect
        {
            signs.push(*extension);
        }
    }
    signs
}

#[test]
fn extensions_begin_at_their_height() {
    let mut lone = lone(2);
    lone.decide("a");
    assert_eq!((extended(&lone), verified(&lone)), (0, 0));
    assert_eq!(signs_extension(&lone), [false, false]);
    let commit = lone.core.last_commit().unwrap().extended_commit().unwrap();
    assert!(commit.ensure_extensions(false).is_ok());
    lone.decide("b");
    // Two of three others had precommitted before the block was decided.
    assert_eq!((extended(&lone), verified(&lone)), (1, 2));
    assert_eq!(signs_extension(&lone), [false, false, false, true]);
    let commit = lone.core.last_commit().unwrap().extended_commit().unwrap();
    assert!(commit.ensure_extensions(true).is_ok());
    let mine = &commit.extended_signatures[lone.me];
    assert_eq!(mine.extension, Bytes::from_static(b"mine"));
}

#[test]
fn the_decided_block_carries_its_extended_commit() {
    let mut lone = lone(1);
    lone.decide("a");
    let block = lone.effects.iter().find_map(|effect| match effect {
        Effect::Commit(block) => Some(Arc::clone(block)),
        _ => None,
    });
    let block = block.unwrap();
    let commit = block.extended_commit().expect("verified");
    assert_eq!(commit.to_commit(), *block.commit().unwrap());
    assert!(commit.ensure_extensions(true).is_ok());
}

#[test]
fn the_next_proposal_is_made_with_the_extensions() {
    let mut lone = lone(1);
    for _ in 0..4 {
        lone.decide("a");
    }
    let made = lone.effects.iter().find_map(|effect| match effect {
        Effect::Ask {
            ask: Ask::MakeBlock { last_commit, .. },
            ..
        } => Some(last_commit.clone()),
        _ => None,
    });
    let commit = made.expect("it has proposed once");
    assert!(commit.ensure_extensions(true).is_ok());
    let with_extension = commit
        .extended_signatures
        .iter()
        .filter(|place| !place.extension.is_empty());
    assert!(with_extension.count() >= 3);
}

#[test]
fn a_precommit_without_its_extension_does_not_count_and_convicts_nobody() {
    let mut lone = lone(1);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(3, PREVOTE, 0, block.id());
    let other = lone.others()[0];
    let right = lone.vote_of(other, PRECOMMIT, 0, block.id());
    let none = Vote {
        extension: Bytes::new(),
        extension_signature: Bytes::new(),
        ..right.clone()
    };
    let forged = Vote {
        extension: Bytes::from_static(b"other"),
        ..right.clone()
    };
    for vote in [none, forged] {
        lone.send(peer(1), Message::Vote(Arc::new(vote)));
    }
    let power = |lone: &Lone| {
        let votes = lone.core.votes();
        votes.precommits(lone.core.round()).unwrap().power()
    };
    assert_eq!(power(&lone), 10, "its own");
    assert_eq!(lone.punished(), []);
    assert_eq!(verified(&lone), 0);
    lone.send(peer(1), Message::Vote(Arc::new(right)));
    assert_eq!(power(&lone), 20);
}

#[test]
fn an_extension_that_the_application_rejects_does_not_count() {
    let mut lone = lone(1);
    lone.answers.accepts_extensions = false;
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(3, PREVOTE, 0, block.id());
    lone.votes(3, PRECOMMIT, 0, block.id());
    assert_eq!(verified(&lone), 3);
    assert_eq!(lone.core.step(), Step::Precommit);
    assert_eq!(lone.punished(), []);
}

/// One validator has a precommit of every round, and the application is not asked without end.
#[test]
fn rejected_extensions_of_rounds_that_are_not_due_are_bounded_for_each_peer() {
    let mut lone = lone(1);
    let (others, block) = (lone.others(), lone.block(0, "a"));
    lone.answers.accepts_extensions = false;
    for round in 2..1_002 {
        let vote = lone.vote_of(others[0], PRECOMMIT, round, block.id());
        lone.send(peer(1), Message::Vote(Arc::new(vote)));
    }
    assert_eq!(verified(&lone), CATCHUP_ROUNDS_PER_PEER);
    assert_eq!(lone.punished(), []);
    // Another peer has room, and the rounds that are open take what comes late.
    lone.answers.accepts_extensions = true;
    for (from, round) in [(2, 900), (1, 3)] {
        let vote = lone.vote_of(others[1], PRECOMMIT, round, block.id());
        lone.send(peer(from), Message::Vote(Arc::new(vote)));
        let votes = lone.core.votes().precommits(Round::new(round));
        assert_eq!(votes.map(|votes| votes.power()), Some(10), "round {round}");
    }
}

#[test]
fn an_extension_where_there_are_none_does_not_count() {
    let mut lone = lone(0);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    let other = lone.others()[0];
    let vote = lone.vote_of(other, PRECOMMIT, 0, block.id());
    let vote = crate::chain::extended(&lone.keys[other], vote, b"x");
    lone.send(peer(1), Message::Vote(Arc::new(vote)));
    let votes = lone.core.votes().precommits(lone.core.round()).unwrap();
    assert_eq!(votes.power(), 0);
}

#[test]
fn nil_precommits_have_no_extension() {
    let mut lone = lone(1);
    lone.elapse();
    lone.votes(3, PREVOTE, 0, perihelion_types::BlockId::NIL);
    assert_eq!(lone.last_vote().0, PRECOMMIT);
    assert_eq!(extended(&lone), 0);
    assert_eq!(signs_extension(&lone), [false, false]);
}

#[test]
fn a_restart_needs_the_extended_commit() {
    let mut lone = lone(1);
    lone.decide("a");
    let commit = lone.core.last_commit().unwrap().extended_commit().unwrap();
    let restarted = lone.restarted(LastCommit::Extended(commit.clone()));
    assert_eq!(restarted.height(), Height::new(2));
    let again = restarted.last_commit().unwrap().extended_commit();
    assert_eq!(again, Some(commit.clone()));
    let start = crate::lone::start(
        &lone.state,
        None,
        LastCommit::Plain(commit.to_commit()),
        None,
    );
    let refused = perihelion_consensus::Consensus::new(lone.now, ConsensusConfig::default(), start);
    assert!(matches!(
        refused,
        Err(perihelion_consensus::StartError::NoExtendedCommit { .. })
    ));
}
