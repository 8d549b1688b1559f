//! Kills in the middle of a sync.

use perihelion_testkit::process::NodeProcess;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    both_ways::STATIC,
    setup::{PATIENCE, assert_equal, figure, launch, perihelion, turn},
};

/// How often the syncing node is killed.
const KILLS: i64 = 5;
/// The moments of the kills follow from it.
const SEED: u64 = 7;

/// The height of each kill: anywhere in its own sixth of the chain.
fn kill_heights(last: i64) -> Vec<i64> {
    let mut draw = ChaCha8Rng::seed_from_u64(SEED);
    let sixth = last / (KILLS + 1);
    (0..KILLS)
        .map(|kill| kill * sixth + 1 + (draw.next_u64() % sixth as u64) as i64)
        .collect()
}

#[test]
fn killed_five_times_while_a_server_is_killed() {
    let Some(turn) = turn() else { return };
    let cometbft = &turn.cometbft;
    let chain = STATIC;
    let program = perihelion().unwrap();
    let synced = chain.synced_home(cometbft).unwrap();
    let ours = launch("third-server", &program, &synced).unwrap();
    let mut third = ours.start().unwrap();
    third.wait_ready(PATIENCE).unwrap();
    let (first, a) = chain.serve_by_cometbft(cometbft, "first-server").unwrap();
    let (second, b) = chain.serve_by_cometbft(cometbft, "second-server").unwrap();
    let mut second: Option<NodeProcess> = Some(second);
    let peers = [a, b, ours.address().unwrap()];
    let syncing = chain.fresh_node(&program, "syncing", peers).unwrap();
    for (number, height) in kill_heights(chain.reachable()).into_iter().enumerate() {
        let mut node = syncing.start().unwrap();
        let ready = node.wait_ready(PATIENCE).unwrap();
        let status = node.wait_for("its next end", PATIENCE, |it| it.height >= height);
        let sync = node.sync_status().unwrap();
        let resumed = figure(&sync, "start_height");
        eprintln!(
            "kill {}: resumed at {resumed}, killed at {} (drawn: {height})",
            number + 1,
            status.unwrap().height,
        );
        assert!(
            number == 0 || (ready.height > 0 && resumed > 0),
            "it began again"
        );
        node.kill().unwrap();
        if number == 2
            && let Some(server) = second.take()
        {
            server.kill().unwrap();
            eprintln!("and the second server with it");
        }
    }
    let mut node = syncing.start().unwrap();
    let last = chain.last();
    let status = node.wait_for("the last height", PATIENCE, |it| it.height >= last);
    assert_eq!(status.unwrap().height, last);
    assert_equal(&node, &first, chain.initial, last);
    eprintln!("all {last} blocks equal after {KILLS} kills");
}
