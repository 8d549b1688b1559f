//! From one height to the next: what ends it, when the next one begins, and what its first round waits
//! for.

use std::time::Duration;

use perihelion_consensus::{ConsensusConfig, Effect, Step};
use perihelion_types::{BlockId, Height, Round};

use crate::{
    chain::{self},
    lone::{Lone, PRECOMMIT, PREVOTE},
};

const NIL: BlockId = BlockId::NIL;

#[test]
fn heights_follow_each_other() {
    let mut lone = Lone::proposing_in(2);
    let ids: Vec<_> = ["a", "b", "", "d", "e"]
        .iter()
        .map(|tx| lone.decide(tx))
        .collect();
    assert_eq!(lone.decided, ids);
    assert_eq!(lone.core.height(), Height::new(6));
    // Each of four has proposed once in heights 1 to 4, this one among them.
    assert_eq!(lone.proposed().len(), 1);
}

#[test]
fn the_end_of_a_height_is_stored_logged_and_executed_in_this_order() {
    let mut lone = Lone::proposing_in(1);
    lone.decide("a");
    let place = |wanted: fn(&Effect) -> bool| lone.effects.iter().position(wanted).unwrap();
    let stored = place(|effect| matches!(effect, Effect::Commit(_)));
    let logged = place(|effect| {
        use perihelion_consensus::WalMessage::EndHeight;
        matches!(effect, Effect::Append { message: EndHeight(height), sync: true } if height.get() == 1)
    });
    let executed = place(|effect| matches!(effect, Effect::Apply { .. }));
    assert_eq!((logged, executed), (stored + 1, stored + 2));
}

#[test]
fn timeout_commit_takes_late_precommits_along() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(3, PREVOTE, 0, block.id());
    let late = lone.others()[2];
    let vote = lone.vote_of(late, PRECOMMIT, 0, block.id());
    let other = lone.vote_of(late, PRECOMMIT, 1, block.id());
    lone.votes(2, PRECOMMIT, 0, block.id());
    assert_eq!(
        (lone.core.height(), lone.core.step()),
        (Height::new(2), Step::NewHeight)
    );
    assert_eq!(lone.until_deadline(), Some(Duration::from_millis(1000)));
    assert!(!lone.core.last_commit().unwrap().has_all());
    let from = crate::lone::peer(1);
    lone.send(from, perihelion_consensus::Message::Vote(other.into()));
    assert!(
        !lone.core.last_commit().unwrap().has_all(),
        "of another round"
    );
    lone.send(
        from,
        perihelion_consensus::Message::Vote(vote.clone().into()),
    );
    assert!(lone.core.last_commit().unwrap().has_all());
    assert_eq!(lone.core.step(), Step::NewHeight);
    assert_eq!(lone.punished(), []);
    // After it, none is taken.
    let mut lone = Lone::proposing_in(1);
    lone.propose(0, &block, -1);
    lone.votes(3, PREVOTE, 0, block.id());
    lone.votes(2, PRECOMMIT, 0, block.id());
    lone.elapse();
    lone.send(from, perihelion_consensus::Message::Vote(vote.into()));
    assert!(!lone.core.last_commit().unwrap().has_all());
}

#[test]
fn skip_timeout_commit_goes_on_when_all_have_precommitted() {
    let config = ConsensusConfig {
        skip_timeout_commit: true,
        ..ConsensusConfig::default()
    };
    let mut lone = Lone::with(&[10; 4], 0, config, 3);
    lone.begin();
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(3, PREVOTE, 0, block.id());
    let late = lone.others()[2];
    let vote = lone.vote_of(late, PRECOMMIT, 0, block.id());
    lone.votes(2, PRECOMMIT, 0, block.id());
    assert_eq!(
        (lone.core.height(), lone.core.step()),
        (Height::new(2), Step::NewHeight)
    );
    lone.send(
        crate::lone::peer(1),
        perihelion_consensus::Message::Vote(vote.into()),
    );
    assert_eq!(
        (lone.core.height(), lone.core.step()),
        (Height::new(2), Step::Propose)
    );
}

