//! Honest CometBFT peers beside liars of each kind.
//!
//! What is asserted holds at any speed: the chain is equal, who must be banned is, nobody else is
//! banned or dropped, and blocks that are begun and never ended are not waited for. How long each sync
//! took is printed, and said loudly where it is more than the goal. `LIES` narrows the kinds, by
//! name: `LIES=StaleFork,WithheldHeight`.

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use perihelion_store::{Store, StoreOptions};
use perihelion_testkit::{
    evil::{EvilPeer, Lie, LyingChain, made_validator_keys},
    process::NodeProcess,
};

use crate::setup::{Chain, PATIENCE, Turn, assert_same_chain, figure, perihelion, turn};

/// A chain that every kind of lie can be told about.
const CHAIN: Chain = Chain {
    name: "lied-about",
    initial: 1,
    blocks: 8_000,
    is_extended: true,
    flags: "--validators 4 --txs 3 --churn 50 --extensions-height 1",
};

/// The seed of the chain maker, and how many of its keys the liars have: the first validators'.
const KEYS: (u64, usize) = (1, 4);
/// Liars of a crowd.
const CROWD: usize = 9;
/// How long after the last block a verdict may still be on its way.
const VERDICT: Duration = Duration::from_secs(30);
/// How many times as long as without liars a sync may take: beside one, and beside a crowd.
const GOALS: (f64, f64) = (1.5, 2.0);

/// Honest servers, and the chains that liars tell.
struct Scene {
    program: PathBuf,
    honest: Vec<(NodeProcess, String)>,
    lies: HashMap<Lie, Arc<LyingChain>>,
    runtime: tokio::runtime::Runtime,
    runs: usize,
    /// How long the last sync without a liar took.
    alone: Duration,
    /// What is said at the end, a line each.
    table: Vec<String>,
    _turn: Turn,
}

impl Scene {
    /// `None` where the suite is not asked for.
    fn new(honest: usize) -> Option<Self> {
        let turn = turn()?;
        let cometbft = &turn.cometbft;
        let home = CHAIN.synced_home(cometbft).unwrap();
        let store = Store::open(&home.join("data"), &StoreOptions::default());
        let store = Arc::new(store.unwrap());
        let keys = made_validator_keys(KEYS.0, KEYS.1);
        let lies = Lie::ALL.map(|lie| {
            let chain = LyingChain::new(Arc::clone(&store), lie, &keys).unwrap();
            (lie, Arc::new(chain))
        });
        let serve = |number| {
            let name = format!("honest-{number}");
            CHAIN.serve_by_cometbft(cometbft, &name).unwrap()
        };
        let mut scene = Self {
            program: perihelion().unwrap(),
            honest: (0..honest).map(serve).collect(),
            lies: lies.into_iter().collect(),
            runtime: tokio::runtime::Runtime::new().unwrap(),
            runs: 0,
            alone: Duration::ZERO,
            table: Vec::new(),
            _turn: turn,
        };
        // Warms the caches, and is not counted.
        scene.run(&[]);
        scene.table.clear();
        Some(scene)
    }

    /// One sync beside these liars; how long it took.
    fn run(&mut self, lies: &[Lie]) -> Duration {
        let liars: Vec<EvilPeer> = lies
            .iter()
            .zip(2..)
            .map(|(lie, host)| {
                let chain = Arc::clone(&self.lies[lie]);
                let address = Ipv4Addr::new(127, 0, 0, host);
                self.runtime
                    .block_on(EvilPeer::start(chain, address))
                    .unwrap()
            })
            .collect();
        let peers = self.honest.iter().map(|(_, address)| address.clone());
        let peers = peers.chain(liars.iter().map(|liar| liar.address().unwrap()));
        self.runs += 1;
        let name = format!("beside-liars-{}-{}", self.honest.len(), self.runs);
        let node = CHAIN.fresh_node(&self.program, &name, peers).unwrap();
        let began = Instant::now();
        let mut node = node.start().unwrap();
        let last = CHAIN.reachable();
        let mut unended = Unended::default();
        node.wait_for("the last height", PATIENCE, |it| {
            unended.look(it.height, &liars);
            it.height >= last
        })
        .unwrap_or_else(|error| panic!("{lies:?}: {error:#}"));
        let elapsed = began.elapsed();
        if !lies.is_empty() && lies.iter().all(|lie| *lie == Lie::EndlessBlock) {
            assert!(unended.is_passed_by, "{lies:?}");
        }
        self.judge(&node, &liars);
        assert_same_chain(&node, &self.honest[0].0, CHAIN.initial, last);
        let told: u64 = liars.iter().map(EvilPeer::told).sum();
        let line = format!(
            "{} honest beside {:<32} {:>5.2} s{}; {told} lies told, {} blocks received for {last}",
            self.honest.len(),
            describe(lies),
            elapsed.as_secs_f64(),
            self.ratio(elapsed, lies.len()),
            figure(&node.sync_status().unwrap(), "blocks_received"),
        );
        eprintln!("{line}");
        self.table.push(line);
        assert!(node.stop().unwrap().success());
        for liar in liars {
            self.runtime.block_on(liar.stop());
        }
        elapsed
    }

