//! What consensus asks for, answered.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use perihelion_consensus::{Answer, Ask, BlockVerdict};
use perihelion_state::ExecutorConfig;
use perihelion_types::{Block, ConsensusParams, Height, Round, SignedMsgType, Time, Vote};

use super::chain::{App, Call, Chain, Setup, fetched};

#[test]
fn blocks_are_made_judged_and_applied_height_after_height() {
    let (mut chain, mut running) = Chain::start(Setup::of(App::new()));
    for (height, txs) in (1..).zip([&["a=1", "b=2"][..], &[], &["c=3"], &["d=4"]]) {
        for tx in txs {
            chain.send(tx);
        }
        let block = running.advance(&mut chain);
        assert_eq!(block.header.height.get(), height);
        let made: Vec<Bytes> = block.data.to_vec();
        assert_eq!(
            made,
            txs.iter().map(|tx| Bytes::from(*tx)).collect::<Vec<_>>()
        );
        assert_eq!(chain.mempool.size(), 0);
        let commit = chain.store.load_seen_commit(Height::new(height)).unwrap();
        assert_eq!(commit.unwrap(), chain.last_commit.to_commit());
    }
    let executor = running.end();
    assert_eq!(executor.state(), &*chain.state);
    assert_eq!(executor.state().last_block_height.get(), 4);
}

#[test]
fn a_block_that_does_not_follow_is_invalid_and_names_why() {
    let (mut chain, mut running) = Chain::start(Setup::of(App::new()));
    running.advance(&mut chain);
    let good = running.make(&chain);
    type Change = fn(&mut Block);
    let changes: [(&str, Change); 4] = [
        ("app hash", |block| {
            block.header.app_hash = vec![1; 8].into()
        }),
        ("last commit", |block| {
            let commit = block.last_commit.as_mut().unwrap();
            commit.signatures[3].signature = vec![1; 64].into();
            block.header.last_commit_hash = commit.hash();
        }),
        ("proposer", |block| {
            block.header.proposer_address = vec![1; 20].into()
        }),
        ("height", |block| block.header.height = Height::new(9)),
    ];
    for (about, change) in changes {
        let mut bad = good.clone();
        change(&mut bad);
        for ask in [
            |block| Ask::ProcessProposal { block },
            |block| Ask::ValidateBlock { block },
        ] {
            let Answer::Verdict(BlockVerdict::Invalid(reason)) = running.ask(ask(fetched(&bad)))
            else {
                panic!("{about} of another");
            };
            assert!(reason.contains(about), "{reason}");
        }
    }
    assert_eq!(running.verdict(&good), BlockVerdict::Accepted);
}

#[test]
fn the_application_may_reject_a_proposal_and_is_not_asked_where_others_voted() {
    let app = App {
        accepts: |txs| !txs.iter().any(|tx| &tx[..] == b"bad=1"),
        ..App::new()
    };
    let (chain, mut running) = Chain::start(Setup::of(app));
    let good = running.make(&chain);
    chain.send("bad=1");
    let bad = running.make(&chain);
    assert_eq!(running.verdict(&good), BlockVerdict::Accepted);
    assert_eq!(running.verdict(&bad), BlockVerdict::Rejected);
    let block = fetched(&bad);
    let answer = running.ask(Ask::ValidateBlock { block });
    assert!(
        matches!(answer, Answer::Verdict(BlockVerdict::Accepted)),
        "{answer:?}"
    );
}

#[test]
fn a_proposal_from_the_future_is_invalid_until_others_have_voted_for_it() {
    let setup = Setup {
        genesis_time: Time::new(32_503_680_000, 0), // the year 3000
        ..Setup::of(App::new())
    };
    let (chain, mut running) = Chain::start(setup);
    let block = running.make(&chain);
    let verdict = running.verdict(&block);
    assert!(
        matches!(&verdict, BlockVerdict::Early(reason) if reason.contains("ahead of the clock")),
        "{verdict:?}"
    );
    let block = fetched(&block);
    let answer = running.ask(Ask::ValidateBlock { block });
    assert!(
        matches!(answer, Answer::Verdict(BlockVerdict::Accepted)),
        "{answer:?}"
    );
}

