//! The rules of the paper by their lines, and CometBFT's beside them.

use std::time::Duration;

use perihelion_consensus::{Announce, BlockVerdict, ConsensusConfig, Notice, Step};
use perihelion_types::{BlockId, Height, Round};

use crate::{
    chain::REJECTED_TX,
    lone::{Lone, PRECOMMIT, PREVOTE, claim, peer},
};

const NIL: BlockId = BlockId::NIL;

#[test]
fn line_14_proposes_when_it_is_its_turn() {
    let lone = Lone::proposing_in(0);
    let proposed = lone.proposed();
    assert_eq!(proposed.len(), 1);
    assert_eq!((proposed[0].0, proposed[0].1), (0, -1));
    // Its own proposal is complete at once.
    assert_eq!(lone.voted(), [(PREVOTE, 0, proposed[0].2)]);
}

#[test]
fn line_22_prevotes_a_valid_proposal() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    lone.propose_without_parts(0, &block, -1);
    assert!(lone.voted().is_empty(), "the block is not here yet");
    lone.send_parts(0, &block);
    assert_eq!(lone.voted(), [(PREVOTE, 0, block.id())]);
    assert_eq!(lone.core.step(), Step::Prevote);
}

#[test]
fn line_26_prevotes_nil_for_what_does_not_follow_from_the_state() {
    let mut lone = Lone::proposing_in(1);
    lone.answers.verdict = BlockVerdict::Invalid("because".into());
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    assert_eq!(lone.voted(), [(PREVOTE, 0, NIL)]);
    assert!(
        matches!(&lone.noticed()[0], Notice::InvalidProposal { reason, .. } if reason == "because")
    );
}

#[test]
fn a_block_ahead_of_the_own_clock_is_still_followed() {
    let mut lone = Lone::proposing_in(1);
    lone.answers.verdict = BlockVerdict::Early("its time".into());
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    assert_eq!(lone.voted(), [(PREVOTE, 0, NIL)]);
    assert!(
        matches!(&lone.noticed()[0], Notice::InvalidProposal { reason, .. } if reason == "its time")
    );
    // Others found it fit, so it is asked for again, without the clock.
    lone.answers.verdict = BlockVerdict::Accepted;
    lone.votes(3, PREVOTE, 0, block.id());
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, block.id()));
    lone.votes(3, PRECOMMIT, 0, block.id());
    assert_eq!(lone.core.halted(), None);
    assert_eq!(lone.decided.len(), 1);
}

#[test]
fn line_26_prevotes_nil_for_what_the_application_rejects() {
    let mut lone = Lone::proposing_in(1);
    lone.answers.verdict = BlockVerdict::Rejected;
    let block = lone.block(0, std::str::from_utf8(REJECTED_TX).unwrap());
    lone.propose(0, &block, -1);
    assert_eq!(lone.voted(), [(PREVOTE, 0, NIL)]);
}

#[test]
fn a_block_that_only_the_own_application_rejects_is_still_followed() {
    let mut lone = Lone::proposing_in(1);
    lone.answers.verdict = BlockVerdict::Rejected;
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(3, PREVOTE, 0, block.id());
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, block.id()));
}

#[test]
fn line_57_prevotes_nil_without_a_proposal() {
    let mut lone = Lone::proposing_in(1);
    assert_eq!(lone.until_deadline(), Some(Duration::from_millis(3000)));
    lone.elapse();
    assert_eq!(lone.voted(), [(PREVOTE, 0, NIL)]);
}

#[test]
fn a_late_proposal_does_not_change_the_prevote_and_can_still_be_decided() {
    let mut lone = Lone::proposing_in(1);
    lone.elapse();
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    assert_eq!(lone.voted(), [(PREVOTE, 0, NIL)]);
    lone.votes(3, PREVOTE, 0, block.id());
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, block.id()));
    lone.votes(3, PRECOMMIT, 0, block.id());
    assert_eq!(lone.decided, [block.id()]);
}

