//! What the state machine does not do: go on with what cannot be, and sign where it must not.

use perihelion_consensus::{BlockVerdict, ConsensusConfig, Effect, Halt, Notice, Step};
use perihelion_types::{BlockId, Height, Round};

use crate::lone::{Lone, PRECOMMIT, PREVOTE};

const NIL: BlockId = BlockId::NIL;

#[test]
fn an_invalid_block_that_two_thirds_precommitted_halts() {
    let mut lone = Lone::proposing_in(1);
    lone.answers.verdict = BlockVerdict::Invalid("its app hash".into());
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(3, PREVOTE, 0, block.id());
    lone.votes(3, PRECOMMIT, 0, block.id());
    let halt = lone.core.halted().unwrap();
    assert!(matches!(halt, Halt::CommittedInvalid { height, .. } if height.get() == 1));
    let text = halt.to_string();
    assert!(
        text.contains("block 1") && text.contains("its app hash"),
        "{text}"
    );
    assert!(lone.decided.is_empty());
    assert_eq!(lone.until_deadline(), None);
}

#[test]
fn parts_that_are_no_block_halt_when_two_thirds_precommitted_them() {
    let mut lone = Lone::proposing_in(1);
    let mut block = lone.block(0, "a");
    block.parts = perihelion_types::PartSet::from_data(b"nonsense".as_slice().into()).into();
    let id = BlockId {
        hash: block.id().hash,
        part_set_header: block.parts.header(),
    };
    lone.votes(3, PRECOMMIT, 0, id);
    lone.send_parts(0, &block);
    let halt = lone.core.halted().unwrap();
    assert!(matches!(halt, Halt::CommittedUndecodable { height, .. } if height.get() == 1));
}

#[test]
fn a_state_of_another_height_halts() {
    let mut lone = Lone::proposing_in(1);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(3, PREVOTE, 0, block.id());
    lone.answers.waits = true;
    lone.votes(2, PRECOMMIT, 0, block.id());
    let Some(Effect::Apply { id, .. }) = lone.effects.last().cloned() else {
        panic!("{:?}", lone.effects.last());
    };
    let answer = perihelion_consensus::Answer::Applied {
        state: std::sync::Arc::clone(&lone.state),
        rules: perihelion_types::Rules::V038,
    };
    lone.core.handle_answer(lone.now, id, answer);
    assert!(matches!(lone.core.halted(), Some(Halt::WrongState { .. })));
}

#[test]
fn nothing_is_signed_at_a_height_whose_final_block_is_held() {
    let mut lone = Lone::with(&[10; 4], 0, ConsensusConfig::default(), 0);
    lone.core.handle_pinned(Height::new(1));
    lone.begin();
    assert!(lone.proposed().is_empty());
    lone.elapse();
    assert!(lone.voted().is_empty());
    assert!(matches!(lone.noticed()[0], Notice::Withheld { .. }));
    // It follows all the same.
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(3, PREVOTE, 0, block.id());
    lone.votes(3, PRECOMMIT, 0, block.id());
    assert_eq!(lone.decided, [block.id()]);
    assert!(lone.voted().is_empty());
    // And votes again above.
    lone.decide("b");
    assert!(!lone.voted().is_empty());
}

#[test]
fn a_node_without_a_key_follows_and_signs_nothing() {
    let mut lone = Lone::follower();
    lone.keys.truncate(4);
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    lone.votes(4, PREVOTE, 0, block.id());
    lone.votes(4, PRECOMMIT, 0, block.id());
    assert_eq!(lone.decided, [block.id()]);
    assert!(lone.voted().is_empty() && lone.proposed().is_empty());
    assert_eq!(lone.core.height(), Height::new(2));
}

#[test]
fn a_signer_that_refuses_keeps_the_node_silent_and_not_stuck() {
    let mut lone = Lone::proposing_in(0);
    lone.answers.signs = false;
    lone.votes(3, PREVOTE, 1, NIL);
    assert_eq!(lone.core.round(), Round::new(1));
    lone.elapse();
    let votes = lone.core.votes().prevotes(Round::new(1)).unwrap();
    assert_eq!(votes.votes().count(), 3);
    assert!(matches!(
        lone.noticed()[..],
        [
            Notice::NotSigned {
                step: Step::Prevote,
                ..
            },
            Notice::NotSigned {
                step: Step::Precommit,
                ..
            }
        ]
    ));
}

#[test]
fn nothing_else_is_taken_while_an_answer_is_awaited() {
    let mut lone = Lone::proposing_in(1);
    lone.answers.waits = true;
    let block = lone.block(0, "a");
    lone.propose(0, &block, -1);
    assert!(lone.core.is_waiting());
    assert_eq!(lone.until_deadline(), None);
    let asked = lone.effects.len();
    lone.votes(3, PREVOTE, 0, block.id());
    assert_eq!(lone.effects.len(), asked, "not even logged");
    lone.go_on();
    assert_eq!(lone.last_vote(), (PRECOMMIT, 0, block.id()));
    // Beyond the bound, inputs are dropped.
    lone.answers.waits = true;
    lone.votes(3, PRECOMMIT, 0, block.id());
    assert!(lone.core.is_waiting(), "the block is being applied");
    for _ in 0..2 * perihelion_consensus::MAX_DEFERRED_INPUTS {
        let vote = lone.vote_of(0, PREVOTE, 0, NIL);
        lone.send(
            crate::lone::peer(1),
            perihelion_consensus::Message::Vote(vote.into()),
        );
    }
    assert!(lone.core.dropped_inputs() > 0);
}
