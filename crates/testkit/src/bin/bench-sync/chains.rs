//! The chains that are synced, made once and kept.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use perihelion_testkit::home::{ChainShape, make_home_reporting};

/// A chain that was made.
pub(crate) struct BenchChain {
    /// Its name and shape in words.
    pub(crate) title: String,
    /// Its name.
    pub(crate) name: String,
    /// The home that serves it.
    pub(crate) home: PathBuf,
    /// Its blocks. A client ends one below.
    pub(crate) blocks: i64,
    /// Bytes of a block on the wire, on average.
    pub(crate) block_bytes: u64,
}

/// Says that a kept chain is whole, and the bytes of its blocks.
const DONE: &str = "made.txt";

fn shape(name: &str, quick: bool) -> anyhow::Result<ChainShape> {
    let (quick_blocks, blocks) = match name {
        // Perihelion takes some seconds for each.
        "a" => (10_000, 60_000),
        "b" => (2_000, 10_000),
        "c" => (1_000, 4_000),
        _ => (30, 60),
    };
    let shape = if name == "large" {
        ChainShape {
            txs: 10,
            tx_bytes: 1_000_000,
            ..ChainShape::new("large", 4, blocks)
        }
    } else {
        ChainShape::preset(name).with_context(|| format!("there is no chain {name}: a, b or c"))?
    };
    let blocks = if quick { quick_blocks } else { blocks };
    Ok(ChainShape { blocks, ..shape })
}

/// Finds a chain below `folder`, or makes it.
pub(crate) fn prepare(folder: &Path, name: &str, quick: bool) -> anyhow::Result<BenchChain> {
    let shape = shape(name, quick)?;
    let format = perihelion_store::FORMAT;
    let home = folder.join(format!("{name}-{}-format{format}", shape.blocks));
    let done = home.join(DONE);
    if !done.exists() {
        if home.exists() {
            fs::remove_dir_all(&home)
                .with_context(|| format!("cannot remove the unfinished {}", home.display()))?;
        }
        let bytes = make(&home, &shape)?;
        fs::write(&done, bytes.to_string())?;
    }
    let bytes: u64 = fs::read_to_string(&done)?
        .trim()
        .parse()
        .with_context(|| format!("{} is damaged: remove {}", done.display(), home.display()))?;
    Ok(BenchChain {
        title: format!(
            "chain {name}: {} blocks, {} validators, {} transactions of {} bytes, {} bytes a block",
            shape.blocks,
            shape.validators,
            shape.txs,
            shape.tx_bytes,
            bytes / shape.blocks
        ),
        name: name.to_owned(),
        home,
        blocks: i64::try_from(shape.blocks)?,
        block_bytes: bytes / shape.blocks,
    })
}

fn make(home: &Path, shape: &ChainShape) -> anyhow::Result<u64> {
    let mut told = Instant::now();
    let made = make_home_reporting(home, shape, |height| {
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            eprintln!(
                "making chain {}: {height} of {}",
                shape.chain_id, shape.blocks
            );
        }
        ControlFlow::Continue(())
    })?;
    Ok(made.context("it was not broken off")?.block_bytes)
}