#[test]
fn a_proposal_that_comes_while_the_height_below_ends_is_prevoted() {
    let mut lone = Lone::with(&[10; 4], 0, ConsensusConfig::default(), 1);
    lone.core.start(lone.now);
    lone.drain();
    assert_eq!(lone.core.step(), Step::NewHeight);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    assert_eq!(lone.voted(), [(PREVOTE, 0, block.id())]);
}

#[test]
fn line_34_waits_once_for_more_prevotes() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(1, PREVOTE, 0, block.id());
    assert_eq!(lone.core.step(), Step::Prevote);
    let other = lone.others()[1];
    let vote = lone.vote_of(other, PREVOTE, 0, NIL);
    lone.send(peer(1), perihelion_consensus::Message::Vote(vote.into()));
    assert_eq!(lone.core.step(), Step::PrevoteWait);
    // The wait for the proposal still runs, and means nothing any more.
    lone.elapse();
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, NIL), "line 61");
}

#[test]
fn line_36_locks_and_precommits() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(2, PREVOTE, 0, block.id());
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, block.id()));
    let locked = lone.core.locked().unwrap();
    assert_eq!(
        (locked.round.get(), locked.block.block_id()),
        (0, block.id())
    );
    let valid = lone.core.valid().unwrap();
    assert_eq!((valid.round.get(), valid.block.block_id()), (0, block.id()));
}

#[test]
fn line_36_wants_the_block_valid() {
    let mut lone = Lone::proposing_in(1);
    lone.elapse();
    assert_eq!(lone.last_vote(), (PREVOTE, 0, NIL));
    lone.answers.verdict = BlockVerdict::Invalid("because".into());
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(3, PREVOTE, 0, block.id());
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, NIL));
    assert!(lone.core.locked().is_none());
}

/// Locked on the returned block in round 0, now in round 1 as its proposer or not.
fn locked_in_round_0(proposes_in: i32) -> (Lone, crate::chain::Built) {
    let mut lone = Lone::proposing_in(proposes_in);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(2, PREVOTE, 0, block.id());
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, block.id()));
    lone.votes(2, PRECOMMIT, 0, NIL);
    lone.elapse();
    assert_eq!(lone.core.round(), Round::new(1));
    (lone, block)
}

#[test]
fn a_locked_validator_prevotes_its_block_whatever_is_proposed() {
    let (mut lone, locked) = locked_in_round_0(2);
    let other = lone.block(1, "b");
    lone.propose(1, &other, -1);
    assert_eq!(lone.last_vote(), (PREVOTE, 1, locked.id()));
    // And without a proposal.
    let (mut lone, locked) = locked_in_round_0(2);
    lone.elapse();
    assert_eq!(lone.last_vote(), (PREVOTE, 1, locked.id()));
}

#[test]
fn a_later_polka_moves_the_lock() {
    let (mut lone, locked) = locked_in_round_0(2);
    let other = lone.block(1, "b");
    lone.propose(1, &other, -1);
    assert_eq!(lone.last_vote(), (PREVOTE, 1, locked.id()));
    lone.votes(3, PREVOTE, 1, other.id());
    assert_eq!(lone.last_vote(), (PRECOMMIT, 1, other.id()));
    assert_eq!(lone.core.locked().unwrap().block.block_id(), other.id());
}

#[test]
fn line_28_a_proof_of_lock_unlocks() {
    let (mut lone, locked) = locked_in_round_0(3);
    let other = lone.block(1, "b");
    // Round 1 passes: this node sees no proposal and prevotes its lock.
    lone.elapse();
    assert_eq!(lone.last_vote(), (PREVOTE, 1, locked.id()));
    lone.votes(2, PREVOTE, 1, NIL);
    lone.elapse();
    lone.votes(3, PRECOMMIT, 1, NIL);
    lone.elapse();
    assert_eq!(lone.core.round(), Round::new(2));
    assert_eq!(lone.core.locked().unwrap().block.block_id(), locked.id());
    // In round 2 it is proposed with a proof of round 1; two had voted nil there, so this node
    // takes the votes as they come, claims and all.
    lone.core.handle_maj23(peer(1), &claim(1, other.id()));
    lone.propose(2, &other, 1);
    assert_eq!(lone.core.step(), Step::Propose, "the proof is not here yet");
    lone.votes(3, PREVOTE, 1, other.id());
    assert!(lone.core.locked().is_none(), "unlocked");
    assert_eq!(lone.last_vote(), (PREVOTE, 2, other.id()));
}

