//! Networks of validators of both kinds.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, ensure};
use perihelion_testkit::{
    cluster::Cluster,
    load::{Load, LoadPlan},
    network::NetworkShape,
    process::{Launch, node_id},
};
use serde_json::Value;

use crate::{
    logs::{Excuses, Findings, examine},
    setup::{PATIENCE, fresh_home, is_v038, perihelion},
};

/// Bytes of a transaction of the load.
const TX_BYTES: usize = 250;

/// A network of real processes of both kinds, with all of their logs read.
pub(crate) struct Mixed {
    pub(crate) cluster: Cluster,
    /// Ids of the nodes, by number, and their addresses.
    ids: Vec<String>,
    addresses: Vec<String>,
    /// How far each log was read.
    read: Vec<usize>,
    /// Times that CometBFT dropped a peer for a second answer.
    unsolicited: usize,
    /// Ends of connections that those excuse.
    closed: Vec<String>,
}

/// The validators: CometBFT's first.
pub(crate) const COMETBFTS: [usize; 2] = [0, 1];
/// The validators that are ours.
pub(crate) const OURS: [usize; 2] = [2, 3];
/// All validators.
pub(crate) const VALIDATORS: [usize; 4] = [0, 1, 2, 3];

impl Mixed {
    /// Homes of 2 + 2 validators of these powers, and of late nodes: each a CometBFT (`true`) or
    /// ours, with one peer, named by its number. Votes have extensions from a height on, 0 for never.
    /// None runs yet.
    pub(crate) fn make(
        cometbft: &Path,
        name: &str,
        powers: [i64; 4],
        late: &[(bool, usize)],
        extensions_height: i64,
    ) -> anyhow::Result<Self> {
        let shape = NetworkShape {
            powers: powers.to_vec(),
            extensions_height,
            ..NetworkShape::new(name, powers.len())
        };
        let shape = shape.others(late.len());
        let ours = perihelion()?;
        let mut launches = shape.make(&fresh_home(name)?, &ours)?;
        for number in COMETBFTS {
            launches[number].run_by(cometbft)?;
        }
        let addresses = launches
            .iter()
            .map(Launch::address)
            .collect::<anyhow::Result<Vec<_>>>()?;
        for (own, launch) in launches.iter_mut().enumerate() {
            let peers = match own.checked_sub(powers.len()) {
                None => VALIDATORS
                    .into_iter()
                    .filter(|other| *other != own)
                    .collect(),
                Some(index) => {
                    let (is_cometbft, peer) = late[index];
                    if is_cometbft {
                        launch.run_by(cometbft)?;
                    }
                    vec![peer]
                }
            };
            launch.persistent_peers = peers.iter().map(|&peer| addresses[peer].clone()).collect();
            *launch = configured(launch.clone(), cometbft)?;
        }
        let ids = launches
            .iter()
            .map(|launch| node_id(&launch.home))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let host = |address: &String| address.split('@').skip(1).collect();
        Ok(Self {
            addresses: addresses.iter().map(host).collect(),
            read: vec![0; launches.len()],
            ids,
            cluster: Cluster::new(launches, PATIENCE),
            unsolicited: 0,
            closed: Vec::new(),
        })
    }

    /// What excuses the ends of connections with these nodes.
    pub(crate) fn cut(&self, numbers: &[usize]) -> Excuses {
        let names = |&number: &usize| [self.ids[number].clone(), self.addresses[number].clone()];
        Excuses {
            cut: numbers.iter().flat_map(names).collect(),
            ..Excuses::default()
        }
    }

    /// Starts the validators, which may dial each other in vain at first.
    pub(crate) fn begin(&mut self) -> anyhow::Result<()> {
        self.cluster.start(VALIDATORS)?;
        self.cluster.wait_heights(2)?;
        self.check_logs(&self.cut(&VALIDATORS))
    }

    /// Sends so many transactions a second to these nodes.
    pub(crate) fn load(&self, numbers: &[usize], per_second: f64) -> Load {
        let rpc = |number: &usize| self.cluster.node(*number).rpc();
        Load::start(&LoadPlan {
            targets: numbers.iter().map(rpc).collect(),
            connections: 2,
            tx_bytes: TX_BYTES,
            per_second: Some(per_second),
        })
    }