#[test]
fn the_proposer_changes_with_the_round() {
    let mut lone = Lone::proposing_in(0);
    let mut proposers = vec![lone.core.proposer().unwrap().address];
    for round in 0..3 {
        lone.votes(3, PREVOTE, round + 1, NIL);
        proposers.push(lone.core.proposer().unwrap().address);
    }
    let expected: Vec<_> = (0..4)
        .map(|round| chain::proposer(&lone.state.validators, round))
        .collect();
    assert_eq!(proposers, expected);
    proposers.sort();
    proposers.dedup();
    assert_eq!(proposers.len(), 4);
}

#[test]
fn without_transactions_round_0_waits() {
    let config = ConsensusConfig {
        create_empty_blocks: false,
        ..ConsensusConfig::default()
    };
    let mut lone = Lone::with(&[10; 4], 0, config, 2);
    lone.begin();
    // The initial height proves the application's hash, and so does the one after a change.
    assert_eq!(lone.core.step(), Step::Propose);
    lone.decide("a");
    lone.elapse();
    assert_eq!(
        (lone.core.height(), lone.core.step()),
        (Height::new(2), Step::Propose)
    );
    lone.decide("");
    lone.elapse();
    assert_eq!(
        (lone.core.height(), lone.core.step()),
        (Height::new(3), Step::NewRound)
    );
    assert_eq!(lone.until_deadline(), None, "for ever");
    lone.core.handle_txs_available(lone.now);
    lone.drain();
    assert_eq!(lone.proposed().len(), 1, "its turn");
    assert_eq!(lone.core.step(), Step::Prevote);
}

/// One of four that is to propose the third block, behind two empty ones.
fn behind_empty_blocks(config: ConsensusConfig) -> Lone {
    let mut lone = Lone::with(&[10; 4], 0, config, 3);
    lone.begin();
    lone.decide("");
    lone.decide("");
    lone
}

#[test]
fn transactions_that_are_there_before_the_round_end_its_wait_at_once() {
    let config = ConsensusConfig {
        create_empty_blocks: false,
        ..ConsensusConfig::default()
    };
    let mut lone = behind_empty_blocks(config);
    lone.core.handle_txs_available(lone.now);
    lone.drain();
    assert_eq!(lone.core.step(), Step::NewHeight);
    lone.elapse();
    assert_eq!(
        (lone.core.height(), lone.core.step()),
        (Height::new(3), Step::Propose)
    );
}

#[test]
fn an_interval_bounds_the_wait_for_transactions() {
    let config = ConsensusConfig {
        create_empty_blocks_interval: Duration::from_secs(7),
        ..ConsensusConfig::default()
    };
    let mut lone = behind_empty_blocks(config);
    lone.elapse();
    assert_eq!(
        (lone.core.height(), lone.core.step()),
        (Height::new(3), Step::NewRound)
    );
    assert_eq!(lone.until_deadline(), Some(Duration::from_secs(7)));
    lone.elapse();
    assert_eq!(lone.core.step(), Step::Propose);
}

#[test]
fn a_proposal_ends_the_wait_for_transactions() {
    let config = ConsensusConfig {
        create_empty_blocks: false,
        ..ConsensusConfig::default()
    };
    let mut lone = behind_empty_blocks(config);
    lone.elapse();
    assert_eq!(lone.core.step(), Step::NewRound);
    let block = lone.block(0, "c");
    lone.propose(0, &block, -1);
    assert_eq!(lone.last_vote(), (PREVOTE, 0, block.id()));
}

#[test]
fn a_vote_is_later_than_the_block_that_it_is_about() {
    let mut lone = Lone::proposing_in(1);
    // A clock that is behind.
    lone.now.time = lone
        .state
        .last_block_time
        .checked_add_nanos(-5_000_000_000)
        .unwrap();
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    let time = block.fetched.block().header.time;
    let votes = lone.core.votes().prevotes(Round::ZERO).unwrap();
    let mine = votes.votes().next().unwrap();
    assert_eq!(mine.timestamp, time.checked_add_nanos(1_000_000).unwrap());
    // A nil vote without any block has the clock's time.
    let mut lone = Lone::proposing_in(1);
    lone.elapse();
    let votes = lone.core.votes().prevotes(Round::ZERO).unwrap();
    assert_eq!(votes.votes().next().unwrap().timestamp, lone.now.time);
}
