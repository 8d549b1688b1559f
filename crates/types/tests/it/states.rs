//! Whole chains: validators, parameters, results and states at every height.

use perihelion_proto::tendermint::{abci, types as pb};
use perihelion_test_support::{Hex, Moment, each};
use perihelion_types::{Commit, MedianTimeRule, State, Time, ValidatorSet, median_time};
use prost::Message;

use crate::replay::{Chain, Replayed, decode_state, encode_state, names, validators};

fn for_each_chain(mut check: impl FnMut(&Chain)) {
    each("chains", &names(), |_, name| check(&Chain::replay(name)));
}

#[test]
fn vector_chains_start() {
    for_each_chain(|chain| {
        let name = &chain.name;
        let recorded = decode_state(&chain.start.state_from_genesis);
        let state = State::from_genesis(&chain.genesis, &recorded.software).unwrap();
        assert_eq!(
            encode_state(&state),
            chain.start.state_from_genesis,
            "{name}"
        );
        assert_eq!(
            state.validators.hash().as_bytes(),
            &chain.start.genesis_validators_hash[..],
            "{name}"
        );

        let started = decode_state(&chain.start.state_after_init_chain);
        assert_eq!(
            encode_state(&started),
            chain.start.state_after_init_chain,
            "{name}"
        );
        let response = abci::ResponseInitChain::decode(&chain.start.init_chain_response[..]);
        let given = validators(response.unwrap().validators);
        if given.is_empty() {
            assert_eq!(started.validators, state.validators, "{name}");
            assert_eq!(started.next_validators, state.next_validators, "{name}");
        } else {
            let set = ValidatorSet::new(given).unwrap();
            assert_eq!(*started.validators, set, "{name}");
            assert_eq!(
                *started.next_validators,
                set.load_rotated(1).unwrap(),
                "{name}"
            );
        }
    });
}

#[test]
fn vector_chains_states() {
    for_each_chain(|chain| {
        let mut states = 0;
        each("blocks", &chain.blocks, |_, block| {
            let what = format!("{} height {}", chain.name, block.case.height);
            check_before(&what, block);
            assert_eq!(
                block.after.app_hash[..],
                block.case.app_hash_after[..],
                "{what}"
            );
            let results = block.after.last_results_hash;
            assert_eq!(
                results.as_bytes(),
                &block.case.results_hash_after[..],
                "{what}"
            );
            if let Some(expected) = &block.case.state_after {
                assert_eq!(encode_state(&block.after), *expected, "{what}");
                assert_eq!(decode_state(expected), block.after, "{what}");
                states += 1;
            }
        });
        assert!(states > 0, "{} records no state", chain.name);
    });
}

fn check_before(what: &str, block: &Replayed) {
    let (case, state) = (&block.case, &block.before);
    let rows: Vec<_> = state
        .validators
        .validators()
        .iter()
        .map(|v| {
            let key = Hex(v.pub_key.as_bytes().to_vec());
            let address = Hex(v.address.as_bytes().to_vec());
            (address, key, v.voting_power, v.proposer_priority)
        })
        .collect();
    assert_eq!(rows, case.validators, "{what}");
    let set = &state.validators;
    assert_eq!(set.hash().as_bytes(), &case.validators_hash[..], "{what}");
    let next = state.next_validators.hash();
    assert_eq!(next.as_bytes(), &case.next_validators_hash[..], "{what}");
    let first = set.proposer().unwrap().address;
    assert_eq!(first.as_bytes()[..], case.round_0_proposer[..], "{what}");
    let proposer = ValidatorSet::clone(set)
        .load_rotated(case.round.into())
        .unwrap();
    let proposer = proposer.proposer().unwrap().address;
    assert_eq!(proposer.as_bytes()[..], case.proposer[..], "{what}");

    let params = pb::ConsensusParams::from(&state.consensus_params);
    assert_eq!(Hex(params.encode_to_vec()), case.consensus_params, "{what}");
    let hash = state.consensus_params.hash();
    assert_eq!(hash.as_bytes(), &case.consensus_hash[..], "{what}");
}

/// A chain of one version holds by the rule of that version; where all have voted for the block,
/// the rules agree.
#[test]
fn vector_chains_median_times() {
    for_each_chain(|chain| {
        let v040 = chain.name.ends_with("_v0.40");
        each("blocks", &chain.blocks, |_, block| {
            let what = format!("{} height {}", chain.name, block.case.height);
            let message = pb::Commit::decode(&block.case.seen_commit[..]).unwrap();
            let commit: Commit = message.try_into().unwrap();
            let set = &block.before.validators;
            let time = |rule| median_time(&commit, set, rule).unwrap();
            let expected = moment(&block.case.median_time_of_seen_commit);
            let rule = if v040 {
                MedianTimeRule::V040
            } else {
                MedianTimeRule::V038
            };
            assert_eq!(time(rule), expected, "{what}");
            if !block.case.flags.contains('n') {
                assert_eq!(
                    time(MedianTimeRule::V038),
                    time(MedianTimeRule::V040),
                    "{what}"
                );
            }
        });
    });
}

fn moment(moment: &Moment) -> Time {
    Time::new(moment.seconds, moment.nanos)
}
