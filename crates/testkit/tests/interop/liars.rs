//! Honest CometBFT peers beside liars of each kind.

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

use crate::setup::{Chain, PATIENCE, assert_equal, cometbft, figure, perihelion};

/// A chain that every kind of lie can be told about.
const CHAIN: Chain = Chain {
    name: "lied-about",
    initial: 1,
    blocks: 2_000,
    is_extended: true,
    flags: "--validators 4 --txs 3 --churn 50 --extensions-height 1",
};

/// The seed of the chain maker, and how many of its keys the liars have: the first validators'.
const KEYS: (u64, usize) = (1, 4);
/// Liars of a crowd.
const CROWD: usize = 9;
/// How long after the last block a verdict may still be on its way.
const VERDICT: Duration = Duration::from_secs(30);

/// Honest servers, and the chains that liars tell.
struct Scene {
    program: PathBuf,
    honest: Vec<(NodeProcess, String)>,
    lies: HashMap<Lie, Arc<LyingChain>>,
    runtime: tokio::runtime::Runtime,
    runs: usize,
    /// How long the sync takes without a liar.
    alone: Duration,
}

impl Scene {
    /// `None` where there is no CometBFT.
    fn new(honest: usize) -> Option<Self> {
        let cometbft = cometbft()?;
        let home = CHAIN.synced_home(&cometbft).unwrap();
        let store = Store::open(&home.join("data"), &StoreOptions::default());
        let store = Arc::new(store.unwrap());
        let keys = made_validator_keys(KEYS.0, KEYS.1);
        let lies = Lie::ALL.map(|lie| {
            let chain = LyingChain::new(Arc::clone(&store), lie, &keys).unwrap();
            (lie, Arc::new(chain))
        });
        let serve = |number| {
            let name = format!("honest-{number}");
            CHAIN.serve_by_cometbft(&cometbft, &name).unwrap()
        };
        let mut scene = Self {
            program: perihelion().unwrap(),
            honest: (0..honest).map(serve).collect(),
            lies: lies.into_iter().collect(),
            runtime: tokio::runtime::Runtime::new().unwrap(),
            runs: 0,
            alone: Duration::ZERO,
        };
        scene.alone = scene.run(&[]);
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
        let reachable = CHAIN.linked();
        node.wait_for("the last height", PATIENCE, |it| it.height >= reachable)
            .unwrap_or_else(|error| panic!("{lies:?}: {error:#}"));
        let elapsed = began.elapsed();
        self.judge(&node, &liars);
        assert_equal(&node, &self.honest[0].0, CHAIN.initial, reachable);
        let told: u64 = liars.iter().map(EvilPeer::told).sum();
        eprintln!(
            "{} honest beside {}: {elapsed:.1?}{}, {told} lies told, {} blocks received for {reachable}",
            self.honest.len(),
            describe(lies),
            self.ratio(elapsed),
            figure(&node.sync_status().unwrap(), "blocks_received"),
        );
        assert!(node.stop().unwrap().success());
        for liar in liars {
            self.runtime.block_on(liar.stop());
        }
        elapsed
    }

    fn ratio(&self, elapsed: Duration) -> String {
        if self.alone.is_zero() {
            return String::new();
        }
        let ratio = elapsed.as_secs_f64() / self.alone.as_secs_f64();
        format!(" ({ratio:.2} times as long as without)")
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

/// Who is connected; who was removed, and why.
fn peers(node: &NodeProcess) -> (BTreeSet<String>, Vec<(String, String)>) {
    let info = node.call("/net_info").unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let connected = info["peers"].as_array().unwrap().iter();
    let gone = info["recent_disconnects"].as_array().unwrap().iter();
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

#[test]
fn one_honest_peer_beside_each_liar() {
    let Some(mut scene) = Scene::new(1) else {
        return;
    };
    for lie in Lie::ALL {
        scene.run(&[lie]);
    }
}

#[test]
fn three_honest_peers_beside_each_liar() {
    let Some(mut scene) = Scene::new(3) else {
        return;
    };
    for lie in Lie::ALL {
        scene.run(&[lie]);
    }
}

#[test]
fn one_honest_peer_beside_nine_liars() {
    let Some(mut scene) = Scene::new(1) else {
        return;
    };
    for lie in Lie::ALL {
        scene.run(&[lie; CROWD]);
    }
    scene.run(&Lie::ALL);
}