#[test]
fn a_nil_polka_unlocks() {
    let (mut lone, _) = locked_in_round_0(2);
    lone.elapse();
    lone.votes(3, PREVOTE, 1, NIL);
    assert_eq!(lone.last_vote(), (PRECOMMIT, 1, NIL));
    assert!(lone.core.locked().is_none());
    // What could have been decided is still proposed again.
    assert!(lone.core.valid().is_some());
}

#[test]
fn a_nil_polka_of_an_earlier_round_unlocks_when_it_is_seen() {
    let (mut lone, locked) = locked_in_round_0(3);
    lone.elapse();
    assert_eq!(lone.last_vote(), (PREVOTE, 1, locked.id()));
    lone.votes(3, PRECOMMIT, 2, NIL);
    assert_eq!(lone.core.round(), Round::new(2));
    assert!(lone.core.locked().is_some());
    lone.votes(3, PREVOTE, 1, NIL);
    assert!(lone.core.locked().is_none());
}

#[test]
fn an_earlier_polka_does_not_unlock() {
    let mut lone = Lone::proposing_in(3);
    let (a, b) = (lone.block(0, "a"), lone.block(1, "b"));
    lone.elapse();
    lone.votes(3, PRECOMMIT, 0, NIL);
    lone.elapse();
    lone.propose(1, &b, -1);
    lone.votes(3, PREVOTE, 1, b.id());
    assert_eq!(lone.last_vote(), (PRECOMMIT, 1, b.id()));
    // Only now it sees that round 0 had a polka for another block.
    lone.votes(3, PREVOTE, 0, a.id());
    assert_eq!(lone.core.votes().polka(Round::ZERO), Some(a.id()));
    assert_eq!(lone.core.locked().unwrap().block.block_id(), b.id());
}

#[test]
fn line_16_the_valid_block_is_proposed_again_with_its_proof() {
    let (lone, locked) = locked_in_round_0(1);
    assert_eq!(lone.proposed(), [(1, 0, locked.id())]);
    assert_eq!(lone.last_vote(), (PREVOTE, 1, locked.id()));
}

#[test]
fn line_28_a_reproposal_waits_for_its_polka() {
    let mut lone = Lone::proposing_in(2);
    let block = lone.block(0, "a");
    lone.elapse();
    lone.votes(3, PRECOMMIT, 0, NIL);
    lone.elapse();
    lone.propose(1, &block, 0);
    assert_eq!(
        lone.core.step(),
        Step::Propose,
        "no polka of round 0 is known"
    );
    lone.votes(3, PREVOTE, 0, block.id());
    assert_eq!(lone.last_vote(), (PREVOTE, 1, block.id()));
}

#[test]
fn line_28_a_polka_for_another_block_is_no_proof() {
    let mut lone = Lone::proposing_in(2);
    let (block, other) = (lone.block(0, "a"), lone.block(0, "b"));
    lone.elapse();
    lone.votes(3, PRECOMMIT, 0, NIL);
    lone.elapse();
    lone.votes(3, PREVOTE, 0, other.id());
    lone.propose(1, &block, 0);
    assert_eq!(lone.core.step(), Step::Propose);
}

#[test]
fn line_44_a_nil_polka_is_precommitted_at_once() {
    let mut lone = Lone::proposing_in(1);
    lone.elapse();
    lone.votes(2, PREVOTE, 0, NIL);
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, NIL));
}

#[test]
fn a_polka_for_a_block_that_is_not_here_precommits_nil_and_fetches_it() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    lone.elapse();
    lone.votes(3, PREVOTE, 0, block.id());
    let header = block.id().part_set_header;
    assert!(lone.announced().iter().any(
        |news| matches!(news, Announce::ValidBlock { header: told, is_commit: false, .. } if *told == header)
    ));
    lone.elapse();
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, NIL));
    // It is still worth proposing, once it is here.
    lone.send_parts(0, &block);
    assert_eq!(lone.core.valid().unwrap().block.block_id(), block.id());
    assert!(lone.core.locked().is_none());
}

