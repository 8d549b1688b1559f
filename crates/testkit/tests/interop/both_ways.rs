//! A whole chain from CometBFT to Perihelion, and from Perihelion to a fresh CometBFT.

use std::time::Instant;

use crate::setup::{Chain, PATIENCE, assert_equal, figure, perihelion, turn};

/// `check` sees the `/sync_status` of the synced Perihelion.
fn both_ways(chain: Chain, check: impl FnOnce(&serde_json::Value)) {
    let Some(turn) = turn() else { return };
    let cometbft = &turn.cometbft;
    let name = |role: &str| format!("{}-{role}", chain.name);
    let (server, address) = chain.serve_by_cometbft(cometbft, &name("server")).unwrap();
    let program = perihelion().unwrap();
    let ours = chain.fresh_node(&program, &name("perihelion"), [address]);
    let ours = ours.unwrap();
    let began = Instant::now();
    let mut node = ours.start().unwrap();
    let reachable = chain.reachable();
    node.wait_for("what blocksync gives", PATIENCE, |it| {
        it.height >= reachable
    })
    .unwrap();
    let elapsed = began.elapsed();
    let last = chain.last();
    node.wait_for("the last height, by consensus", PATIENCE, |it| {
        it.height == last && !it.catching_up
    })
    .unwrap();
    assert_equal(&node, &server, chain.initial, last);
    let sync = node.sync_status().unwrap();
    let verified = figure(&sync, "signatures_verified");
    let total = figure(&sync, "signatures_total");
    eprintln!(
        "{}: {} blocks from CometBFT in {elapsed:.1?}, all equal; verified {verified} of {total} signatures, longest run {}",
        chain.name,
        reachable - chain.initial + 1,
        figure(&sync, "longest_run"),
    );
    check(&sync);
    server.stop().unwrap();

    let address = ours.address().unwrap();
    let fresh = chain.fresh_node(cometbft, &name("cometbft"), [address]);
    let began = Instant::now();
    let mut fresh = fresh.unwrap().start().unwrap();
    fresh
        .wait_for("the last height, by consensus", PATIENCE, |it| {
            it.height == last && !it.catching_up
        })
        .unwrap();
    let elapsed = began.elapsed();
    assert_equal(&node, &fresh, chain.initial, last);
    eprintln!(
        "{}: CometBFT took all {} blocks from Perihelion in {elapsed:.1?}, all equal",
        chain.name,
        last - chain.initial + 1,
    );
    fresh.stop().unwrap();
    assert!(node.stop().unwrap().success());
}

#[test]
fn churn_rounds_and_absent_votes() {
    both_ways(CHURN, |_| ());
}

/// Validators come and go, stay away, and need several rounds.
pub(crate) const CHURN: Chain = Chain {
    name: "churn",
    initial: 1,
    blocks: 600,
    is_extended: false,
    flags: "--validators 8 --churn 7 --absent 0.2 --rounds 3 --txs 3",
};

#[test]
fn initial_height_1000() {
    let chain = Chain {
        name: "ih1000",
        initial: 1000,
        blocks: 400,
        is_extended: false,
        flags: "--validators 5 --absent 0.1",
    };
    both_ways(chain, |_| ());
}

#[test]
fn vote_extensions_from_the_first_height() {
    let chain = Chain {
        name: "ext",
        initial: 1,
        blocks: 400,
        is_extended: true,
        flags: "--extensions-height 1",
    };
    both_ways(chain, |_| ());
}

#[test]
fn vote_extensions_from_height_100() {
    let chain = Chain {
        name: "ext100",
        initial: 1,
        blocks: 400,
        is_extended: true,
        flags: "--extensions-height 100 --churn 20",
    };
    both_ways(chain, |_| ());
}

#[test]
fn twenty_thousand_blocks_of_one_set() {
    both_ways(STATIC, |sync| {
        let verified = figure(sync, "signatures_verified");
        let total = figure(sync, "signatures_total");
        assert!(verified * 100 < total, "{verified} of {total}");
        assert!(figure(sync, "longest_run") > 100);
    });
}

/// One set of validators all along.
pub(crate) const STATIC: Chain = Chain {
    name: "static20k",
    initial: 1,
    blocks: 20_000,
    is_extended: false,
    flags: "",
};

#[test]
fn another_set_at_every_block() {
    let chain = Chain {
        name: "change2k",
        initial: 1,
        blocks: 2_000,
        is_extended: false,
        flags: "--validators 6 --churn 1",
    };
    both_ways(chain, |_| ());
}
