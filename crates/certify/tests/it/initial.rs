//! The initial height, where nothing has confirmed the validators yet.

use perihelion_certify::{
    Blame, CommitError, CommitFault, LastBlock, RunVerdict, UnfittingFault, certify_run,
};

use crate::chain::{Cast, Chain, certified, drifted, equals};

fn unfitting(run: &perihelion_certify::Run) -> UnfittingFault {
    let (verdict, _) = certify_run(run);
    assert_eq!(verdict.blame(), Blame::Nobody);
    match verdict {
        RunVerdict::Unfitting { fault } => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fitting_first_run_is_certified_from_any_initial_height() {
    for initial in [1, 1000] {
        let chain = Chain::from(initial, &[equals(0..4)], 4);
        let mut run = chain.run(initial, initial + 2);
        run.anchor.confirmed = false;
        let expected = (initial..=initial + 2).collect();
        assert_eq!(certified(&run), (expected, LastBlock::Final));
    }
}

#[test]
fn a_failed_commit_convicts_nobody_at_the_initial_height() {
    let chain = Chain::new(&[equals(0..4)], 1);
    for cast in [Cast::Forged, Cast::Absent] {
        let mut run = chain.run_closed_by(1, chain.commit(|_| cast));
        run.anchor.confirmed = false;
        let fault = unfitting(&run);
        assert!(
            match &fault {
                UnfittingFault::Commit(CommitFault::OwnSet(error)) => match cast {
                    Cast::Forged => matches!(error, CommitError::WrongSignature { .. }),
                    _ => matches!(error, CommitError::NotEnoughPower { .. }),
                },
                _ => false,
            },
            "{fault:?}"
        );
    }
}

#[test]
fn other_validators_in_the_first_header_convict_nobody_and_both_hashes_are_named() {
    let (ours, theirs) = (equals(0..4), equals(4..8));
    let chain = Chain::new(std::slice::from_ref(&theirs), 3);
    for last in 1..=2 {
        let mut run = chain.run(1, last);
        run.anchor.set = ours.clone();
        run.anchor.confirmed = false;
        let expected = UnfittingFault::ValidatorsHash {
            height: chain.block(1).height(),
            ours: ours.hash(),
            header: theirs.hash(),
        };
        assert_eq!(unfitting(&run), expected);
    }
}

#[test]
fn drift_from_the_genesis_validators_is_halved_like_any_other() {
    let chain = Chain::new(&[equals(0..4), equals(0..4), equals(4..8)], 4);
    let mut run = chain.run(1, 3);
    run.anchor.confirmed = false;
    drifted(&run);
    let mut run = chain.run(1, 2);
    run.anchor.confirmed = false;
    assert_eq!(certified(&run).0, [1, 2]);
}
