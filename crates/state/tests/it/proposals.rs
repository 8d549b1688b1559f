//! Blocks that are made to be proposed.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_abci::{AppFault, Application, CallName};
use perihelion_state::{ApplyError, ProposalFault};
use perihelion_test_support::each;
use perihelion_testkit::ParamsApp;
use perihelion_types::{
    Address, Block, ExtendedCommit, ExtendedCommitSig, FetchedBlock, Genesis, Height, Rules,
};
use prost::Message as _;

use crate::{
    apps::{Opinions, Recorded, Trouble},
    chain_file::{Chain, Line},
    proposer::{Node, Waiting, kvstore, no_commit, opinionated},
};

/// The precommits for the block before `line`: of the block's own last commit, and with the
/// extensions that came with the block before.
fn last_commit(block: &Block, before: Option<&Line>) -> ExtendedCommit {
    let commit = block.last_commit.clone().unwrap();
    let extended = before.and_then(|line| line.extended_commit.as_ref());
    if let Some(raw) = extended {
        let extended = ExtendedCommit::decode(raw.0.clone().into()).unwrap();
        assert_eq!(extended.to_commit(), commit);
        return extended;
    }
    ExtendedCommit {
        height: commit.height,
        round: commit.round,
        block_id: commit.block_id,
        extended_signatures: commit
            .signatures
            .into_iter()
            .map(|commit_sig| ExtendedCommitSig {
                commit_sig,
                extension: Bytes::new(),
                extension_signature: Bytes::new(),
            })
            .collect(),
    }
}

/// CometBFT's proposer and ours ask the application the same, and make the same block of its
/// answer.
fn replay(chain: &Chain, rules: Rules, app: Arc<dyn Application>) {
    let (app, log) = Recorded::new(app, Trouble::None);
    let mut node = Node::start(&chain.genesis, app, rules);
    each(chain.name, &chain.blocks, |index, line| {
        let before = index.checked_sub(1).map(|index| &chain.blocks[index]);
        let what = format!("{}, height {}", chain.name, line.height);
        let certified = line.certified(node.executor.state());
        let fetched = certified.fetched();
        let block = fetched.block();
        let asked = perihelion_proto::tendermint::abci::RequestPrepareProposal::decode(
            &line.prepare_request[..],
        );
        let waiting = Waiting {
            evidence: block.evidence.clone(),
            txs: asked.unwrap().txs,
            ..Waiting::default()
        };
        let params = node.executor.state().consensus_params.clone();
        let proposer = Address::try_from(&block.header.proposer_address[..]).unwrap();
        let last = last_commit(block, before);
        let executor = &node.executor;
        let made = executor.make_block(block.header.height, proposer, &last, &waiting);
        let made = made.unwrap().unwrap();
        {
            let log = log.lock().unwrap();
            let (request, response) = log.prepared.last().unwrap();
            let same = |ours: Vec<u8>, theirs: &[u8], call| {
                assert_eq!(hex::encode(ours), hex::encode(theirs), "{what}: {call}");
            };
            same(request.encode_to_vec(), &line.prepare_request, "prepare");
            same(response.encode_to_vec(), &line.prepare_response, "answer");
            let max_bytes = if params.block.max_bytes == -1 {
                -1
            } else {
                request.max_tx_bytes
            };
            let asked = waiting.asked.lock().unwrap();
            assert_eq!(asked[..], [(max_bytes, params.block.max_gas)], "{what}");
        }
        let asked = waiting.asked_evidence.lock().unwrap();
        assert_eq!(asked[..], [params.evidence.max_bytes], "{what}");
        assert_eq!(
            hex::encode(made.encode()),
            hex::encode(&line.block.0),
            "{what}"
        );

        node.judge(fetched).unwrap().unwrap();
        assert!(node.executor.process_proposal(fetched).unwrap(), "{what}");
        let processed = log
            .lock()
            .unwrap()
            .processed
            .last()
            .unwrap()
            .encode_to_vec();
        assert_eq!(
            hex::encode(processed),
            hex::encode(&line.process_request.0),
            "{what}"
        );

        node.executor.store_decided(&certified).unwrap();
        node.executor.apply(&certified).unwrap();
    });
}

#[test]
fn vector_chain_basic() {
    replay(&Chain::load("chain_basic"), Rules::V038, kvstore());
}

#[test]
fn vector_chain_initial_height() {
    replay(&Chain::load("chain_initial_height"), Rules::V038, kvstore());
}

#[test]
fn vector_chain_extensions() {
    replay(&Chain::load("chain_extensions"), Rules::V038, kvstore());
}

#[test]
fn vector_chain_params() {
    let app = Arc::new(ParamsApp::new());
    replay(&Chain::load("chain_params"), Rules::V038, app);
}

#[test]
fn vector_chain_params_v040() {
    let app = Arc::new(ParamsApp::new());
    replay(&Chain::load("chain_params_v0.40"), Rules::V040, app);
}

