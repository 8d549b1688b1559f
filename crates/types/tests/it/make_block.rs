//! Blocks made again out of the state before them: byte for byte what a real proposer made.

use perihelion_proto::tendermint::abci;
use perihelion_test_support::each;
use perihelion_types::{Address, Block, ConsensusParams, Rules, State, evidence};
use prost::Message;

use crate::replay::{Chain, Replayed, names};

fn rules(chain: &Chain) -> Rules {
    if chain.name.ends_with("_v0.40") {
        Rules::V040
    } else {
        Rules::V038
    }
}

#[test]
fn vector_chains_blocks_are_made_again() {
    each("chains", &names(), |_, name| {
        let chain = Chain::replay(name);
        each("blocks", &chain.blocks, |_, block| check(&chain, block));
    });
}

fn check(chain: &Chain, replayed: &Replayed) {
    let (case, state, rules) = (&replayed.case, &replayed.before, rules(chain));
    let what = format!("{} height {}", chain.name, case.height);
    let block = Block::decode_by(case.block.0.clone().into(), rules).expect(&what);
    let made = state.make_block(
        block.data.iter(),
        block.last_commit.clone().unwrap(),
        block.evidence.clone(),
        Address::try_from(&case.proposer[..]).unwrap(),
        rules,
    );
    let made = made.expect(&what);
    assert_eq!(made, block, "{what}");
    assert_eq!(made.encode()[..], case.block[..], "{what}");

    let request = abci::RequestPrepareProposal::decode(&case.prepare_request[..]).unwrap();
    let evidence_bytes = i64::try_from(evidence::list_bytes(&block.evidence)).unwrap();
    let room = state.max_data_bytes(evidence_bytes, rules);
    assert_eq!(room, Some(request.max_tx_bytes), "{what}");
}

#[test]
fn a_block_without_room_for_its_commit_has_none_for_transactions() {
    let chain = Chain::replay(&names()[0]);
    let state = |max_bytes| {
        let mut params: ConsensusParams = chain.blocks[0].before.consensus_params.clone();
        params.block.max_bytes = max_bytes;
        State {
            consensus_params: params,
            ..chain.blocks[0].before.clone()
        }
    };
    let places = i64::try_from(state(1).validators.len()).unwrap();
    let least = 11 + 626 + 94 + 111 * places;
    assert_eq!(state(least).max_data_bytes(0, Rules::V038), Some(0));
    assert_eq!(state(least - 1).max_data_bytes(0, Rules::V038), None);
    assert_eq!(state(least + 9).max_data_bytes(10, Rules::V038), None);
    assert_eq!(state(least).max_data_bytes(0, Rules::V040), None);
}
