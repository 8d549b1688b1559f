//! One network, measured from outside.

use std::{
    fmt, fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use perihelion_testkit::{
    cluster::Cluster,
    load::{Load, LoadCounts, LoadPlan},
    measure::{Contender, MachineLoad},
    network::NetworkShape,
    process::Launch,
};

/// Validators of a network.
const VALIDATORS: usize = 4;
/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Blocks before anything is measured: connections are there and timeouts of the start are over.
const WARM_UP: i64 = 5;
/// How long a load runs before it is measured: mempools fill.
const RAMP: Duration = Duration::from_secs(3);

/// What is set otherwise than by `init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Nothing.
    Default,
    /// `timeout_commit = 0`.
    NoCommit,
    /// `mempool.size` and a cache of twice as many: the default of 5,000 is what fills each block
    /// where a block waits for `timeout_commit`, however fast the nodes are.
    Mempool(u32),
}

/// What a network is given to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Stage {
    /// Nothing: empty blocks.
    Idle,
    /// So many transactions a second.
    Paced(f64),
    /// As many transactions as the nodes take.
    AsManyAsTaken,
}

impl Variant {
    /// What its networks are given to do: no more than what differs from [`Self::Default`].
    pub(crate) fn stages(self, rate: f64) -> Vec<Stage> {
        match self {
            Self::Default | Self::NoCommit => {
                vec![Stage::Idle, Stage::Paced(rate), Stage::AsManyAsTaken]
            }
            Self::Mempool(_) => vec![Stage::AsManyAsTaken],
        }
    }

    fn apply(self, launch: Launch) -> Launch {
        match self {
            Self::Default => launch,
            Self::NoCommit => launch.set("consensus.timeout_commit", "0s"),
            Self::Mempool(size) => launch
                .set("mempool.size", i64::from(size))
                .set("mempool.cache_size", 2 * i64::from(size)),
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default timeouts"),
            Self::NoCommit => out.write_str("timeout_commit = 0"),
            Self::Mempool(size) => write!(out, "default timeouts, mempool of {size}"),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => out.write_str("no load"),
            Self::Paced(rate) => write!(out, "{rate} transactions/s"),
            Self::AsManyAsTaken => out.write_str("as many transactions as are taken"),
        }
    }
}

/// How all are set up, whoever made them.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// `tx_index.indexer`.
    pub(crate) index: String,
    /// How long a stage is measured.
    pub(crate) seconds: Duration,
    /// Bytes of a transaction.
    pub(crate) tx_bytes: usize,
    /// Connections to each node.
    pub(crate) connections: usize,
}

/// What one stage took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Blocks in it.
    pub(crate) blocks: f64,
    /// Seconds from one block to the next.
    pub(crate) interval: f64,
    /// Committed transactions a second.
    pub(crate) txs_per_second: f64,
    /// CPU seconds of one node a thousand blocks.
    pub(crate) cpu_per_blocks: f64,
    /// CPU seconds of one node a thousand committed transactions.
    pub(crate) cpu_per_txs: f64,
    /// The share of a core that one node takes.
    pub(crate) cpu_share: f64,
    /// The most memory that any of the nodes has had so far.
    pub(crate) peak_rss_bytes: u64,
    /// Transactions that were not taken.
    pub(crate) refused: u64,
    /// Cores that other work used meanwhile, the load's among it.
    pub(crate) other_cores: f64,
    /// Cores that the host took away.
    pub(crate) stolen_cores: f64,
}

/// Height and use of a network, at a moment.
struct Sample {
    at: Instant,
    height: i64,
    cpu: f64,
    peak_rss_bytes: u64,
    load: MachineLoad,
}

impl Sample {
    /// Right after a block, so that blocks and time are of the same stretch.
    fn take(cluster: &mut Cluster) -> anyhow::Result<Self> {
        let height = cluster.node(0).status()?.height + 1;
        let height = cluster.wait_height(0, height)?.height;
        let at = Instant::now();
        let (mut cpu, mut peak_rss_bytes) = (0.0, 0);
        for number in 0..VALIDATORS {
            let usage = cluster.node(number).usage()?;
            cpu += usage.cpu_seconds;
            peak_rss_bytes = usage.peak_rss_bytes.max(peak_rss_bytes);
        }
        Ok(Self {
            at,
            height,
            cpu,
            peak_rss_bytes,
            load: MachineLoad::now()?,
        })
    }
}

