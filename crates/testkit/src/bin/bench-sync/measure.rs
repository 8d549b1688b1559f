//! One sync, measured from outside.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use perihelion_testkit::{
    home::{CopyData, copy_home},
    measure::{Contender, MachineLoad},
    process::{Launch, NodeProcess, Usage, disk_bytes, init_home},
};
use serde_json::Value;

use crate::{
    PATIENCE,
    chains::{BenchChain, remove},
    slow_app,
};

/// Between two looks at the client's height. Shorter, and answering takes a share of the client's
/// time; longer, and quick syncs are measured coarsely.
const LOOK: Duration = Duration::from_millis(50);
/// The same while the client has nothing to do but what is waited for, or comes to its end.
const CLOSE_LOOK: Duration = Duration::from_millis(5);
/// A client that applies nothing for this long is stuck.
const STUCK: Duration = Duration::from_secs(120);
/// A client that has all blocks and is not in consensus for this long counts as one that took so
/// long: without it, the median would be of those that came there.
const SWITCH_PATIENCE: Duration = Duration::from_secs(10);

/// How every client is set up, whoever made it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `proxy_app`.
    pub(crate) app: String,
    /// `tx_index.indexer`.
    pub(crate) index: &'static str,
    /// A sync is cut off this long after its first block.
    pub(crate) cut: Duration,
    /// Whether rates are raised; else all is as `init` of each node has it.
    pub(crate) is_tuned: bool,
    /// Whether the application is the slow one, which tells how long it was busy.
    pub(crate) tells_busy: bool,
    /// A sync that is measured for less is repeated within its turn; zero: never.
    pub(crate) at_least: Duration,
}

/// Who syncs.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// Its name in tables.
    pub(crate) name: String,
    pub(crate) contender: Contender,
    /// Keys of its configuration besides those of [`Settings`].
    pub(crate) config: Vec<(&'static str, &'static str)>,
}

impl Subject {
    pub(crate) fn new(contender: &Contender) -> Self {
        Self {
            name: contender.name.clone(),
            contender: contender.clone(),
            config: Vec::new(),
        }
    }

    /// The same with each commit verified.
    pub(crate) fn every(contender: &Contender) -> Self {
        Self {
            name: format!("{}, every", contender.name),
            config: vec![("blocksync.verify", "every")],
            ..Self::new(contender)
        }
    }
}

/// From whom a chain is synced.
pub(crate) struct Feed<'a> {
    pub(crate) chain: &'a BenchChain,
    /// Started anew for each sync.
    pub(crate) servers: Vec<Launch>,
    /// Where the client finds them, unless it is loopback.
    pub(crate) addresses: Option<Vec<String>>,
    /// The height at which a client ends.
    pub(crate) last: i64,
}

/// What one sync took, or several short ones in one turn.
#[derive(Debug, Clone)]
pub(crate) struct Sync {
    /// Which subject's.
    pub(crate) subject: usize,
    /// In which turn.
    pub(crate) run: usize,
    /// Whole syncs that were added up.
    pub(crate) syncs: usize,
    /// From the first to the last block seen.
    pub(crate) blocks_per_second: f64,
    /// Seconds from the first to the last block seen. When they are few, the figures are coarse.
    pub(crate) seconds: f64,
    /// Seconds from the process's start to its first block.
    pub(crate) until_first: f64,
    /// Seconds from the last look that did not show the last block to consensus; of one that did not
    /// come there within ten seconds of the last block, those. `None`: it was cut off before.
    pub(crate) until_consensus: Option<f64>,
    /// CPU seconds a thousand blocks, of the client.
    pub(crate) client_cpu: f64,
    /// The same of the servers.
    pub(crate) server_cpu: f64,
    /// Of the client.
    pub(crate) peak_rss_bytes: u64,
    /// On the client's disk.
    pub(crate) disk_bytes_per_block: f64,
    /// Cores that other work used meanwhile.
    pub(crate) other_cores: f64,
    /// Cores that the host took away.
    pub(crate) stolen_cores: f64,
    /// Whether it was cut off before the chain's end.
    pub(crate) is_cut: bool,
    /// The share of time that the application was busy, if it tells.
    pub(crate) busy_share: Option<f64>,
    /// Seconds since the first block seen, and the height then.
    pub(crate) heights: Vec<(f64, f64)>,
}

