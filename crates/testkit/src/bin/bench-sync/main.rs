//! Whole syncs over loopback, of Perihelion and of a real CometBFT, and what else the project aims to
//! be fast at, each figure beside its goal.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

mod bench;
mod chains;
mod goals;
mod measure;
mod predictions;
mod report;
mod rows;
mod slow_app;
mod turns;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::ensure;
use clap::{Parser, ValueEnum};
use perihelion_testkit::measure::{Contender, describe};

use crate::{bench::Bench, goals::PAIRS};

/// How long a server or client may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(60);

/// `tx_index.indexer` of the clients, unless a row says otherwise.
const INDEX: &str = "null";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rows {
    /// Chains a, b and c from a Perihelion server, without an index; b and c with each commit verified
    /// too: rates, CPU, disk, the bound, first block, consensus.
    Syncs,
    /// Chain c, with an index of transactions.
    Index,
    /// A chain of 100 validators with vote extensions.
    Extensions,
    /// The most memory with blocks of 10 MB from ten servers; two runs at most.
    Memory,
    /// Blocks served to one requester with 200 requests in flight, and to twenty.
    Serving,
    /// Chains from a CometBFT server, each run next to what that serves at most; a sync
    /// of less than 2 s is repeated, four times in all at most, and added up.
    Cometbft,
    /// An application that takes 5 ms a block, in its own process.
    Application,
    /// Default rates, from one and three CometBFT servers.
    Rates,
    /// Ten servers behind a way of 100 ms there and back that loses 1 % of packets.
    Lossy,
    /// Only when named: a chain of a million blocks.
    Growth,
}

/// Whole syncs over loopback: one server that has the chain, one client that has nothing.
#[derive(Debug, Parser)]
#[command(name = "bench-sync")]
struct Options {
    /// What is measured [default: all but growth].
    #[arg(long, value_delimiter = ',', value_enum)]
    rows: Vec<Rows>,
    /// Fewer blocks, shorter runs.
    #[arg(long)]
    quick: bool,
    /// Syncs of each chain by each node, in turn; medians are told.
    #[arg(long, default_value_t = PAIRS)]
    runs: usize,
    /// Chains: a (4 validators, 1 KB a block), b (100, 20 KB), c (175, 59 KB).
    #[arg(long, value_delimiter = ',', default_value = "a,b,c")]
    chains: Vec<char>,
    /// The clients' application: kvstore keeps its data in memory, persistent_kvstore on disk. With
    /// large blocks it is persistent_kvstore whatever is said here.
    #[arg(long, default_value = "kvstore")]
    app: String,
    /// A sync that takes longer is cut off this many seconds after its first block; its rate is that
    /// of the blocks until then [default: 15, with --quick 5].
    #[arg(long)]
    cut: Option<u64>,
    /// Writes plots into this folder, as SVG: blocks a second over time, and how far each goal is.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// The node's binary [default: perihelion beside this program].
    #[arg(long, env = "PERIHELION")]
    perihelion: Option<PathBuf>,
    /// Other builds of the node to compare with, parted by commas; a name may stand in front:
    /// before=PATH. They take part in the rows syncs, index and extensions.
    #[arg(long, value_delimiter = ',')]
    against: Vec<String>,
    /// CometBFT's binaries to compare with, parted by commas; a name may stand in front: v0.38=PATH.
    /// The last one also serves, where a CometBFT does.
    #[arg(long, env = "COMETBFT", value_delimiter = ',')]
    cometbft: Vec<String>,
    /// Where chains are kept from run to run, and clients work.
    #[arg(long, default_value = "target/bench-chains")]
    dir: PathBuf,
    /// Serves the slow application at this socket until standard input ends.
    #[arg(long, hide = true)]
    slow_app: Option<PathBuf>,
    /// Measures the rows lossy in the network namespace that it is started in.
    #[arg(long, hide = true)]
    lossy: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if let Some(socket) = &options.slow_app {
        return slow_app::serve(socket).map(|()| ExitCode::SUCCESS);
    }
    if options.lossy {
        return rows::lossy::measure_here(&options).map(|()| ExitCode::SUCCESS);
    }
    ensure!(options.runs > 0, "--runs must be at least 1");
    for chain in &options.chains {
        let known = "abc".contains(*chain);
        ensure!(known, "--chains: there is no chain {chain}: a, b or c");
    }
    let mut contenders = vec![Contender::perihelion(options.perihelion.as_deref())?];
    for named in options.against.iter().filter(|named| !named.is_empty()) {
        contenders.push(Contender::other(named)?);
    }
    for named in options.cometbft.iter().filter(|named| !named.is_empty()) {
        contenders.push(Contender::cometbft(named)?);
    }
    println!(
        "{}\nBoth ends: rates of 5 GB/s, packets flushed after 1 ms; clients: application {}, index {INDEX}; unless a row says otherwise.",
        describe(&contenders)?,
        options.app,
    );
    let rows: Vec<Rows> = Rows::value_variants()
        .iter()
        .copied()
        .filter(|rows| match &options.rows[..] {
            [] => *rows != Rows::Growth,
            chosen => chosen.contains(rows),
        })
        .collect();
    let mut bench = Bench::new(&options, &rows, contenders)?;
    let mut failed = false;
    if let Err(error) = bench.predict(&rows) {
        failed = true;
        eprintln!("ERROR: predictions: {error:#}");
        println!("\nERROR: predictions: {error:#}");
    }
    for rows in rows {
        if let Err(error) = rows::measure(rows, &mut bench) {
            // The other rows still say something.
            failed = true;
            eprintln!("ERROR: rows {rows:?}: {error:#}");
            println!("\nERROR: rows {rows:?}: {error:#}");
            let why = error.to_string();
            bench
                .sheet
                .fail(rows, why.lines().next().unwrap_or_default());
        }
    }
    bench.finish()?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