#[test]
fn a_polka_for_a_block_that_comes_in_time_is_precommitted_without_the_proposal() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    lone.elapse();
    lone.votes(3, PREVOTE, 0, block.id());
    assert_eq!(lone.core.step(), Step::PrevoteWait);
    lone.send_parts(0, &block);
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, block.id()));
}

#[test]
fn line_47_waits_once_for_more_precommits_and_line_65_goes_on() {
    let mut lone = Lone::proposing_in(2);
    lone.elapse();
    lone.votes(2, PREVOTE, 0, NIL);
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, NIL));
    lone.votes(1, PRECOMMIT, 0, NIL);
    assert_eq!(lone.until_deadline(), None, "2 of 4 have precommitted");
    lone.votes(2, PRECOMMIT, 0, NIL);
    assert_eq!(lone.until_deadline(), Some(Duration::from_millis(1000)));
    lone.wait(Duration::from_millis(400));
    lone.votes(3, PRECOMMIT, 0, NIL);
    assert_eq!(
        lone.until_deadline(),
        Some(Duration::from_millis(600)),
        "not begun again"
    );
    lone.elapse();
    assert_eq!(
        (lone.core.round(), lone.core.step()),
        (Round::new(1), Step::Propose)
    );
    // Longer each round.
    assert_eq!(lone.until_deadline(), Some(Duration::from_millis(3500)));
}

#[test]
fn a_wait_for_precommits_that_ends_first_precommits_nil() {
    let mut lone = Lone::proposing_in(2);
    lone.votes(2, PRECOMMIT, 0, NIL);
    let other = lone.others()[2];
    let vote = lone.vote_of(other, PRECOMMIT, 0, lone.block(0, "a").id());
    lone.send(peer(1), perihelion_consensus::Message::Vote(vote.into()));
    assert_eq!(lone.core.step(), Step::Propose);
    assert_eq!(lone.until_deadline(), Some(Duration::from_millis(1000)));
    lone.elapse();
    assert_eq!(lone.voted(), [(PRECOMMIT, 0, NIL)]);
    assert_eq!(lone.core.round(), Round::new(1));
}

#[test]
fn line_55_skips_to_a_round_that_others_are_in() {
    let mut lone = Lone::proposing_in(0);
    lone.votes(2, PREVOTE, 4, NIL);
    assert_eq!(lone.core.round(), Round::ZERO, "2 of 4 are not enough");
    lone.votes(3, PREVOTE, 4, NIL);
    assert_eq!(lone.core.round(), Round::new(4));
    lone.votes(3, PRECOMMIT, 9, NIL);
    assert_eq!(lone.core.round(), Round::new(9));
}

#[test]
fn line_49_decides_in_whatever_round_the_precommits_are() {
    let mut lone = Lone::proposing_in(3);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    // The others are ahead, and then it turns out that round 0 was decided.
    lone.votes(3, PREVOTE, 2, NIL);
    assert_eq!(lone.core.round(), Round::new(2));
    lone.votes(3, PRECOMMIT, 0, block.id());
    assert_eq!(
        (lone.core.step(), lone.core.commit_round()),
        (Step::Commit, Some(Round::ZERO))
    );
    lone.send_parts(0, &block);
    assert_eq!(lone.decided, [block.id()]);
    assert_eq!(lone.core.height(), Height::new(2));
}

#[test]
fn a_commit_of_a_later_round_is_joined_and_waits_for_its_block() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(3, "a");
    lone.votes(3, PRECOMMIT, 3, block.id());
    assert_eq!(lone.core.step(), Step::Commit);
    assert_eq!(
        lone.last_vote(),
        (PRECOMMIT, 3, NIL),
        "it has no proof that it may lock"
    );
    let header = block.id().part_set_header;
    assert!(lone.announced().iter().any(
        |news| matches!(news, Announce::ValidBlock { header: told, is_commit: true, .. } if *told == header)
    ));
    lone.send_parts(3, &block);
    assert_eq!(lone.decided, [block.id()]);
}