impl Sync {
    /// Its rate against what the cores would do if they worked for client and server all the time.
    pub(crate) fn share_of_bound(&self, cores: f64) -> f64 {
        self.blocks_per_second * (self.client_cpu + self.server_cpu) / 1_000.0 / cores
    }

    /// Both as if they were one: blocks, seconds and CPU are added up; of waits and memory the most
    /// counts. Heights over time are those of the first.
    pub(crate) fn plus(self, other: &Self) -> Self {
        let weights = (self.blocks(), other.blocks());
        let a_block = |figure: fn(&Self) -> f64| mean(weights, figure(&self), figure(other));
        let weights = (self.seconds, other.seconds);
        let a_second = |one, another| mean(weights, one, another);
        let busy = self.busy_share.zip(other.busy_share);
        let entered = [self.until_consensus, other.until_consensus];
        Self {
            syncs: self.syncs + other.syncs,
            blocks_per_second: a_second(self.blocks_per_second, other.blocks_per_second),
            seconds: self.seconds + other.seconds,
            until_first: self.until_first.max(other.until_first),
            until_consensus: entered.into_iter().flatten().reduce(f64::max),
            client_cpu: a_block(|sync| sync.client_cpu),
            server_cpu: a_block(|sync| sync.server_cpu),
            peak_rss_bytes: self.peak_rss_bytes.max(other.peak_rss_bytes),
            disk_bytes_per_block: a_block(|sync| sync.disk_bytes_per_block),
            other_cores: a_second(self.other_cores, other.other_cores),
            stolen_cores: a_second(self.stolen_cores, other.stolen_cores),
            is_cut: self.is_cut || other.is_cut,
            busy_share: busy.map(|(one, another)| a_second(one, another)),
            ..self
        }
    }

    /// Blocks that it was measured over.
    fn blocks(&self) -> f64 {
        self.blocks_per_second * self.seconds
    }

    /// Whether it had all blocks and did not come to consensus while it was waited for.
    pub(crate) fn is_stranded(&self) -> bool {
        let most = SWITCH_PATIENCE.as_secs_f64();
        self.until_consensus.is_some_and(|seconds| seconds >= most)
    }

    /// Seconds from one height to another; `None` when it did not come so far.
    pub(crate) fn seconds_between(&self, from: i64, to: i64) -> Option<f64> {
        Some(self.second_of(to as f64)? - self.second_of(from as f64)?)
    }

    /// When a height was reached, between two looks.
    fn second_of(&self, height: f64) -> Option<f64> {
        self.heights.windows(2).find_map(|pair| {
            let ((before, low), (after, high)) = (pair[0], pair[1]);
            (low <= height && height <= high)
                .then(|| before + (after - before) * (height - low) / (high - low))
        })
    }
}

/// Of two figures, each counting by its weight.
fn mean(weights: (f64, f64), one: f64, other: f64) -> f64 {
    (one * weights.0 + other * weights.1) / (weights.0 + weights.1)
}

/// The client's height and what was used, at a moment.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    height: i64,
    client: Usage,
    server: f64,
    load: MachineLoad,
    busy: Option<Duration>,
}

impl Sample {
    fn take(
        height: i64,
        client: &NodeProcess,
        servers: &[NodeProcess],
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let at = Instant::now();
        let mut server = 0.0;
        for process in servers {
            server += process.usage()?.cpu_seconds;
        }
        let busy = settings.tells_busy.then(|| slow_app::busy(client));
        Ok(Self {
            at,
            height,
            client: client.usage()?,
            server,
            load: MachineLoad::now()?,
            busy: busy.transpose()?,
        })
    }
}

/// A sync as it was seen.
struct Seen {
    first: Sample,
    last: Sample,
    /// The look before that.
    before_last: Instant,
    heights: Vec<(f64, f64)>,
}

/// A node that has nothing yet.
fn fresh_node(
    subject: &Subject,
    chain: &BenchChain,
    home: &Path,
    settings: &Settings,
) -> anyhow::Result<Launch> {
    remove(home)?;
    let contender = &subject.contender;
    if contender.is_cometbft {
        init_home(&contender.program, home, &chain.home)?;
    } else {
        copy_home(&chain.home, home, CopyData::None)?;
    }
    let mut launch = Launch::new(&contender.name, &contender.program, home)?;
    if settings.is_tuned {
        launch = launch.tuned();
    } else {
        // The chain's own home may have been raised.
        launch.run_by(&contender.program)?;
    }
    for (key, value) in &subject.config {
        launch = launch.set(key, *value);
    }
    Ok(launch
        .set("proxy_app", settings.app.as_str())
        .set("tx_index.indexer", settings.index)
        .set("log_level", "error"))
}