    /// How much longer than without liars, and whether that is more than the goal.
    fn ratio(&self, elapsed: Duration, liars: usize) -> String {
        if self.alone.is_zero() {
            return String::new();
        }
        let (alone, elapsed) = (self.alone.as_secs_f64(), elapsed.as_secs_f64());
        let ratio = elapsed / alone;
        let goal = if liars == 1 { GOALS.0 } else { GOALS.1 };
        let loud = if ratio > goal {
            format!(" *** OVER THE GOAL of {goal} ***")
        } else {
            String::new()
        };
        format!(", {ratio:.2} times, {:+.2} s{loud}", elapsed - alone)
    }

    /// Syncs beside these, each in turn and each after a sync without a liar, since other work on
    /// the machine comes and goes; says how it went.
    fn tell(mut self, crowds: impl IntoIterator<Item = Vec<Lie>>) {
        for lies in crowds {
            self.alone = Duration::ZERO;
            self.alone = self.run(&[]);
            self.run(&lies);
        }
        eprintln!("\n{}\n", self.table.join("\n"));
    }

    /// No honest peer is banned or dropped; convicted liars are banned, others are not.
    fn judge(&self, node: &NodeProcess, liars: &[EvilPeer]) {
        let guilty: BTreeSet<String> = liars
            .iter()
            .filter(|liar| liar.lie().is_convicted() && liar.told() > 0)
            .map(|liar| liar.id().to_string())
            .collect();
        let deadline = Instant::now() + VERDICT;
        let (connected, gone) = loop {
            let seen = peers(node);
            let banned = banned(&seen.1);
            if guilty.is_subset(&banned) || Instant::now() > deadline {
                break seen;
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        assert_eq!(
            banned(&gone),
            guilty,
            "banned, and those who must be; gone: {gone:#?}"
        );
        for (_, address) in &self.honest {
            let id = address.split('@').next().unwrap();
            assert!(connected.contains(id), "honest {id} is gone: {gone:#?}");
            let dropped = gone.iter().find(|(other, _)| other == id);
            assert_eq!(dropped, None, "an honest peer was dropped");
        }
        let told: u64 = liars.iter().map(EvilPeer::told).sum();
        assert!(
            liars.is_empty() || told > 0,
            "no liar was asked for anything"
        );
    }
}

/// Whether blocks that are begun and never ended are waited for.
#[derive(Default)]
struct Unended {
    /// As it was seen last: the height, how many such blocks stood open, and how many there were so far.
    last: (i64, u64, u64),
    /// The height rose while one stood open.
    is_passed_by: bool,
}

impl Unended {
    fn look(&mut self, height: i64, liars: &[EvilPeer]) {
        let open = liars.iter().map(EvilPeer::begun).sum();
        let told = liars.iter().map(EvilPeer::told).sum();
        let (before, was_open, was_told) = self.last;
        self.is_passed_by |= open > 0 && (open, told) == (was_open, was_told) && height > before;
        self.last = (height, open, told);
    }
}

/// Who is connected; who was removed, and why.
fn peers(node: &NodeProcess) -> (BTreeSet<String>, Vec<(String, String)>) {
    let info = node.call("/net_info").unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let connected = info["peers"].as_array().unwrap().iter();
    let gone = info["recent_disconnects"].as_array().into_iter().flatten();
    (
        connected.map(|it| text(&it["node_info"]["id"])).collect(),
        gone.map(|it| (text(&it["id"]), text(&it["reason"])))
            .collect(),
    )
}

fn banned(gone: &[(String, String)]) -> BTreeSet<String> {
    gone.iter()
        .filter(|(_, reason)| reason.starts_with("banned"))
        .map(|(id, _)| id.clone())
        .collect()
}

fn describe(lies: &[Lie]) -> String {
    match lies {
        [] => "nobody".to_owned(),
        [lie] => format!("1 x {lie:?}"),
        [lie, rest @ ..] if rest.iter().all(|other| other == lie) => {
            format!("{} x {lie:?}", lies.len())
        }
        _ => format!("{} mixed", lies.len()),
    }
}

/// The kinds that `LIES` names; all without it.
fn kinds() -> Vec<Lie> {
    let Ok(named) = std::env::var("LIES") else {
        return Lie::ALL.to_vec();
    };
    let named: Vec<&str> = named.split(',').collect();
    let is_named = |lie: &Lie| {
        let name = format!("{lie:?}");
        named.iter().any(|part| name.contains(part))
    };
    let kinds: Vec<Lie> = Lie::ALL.into_iter().filter(is_named).collect();
    assert!(!kinds.is_empty(), "LIES names no kind: {named:?}");
    kinds
}

#[test]
fn one_honest_peer_beside_each_liar() {
    if let Some(scene) = Scene::new(1) {
        scene.tell(kinds().into_iter().map(|lie| vec![lie]));
    }
}

#[test]
fn three_honest_peers_beside_each_liar() {
    if let Some(scene) = Scene::new(3) {
        scene.tell(kinds().into_iter().map(|lie| vec![lie]));
    }
}

#[test]
fn one_honest_peer_beside_nine_liars() {
    if let Some(scene) = Scene::new(1) {
        scene.tell(kinds().into_iter().map(|lie| vec![lie; CROWD]));
    }
}

#[test]
fn one_honest_peer_beside_liars_of_all_kinds() {
    if let Some(scene) = Scene::new(1) {
        scene.tell([Lie::ALL.to_vec()]);
    }
}
