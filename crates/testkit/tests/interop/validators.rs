//! Two validators of ours among two CometBFT ones.

use std::{collections::BTreeSet, fs, path::Path};

use perihelion_consensus_reactor::privval::ValidatorKey;
use perihelion_store::{Store, StoreOptions};
use perihelion_testkit::evil::Equivocator;
use perihelion_types::Height;

use crate::{
    logs::Excuses,
    mixed::{COMETBFTS, Mixed, OURS, VALIDATORS, evidence, proposers},
    setup::{copy_folder, fresh_home, perihelion, turn},
};

/// Blocks that all commit before anything is done to them.
const BLOCKS: i64 = 500;
/// Transactions a second meanwhile.
const RATE: f64 = 100.0;
/// Heights at which a validator votes twice, at most: until then proposers of both kinds have put
/// evidence into a block.
const LIES: i64 = 60;
/// Blocks after which evidence that is in none will be in none.
const LIE_BLOCKS: i64 = 20;
/// From this height on precommits have extensions: all four decide with them and without.
const EXTENSIONS: i64 = 20;

#[test]
fn two_and_two_commit_under_load_are_killed_in_turn_and_joined_late() {
    let Some(turn) = turn() else { return };
    // Late nodes of both kinds, each with one peer of either kind.
    let late = [(true, 1), (true, 2), (false, 0), (false, 3)];
    let mut mixed = Mixed::make(&turn.cometbft, "mixed", [10; 4], &late, EXTENSIONS).unwrap();
    mixed.begin().unwrap();
    let addresses = VALIDATORS.map(|number| mixed.cluster.address(number).unwrap());
    let load = mixed.load(&VALIDATORS, RATE);
    mixed.cluster.wait_heights(BLOCKS).unwrap();
    let proposed = proposers(&mixed, OURS[0], BLOCKS).unwrap();
    for (number, address) in addresses.iter().enumerate() {
        let count = proposed.get(address).copied().unwrap_or(0);
        assert!(count > 0, "node{number} proposed nothing");
    }
    mixed.cluster.agree(1).unwrap();
    mixed.check_logs(&Excuses::default()).unwrap();

    for number in VALIDATORS {
        mixed.kill_and_restart(number).unwrap();
    }

    for number in VALIDATORS.len()..mixed.cluster.len() {
        let top = mixed.cluster.top().unwrap();
        mixed.cluster.start([number]).unwrap();
        let status = mixed
            .cluster
            .wait(number, "the others", |it| {
                it.height >= top && !it.catching_up
            })
            .unwrap();
        // From here on it follows by consensus.
        mixed
            .cluster
            .wait_height(number, status.height + 20)
            .unwrap();
        eprintln!("node{number}: joined at {} of {top}", status.height);
    }
    let counts = load.stop();
    let last = mixed.cluster.agree(1).unwrap();
    let home = mixed.cluster.launch(OURS[0]).home.clone();
    let dropped = mixed.finish().unwrap();
    check_extensions(&home, BLOCKS);
    eprintln!(
        "all equal up to {last}; {counts:?}; {dropped} peers dropped by CometBFT for late second answers"
    );
}

/// A stopped node of ours has extended commits from [`EXTENSIONS`] on, and every validator's signature
/// of an extension stands in one: theirs were judged here, and ours by them.
fn check_extensions(home: &Path, to: i64) {
    let store = Store::open(&home.join("data"), &StoreOptions::default()).unwrap();
    let extended = |height| store.load_extended_commit(Height::new(height)).unwrap();
    assert!(extended(EXTENSIONS - 1).is_none());
    let mut signers = BTreeSet::new();
    for height in EXTENSIONS..=to {
        let commit = extended(height).unwrap_or_else(|| panic!("height {height}"));
        let signed = commit.extended_signatures.iter();
        let signed = signed.filter(|place| !place.extension_signature.is_empty());
        signers.extend(signed.map(|place| place.commit_sig.validator_address.clone()));
    }
    assert_eq!(signers.len(), VALIDATORS.len(), "{signers:?}");
}

