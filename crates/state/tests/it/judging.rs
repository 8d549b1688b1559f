//! What is asked about proposals and precommits of others.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_abci::{
    AppFault, CallName,
    types::{
        response_process_proposal::ProposalStatus, response_verify_vote_extension::VerifyStatus,
    },
};
use perihelion_certify::{EvidenceError, HistoryError};
use perihelion_state::{ApplyError, MAX_OWN_EXTENSION_BYTES, ValidationError};
use perihelion_testkit::ParamsApp;
use perihelion_types::{FetchedBlock, Height, Round, Rules, Time, Vote};

use crate::{
    apps::Opinions,
    chain_file::Chain,
    proposer::{Node, Waiting, fetched, kvstore, no_commit, opinionated},
};

#[test]
fn every_signature_of_a_proposed_blocks_last_commit_is_verified() {
    let chain = Chain::load("chain_basic");
    let mut node = Node::start(&chain.genesis, kvstore(), Rules::V038);
    for line in &chain.blocks {
        let certified = line.certified(node.executor.state());
        let good = certified.fetched().block();
        let places = good.last_commit.as_ref().unwrap().signatures.len();
        for index in 0..places {
            let mut bad = good.clone();
            let commit = bad.last_commit.as_mut().unwrap();
            let place = &mut commit.signatures[index];
            if place.signature.is_empty() {
                continue;
            }
            let mut signature = place.signature.to_vec();
            signature[40] ^= 1;
            place.signature = signature.into();
            bad.header.last_commit_hash = commit.hash();
            let verdict = node.judge(&fetched(&bad)).unwrap();
            assert!(
                matches!(verdict, Err(ValidationError::LastCommit(_))),
                "height {}, place {index}: {verdict:?}",
                line.height
            );
        }
        node.judge(certified.fetched()).unwrap().unwrap();
        node.executor.apply(&certified).unwrap();
    }
}

/// The first block, which this node makes of nothing.
fn own_block(node: &Node) -> FetchedBlock {
    let made = node.make(&no_commit(), &Waiting::default());
    fetched(&made.unwrap().unwrap())
}

#[test]
fn a_block_from_the_future_is_refused_where_the_clock_counts() {
    let (node, _) = opinionated(Opinions::default(), |_| {});
    let block = own_block(&node);
    let time = block.block().header.time;
    let verdict = |now: Option<Time>| {
        let judged = node.executor.validate_proposed(&block, now, |_| Ok(()));
        judged.unwrap()
    };
    let second = 1_000_000_000;
    let before = |nanos: i64| Some(time.checked_add_nanos(-nanos).unwrap());
    assert_eq!(verdict(None), Ok(()));
    assert_eq!(verdict(Some(time)), Ok(()));
    assert_eq!(verdict(before(-3600 * second)), Ok(()));
    assert_eq!(verdict(before(60 * second - 1)), Ok(()));
    let ahead = verdict(before(60 * second)).unwrap_err();
    assert!(
        matches!(ahead, ValidationError::TimeAhead { .. }),
        "{ahead}"
    );
}

#[test]
fn evidence_of_a_proposed_block_is_judged_by_who_keeps_it() {
    let chain = Chain::load("chain_params");
    let mut node = Node::start(&chain.genesis, Arc::new(ParamsApp::new()), Rules::V038);
    let mut judged = 0;
    for line in &chain.blocks {
        let certified = line.certified(node.executor.state());
        let block = certified.fetched();
        let with = |error: fn() -> EvidenceError| {
            node.executor.validate_proposed(block, None, |list| {
                assert_eq!(list, &block.block().evidence[..]);
                Err(error())
            })
        };
        let refused = with(|| EvidenceError::AlreadyCommitted)
            .unwrap()
            .unwrap_err();
        assert!(matches!(refused, ValidationError::Evidence(_)), "{refused}");
        let local = with(|| {
            EvidenceError::History(HistoryError {
                what: "the header",
                height: Height::new(1),
                reason: "the disk is gone".to_owned(),
            })
        });
        let local = local.unwrap_err();
        assert!(matches!(local, ApplyError::History { .. }), "{local}");
        judged += block.block().evidence.len();
        node.executor.apply(&certified).unwrap();
    }
    assert!(judged > 0, "the chain has evidence");
}