#[test]
fn extensions_are_asked_for_judged_and_given_to_the_next_proposer() {
    let prepared = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&prepared);
    let app = App::hooked(move |call| {
        if let Call::Prepare(request) = call {
            seen.lock().unwrap().push((*request).clone());
        }
        None
    });
    let app = App {
        extension: Bytes::from_static(b"mine"),
        accepts_extension: |extension| extension != b"bad",
        ..app
    };
    let mut params = ConsensusParams::default_v038();
    params.abci.vote_extensions_enable_height = 2;
    let setup = Setup {
        params,
        ..Setup::of(app)
    };
    let (mut chain, mut running) = Chain::start(setup);
    running.advance(&mut chain);
    let block = running.make(&chain);
    let ask = Ask::ExtendVote {
        block: fetched(&block),
        round: Round::ZERO,
        validator: chain.state.validators.validators()[1].address,
    };
    let Answer::Extension(extension) = running.ask(ask) else {
        panic!("no extension");
    };
    assert_eq!(&extension[..], b"mine");
    for (extension, expected) in [(&b"good"[..], true), (b"bad", false), (b"", true)] {
        let id = fetched(&block).block_id();
        let vote = Arc::new(Vote {
            extension: Bytes::copy_from_slice(extension),
            ..chain.vote(2, SignedMsgType::Precommit, id)
        });
        let answer = running.ask(Ask::VerifyExtension { vote });
        assert!(
            matches!(answer, Answer::ExtensionAccepted(accepted) if accepted == expected),
            "{answer:?}"
        );
    }
    let decided = chain.decide(&block);
    running.apply(&mut chain, &decided);
    let kept = chain.store.load_extended_commit(Height::new(2)).unwrap();
    assert_eq!(kept.as_ref(), Some(&chain.last_commit));
    running.advance(&mut chain);
    let prepared = prepared.lock().unwrap();
    let extensions = |index: usize| -> Vec<Bytes> {
        let request: &perihelion_abci::types::RequestPrepareProposal = &prepared[index];
        let commit = request.local_last_commit.as_ref().unwrap();
        commit
            .votes
            .iter()
            .map(|vote| vote.vote_extension.clone())
            .collect()
    };
    assert_eq!(extensions(0), Vec::<Bytes>::new());
    assert_eq!(
        extensions(1),
        vec![Bytes::new(); 4],
        "not enabled at height 1"
    );
    assert_eq!(extensions(2), vec![Bytes::from_static(b"signed"); 4]);
}

#[test]
fn the_application_says_what_is_kept() {
    let app = App {
        retain: |height| if height == 6 { 4 } else { 0 },
        ..App::new()
    };
    let config = ExecutorConfig {
        sync_blocks: 1,
        ..ExecutorConfig::default()
    };
    let setup = Setup {
        config,
        ..Setup::of(app)
    };
    let (mut chain, mut running) = Chain::start(setup);
    for _ in 0..5 {
        running.advance(&mut chain);
        assert_eq!(chain.store.base().get(), 1);
    }
    // Nothing is removed that is not indexed.
    chain.store.index_pending().unwrap();
    running.advance(&mut chain);
    assert_eq!(chain.store.base().get(), 4);
    running.advance(&mut chain);
    assert_eq!(
        chain.store.base_and_height(),
        (Height::new(4), Height::new(7))
    );
}

#[test]
fn where_header_and_commit_have_no_room_nothing_is_proposed() {
    let mut params = ConsensusParams::default_v038();
    params.block.max_bytes = 700;
    params.evidence.max_bytes = 700;
    let setup = Setup {
        params,
        ..Setup::of(App::new())
    };
    let (chain, mut running) = Chain::start(setup);
    let answer = running.ask(chain.wants_block());
    assert!(matches!(answer, Answer::NoBlock), "{answer:?}");
}
