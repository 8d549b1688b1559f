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

use crate::{PATIENCE, chains::BenchChain};

/// Between two looks at the client's height. Shorter, and answering takes a share of the client's
/// time; longer, and quick syncs are measured coarsely.
const LOOK: Duration = Duration::from_millis(50);
/// A client that applies nothing for this long is stuck.
const STUCK: Duration = Duration::from_secs(120);

/// How every client is set up, whoever made it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `proxy_app`.
    pub(crate) app: String,
    /// `tx_index.indexer`.
    pub(crate) index: String,
    /// A sync is cut off this long after its first block.
    pub(crate) cut: Duration,
}

/// A node that has nothing yet.
fn fresh_node(
    contender: &Contender,
    chain: &BenchChain,
    home: &Path,
    settings: &Settings,
) -> anyhow::Result<Launch> {
    if home.exists() {
        fs::remove_dir_all(home)?;
    }
    if contender.is_cometbft {
        init_home(&contender.program, home, &chain.home)?;
    } else {
        copy_home(&chain.home, home, CopyData::None)?;
    }
    Ok(Launch::new(&contender.name, &contender.program, home)?
        .tuned()
        .set("proxy_app", settings.app.as_str())
        .set("tx_index.indexer", settings.index.as_str())
        .set("log_level", "error"))
}

/// What one sync took.
#[derive(Debug, Clone)]
pub(crate) struct Sync {
    /// Which contender's.
    pub(crate) contender: usize,
    /// From the first to the last block seen.
    pub(crate) blocks_per_second: f64,
    /// Seconds from the first to the last block seen. When they are few, the figures are coarse.
    pub(crate) seconds: f64,
    /// Seconds from the process's start to its first block.
    pub(crate) until_first: f64,
    /// CPU seconds a thousand blocks, of the client.
    pub(crate) client_cpu: f64,
    /// The same of the server.
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
}

/// The client's height and what was used, at a moment.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    height: i64,
    client: Usage,
    server: f64,
    load: MachineLoad,
}

impl Sample {
    fn take(height: i64, client: &NodeProcess, servers: &[NodeProcess]) -> anyhow::Result<Self> {
        let at = Instant::now();
        let mut server = 0.0;
        for process in servers {
            server += process.usage()?.cpu_seconds;
        }
        Ok(Self {
            at,
            height,
            client: client.usage()?,
            server,
            load: MachineLoad::now()?,
        })
    }
}

/// Lets `contender` sync a chain from a server of `server`'s binary.
pub(crate) fn sync(
    folder: &Path,
    chain: &BenchChain,
    server: &Contender,
    contender: &Contender,
    index: usize,
    settings: &Settings,
) -> anyhow::Result<Sync> {
    let launch = Launch::new("server", &server.program, &chain.home)?.tuned();
    let address = launch.address()?;
    let mut servers = vec![launch.start()?];
    servers[0].wait_ready(PATIENCE)?;
    let home = folder.join("client");
    let launch = fresh_node(contender, chain, &home, settings)?;
    let launch = launch.persistent_peers([address]);
    let start = Instant::now();
    let mut client = launch.start()?;
    let (first, last) = follow(chain, &mut client, &servers, settings.cut)?;
    client.stop()?;
    for server in servers {
        server.stop()?;
    }
    let blocks = (last.height - first.height) as f64;
    let client_cpu = last.client.cpu_seconds - first.client.cpu_seconds;
    let server_cpu = last.server - first.server;
    let (other_cores, stolen_cores) = last.load.others_since(first.load, client_cpu + server_cpu);
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    let result = Sync {
        contender: index,
        blocks_per_second: blocks / seconds,
        seconds,
        until_first: first.at.duration_since(start).as_secs_f64(),
        client_cpu: client_cpu / blocks * 1_000.0,
        server_cpu: server_cpu / blocks * 1_000.0,
        peak_rss_bytes: last.client.peak_rss_bytes,
        disk_bytes_per_block: disk_bytes(&home.join("data"))? as f64 / last.height as f64,
        other_cores,
        stolen_cores,
        is_cut: last.height < chain.blocks - 1,
    };
    fs::remove_dir_all(&home)?;
    Ok(result)
}

/// Follows a client from its first block to its last, or until it is cut off.
fn follow(
    chain: &BenchChain,
    client: &mut NodeProcess,
    servers: &[NodeProcess],
    cut: Duration,
) -> anyhow::Result<(Sample, Sample)> {
    let (mut first, mut height, mut moved) = (None, 0, Instant::now());
    loop {
        client.check_alive()?;
        // Until it listens, it does not answer.
        let seen = client.status().map_or(height, |status| status.height);
        if seen > height {
            (height, moved) = (seen, Instant::now());
            let sample = Sample::take(height, client, servers)?;
            let first = *first.get_or_insert(sample);
            if height >= chain.blocks - 1 || sample.at.duration_since(first.at) >= cut {
                ensure!(
                    first.height < height,
                    "the chain was synced between two looks: use one of more blocks"
                );
                return Ok((first, sample));
            }
        }
        if moved.elapsed() > STUCK {
            bail!(
                "{} is stuck at height {height}:\n{}",
                client.name(),
                client.log_end()
            );
        }
        thread::sleep(LOOK);
    }
}

/// What a sync from many servers took.
pub(crate) struct Memory {
    pub(crate) blocks: i64,
    pub(crate) peak_rss_bytes: u64,
    pub(crate) blocks_per_second: f64,
}

/// Lets `contender` sync a chain from `count` servers at once.
pub(crate) fn memory(
    folder: &Path,
    chain: &BenchChain,
    server: &Contender,
    contender: &Contender,
    count: usize,
    settings: &Settings,
) -> anyhow::Result<Memory> {
    let work = folder.join("servers");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let (mut servers, mut addresses) = (Vec::new(), Vec::new());
    for index in 0..count {
        let home = work.join(index.to_string());
        copy_home(&chain.home, &home, CopyData::Linked)?;
        let launch = Launch::new(&format!("server{index}"), &server.program, &home)?.tuned();
        addresses.push(launch.address()?);
        servers.push(launch.start()?);
    }
    for server in &mut servers {
        server.wait_ready(PATIENCE)?;
    }
    let home = folder.join("client");
    let launch = fresh_node(contender, chain, &home, settings)?;
    let mut client = launch.persistent_peers(addresses).start()?;
    // Not cut off early: the most memory may come late.
    let (first, last) = follow(chain, &mut client, &servers, 8 * settings.cut)?;
    let peak_rss_bytes = client
        .usage()
        .context("the client's memory")?
        .peak_rss_bytes;
    client.stop()?;
    for server in servers {
        server.stop()?;
    }
    fs::remove_dir_all(&work)?;
    fs::remove_dir_all(&home)?;
    Ok(Memory {
        blocks: last.height,
        peak_rss_bytes,
        blocks_per_second: (last.height - first.height) as f64
            / last.at.duration_since(first.at).as_secs_f64(),
    })
}