    /// Reads what was added to all logs, and fails on whatever is not excused.
    pub(crate) fn check_logs(&mut self, excuses: &Excuses) -> anyhow::Result<()> {
        let mut complaints = Vec::new();
        for number in 0..self.ids.len() {
            let log = self.cluster.launch(number).home.join("node.log");
            if !log.exists() {
                continue;
            }
            let here = Excuses {
                is_stopping: excuses.cut.contains(&self.ids[number]),
                ..excuses.clone()
            };
            let bytes = fs::read(&log).with_context(|| log.display().to_string())?;
            let start = self.read[number].min(bytes.len());
            // A line that is being written is read the next time.
            let end = bytes.iter().rposition(|byte| *byte == b'\n');
            let end = end.map_or(start, |last| start.max(last + 1));
            self.read[number] = end;
            let Findings {
                complaints: found,
                unsolicited,
                closed,
            } = examine(&String::from_utf8_lossy(&bytes[start..end]), &here);
            let named = |line: &String| format!("node{number}: {line}");
            complaints.extend(found.iter().map(named));
            self.unsolicited += unsolicited;
            self.closed.extend(closed.iter().map(named));
        }
        ensure!(
            complaints.is_empty(),
            "{}\nwhile these were cut: {:?}; nodes: {:?}",
            complaints.join("\n"),
            excuses.cut,
            self.ids
        );
        Ok(())
    }

    /// Kills a validator and starts it again; the others go on meanwhile, and it signs again.
    pub(crate) fn kill_and_restart(&mut self, number: usize) -> anyhow::Result<()> {
        self.check_logs(&Excuses::default())?;
        let before = self.cluster.top()?;
        self.cluster.kill([number])?;
        self.cluster.wait_heights(before + 6)?;
        self.cluster.start([number])?;
        let back = self.cluster.top()?;
        self.cluster.wait_height(number, back)?;
        let witness = (number + 1) % VALIDATORS.len();
        let signed = self.cluster.wait_signed(witness, number, back + 1)?;
        eprintln!("node{number}: killed at {before}, back by {back}, signed {signed}");
        let excuses = self.cut(&[number]);
        self.check_logs(&excuses)
    }

    /// Stops all nodes, reads what they said last, and tells how often CometBFT had dropped a peer
    /// for a second answer.
    pub(crate) fn finish(mut self) -> anyhow::Result<usize> {
        let running = self.cluster.running();
        self.cluster.stop(running)?;
        let all: Vec<usize> = (0..self.ids.len()).collect();
        let excuses = self.cut(&all);
        self.check_logs(&excuses)?;
        ensure!(
            self.closed.len() <= self.unsolicited,
            "CometBFT closed connections without a known reason ({} with one):\n{}",
            self.unsolicited,
            self.closed.join("\n")
        );
        Ok(self.unsolicited)
    }
}

/// Short waits, a load of its own, and the rule of the version for the time of blocks.
fn configured(launch: Launch, cometbft: &Path) -> anyhow::Result<Launch> {
    let launch = launch.quick().set("proxy_app", "persistent_kvstore");
    if is_v038(cometbft)? {
        return Ok(launch);
    }
    let rule: toml_edit::Value = r#"[{ from_height = 1, rule = "v0.40" }]"#.parse()?;
    Ok(launch.set("perihelion.median_time", rule))
}

/// How many of the blocks up to a height each address proposed, as a node tells.
pub(crate) fn proposers(
    mixed: &Mixed,
    number: usize,
    to: i64,
) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    let mut txs = 0;
    for first in (1..=to).step_by(20) {
        let last = to.min(first + 19);
        let path = format!("/blockchain?minHeight={first}&maxHeight={last}");
        let answer = mixed.cluster.node(number).call(&path)?;
        for meta in answer["block_metas"].as_array().context("block_metas")? {
            let proposer = meta["header"]["proposer_address"].as_str();
            *counts
                .entry(proposer.context("proposer")?.to_owned())
                .or_insert(0) += 1;
            txs += meta["num_txs"]
                .as_str()
                .context("num_txs")?
                .parse::<i64>()?;
        }
    }
    eprintln!("{to} blocks with {txs} transactions, proposers {counts:?}");
    ensure!(txs > 0, "the load is in no block");
    Ok(counts)
}

/// The pieces of evidence in a block, and who proposed it.
pub(crate) fn evidence(block: &Value) -> (Vec<Value>, String) {
    let list = block["block"]["evidence"]["evidence"].as_array();
    let proposer = block["block"]["header"]["proposer_address"].as_str();
    (
        list.cloned().unwrap_or_default(),
        proposer.unwrap_or_default().to_owned(),
    )
}
