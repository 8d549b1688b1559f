//! What holds of a validator set whatever happens to it.

use perihelion_proto::tendermint::types as pb;
use perihelion_types::{
    PublicKey, Validator, ValidatorSet,
    validator_set::{MAX_TOTAL_VOTING_POWER, PRIORITY_WINDOW_FACTOR},
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Rotate(i32),
    Update(Vec<(u8, i64)>),
}

fn power() -> impl Strategy<Value = i64> {
    prop_oneof![
        1 => Just(0_i64),
        6 => 1..1000_i64,
        2 => 1..MAX_TOTAL_VOTING_POWER / 4,
        1 => Just(MAX_TOTAL_VOTING_POWER),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..6_i32).prop_map(Step::Rotate),
        prop::collection::vec((0..12_u8, power()), 0..4).prop_map(Step::Update),
    ]
}

fn validators(changes: &[(u8, i64)]) -> Vec<Validator> {
    changes
        .iter()
        .map(|&(key, power)| Validator::new(PublicKey::Ed25519([key; 32]), power))
        .collect()
}

/// Order, addresses, total, window and centre of a set that has just been changed.
fn assert_invariants(set: &ValidatorSet) -> Result<(), TestCaseError> {
    let members = set.validators();
    for pair in members.windows(2) {
        let ordered = pair[0].voting_power > pair[1].voting_power
            || (pair[0].voting_power == pair[1].voting_power && pair[0].address < pair[1].address);
        prop_assert!(ordered, "out of order: {pair:?}");
    }
    for (index, member) in members.iter().enumerate() {
        prop_assert!(member.voting_power > 0);
        prop_assert_eq!(set.by_address(&member.address), Some((index, member)));
    }
    let total: i64 = members.iter().map(|member| member.voting_power).sum();
    prop_assert_eq!(set.total_voting_power(), total);
    prop_assert!(total <= MAX_TOTAL_VOTING_POWER);

    let priorities = || {
        members
            .iter()
            .map(|member| i128::from(member.proposer_priority))
    };
    // A rotation moves a priority by one power up and one total down beyond the scaled window.
    let window = i128::from(PRIORITY_WINDOW_FACTOR + 1) * i128::from(total);
    let distance = priorities().max().unwrap() - priorities().min().unwrap();
    prop_assert!(distance <= window, "distance {distance}, window {window}");
    // Centring leaves a sum from 0 to less than the number of members; a round adds the total and
    // takes it away again.
    let sum: i128 = priorities().sum();
    prop_assert!((0..members.len() as i128).contains(&sum), "sum {sum}");
    prop_assert!(set.validate_basic().is_ok());
    Ok(())
}

proptest! {
    #[test]
    fn invariants_survive_rotations_and_updates(
        powers in prop::collection::vec(1..1000_i64, 1..8),
        steps in prop::collection::vec(step(), 1..20),
    ) {
        let start: Vec<_> = (0..).zip(powers).collect();
        let mut set = ValidatorSet::new(validators(&start)).unwrap();
        assert_invariants(&set)?;
        for step in steps {
            let before = set.clone();
            match step {
                Step::Rotate(times) => set.increment_proposer_priority(times).unwrap(),
                Step::Update(changes) => {
                    // A rotation after the update, as every block makes: the proposer is a member.
                    if set.update(validators(&changes)).is_err() {
                        prop_assert_eq!(&set, &before);
                        continue;
                    }
                    set.increment_proposer_priority(1).unwrap();
                }
            }
            assert_invariants(&set)?;
            let proposer = set.proposer().unwrap();
            let (_, member) = set.by_address(&proposer.address).unwrap();
            prop_assert_eq!(proposer, member);
        }
    }

    #[test]
    fn encodings_round_trip(powers in prop::collection::vec(1..1000_i64, 1..8), times in 1..20) {
        let start: Vec<_> = (0..).zip(powers).collect();
        let mut set = ValidatorSet::new(validators(&start)).unwrap();
        set.increment_proposer_priority(times).unwrap();

        let message = pb::ValidatorSet::from(&set);
        prop_assert_eq!(&ValidatorSet::try_from(message).unwrap(), &set);
        let text = perihelion_types::json::to_string(&set).unwrap();
        prop_assert_eq!(&serde_json::from_str::<ValidatorSet>(&text).unwrap(), &set);
    }

    #[test]
    fn rotation_is_fair(powers in prop::collection::vec(1..20_i64, 1..6)) {
        let start: Vec<_> = (0..).zip(powers).collect();
        let mut set = ValidatorSet::new(validators(&start)).unwrap();
        let total = set.total_voting_power();
        let mut turns = vec![0; set.len()];
        for _ in 0..total {
            let (index, _) = set.by_address(&set.proposer().unwrap().address).unwrap();
            turns[index] += 1;
            set.increment_proposer_priority(1).unwrap();
        }
        for (member, turns) in set.validators().iter().zip(turns) {
            prop_assert!((member.voting_power - turns).abs() <= 1, "{member:?}: {turns} turns");
        }
    }
}

/// As CometBFT's encoded sets: a copy's proposer field lags behind its member until the copy
/// rotates, the set's own follows.
#[test]
fn a_clone_keeps_its_proposer_until_it_rotates() {
    let mut set = ValidatorSet::new(validators(&[(0, 10), (1, 20), (2, 30)])).unwrap();
    let chosen = set.proposer().unwrap().clone();
    let newcomer = validators(&[(3, 15)]);

    let mut copy = set.clone();
    assert_eq!(copy, set);
    copy.update(newcomer.clone()).unwrap();
    set.update(newcomer).unwrap();
    let member = |set: &ValidatorSet| set.by_address(&chosen.address).unwrap().1.clone();
    assert_eq!(copy.proposer(), Some(&chosen));
    assert_ne!(member(&copy), chosen);
    assert_eq!(set.proposer(), Some(&member(&set)));
    assert_eq!(copy.validators(), set.validators());
    assert_ne!(copy, set);

    copy.increment_proposer_priority(1).unwrap();
    set.increment_proposer_priority(1).unwrap();
    assert_eq!(copy, set);
}

/// CometBFT decodes such a set, and would crash when priorities tie; here it cannot change.
#[test]
fn a_set_with_an_address_twice_neither_rotates_nor_changes() {
    let mut twice = validators(&[(0, 3), (0, 3)]);
    twice[1].proposer_priority = 5;
    let proposer = twice[0].clone();
    let mut set = ValidatorSet::from_parts(twice.clone(), proposer).unwrap();
    assert_eq!(set.by_address(&twice[0].address), Some((0, &twice[0])));
    assert!(set.increment_proposer_priority(1).is_err());
    assert!(set.update(validators(&[(1, 3)])).is_err());
    assert!(ValidatorSet::from_existing(twice).is_err());
}
