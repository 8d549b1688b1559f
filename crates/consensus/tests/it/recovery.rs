//! Restarts: what the log leads to.

use std::sync::Arc;

use perihelion_consensus::{
    Answer, Ask, BlockVerdict, Consensus, ConsensusConfig, Effect, LastCommit, Message, Now,
    SignRequest, StartError, Step, WalMessage,
};
use perihelion_types::{BlockId, Height, Round, SignedMsgType};

use crate::{
    chain,
    lone::{Lone, PRECOMMIT, PREVOTE, claim, peer, start},
};

const NIL: BlockId = BlockId::NIL;

type Signed = (SignedMsgType, i32, BlockId);

/// What a state machine wants signed, with its questions answered.
fn wanted(core: &mut Consensus, now: Now) -> Vec<SignRequest> {
    let mut wanted = Vec::new();
    while let Some(effect) = core.poll_effect() {
        let (id, answer) = match effect {
            Effect::Ask { id, ask } => (
                id,
                match ask {
                    Ask::MakeBlock { .. } => Answer::NoBlock,
                    Ask::ExtendVote { .. } => Answer::Extension(b"mine".as_slice().into()),
                    Ask::VerifyExtension { .. } => Answer::ExtensionAccepted(true),
                    _ => Answer::Verdict(BlockVerdict::Accepted),
                },
            ),
            Effect::Sign { request, id } => {
                wanted.push(request);
                (id, Answer::NotSigned)
            }
            _ => continue,
        };
        core.handle_answer(now, id, answer);
    }
    wanted
}

fn votes_of(requests: &[SignRequest]) -> Vec<Signed> {
    let mut votes = Vec::new();
    for request in requests {
        if let SignRequest::Vote { vote, .. } = request {
            votes.push((vote.vote_type, vote.round.get(), vote.block_id));
        }
    }
    votes
}

fn here(core: &Consensus) -> impl PartialEq + std::fmt::Debug + use<> {
    let candidate = |candidate: Option<&perihelion_consensus::Candidate>| {
        candidate.map(|candidate| (candidate.round, candidate.block.block_id()))
    };
    let votes: Vec<_> = core
        .votes()
        .rounds()
        .map(|round| {
            let prevotes = core.votes().prevotes(round).unwrap();
            let precommits = core.votes().precommits(round).unwrap();
            (prevotes.bits().clone(), precommits.bits().clone())
        })
        .collect();
    (
        (core.height(), core.round(), core.step()),
        (candidate(core.locked()), candidate(core.valid())),
        (
            core.proposal().cloned(),
            core.block().map(|block| block.block_id()),
        ),
        votes,
    )
}

/// Three rounds of height 1: locked in round 0, a later polka for another block in round 1.
fn eventful() -> Lone {
    let mut lone = Lone::proposing_in(2);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(3, PREVOTE, 0, block.id());
    lone.votes(2, PRECOMMIT, 0, NIL);
    lone.elapse();
    let other = lone.block(1, "b");
    lone.propose(1, &other, -1);
    lone.votes(3, PREVOTE, 1, other.id());
    lone.votes(2, PRECOMMIT, 1, NIL);
    lone.elapse();
    assert_eq!(lone.core.round(), Round::new(2));
    assert_eq!(lone.proposed().len(), 1);
    lone
}

#[test]
fn replaying_the_log_reaches_the_same_state() {
    let lone = eventful();
    let mut core = lone.restarted(LastCommit::None);
    for record in &lone.wal {
        core.replay(lone.now, record.clone());
        assert!(wanted(&mut core, lone.now).is_empty(), "{record:?}");
    }
    core.start(lone.now);
    assert!(wanted(&mut core, lone.now).is_empty());
    assert_eq!(here(&core), here(&lone.core));
    assert!(core.locked().is_some());
}

#[test]
fn cut_anywhere_the_log_leads_to_the_same_signatures() {
    let lone = eventful();
    let signed = lone.voted();
    let mut again = 0;
    for length in 0..lone.wal.len() {
        let mut core = lone.restarted(LastCommit::None);
        for record in &lone.wal[..length] {
            core.replay(lone.now, record.clone());
            assert!(wanted(&mut core, lone.now).is_empty());
        }
        core.start(lone.now);
        // At most what the next record would have been.
        let wanted = wanted(&mut core, lone.now);
        for vote in votes_of(&wanted) {
            assert!(signed.contains(&vote), "cut at {length}: {vote:?}");
            again += 1;
        }
    }
    assert!(again >= signed.len(), "{again}");
}

#[test]
fn a_signature_that_the_log_lacks_is_asked_for_again() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    let is_own = |record: &WalMessage| matches!(record, WalMessage::Message { peer: None, .. });
    let cut = lone.wal.iter().position(is_own).unwrap();
    let mut core = lone.restarted(LastCommit::None);
    for record in &lone.wal[..cut] {
        core.replay(lone.now, record.clone());
        assert!(wanted(&mut core, lone.now).is_empty());
    }
    core.start(lone.now);
    let wanted = wanted(&mut core, lone.now);
    assert_eq!(votes_of(&wanted), [(PREVOTE, 0, block.id())]);
}