/// Lets four validators of a kind go through the stages, one after the other.
pub(crate) fn network(
    folder: &Path,
    contender: &Contender,
    variant: Variant,
    stages: &[Stage],
    setting: &Setting,
) -> anyhow::Result<Vec<Figures>> {
    let folder = folder.join("network");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let shape = NetworkShape::new("bench-consensus", VALIDATORS);
    let mut launches = shape.make(&folder, &contender.program)?;
    for launch in &mut launches {
        launch.run_by(&contender.program)?;
        let set = launch
            .clone()
            .set("proxy_app", "kvstore")
            .set("tx_index.indexer", setting.index.as_str())
            .set("log_level", "error");
        *launch = variant.apply(set);
    }
    let mut cluster = Cluster::new(launches, PATIENCE);
    cluster.start(0..VALIDATORS)?;
    cluster.wait_heights(WARM_UP)?;
    let figures = stages
        .iter()
        .map(|stage| measure(&mut cluster, *stage, setting).with_context(|| stage.to_string()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    cluster.agree(1)?;
    cluster.stop(0..VALIDATORS)?;
    fs::remove_dir_all(&folder)?;
    Ok(figures)
}

fn measure(cluster: &mut Cluster, stage: Stage, setting: &Setting) -> anyhow::Result<Figures> {
    let rate = match stage {
        Stage::Idle => None,
        Stage::Paced(rate) => Some(Some(rate)),
        Stage::AsManyAsTaken => Some(None),
    };
    let load = rate.map(|per_second| {
        Load::start(&LoadPlan {
            targets: (0..VALIDATORS)
                .map(|number| cluster.node(number).rpc())
                .collect(),
            connections: setting.connections,
            tx_bytes: setting.tx_bytes,
            per_second,
        })
    });
    if load.is_some() {
        std::thread::sleep(RAMP);
    }
    let first = Sample::take(cluster)?;
    let before = load.as_ref().map(Load::counts).unwrap_or_default();
    std::thread::sleep(setting.seconds);
    let last = Sample::take(cluster)?;
    let counts = load.map(Load::stop).unwrap_or_default();
    ensure!(
        counts.failed == before.failed,
        "{} requests were not answered",
        counts.failed - before.failed
    );
    let txs = transactions(cluster, first.height, last.height)?;
    Ok(figures(&first, &last, txs, before, counts))
}

fn figures(
    first: &Sample,
    last: &Sample,
    txs: i64,
    before: LoadCounts,
    counts: LoadCounts,
) -> Figures {
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    let (blocks, cpu) = ((last.height - first.height) as f64, last.cpu - first.cpu);
    let (other_cores, stolen_cores) = last.load.others_since(first.load, cpu);
    let each = cpu / VALIDATORS as f64;
    Figures {
        blocks,
        interval: seconds / blocks,
        txs_per_second: txs as f64 / seconds,
        cpu_per_blocks: each / blocks * 1_000.0,
        cpu_per_txs: each / txs as f64 * 1_000.0,
        cpu_share: each / seconds,
        peak_rss_bytes: last.peak_rss_bytes,
        refused: counts.refused - before.refused,
        other_cores,
        stolen_cores,
    }
}

/// Committed transactions above `first` and up to `last`.
fn transactions(cluster: &Cluster, first: i64, last: i64) -> anyhow::Result<i64> {
    let mut txs = 0;
    let mut from = first + 1;
    while from <= last {
        let to = last.min(from + 19);
        let path = format!("/blockchain?minHeight={from}&maxHeight={to}");
        let answer = cluster.node(0).call(&path)?;
        let metas = answer["block_metas"].as_array().context("block_metas")?;
        for meta in metas {
            txs += meta["num_txs"]
                .as_str()
                .context("num_txs")?
                .parse::<i64>()?;
        }
        from = to + 1;
    }
    Ok(txs)
}
