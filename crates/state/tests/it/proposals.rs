//! Blocks that are made to be proposed, and what the application is asked about those of others.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use perihelion_abci::{
    AppConnections, AppFault, Application, CallName, KvStore, KvStoreOptions,
    types::{
        response_process_proposal::ProposalStatus, response_verify_vote_extension::VerifyStatus,
    },
};
use perihelion_certify::{EvidenceError, HistoryError, verify_evidence_list};
use perihelion_proto::tendermint::types as pb;
use perihelion_state::{
    ApplyError, BlockContents, Executor, ExecutorConfig, MAX_OWN_EXTENSION_BYTES, ProposalFault,
    StoreHistory, ValidationError,
};
use perihelion_store::{Store, StoreOptions};
use perihelion_test_support::each;
use perihelion_testkit::ParamsApp;
use perihelion_types::{
    Address, Block, BlockId, Evidence, ExtendedCommit, ExtendedCommitSig, FetchedBlock, Genesis,
    Height, Round, Rules, RulesByHeight, Time, Vote,
};
use prost::Message as _;

use crate::{
    apps::{Asked, Opinions, Recorded, Trouble},
    chain_file::{Chain, Line},
};

/// What waits, and what was asked for.
#[derive(Default)]
struct Waiting {
    evidence: Vec<Evidence>,
    txs: Vec<Bytes>,
    asked: Mutex<Vec<(i64, i64)>>,
    asked_evidence: Mutex<Vec<i64>>,
}

impl BlockContents for Waiting {
    fn evidence(&self, max_bytes: i64) -> (Vec<Evidence>, i64) {
        self.asked_evidence.lock().unwrap().push(max_bytes);
        let list = pb::EvidenceList {
            evidence: self.evidence.iter().map(Into::into).collect(),
        };
        (self.evidence.clone(), list.encoded_len() as i64)
    }

    fn txs(&self, max_bytes: i64, max_gas: i64) -> Vec<Bytes> {
        self.asked.lock().unwrap().push((max_bytes, max_gas));
        self.txs.clone()
    }
}

struct Node {
    _folder: tempfile::TempDir,
    store: Arc<Store>,
    executor: Executor,
}

impl Node {
    fn start(genesis: &Genesis, app: Arc<dyn Application>, rules: Rules) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), &StoreOptions::default()).unwrap());
        let app = AppConnections::in_process(app);
        let config = ExecutorConfig {
            rules: RulesByHeight::always(rules),
            ..ExecutorConfig::default()
        };
        let (consensus, query) = (app.consensus, app.query);
        let executor =
            Executor::start(Arc::clone(&store), genesis, consensus, &query, config).unwrap();
        Self {
            _folder: folder,
            store,
            executor,
        }
    }

    fn judge(&self, block: &FetchedBlock) -> Result<Result<(), ValidationError>, ApplyError> {
        self.executor.validate_proposed(block, None, |list| {
            let state = self.executor.state();
            let history = StoreHistory::new(&self.store, state.last_block_height);
            verify_evidence_list(list, state, &history)
        })
    }

    fn make(&self, last: &ExtendedCommit, waiting: &Waiting) -> Result<Option<Block>, ApplyError> {
        let state = self.executor.state();
        let proposer = state.validators.validators()[0].address;
        let height = state.next_height();
        self.executor.make_block(height, proposer, last, waiting)
    }
}

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

fn kvstore() -> Arc<dyn Application> {
    Arc::new(KvStore::in_memory(KvStoreOptions::default()))
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

fn no_commit() -> ExtendedCommit {
    ExtendedCommit {
        height: Height::ZERO,
        round: Round::ZERO,
        block_id: BlockId::NIL,
        extended_signatures: Vec::new(),
    }
}

/// A node before its first block, with an application of these opinions.
fn opinionated(opinions: Opinions, change: impl FnOnce(&mut Genesis)) -> (Node, Arc<Mutex<Asked>>) {
    let mut genesis = Chain::load("chain_basic").genesis;
    change(&mut genesis);
    let asked = Arc::clone(&opinions.asked);
    (
        Node::start(&genesis, Arc::new(opinions), Rules::V038),
        asked,
    )
}

fn fetched(block: &Block) -> FetchedBlock {
    FetchedBlock::decode(block.encode(), None).unwrap()
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

#[test]
fn a_block_from_the_future_is_refused_where_the_clock_counts() {
    let (node, _) = opinionated(Opinions::default(), |_| {});
    let block = fetched(
        &node
            .make(&no_commit(), &Waiting::default())
            .unwrap()
            .unwrap(),
    );
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
        let block = fetched(
            &node
                .make(&no_commit(), &Waiting::default())
                .unwrap()
                .unwrap(),
        );
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
    let block = fetched(
        &node
            .make(&no_commit(), &Waiting::default())
            .unwrap()
            .unwrap(),
    );
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
        let block = fetched(
            &node
                .make(&no_commit(), &Waiting::default())
                .unwrap()
                .unwrap(),
        );
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
