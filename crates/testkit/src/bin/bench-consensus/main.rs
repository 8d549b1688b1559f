//! Four validators on loopback under load, of Perihelion and of a real CometBFT, in turn.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

mod goals;
mod measure;
mod report;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Parser;
use perihelion_testkit::measure::{Contender, describe};

use crate::{
    goals::Goals,
    measure::{Figures, Setting, Variant},
};

/// Networks of four validators on loopback: their pace, what they commit, and what it costs them.
#[derive(Debug, Parser)]
#[command(name = "bench-consensus")]
struct Options {
    /// The node's binary [default: perihelion beside this program].
    #[arg(long, env = "PERIHELION")]
    perihelion: Option<PathBuf>,
    /// CometBFT's binaries to compare with, parted by commas; a name may stand in front: v0.38=PATH.
    #[arg(long, env = "COMETBFT", value_delimiter = ',')]
    cometbft: Vec<String>,
    /// Networks of each kind at each setting, in turn; medians are told.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// How long each stage is measured, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Transactions a second of the load that all keep up with.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Bytes of a transaction.
    #[arg(long, default_value_t = 250)]
    tx_bytes: usize,
    /// Connections to each node, on each of which one transaction at a time is checked.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// The index of transactions: null or kv.
    #[arg(long, default_value = "kv", value_parser = ["null", "kv"])]
    index: String,
    /// Transactions that wait at a node, in the networks whose mempools are larger than the default.
    #[arg(long, default_value_t = 50_000)]
    mempool_size: u32,
    /// Where the networks live, each removed at its end.
    #[arg(long, default_value = "target/bench-consensus")]
    dir: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ensure!(options.runs > 0, "--runs must be at least 1");
    ensure!(options.rate > 0.0, "--rate must be above 0");
    let mut contenders = vec![Contender::perihelion(options.perihelion.as_deref())?];
    for named in options.cometbft.iter().filter(|named| !named.is_empty()) {
        contenders.push(Contender::cometbft(named)?);
    }
    println!(
        "{}\n4 validators on loopback, application kvstore, index {}, log level error, else the defaults of `init`. Transactions of {} bytes by broadcast_tx_sync to all four, {} connections each. Each stage was measured for {} s.",
        describe(&contenders)?,
        options.index,
        options.tx_bytes,
        options.connections,
        options.seconds
    );
    let setting = Setting {
        index: options.index.clone(),
        seconds: Duration::from_secs(options.seconds.max(1)),
        tx_bytes: options.tx_bytes,
        connections: options.connections.max(1),
    };
    let mut goals = Goals::default();
    let large = Variant::Mempool(options.mempool_size);
    for variant in [Variant::Default, Variant::NoCommit, large] {
        let stages = variant.stages(options.rate);
        let mut measured: Vec<(usize, Vec<Figures>)> = Vec::new();
        for run in 0..options.runs {
            // In turn, so that whatever else the machine does hits all alike; each begins once.
            for place in 0..contenders.len() {
                let index = (run + place) % contenders.len();
                let contender = &contenders[index];
                let figures = measure::network(&options.dir, contender, variant, &stages, &setting)
                    .with_context(|| format!("{variant}, run {run}, {}", contender.name))?;
                for (stage, figures) in stages.iter().zip(&figures) {
                    eprintln!("{}", report::line(variant, *stage, run, contender, figures));
                }
                measured.push((index, figures));
            }
        }
        for (place, stage) in stages.iter().enumerate() {
            let of_stage: Vec<(usize, Figures)> = measured
                .iter()
                .map(|(contender, figures)| (*contender, figures[place]))
                .collect();
            print!("{}", report::table(variant, *stage, &contenders, &of_stage));
            goals.judge(variant, *stage, &contenders, &of_stage);
        }
    }
    print!("{}", goals.table());
    Ok(())
}