/// A second signer has the key of `liar` and lies to `victims`, until proposers of so many kinds
/// have put evidence of it into blocks.
fn equivocation(cometbft: &Path, name: &str, liar: usize, victims: &[usize], proposers: usize) {
    let mut powers = [1_001; 4];
    // The last one of the set, and still when it was punished.
    powers[liar] = 1_000;
    let mut mixed = Mixed::make(cometbft, name, powers, &[], 0).unwrap();
    mixed.begin().unwrap();
    mixed.cluster.wait_heights(3).unwrap();
    let kind_of = |mixed: &Mixed, address: &str| {
        let is_it = |number: &usize| mixed.cluster.address(*number).unwrap() == address;
        COMETBFTS.iter().any(is_it)
    };
    let home = mixed.cluster.launch(liar).home.clone();
    let key = ValidatorKey::load(&home.join("config/priv_validator_key.json")).unwrap();
    let address = mixed.cluster.address(liar).unwrap();
    let peers: Vec<String> = victims
        .iter()
        .map(|&victim| mixed.cluster.launch(victim).address().unwrap())
        .collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let started = Equivocator::start(name, key.key, 3, &peers);
    let equivocator = runtime.block_on(started).unwrap();
    let (mut height, mut pieces, mut kinds) = (1, 0, BTreeSet::new());
    let (mut lies, mut lied_at) = (0, None);
    while kinds.len() < proposers {
        // The last lie is in a block, or came too late to be noticed; and it is another proposer's
        // turn than at the last one.
        let is_over = lied_at.is_none_or(|lied_at| height > lied_at + LIE_BLOCKS);
        if is_over && height % 4 == lies % 4 {
            assert!(lies < LIES, "{pieces} pieces of evidence");
            equivocator.lie_once();
            lies += 1;
            lied_at = Some(height);
        }
        mixed.cluster.wait_heights(height).unwrap();
        let path = format!("/block?height={height}");
        let blocks = VALIDATORS.map(|number| mixed.cluster.node(number).call(&path).unwrap());
        assert!(blocks.iter().all(|block| *block == blocks[0]), "{path}");
        let (found, proposer) = evidence(&blocks[0]);
        for piece in &found {
            let vote = &piece["value"]["vote_a"];
            assert_eq!(vote["validator_address"], address, "{piece}");
            let is_cometbft = kind_of(&mixed, &proposer);
            eprintln!(
                "height {height}: evidence of height {} (proposed by CometBFT: {is_cometbft})",
                vote["height"]
            );
            pieces += 1;
            kinds.insert(is_cometbft);
            lied_at = None;
        }
        height += 1;
    }
    let evil = equivocator.id().to_string();
    runtime.block_on(equivocator.stop());
    mixed.cluster.wait_heights(height + 2).unwrap();
    // The application takes some of its power, with all nodes alike.
    let path = format!("/validators?height={}", height + 2);
    let sets = VALIDATORS.map(|number| mixed.cluster.node(number).call(&path).unwrap());
    assert!(sets.iter().all(|set| *set == sets[0]), "{sets:?}");
    let members = sets[0]["validators"].as_array().unwrap();
    let liar = members.iter().find(|it| it["address"] == address).unwrap();
    let power: i64 = liar["voting_power"].as_str().unwrap().parse().unwrap();
    assert!(power < 1_000, "{power} after {pieces} pieces");
    let last = mixed.cluster.agree(1).unwrap();
    eprintln!("{pieces} pieces of evidence committed, all equal up to {last}");
    let excuses = Excuses {
        cut: vec![evil],
        texts: vec!["conflicting vote"],
        ..Excuses::default()
    };
    mixed.check_logs(&excuses).unwrap();
    mixed.finish().unwrap();
}

#[test]
fn a_double_vote_told_to_perihelion_is_evidence_for_all() {
    let Some(turn) = turn() else { return };
    let (liar, victims) = (COMETBFTS[1], [OURS[0]]);
    equivocation(&turn.cometbft, "double-vote-ours", liar, &victims, 1);
}

#[test]
fn a_double_vote_told_to_cometbft_is_evidence_for_all() {
    let Some(turn) = turn() else { return };
    let (liar, victims) = (OURS[1], [COMETBFTS[0]]);
    equivocation(&turn.cometbft, "double-vote-theirs", liar, &victims, 1);
}

/// CometBFT passes evidence on only after ten seconds where the peer was not yet above its height,
/// so a proposer of each kind must have seen it.
#[test]
fn a_double_vote_told_to_both_is_put_into_blocks_by_both() {
    let Some(turn) = turn() else { return };
    let (liar, victims) = (OURS[1], [COMETBFTS[0], OURS[0]]);
    equivocation(&turn.cometbft, "double-vote-both", liar, &victims, 2);
}

/// What a validator takes with it to another node: all but the databases and the log.
fn move_home(from: &Path, to: &Path) {
    copy_folder(&from.join("config"), &to.join("config")).unwrap();
    let state = "data/priv_validator_state.json";
    fs::create_dir_all(to.join("data")).unwrap();
    fs::copy(from.join(state), to.join(state)).unwrap();
}

#[test]
fn a_cometbft_validator_moves_to_perihelion_and_back() {
    let Some(turn) = turn() else { return };
    let mut mixed = Mixed::make(&turn.cometbft, "moved", [10; 4], &[], 0).unwrap();
    let moving = COMETBFTS[1];
    mixed.begin().unwrap();
    mixed.cluster.wait_heights(50).unwrap();
    mixed.check_logs(&Excuses::default()).unwrap();
    let programs = [perihelion().unwrap(), turn.cometbft.clone()];
    for (step, program) in programs.into_iter().enumerate() {
        mixed.cluster.stop([moving]).unwrap();
        let launch = mixed.cluster.launch(moving);
        let home = fresh_home(&format!("moved-{step}")).unwrap();
        move_home(&launch.home, &home);
        fs::copy(launch.home.join("node.log"), home.join("node.log")).unwrap();
        launch.home = home;
        launch.program = program;
        let stopped_at = mixed.cluster.top().unwrap();
        mixed.cluster.wait_heights(stopped_at + 20).unwrap();
        mixed.cluster.start([moving]).unwrap();
        let top = mixed.cluster.top().unwrap();
        mixed.cluster.wait_height(moving, top).unwrap();
        let signed = mixed.cluster.wait_signed(OURS[0], moving, top + 1).unwrap();
        eprintln!("move {step}: stopped at {stopped_at}, signed {signed}");
        mixed.cluster.wait_heights(signed + 20).unwrap();
        let excuses = mixed.cut(&[moving]);
        mixed.check_logs(&excuses).unwrap();
    }
    mixed.cluster.agree(1).unwrap();
    mixed.finish().unwrap();
}