/// Lets a subject sync a chain.
pub(crate) fn sync(
    folder: &Path,
    feed: &Feed<'_>,
    subject: &Subject,
    settings: &Settings,
) -> anyhow::Result<Sync> {
    let (mut servers, mut addresses) = (Vec::new(), Vec::new());
    for launch in &feed.servers {
        addresses.push(launch.address()?);
        servers.push(launch.start()?);
    }
    for server in &mut servers {
        server.wait_ready(PATIENCE)?;
    }
    let home = folder.join("client");
    let launch = fresh_node(subject, feed.chain, &home, settings)?;
    let launch = launch.persistent_peers(feed.addresses.clone().unwrap_or(addresses));
    let start = Instant::now();
    let mut client = launch.start()?;
    let Seen {
        first,
        last,
        before_last,
        heights,
    } = follow(feed.last, &mut client, &servers, settings)?;
    let is_cut = last.height < feed.last;
    let until_consensus = if is_cut {
        None
    } else {
        let entered = entered(&mut client, &subject.contender)?;
        Some(until_consensus(before_last, entered))
    };
    let peak_rss_bytes = client
        .usage()
        .context("the client's memory")?
        .peak_rss_bytes;
    client.stop()?;
    for server in servers {
        server.stop()?;
    }
    let blocks = (last.height - first.height) as f64;
    let client_cpu = last.client.cpu_seconds - first.client.cpu_seconds;
    let server_cpu = last.server - first.server;
    let (other_cores, stolen_cores) = last.load.others_since(first.load, client_cpu + server_cpu);
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    let busy_share = first.busy.zip(last.busy);
    let busy_share =
        busy_share.map(|(before, after)| after.saturating_sub(before).as_secs_f64() / seconds);
    let result = Sync {
        subject: 0,
        run: 0,
        syncs: 1,
        blocks_per_second: blocks / seconds,
        seconds,
        until_first: first.at.duration_since(start).as_secs_f64(),
        until_consensus,
        client_cpu: client_cpu / blocks * 1_000.0,
        server_cpu: server_cpu / blocks * 1_000.0,
        peak_rss_bytes,
        disk_bytes_per_block: disk_bytes(&home.join("data"))? as f64 / last.height as f64,
        other_cores,
        stolen_cores,
        is_cut,
        busy_share,
        heights,
    };
    fs::remove_dir_all(&home)?;
    Ok(result)
}

/// Follows a client from its first block to its last, or until it is cut off.
fn follow(
    end: i64,
    client: &mut NodeProcess,
    servers: &[NodeProcess],
    settings: &Settings,
) -> anyhow::Result<Seen> {
    let (mut first, mut height, mut moved) = (None, 0, Instant::now());
    let (mut heights, mut looked) = (Vec::new(), Instant::now());
    loop {
        client.check_alive()?;
        let look = Instant::now();
        // Until it listens, it does not answer.
        let seen = client.status().map_or(height, |status| status.height);
        if seen > height {
            (height, moved) = (seen, Instant::now());
            let sample = Sample::take(height, client, servers, settings)?;
            let first = *first.get_or_insert(sample);
            let since = sample.at.duration_since(first.at);
            heights.push((since.as_secs_f64(), height as f64));
            if height >= end || since >= settings.cut {
                ensure!(
                    first.height < height,
                    "the chain was synced between two looks: use one of more blocks"
                );
                return Ok(Seen {
                    first,
                    last: sample,
                    before_last: looked,
                    heights,
                });
            }
        }
        looked = look;
        if moved.elapsed() > STUCK {
            bail!(
                "{} is stuck at height {height}:\n{}",
                client.name(),
                client.log_end()
            );
        }
        let is_close = first.is_none() || ends_soon(&heights, end);
        thread::sleep(if is_close { CLOSE_LOOK } else { LOOK });
    }
}

