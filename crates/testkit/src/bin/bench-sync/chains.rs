//! The chains that are synced, made once and kept.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use perihelion_testkit::{
    home::{ChainShape, make_home_reporting},
    measure::Contender,
    process::{Launch, init_home},
};

use crate::PATIENCE;

/// A chain that was made.
#[derive(Debug, Clone)]
pub(crate) struct BenchChain {
    /// Its name and shape in words.
    pub(crate) title: String,
    /// Its name, which is its id too.
    pub(crate) name: String,
    /// The home of ours that serves it.
    pub(crate) home: PathBuf,
    /// Its blocks. A client ends one below.
    pub(crate) blocks: i64,
    /// Bytes of a block on the wire, on average.
    pub(crate) block_bytes: u64,
}

/// Says that a kept chain is whole, and the bytes of its blocks.
const DONE: &str = "made.txt";

/// With vote extensions.
pub(crate) const EXTENDED: &str = "e";
/// With blocks of 10 MB.
pub(crate) const LARGE: &str = "large";
/// With a million blocks.
pub(crate) const LONG: &str = "long";
/// Blocks of the long chain before the last stretch that is timed, and of each stretch.
pub(crate) const LONG_FROM: i64 = 1_000_000;
pub(crate) const STRETCH: i64 = 40_000;

/// Blocks of a chain that a CometBFT home holds at most: it takes long to get them.
const COMETBFT_BLOCKS: i64 = 12_000;
const COMETBFT_BLOCKS_QUICK: i64 = 2_000;
/// How long a CometBFT may take for them.
const COMETBFT_PATIENCE: Duration = Duration::from_secs(900);

fn shape(name: &str, quick: bool) -> anyhow::Result<ChainShape> {
    let (quick_blocks, blocks) = match name {
        // Perihelion takes some seconds for each.
        "a" => (10_000, 60_000),
        "b" => (2_000, 10_000),
        "c" => (1_000, 4_000),
        EXTENDED => (1_000, 4_000),
        LONG => {
            let blocks = u64::try_from(LONG_FROM + STRETCH)? + 2;
            (blocks, blocks)
        }
        _ => (30, 60),
    };
    let preset = |name| {
        ChainShape::preset(name).with_context(|| format!("there is no chain {name}: a, b or c"))
    };
    let shape = match name {
        LARGE => ChainShape {
            txs: 10,
            tx_bytes: 1_000_000,
            ..ChainShape::new(LARGE, 4, blocks)
        },
        EXTENDED => ChainShape {
            chain_id: EXTENDED.to_owned(),
            extensions_height: 1,
            ..preset("b")?
        },
        LONG => ChainShape {
            chain_id: LONG.to_owned(),
            ..preset("a")?
        },
        _ => preset(name)?,
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
        remove(&home)?;
        let bytes = make(&home, &shape)?;
        fs::write(&done, bytes.to_string())?;
    }
    let bytes: u64 = fs::read_to_string(&done)?
        .trim()
        .parse()
        .with_context(|| format!("{} is damaged: remove {}", done.display(), home.display()))?;
    Ok(BenchChain {
        title: format!(
            "chain {name}: {} blocks, {} validators{}, {} transactions of {} bytes, {} bytes a block",
            shape.blocks,
            shape.validators,
            if shape.extensions_height > 0 {
                " with vote extensions"
            } else {
                ""
            },
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

/// Removes what was left unfinished, or an earlier run used.
pub(crate) fn remove(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove the unfinished {}", folder.display()))?;
    }
    Ok(())
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

/// How a server of ours is started with a chain.
pub(crate) fn server(program: &Contender, chain: &BenchChain) -> anyhow::Result<Launch> {
    Ok(Launch::new("server", &program.program, &chain.home)?.tuned())
}

/// Finds the home of a CometBFT that has the chain, or the first blocks of a long one, or lets it get
/// them from a server of ours.
pub(crate) fn prepare_cometbft(
    folder: &Path,
    chain: &BenchChain,
    ours: &Contender,
    cometbft: &Contender,
    quick: bool,
) -> anyhow::Result<PathBuf> {
    let most = if quick {
        COMETBFT_BLOCKS_QUICK
    } else {
        COMETBFT_BLOCKS
    };
    // The last block comes without its commit.
    let blocks = most.min(chain.blocks - 1);
    let name = cometbft.name.replace([' ', '/'], "-");
    let home = folder.join(format!("{}-{}-{name}-{blocks}", chain.name, chain.blocks));
    let done = home.join(DONE);
    if done.exists() {
        return Ok(home);
    }
    remove(&home)?;
    eprintln!(
        "{} gets {blocks} blocks of chain {}",
        cometbft.name, chain.name
    );
    let launch = server(ours, chain)?;
    let address = launch.address()?;
    let mut server = launch.start()?;
    server.wait_ready(PATIENCE)?;
    init_home(&cometbft.program, &home, &chain.home)?;
    let mut client = cometbft_server(cometbft, &home)?
        .persistent_peers([address])
        .start()?;
    client.wait_for("the chain", COMETBFT_PATIENCE, |status| {
        status.height >= blocks
    })?;
    client.stop()?;
    server.stop()?;
    fs::write(&done, "")?;
    Ok(home)
}

/// How a CometBFT is started with the chain in its home.
pub(crate) fn cometbft_server(cometbft: &Contender, home: &Path) -> anyhow::Result<Launch> {
    Ok(Launch::new(&cometbft.name, &cometbft.program, home)?
        .tuned()
        .set("proxy_app", "persistent_kvstore")
        .set("log_level", "error"))
}
