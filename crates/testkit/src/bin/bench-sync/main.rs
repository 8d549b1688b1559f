//! Whole syncs over loopback, of Perihelion and of a real CometBFT, from one Perihelion server.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

mod chains;
mod measure;
mod report;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Parser;

use perihelion_testkit::measure::{Contender, describe};

use crate::{
    chains::{BenchChain, prepare},
    measure::{Settings, Sync},
};

/// How long a server or client may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whole syncs over loopback: one server that has the chain, one client that has nothing.
#[derive(Debug, Parser)]
#[command(name = "bench-sync")]
struct Options {
    /// Fewer blocks.
    #[arg(long)]
    quick: bool,
    /// Syncs of each chain by each node, in turn; medians are told.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Chains: a (4 validators, 1 KB a block), b (100, 20 KB), c (175, 59 KB).
    #[arg(long, value_delimiter = ',', default_value = "a,b,c")]
    chains: Vec<String>,
    /// The clients' application: kvstore keeps its data in memory, persistent_kvstore on disk
    /// [default: kvstore, with --memory persistent_kvstore].
    #[arg(long)]
    app: Option<String>,
    /// The clients' index of transactions: null or kv.
    #[arg(long, default_value = "null", value_parser = ["null", "kv"])]
    index: String,
    /// A sync that takes longer is cut off this many seconds after its first block; its rate is that
    /// of the blocks until then.
    #[arg(long, default_value_t = 15)]
    cut: u64,
    /// Instead: the most memory that a client takes for blocks of 10 MB from ten servers.
    #[arg(long)]
    memory: bool,
    /// The node's binary [default: perihelion beside this program].
    #[arg(long, env = "PERIHELION")]
    perihelion: Option<PathBuf>,
    /// CometBFT's binaries to compare with, parted by commas; a name may stand in front: v0.38=PATH.
    #[arg(long, env = "COMETBFT", value_delimiter = ',')]
    cometbft: Vec<String>,
    /// Where chains are kept from run to run, and clients work.
    #[arg(long, default_value = "target/bench-chains")]
    dir: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ensure!(options.runs > 0, "--runs must be at least 1");
    let mut contenders = vec![Contender::perihelion(options.perihelion.as_deref())?];
    for named in options.cometbft.iter().filter(|named| !named.is_empty()) {
        contenders.push(Contender::cometbft(named)?);
    }
    let default_app = if options.memory {
        "persistent_kvstore"
    } else {
        "kvstore"
    };
    let settings = Settings {
        app: options
            .app
            .clone()
            .unwrap_or_else(|| default_app.to_owned()),
        index: options.index.clone(),
        cut: Duration::from_secs(options.cut.max(1)),
    };
    println!(
        "{}\nServer: {}. Both ends: rates of 500 MB/s, packets flushed after 1 ms. Clients: application {}, index {}.",
        describe(&contenders)?,
        contenders[0].name,
        settings.app,
        settings.index
    );
    if options.memory {
        return measure_memory(&options, &contenders, &settings);
    }
    for name in &options.chains {
        let chain = prepare(&options.dir, name, options.quick)?;
        let mut syncs: Vec<Sync> = Vec::new();
        for run in 0..options.runs {
            // In turn, so that whatever else the machine does hits all alike; each begins once.
            for place in 0..contenders.len() {
                let index = (run + place) % contenders.len();
                let contender = &contenders[index];
                let server = &contenders[0];
                let sync = measure::sync(&options.dir, &chain, server, contender, index, &settings)
                    .with_context(|| format!("chain {name}, run {run}, {}", contender.name))?;
                eprintln!("{}", report::line(name, run, contender, &sync));
                syncs.push(sync);
            }
        }
        print!("{}", report::table(&chain, &contenders, &syncs));
    }
    Ok(())
}

/// The most memory with large blocks from many servers.
fn measure_memory(
    options: &Options,
    contenders: &[Contender],
    settings: &Settings,
) -> anyhow::Result<()> {
    let chain: BenchChain = prepare(&options.dir, "large", options.quick)?;
    for contender in contenders {
        let server = &contenders[0];
        let memory = measure::memory(&options.dir, &chain, server, contender, 10, settings)?;
        println!(
            "{}: {} blocks of {:.1} MB from 10 servers: peak RSS {:.0} MiB, {:.1} blocks/s",
            contender.name,
            memory.blocks,
            chain.block_bytes as f64 / 1e6,
            memory.peak_rss_bytes as f64 / f64::from(1 << 20),
            memory.blocks_per_second
        );
    }
    Ok(())
}