/// Whether a client comes to the end within two looks, at its rate so far: that is seen up to a
/// look late.
fn ends_soon(heights: &[(f64, f64)], end: i64) -> bool {
    let [(begin, low), .., (now, height)] = heights else {
        return false;
    };
    let rate = (height - low) / (now - begin);
    (end as f64 - height) / rate < 2.0 * LOOK.as_secs_f64()
}

/// When a client that has all blocks is in consensus; `None` when it does not come there.
fn entered(client: &mut NodeProcess, contender: &Contender) -> anyhow::Result<Option<Instant>> {
    let begin = Instant::now();
    while begin.elapsed() < SWITCH_PATIENCE {
        client.check_alive()?;
        let is_there = if contender.is_cometbft {
            !client.status()?.catching_up
        } else {
            tells_round(&client.sync_status()?)
        };
        if is_there {
            return Ok(Some(Instant::now()));
        }
        thread::sleep(CLOSE_LOOK);
    }
    Ok(None)
}

/// Whether a `/sync_status` is of a Perihelion whose consensus has begun. Its `mode` and
/// `catching_up` tell what was decided, before the last blocks are applied and tables are written
/// out; the round is there once consensus has all that and has begun.
fn tells_round(sync_status: &Value) -> bool {
    sync_status["height/round/step"].is_string()
}

/// Seconds from the look before the last block to consensus, [`SWITCH_PATIENCE`] at most.
fn until_consensus(before_last: Instant, entered: Option<Instant>) -> f64 {
    entered
        .map_or(SWITCH_PATIENCE, |at| at.duration_since(before_last))
        .min(SWITCH_PATIENCE)
        .as_secs_f64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::tests::sync;

    #[test]
    fn consensus_has_begun_once_there_is_a_round() {
        let decided = json!({
            "mode": "consensus", "catching_up": false, "height/round/step": null,
        });
        assert!(!tells_round(&decided));
        let begun = json!({ "mode": "consensus", "height/round/step": "12/0/1" });
        assert!(tells_round(&begun));
    }

    #[test]
    fn who_does_not_come_to_consensus_counts_as_the_patience() {
        let before = Instant::now();
        let after = |millis| Some(before + Duration::from_millis(millis));
        assert_eq!(until_consensus(before, after(250)), 0.25);
        let most = SWITCH_PATIENCE.as_secs_f64();
        assert_eq!(until_consensus(before, None), most);
        // It came just in time, and the look before the last block was a little earlier.
        assert_eq!(until_consensus(before, after(10_040)), most);
    }

    #[test]
    fn syncs_are_added_up_by_their_blocks_and_seconds() {
        // 3,000 blocks in half a second, then 1,000 in one and a half.
        let quick = Sync {
            seconds: 0.5,
            until_first: 0.1,
            until_consensus: Some(0.3),
            client_cpu: 1.0,
            peak_rss_bytes: 10,
            other_cores: 1.0,
            ..sync(3, 2, 6_000.0)
        };
        let slow = Sync {
            seconds: 1.5,
            until_first: 0.2,
            until_consensus: Some(0.2),
            client_cpu: 2.0,
            peak_rss_bytes: 20,
            other_cores: 0.0,
            blocks_per_second: 1_000.0 / 1.5,
            ..quick.clone()
        };
        let sum = quick.plus(&slow);
        let close = |figure: f64, expected: f64| {
            assert!((figure - expected).abs() < 1e-9, "{figure} for {expected}");
        };
        assert_eq!((sum.subject, sum.run, sum.syncs), (3, 2, 2));
        close(sum.seconds, 2.0);
        close(sum.blocks_per_second, 2_000.0);
        close(sum.client_cpu, 1.25);
        close(sum.other_cores, 0.25);
        close(sum.until_first, 0.2);
        assert_eq!(sum.until_consensus, Some(0.3));
        assert_eq!(sum.peak_rss_bytes, 20);
        // 5 CPU seconds of the client and 4 of the server, over 2 seconds of two cores.
        close(sum.share_of_bound(2.0), 9.0 / 4.0);
    }

    #[test]
    fn the_end_is_soon_when_the_rest_is_of_two_looks() {
        // 1,000 blocks a second.
        let heights = [(0.0, 1.0), (0.1, 51.0), (0.5, 501.0)];
        assert!(ends_soon(&heights, 599));
        assert!(!ends_soon(&heights, 603));
        assert!(!ends_soon(&heights[..1], 2), "it has no rate yet");
    }
}