#[test]
fn a_node_that_stayed_silent_stays_where_it_was_and_may_speak_up() {
    let mut lone = Lone::proposing_in(1);
    lone.answers.signs = false;
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(1, PREVOTE, 0, block.id());
    let mut core = lone.restarted(LastCommit::None);
    for record in &lone.wal {
        core.replay(lone.now, record.clone());
        assert!(wanted(&mut core, lone.now).is_empty());
    }
    assert_eq!(here(&core), here(&lone.core));
    core.start(lone.now);
    let wanted = wanted(&mut core, lone.now);
    assert_eq!(votes_of(&wanted), [(PREVOTE, 0, block.id())]);
}

/// A claim, which is not in the log, let the polka of a block count that was not the proposed one: its
/// parts, too, are passed over when the log is replayed.
#[test]
fn an_own_precommit_in_the_log_is_a_lock_even_without_its_block() {
    let mut lone = Lone::proposing_in(2);
    let (proposed, block) = (lone.block(0, "a"), lone.block(0, "b"));
    lone.propose(0, &proposed, -1);
    lone.votes(1, PREVOTE, 0, proposed.id());
    lone.core.handle_maj23(peer(9), &claim(0, block.id()));
    lone.votes(3, PREVOTE, 0, block.id());
    lone.send_parts(0, &block);
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, block.id()));
    let mut core = lone.restarted(LastCommit::None);
    for record in &lone.wal {
        core.replay(lone.now, record.clone());
        wanted(&mut core, lone.now);
    }
    core.start(lone.now);
    assert!(wanted(&mut core, lone.now).is_empty());
    assert!(
        core.block()
            .is_none_or(|here| here.block_id() != block.id())
    );
    lone.core = core;
    lone.votes(2, PRECOMMIT, 0, NIL);
    lone.elapse();
    let other = lone.block(1, "c");
    lone.propose(1, &other, -1);
    assert_eq!(lone.last_vote(), (PREVOTE, 1, block.id()));
}

/// A validator without a log that may have precommitted `block` in round 0, in round 1.
fn bound_to(block: impl Fn(&Lone) -> BlockId) -> (Lone, BlockId) {
    let mut lone = Lone::with(&[10; 4], 0, ConsensusConfig::default(), 3);
    let block = block(&lone);
    lone.core.bind(Round::ZERO, block);
    lone.begin();
    lone.votes(2, PREVOTE, 0, NIL);
    lone.elapse();
    assert_eq!(lone.last_vote().0, PREVOTE);
    lone.elapse();
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, NIL));
    lone.votes(2, PRECOMMIT, 0, NIL);
    lone.elapse();
    assert_eq!(lone.core.round(), Round::new(1));
    (lone, block)
}

#[test]
fn a_lock_that_the_signer_remembers_holds_until_a_later_polka_for_something_else() {
    let (mut lone, block) = bound_to(|lone| lone.block(0, "a").id());
    let other = lone.block(1, "b");
    lone.propose(1, &other, -1);
    assert_eq!(lone.last_vote(), (PREVOTE, 1, block));
    // The others are free: none of them was locked, so nobody decided.
    lone.votes(3, PREVOTE, 1, other.id());
    assert_eq!(lone.last_vote(), (PRECOMMIT, 1, other.id()));
    let locked = lone.core.locked().unwrap();
    assert_eq!(locked.block.block_id(), other.id());
    lone.votes(2, PRECOMMIT, 1, other.id());
    assert_eq!(lone.decided, [other.id()]);
}

#[test]
fn a_lock_that_the_signer_remembers_ends_with_a_polka_for_nil() {
    let (mut lone, block) = bound_to(|lone| lone.block(0, "a").id());
    lone.elapse();
    assert_eq!(lone.last_vote(), (PREVOTE, 1, block));
    lone.votes(3, PREVOTE, 1, NIL);
    assert_eq!(lone.last_vote(), (PRECOMMIT, 1, NIL));
    lone.votes(2, PRECOMMIT, 1, NIL);
    lone.elapse();
    let other = lone.block(2, "b");
    lone.propose(2, &other, -1);
    assert_eq!(lone.last_vote(), (PREVOTE, 2, other.id()));
}

#[test]
fn a_block_that_the_signer_remembers_is_decided_once_it_is_here() {
    let (mut lone, _) = bound_to(|lone| lone.block(0, "a").id());
    let block = lone.block(0, "a");
    lone.elapse();
    assert_eq!(lone.last_vote(), (PREVOTE, 1, block.id()));
    lone.votes(2, PREVOTE, 1, block.id());
    // Nobody has sent it yet.
    assert_eq!(lone.last_vote().0, PREVOTE);
    lone.send_parts(1, &block);
    assert_eq!(lone.last_vote(), (PRECOMMIT, 1, block.id()));
    lone.votes(2, PRECOMMIT, 1, block.id());
    assert_eq!(lone.decided, [block.id()]);
}