#[test]
fn more_than_there_is_room_for_is_the_applications_fault() {
    let opinions = |extra: usize| Opinions {
        // A transaction of the whole room: with tag and length it is 1 + 3 bytes longer.
        txs: Some(vec![vec![7; 20_000 - 4 + extra].into()]),
        ..Opinions::default()
    };
    // Overhead of block, header and commit: see `State::max_data_bytes`.
    let (node, _) = opinionated(Opinions::default(), |_| {});
    let validators = node.executor.state().validators.len() as i64;
    let limit = 20_000 + 11 + 626 + 94 + 111 * validators;
    let set = |genesis: &mut Genesis| {
        genesis.consensus_params.block.max_bytes = limit;
        genesis.consensus_params.evidence.max_bytes = limit;
    };
    let (node, asked) = opinionated(opinions(0), set);
    let block = node
        .make(&no_commit(), &Waiting::default())
        .unwrap()
        .unwrap();
    assert_eq!(block.data.len(), 1);
    assert_eq!(asked.lock().unwrap().prepared[0].max_tx_bytes, 20_000);
    let (node, _) = opinionated(opinions(1), set);
    let error = node.make(&no_commit(), &Waiting::default()).unwrap_err();
    let ApplyError::Application(error) = error else {
        panic!("{error}");
    };
    assert_eq!(error.call, CallName::PrepareProposal);
    assert_eq!(error.height, Some(Height::new(1)));
    assert!(
        matches!(error.reason, AppFault::Contradiction(_)),
        "{error}"
    );
}

#[test]
fn evidence_gives_way_where_there_is_no_room_and_else_nothing_is_made() {
    let evidence = Chain::load("chain_params")
        .blocks
        .iter()
        .find_map(|line| {
            let block = FetchedBlock::decode(line.block.0.clone().into(), None).unwrap();
            block.block().evidence.first().cloned()
        })
        .unwrap();
    let (node, _) = opinionated(Opinions::default(), |_| {});
    let validators = node.executor.state().validators.len() as i64;
    let least = 11 + 626 + 94 + 111 * validators;
    let made = |limit: i64| {
        let (node, asked) = opinionated(Opinions::default(), |genesis| {
            genesis.consensus_params.block.max_bytes = limit;
            genesis.consensus_params.evidence.max_bytes = limit;
        });
        let waiting = Waiting {
            evidence: vec![evidence.clone()],
            ..Waiting::default()
        };
        let made = node.make(&no_commit(), &waiting).unwrap();
        let room = asked
            .lock()
            .unwrap()
            .prepared
            .last()
            .map(|it| it.max_tx_bytes);
        made.map(|block| (block.evidence.len(), room.unwrap()))
    };
    assert_eq!(made(least - 1), None);
    assert_eq!(made(least), Some((0, 0)));
    let (pieces, room) = made(least + 10_000).unwrap();
    assert_eq!(pieces, 1);
    assert!(room < 10_000);
}

#[test]
fn an_unlimited_block_is_bounded_by_the_protocol_and_takes_all_that_waits() {
    let (node, asked) = opinionated(Opinions::default(), |genesis| {
        genesis.consensus_params.block.max_bytes = -1;
    });
    let waiting = Waiting {
        txs: vec![Bytes::from_static(b"a=b")],
        ..Waiting::default()
    };
    let block = node.make(&no_commit(), &waiting).unwrap().unwrap();
    assert_eq!(waiting.asked.lock().unwrap()[0].0, -1);
    let max = asked.lock().unwrap().prepared[0].max_tx_bytes;
    let protocol = 100 << 20;
    assert!((protocol - 10_000..protocol).contains(&max), "{max}");
    assert_eq!(block.data.to_vec(), waiting.txs);
}

#[test]
fn precommits_that_do_not_fit_the_state_are_refused() {
    for (name, extended) in [("chain_basic", false), ("chain_extensions", true)] {
        let chain = Chain::load(name);
        let mut node = Node::start(&chain.genesis, kvstore(), Rules::V038);
        let at = chain.blocks.len() / 2;
        for line in &chain.blocks[..at] {
            let block = line.certified(node.executor.state());
            node.executor.apply(&block).unwrap();
        }
        let block = FetchedBlock::decode(chain.blocks[at].block.0.clone().into(), None).unwrap();
        let good = last_commit(block.block(), Some(&chain.blocks[at - 1]));
        node.make(&good, &Waiting::default()).unwrap().unwrap();
        let fault = |change: &dyn Fn(&mut ExtendedCommit)| {
            let mut bad = good.clone();
            change(&mut bad);
            match node.make(&bad, &Waiting::default()).unwrap_err() {
                ApplyError::Proposal { fault, height } => {
                    assert_eq!(height, block.height());
                    fault
                }
                other => panic!("{other}"),
            }
        };
        let voted = good
            .extended_signatures
            .iter()
            .position(|place| !place.commit_sig.signature.is_empty())
            .unwrap();
        let short = fault(&|bad| drop(bad.extended_signatures.pop()));
        assert!(matches!(short, ProposalFault::LastCommit(_)), "{short}");
        let other = fault(&|bad| {
            bad.extended_signatures[voted].commit_sig.validator_address = vec![1; 20].into();
        });
        assert_eq!(other, ProposalFault::Address { index: voted });
        let extension = fault(&|bad| {
            let place = &mut bad.extended_signatures[voted];
            place.extension_signature = if extended {
                Bytes::new()
            } else {
                vec![1; 64].into()
            };
        });
        assert!(
            matches!(extension, ProposalFault::Extension { index, .. } if index == voted),
            "{extension}"
        );
        let proposer = node.executor.state().validators.validators()[0].address;
        let above = block.height().next();
        let made = node
            .executor
            .make_block(above, proposer, &good, &Waiting::default());
        let fault = ProposalFault::Height {
            expected: block.height(),
        };
        assert!(matches!(made, Err(ApplyError::Proposal { fault: got, .. }) if got == fault),);
    }
}
