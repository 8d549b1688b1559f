//! Why a height is not decided, in words.

use std::time::{Duration, Instant};

use perihelion_consensus::Step;
use perihelion_consensus_reactor::{STANDS_AFTER, Standing, Stay, View};
use perihelion_types::Round;

use crate::network::Network;

/// What is told of a node's height `after` it began.
fn told(view: &View, own: Option<&View>, after: Duration) -> Option<String> {
    let began = Instant::now();
    let own = own.map(|own| own.stay().own_address.unwrap());
    let view = view.clone().with_stay(Stay {
        own_address: own,
        since: Some(began),
        patience: STANDS_AFTER,
        silence: None,
    });
    Standing::of(&view, began + after).map(|standing| standing.to_string())
}

fn addresses(network: &Network) -> Vec<String> {
    let set = network.nodes[0].view.validator_set();
    let members = set.validators().iter();
    members.map(|member| member.address.to_string()).collect()
}

/// Until a node stands at a step of round 0.
fn run_to_step(network: &mut Network, node: usize, step: Step) {
    for _ in 0..1_000 {
        if network.nodes[node].view.round_step().step == step {
            return;
        }
        network.tick();
    }
    panic!("{:?}", network.places());
}

#[test]
fn votes_that_are_missing_are_counted_and_their_validators_named() {
    let mut network = Network::new(4, 1_000);
    network.link(0, 1);
    (0..1_000).for_each(|_| network.tick());
    let members = addresses(&network);
    let view = &network.nodes[0].view;
    assert_eq!(told(view, None, Duration::from_millis(9_999)), None);
    assert_eq!(
        told(view, None, Duration::from_secs(23)).unwrap(),
        format!(
            "height 1 round 0 waits (23 s): prevotes of 2 of 4 validators (50 % of the power, more \
             than 2/3 needed); missing: {}, {}",
            members[2], members[3]
        )
    );
}

#[test]
fn this_node_is_named_first_where_its_own_vote_is_missing() {
    let mut network = Network::new(4, 1_000);
    network.link(0, 1);
    (0..1_000).for_each(|_| network.tick());
    let members = addresses(&network);
    let last = network.nodes[0].view.validator_set().validators()[3].address;
    let own = Stay {
        own_address: Some(last),
        ..Stay::default()
    };
    let own = View::clone(&network.nodes[3].view).with_stay(own);
    let told = told(&network.nodes[0].view, Some(&own), STANDS_AFTER).unwrap();
    let end = format!("missing: {} (this node), {}", members[3], members[2]);
    assert!(told.ends_with(&end), "{told}");
}

#[test]
fn of_many_that_are_missing_a_few_are_named() {
    let mut network = Network::new(10, 1_000);
    network.link(0, 1);
    (0..1_000).for_each(|_| network.tick());
    let told = told(&network.nodes[0].view, None, STANDS_AFTER).unwrap();
    assert!(told.contains("2 of 10 validators (20 %"), "{told}");
    assert!(told.ends_with(" and 4 more"), "{told}");
    assert_eq!(told.matches(", ").count(), 4, "{told}");
}

#[test]
fn a_proposal_that_does_not_come_is_told_of_with_whose_turn_it_is() {
    let mut network = Network::new(4, 1_000);
    let proposer = network.nodes[0]
        .view
        .validator_set()
        .proposer()
        .unwrap()
        .address;
    let others = |node: &usize| {
        let set = network.nodes[*node].view.validator_set();
        set.validators()[*node].address != proposer
    };
    let alone = (0..4).find(others).unwrap();
    run_to_step(&mut network, alone, Step::Propose);
    let view = &network.nodes[alone].view;
    let line = told(view, None, STANDS_AFTER).unwrap();
    let end = format!("no proposal of {proposer}, whose turn it is");
    assert!(line.ends_with(&end), "{line}");
    let own = Stay {
        own_address: Some(proposer),
        ..Stay::default()
    };
    let own = View::clone(view).with_stay(own);
    let line = told(view, Some(&own), STANDS_AFTER).unwrap();
    assert!(line.contains("this node proposes"), "{line}");
}

#[test]
fn a_later_round_tells_how_the_one_before_ended() {
    let mut network = Network::new(4, 1_000);
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        network.link(a, b);
    }
    // Whenever it is the turn of the fourth, another round is needed.
    for _ in 0..100_000 {
        if network.nodes[0].view.round() == Round::new(1) {
            break;
        }
        network.tick();
    }
    let told = told(&network.nodes[0].view, None, STANDS_AFTER).unwrap();
    let end = "; round 0 ended without a block: 3 of 4 prevoted, for no block, 3 precommitted";
    assert!(told.contains(" round 1 waits (10 s): "), "{told}");
    assert!(told.ends_with(end), "{told}");
}

#[test]
fn nothing_stands_before_a_round_is_due() {
    let network = Network::new(1, 1_000);
    let view = View::clone(&network.nodes[0].view).with_stay(Stay::default());
    let late = Instant::now() + Duration::from_secs(3_600);
    assert_eq!(Standing::of(&view, late), None);
}
