//! Makes a home with a finished chain, for a node to serve.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a command")]

use std::{
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Parser;
use perihelion_testkit::home::{ChainShape, make_home_reporting};

/// Makes a home with a finished chain: `perihelion start --home HOME` serves it at once.
#[derive(Debug, Parser)]
#[command(name = "perihelion-make-chain")]
struct Options {
    /// Folder of the new home.
    #[arg(long)]
    home: PathBuf,
    /// Begin with one of the benchmarks' chains: a, b or c. Other flags change it.
    #[arg(long)]
    preset: Option<String>,
    /// The chain's id [default: the preset, or "made"].
    #[arg(long)]
    chain_id: Option<String>,
    /// Validators [default: 4].
    #[arg(long)]
    validators: Option<u32>,
    /// Blocks [default: 3000].
    #[arg(long)]
    blocks: Option<u64>,
    /// Transactions a block [default: 1].
    #[arg(long)]
    txs: Option<u32>,
    /// Bytes of a transaction [default: 100].
    #[arg(long)]
    tx_bytes: Option<u32>,
    /// Every so many blocks the validators change; 0 for never.
    #[arg(long, default_value_t = 0)]
    churn: i64,
    /// Share of validators absent from each commit, below 1/3.
    #[arg(long, default_value_t = 0.0)]
    absent: f64,
    /// Commits are of rounds below this number.
    #[arg(long, default_value_t = 1)]
    rounds: i32,
    /// The first height.
    #[arg(long, default_value_t = 1)]
    initial_height: i64,
    /// Vote extensions from this height on; 0 for never.
    #[arg(long, default_value_t = 0)]
    extensions_height: i64,
    /// Everything that is drawn follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Options {
    fn shape(&self) -> anyhow::Result<ChainShape> {
        let base = match &self.preset {
            None => ChainShape::new("made", 4, 3_000),
            Some(name) => ChainShape::preset(name)
                .with_context(|| format!("--preset {name}: use a, b or c"))?,
        };
        Ok(ChainShape {
            chain_id: self.chain_id.clone().unwrap_or(base.chain_id),
            validators: self.validators.unwrap_or(base.validators),
            blocks: self.blocks.unwrap_or(base.blocks),
            txs: self.txs.unwrap_or(base.txs),
            tx_bytes: self.tx_bytes.unwrap_or(base.tx_bytes),
            churn: self.churn,
            absent: self.absent,
            gone: None,
            rounds: self.rounds,
            initial_height: self.initial_height,
            extensions_height: self.extensions_height,
            seed: self.seed,
        })
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let shape = options.shape()?;
    let start = Instant::now();
    let mut told = start;
    let made = make_home_reporting(&options.home, &shape, |height| {
        if told.elapsed() < Duration::from_secs(1) {
            return ControlFlow::Continue(());
        }
        told = Instant::now();
        let done = height.get() - shape.initial_height + 1;
        eprintln!(
            "height {height}  {done}/{} blocks  {:.0} blocks/s",
            shape.blocks,
            done as f64 / start.elapsed().as_secs_f64()
        );
        ControlFlow::Continue(())
    })?;
    let made = made.context("it was not broken off")?;
    println!(
        "{}: chain {:?}, heights {} to {}, {} bytes a block, last block {}, app hash {:X}, {:.1} s",
        made.home.display(),
        made.chain_id,
        made.initial_height,
        made.height,
        made.block_bytes / shape.blocks,
        made.last_block_id.hash,
        made.app_hash,
        start.elapsed().as_secs_f64()
    );
    Ok(())
}