#[test]
fn the_application_decides_on_proposals_and_extensions() {
    for (accepts, proposal, verdict) in [
        (true, ProposalStatus::Accept, VerifyStatus::Accept),
        (false, ProposalStatus::Reject, VerifyStatus::Reject),
    ] {
        let (node, asked) = opinionated(
            Opinions {
                proposal,
                verdict,
                ..Opinions::default()
            },
            |_| {},
        );
        let block = own_block(&node);
        assert_eq!(node.executor.process_proposal(&block).unwrap(), accepts);
        let vote = vote(&block);
        assert_eq!(node.executor.verify_vote_extension(&vote).unwrap(), accepts);
        let asked = asked.lock().unwrap();
        let [request] = &asked.verified[..] else {
            panic!("asked {} times", asked.verified.len());
        };
        assert_eq!(request.hash[..], *block.block_id().hash.as_bytes());
        assert_eq!(request.height, 1);
        assert_eq!(request.validator_address, vote.validator_address);
        assert_eq!(request.vote_extension, vote.extension);
    }
}

fn vote(block: &FetchedBlock) -> Vote {
    Vote {
        vote_type: perihelion_types::SignedMsgType::Precommit,
        height: block.height(),
        round: Round::ZERO,
        block_id: block.block_id(),
        timestamp: block.block().header.time,
        validator_address: vec![3; 20].into(),
        validator_index: 0,
        signature: Bytes::new(),
        extension: Bytes::from_static(b"theirs"),
        extension_signature: Bytes::new(),
    }
}

#[test]
fn an_answer_that_neither_accepts_nor_rejects_is_a_contradiction() {
    let (node, _) = opinionated(
        Opinions {
            proposal: ProposalStatus::Unknown,
            verdict: VerifyStatus::Unknown,
            ..Opinions::default()
        },
        |_| {},
    );
    let block = own_block(&node);
    for (error, call) in [
        (
            node.executor.process_proposal(&block).unwrap_err(),
            CallName::ProcessProposal,
        ),
        (
            node.executor
                .verify_vote_extension(&vote(&block))
                .unwrap_err(),
            CallName::VerifyVoteExtension,
        ),
    ] {
        contradicts(error, call);
    }
}

fn contradicts(error: ApplyError, call: CallName) {
    let ApplyError::Application(error) = error else {
        panic!("{error}");
    };
    assert_eq!((error.call, error.height), (call, Some(Height::new(1))));
    assert!(
        matches!(error.reason, AppFault::Contradiction(_)),
        "{error}"
    );
}

#[test]
fn an_own_extension_must_pass_the_applications_own_check() {
    let extend = |extension: &[u8], verdict| {
        let opinions = Opinions {
            extension: Bytes::copy_from_slice(extension),
            verdict,
            ..Opinions::default()
        };
        let (node, asked) = opinionated(opinions, |_| {});
        let block = own_block(&node);
        let me = node.executor.state().validators.validators()[0].address;
        let given = node.executor.extend_vote(&block, me);
        let asked = asked.lock().unwrap();
        let [request] = &asked.extended[..] else {
            panic!("asked {} times", asked.extended.len());
        };
        assert_eq!(request.hash[..], *block.block_id().hash.as_bytes());
        for verified in &asked.verified {
            assert_eq!(verified.validator_address[..], *me.as_bytes());
            assert_eq!(verified.vote_extension[..], *extension);
        }
        (given, asked.verified.len())
    };
    let (good, checks) = extend(b"mine", VerifyStatus::Accept);
    assert_eq!((&good.unwrap()[..], checks), (&b"mine"[..], 1));
    // As CometBFT, which leaves an empty one to whoever signs it.
    let (empty, checks) = extend(b"", VerifyStatus::Reject);
    assert_eq!((&empty.unwrap()[..], checks), (&b""[..], 0));
    let (bad, checks) = extend(b"mine", VerifyStatus::Reject);
    contradicts(bad.unwrap_err(), CallName::ExtendVote);
    assert_eq!(checks, 1);
    let longest = vec![1; MAX_OWN_EXTENSION_BYTES];
    let (long, _) = extend(&longest, VerifyStatus::Accept);
    assert_eq!(long.unwrap().len(), MAX_OWN_EXTENSION_BYTES);
    let (long, checks) = extend(&[&longest[..], b"1"].concat(), VerifyStatus::Accept);
    contradicts(long.unwrap_err(), CallName::ExtendVote);
    assert_eq!(checks, 0);
}