#[test]
fn an_own_precommit_in_the_log_is_a_lock_even_without_its_polka() {
    let mut lone = Lone::proposing_in(2);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    // The polka came about by conflicting votes that a claim let count; the log has no claims.
    lone.votes(2, PREVOTE, 0, NIL);
    lone.core.handle_maj23(peer(9), &claim(0, block.id()));
    lone.votes(3, PREVOTE, 0, block.id());
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, block.id()));
    let mut core = lone.restarted(LastCommit::None);
    for record in &lone.wal {
        core.replay(lone.now, record.clone());
        wanted(&mut core, lone.now);
    }
    assert_eq!(core.votes().polka(Round::ZERO), None);
    let locked = core.locked().expect("locked by its own word");
    assert_eq!(locked.block.block_id(), block.id());
    // It is where it was, and wants no other precommit.
    assert_eq!(core.step(), Step::Precommit);
    core.start(lone.now);
    assert!(wanted(&mut core, lone.now).is_empty());
    let mut later = lone.now;
    later.instant += std::time::Duration::from_secs(60);
    core.handle_deadline(later);
    assert!(wanted(&mut core, later).is_empty());
    assert_eq!(core.round(), Round::ZERO);
}

#[test]
fn a_commit_that_the_log_leads_to_is_made_and_its_end_logged() {
    let mut lone = Lone::proposing_in(1);
    lone.decide("a");
    let is_end = |record: &WalMessage| matches!(record, WalMessage::EndHeight(_));
    let end = lone.wal.iter().position(is_end).unwrap();
    let genesis = chain::Validators::new(&[10; 4], 0).genesis;
    let start = start(&genesis, lone.keys.get(lone.me), LastCommit::None, None);
    let mut core = Consensus::new(lone.now, ConsensusConfig::default(), start).unwrap();
    let (mut committed, mut appended) = (0, Vec::new());
    for record in &lone.wal[..end] {
        core.replay(lone.now, record.clone());
        while let Some(effect) = core.poll_effect() {
            let (id, answer) = match effect {
                Effect::Ask { id, .. } => (id, Answer::Verdict(BlockVerdict::Accepted)),
                Effect::Commit(_) => {
                    committed += 1;
                    continue;
                }
                Effect::Append { message, .. } => {
                    appended.push(message);
                    continue;
                }
                Effect::Apply { id, .. } => {
                    let state = Arc::clone(&lone.state);
                    let rules = perihelion_types::Rules::V038;
                    (id, Answer::Applied { state, rules })
                }
                _ => continue,
            };
            core.handle_answer(lone.now, id, answer);
        }
    }
    assert_eq!(committed, 1);
    assert_eq!(appended, [WalMessage::EndHeight(Height::new(1))]);
    assert_eq!(core.height(), Height::new(2));
}

#[test]
fn records_of_other_heights_are_ignored() {
    let lone = eventful();
    let mut core = lone.restarted(LastCommit::None);
    let mut foreign = lone.vote_of(0, PREVOTE, 0, NIL);
    foreign.height = Height::new(7);
    let records = [
        WalMessage::Message {
            peer: None,
            message: Message::Vote(Arc::new(foreign)),
        },
        WalMessage::EndHeight(Height::new(7)),
    ];
    for record in records {
        core.replay(lone.now, record);
        assert!(wanted(&mut core, lone.now).is_empty());
    }
    assert_eq!(core.height(), Height::new(1));
}

#[test]
fn a_start_needs_the_commit_of_the_last_block() {
    let mut lone = Lone::proposing_in(1);
    lone.decide("a");
    let votes = lone.core.last_commit().unwrap();
    let commit = votes.commit().unwrap();
    let try_with = |last_commit| {
        let start = start(&lone.state, None, last_commit, None);
        Consensus::new(lone.now, ConsensusConfig::default(), start).map(|core| core.height())
    };
    assert_eq!(
        try_with(LastCommit::Plain(commit.clone())),
        Ok(Height::new(2))
    );
    let refused = try_with(LastCommit::None);
    assert!(matches!(refused, Err(StartError::NoLastCommit { .. })));
    let mut other = commit.clone();
    other.height = Height::new(3);
    let refused = try_with(LastCommit::Plain(other));
    assert!(matches!(refused, Err(StartError::OtherCommit { .. })));
    let mut forged = commit.clone();
    forged.round = Round::new(1);
    let refused = try_with(LastCommit::Plain(forged));
    assert!(matches!(refused, Err(StartError::Vote(_))));
    let mut short = commit.clone();
    short.signatures.pop();
    let refused = try_with(LastCommit::Plain(short));
    assert!(matches!(refused, Err(StartError::CommitSize { .. })));
    let mut weak = commit;
    for place in &mut weak.signatures[..2] {
        *place = perihelion_types::CommitSig::absent();
    }
    let refused = try_with(LastCommit::Plain(weak));
    assert!(matches!(refused, Err(StartError::TooLittlePower { .. })));
}
