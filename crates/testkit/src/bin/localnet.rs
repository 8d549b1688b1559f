//! A network on this machine: three nodes that have a chain, and a fourth that catches up.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use std::{
    fmt::Write as _,
    fs,
    io::{IsTerminal as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use perihelion_testkit::{
    home::{ChainShape, CopyData, MadeChain, copy_home, make_home_reporting},
    process::{Launch, NodeProcess},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Nodes in all; the last begins with an empty store.
const NODES: u16 = 4;
/// The folder where none is named: removed at the end, unless something went wrong.
const FOLDER: &str = "localnet";
/// How long a node may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the table is drawn on a terminal, and how often a line is written elsewhere.
const REDRAW: Duration = Duration::from_millis(250);
const LINE: Duration = Duration::from_secs(1);

/// Four nodes on loopback: three serve a chain, a fourth joins late and catches up.
#[derive(Debug, Parser)]
#[command(name = "localnet")]
struct Options {
    /// Blocks of the chain.
    #[arg(long, env = "BLOCKS", default_value_t = 3_000)]
    blocks: u64,
    /// Its validators.
    #[arg(long, env = "VALIDATORS", default_value_t = 4)]
    validators: u32,
    /// Node k (0 to 3) listens for peers on this port plus 10 k, for clients one above.
    #[arg(long, env = "BASE_PORT", default_value_t = 26_656)]
    base_port: u16,
    /// A folder that is not there yet; kept at the end [default: ./localnet, removed at the end].
    #[arg(long, env = "LOCALNET_DIR")]
    dir: Option<PathBuf>,
    /// The node's binary [default: perihelion beside this program].
    #[arg(long, env = "PERIHELION")]
    perihelion: Option<PathBuf>,
    /// 1: end when the fourth node has caught up and its hashes were compared.
    #[arg(long, env = "ONCE", default_value = "0")]
    once: String,
}

fn main() {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let stop = CancellationToken::new();
    let result = runtime
        .context("cannot start the runtime")
        .and_then(|runtime| {
            let _entered = runtime.enter();
            // A second signal changes nothing: the nodes are stopped in any case.
            perihelion_node::signals::watch_with(stop.clone(), || ())?;
            run(&options, &stop)
        });
    if let Err(error) = result {
        eprintln!("localnet: {error:#}");
        std::process::exit(1);
    }
}

fn run(options: &Options, stop: &CancellationToken) -> anyhow::Result<()> {
    let program = program(options)?;
    let ports = ports(options.base_port)?;
    let folder = options.dir.clone().unwrap_or_else(|| FOLDER.into());
    ensure!(
        !folder.exists(),
        "the folder {0} is there already: remove it (rm -r {0}), or set LOCALNET_DIR to another",
        folder.display()
    );
    let Some(made) = make_chain(options, &folder, stop)? else {
        return remove(options, &folder);
    };
    let mut nodes = Vec::new();
    let ended = start(&program, &folder, &made, &ports, &mut nodes)
        .and_then(|()| watch(options, &made, &mut nodes, stop));
    let stopped = stop_all(nodes);
    if let Err(error) = ended.and(stopped) {
        bail!(
            "{error:#}\nthe nodes' homes and logs are kept in {}",
            folder.display()
        );
    }
    remove(options, &folder)
}

fn program(options: &Options) -> anyhow::Result<PathBuf> {
    let program = match &options.perihelion {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("perihelion"),
    };
    ensure!(
        program.is_file(),
        "there is no binary {}: run `make build`, or set PERIHELION to where it is",
        program.display()
    );
    Ok(program)
}

/// The ports for peers; those for clients are one above. All must be free.
fn ports(base: u16) -> anyhow::Result<Vec<u16>> {
    let mut ports = Vec::new();
    for index in 0..NODES {
        let port = base
            .checked_add(10 * index)
            .filter(|port| *port > 0 && *port < u16::MAX)
            .context("BASE_PORT is too high: four nodes need 31 ports above it")?;
        for port in [port, port + 1] {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| {
                format!("port {port} is in use: stop what has it, or set BASE_PORT to another")
            })?;
        }
        ports.push(port);
    }
    Ok(ports)
}

/// `None` when told to stop: the making is then broken off.
fn make_chain(
    options: &Options,
    folder: &Path,
    stop: &CancellationToken,
) -> anyhow::Result<Option<MadeChain>> {
    let shape = ChainShape::new("localnet", options.validators, options.blocks);
    println!(
        "Making a chain of {} blocks of {} validators",
        shape.blocks, shape.validators
    );
    let (start, mut told) = (Instant::now(), Instant::now());
    let made = make_home_reporting(&folder.join("chain"), &shape, |height| {
        if stop.is_cancelled() {
            return std::ops::ControlFlow::Break(());
        }
        if told.elapsed() >= LINE {
            told = Instant::now();
            println!("  {height} of {}", shape.blocks);
        }
        std::ops::ControlFlow::Continue(())
    })?;
    if let Some(made) = &made {
        println!("  made in {:.1} s", start.elapsed().as_secs_f64());
        let height = made.height;
        println!("  height {height}, last block {}", made.last_block_id.hash);
    }
    Ok(made)
}

/// Starts three servers, and then the node that has nothing.
fn start(
    program: &Path,
    folder: &Path,
    made: &MadeChain,
    ports: &[u16],
    nodes: &mut Vec<NodeProcess>,
) -> anyhow::Result<()> {
    let mut addresses = Vec::new();
    for (index, &port) in ports.iter().enumerate() {
        let name = format!("node{index}");
        let home = folder.join(&name);
        let is_late = index + 1 == ports.len();
        let data = if is_late {
            CopyData::None
        } else {
            CopyData::Copied
        };
        copy_home(&made.home, &home, data)?;
        let mut launch = Launch::new(&name, program, &home)?;
        launch.p2p_port = port;
        launch.rpc_port = port + 1;
        if is_late {
            launch = launch.persistent_peers(addresses.drain(..));
            for node in nodes.iter_mut() {
                node.wait_ready(PATIENCE)?;
            }
        } else {
            addresses.push(launch.address()?);
        }
        nodes.push(launch.start()?);
    }
    Ok(())
}

/// Shows the nodes until told to stop, or with ONCE=1 until the fourth has caught up.
fn watch(
    options: &Options,
    made: &MadeChain,
    nodes: &mut [NodeProcess],
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let is_terminal = std::io::stdout().is_terminal();
    let (start, mut drawn, mut caught_up) = (Instant::now(), 0, false);
    while !stop.is_cancelled() {
        for node in nodes.iter_mut() {
            node.check_alive()?;
        }
        let rows: Vec<Row> = nodes.iter().map(Row::of).collect();
        drawn = show(&rows, is_terminal, drawn, start)?;
        let late = rows.last().context("there are four nodes")?;
        // The last block's commit is in no block: without a validator nobody can be sure of it.
        if !caught_up && late.height >= made.height.get() - 1 && !late.is_catching_up {
            caught_up = true;
            drawn = 0;
            println!("{}", compare(nodes, late.height, start.elapsed())?);
            if options.once == "1" {
                return Ok(());
            }
            println!("It goes on serving like the others; Ctrl-C ends all.");
        }
        thread::sleep(if is_terminal { REDRAW } else { LINE });
    }
    Ok(())
}

/// Compares all nodes' hashes at a height.
fn compare(nodes: &[NodeProcess], height: i64, took: Duration) -> anyhow::Result<String> {
    let hashes = nodes
        .iter()
        .map(|node| node.hashes(height))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (block, app) = &hashes[0];
    ensure!(
        hashes.iter().all(|other| other == &hashes[0]),
        "the nodes differ at height {height}: {hashes:?}"
    );
    Ok(format!(
        "node3 has caught up at height {height} in {:.1} s: block hash {block} and app hash {app} are the same on all {}",
        took.as_secs_f64(),
        nodes.len()
    ))
}

/// One node in the table.
struct Row {
    name: String,
    mode: String,
    height: i64,
    target: Option<i64>,
    rate: f64,
    peers: usize,
    remaining: Option<f64>,
    app_hash: String,
    is_catching_up: bool,
}

impl Row {
    fn of(node: &NodeProcess) -> Self {
        let (status, sync) = (node.status().ok(), node.sync_status().unwrap_or_default());
        let number = |value: &Value| value.as_str().and_then(|text| text.parse::<i64>().ok());
        let nanos = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok());
        Self {
            name: node.name().to_owned(),
            mode: sync["mode"].as_str().unwrap_or("starting").to_owned(),
            height: status.as_ref().map_or(0, |status| status.height),
            target: number(&sync["target_height"]),
            rate: sync["blocks_per_second"].as_f64().unwrap_or(0.0),
            peers: sync["peers"].as_array().map_or(0, Vec::len),
            remaining: nanos(&sync["remaining_time"]).map(|nanos| nanos / 1e9),
            is_catching_up: status.as_ref().is_none_or(|status| status.catching_up),
            app_hash: status.map_or(String::new(), |status| status.app_hash),
        }
    }

    fn percent(&self) -> f64 {
        match self.target {
            Some(target) if target > 0 => 100.0 * self.height as f64 / target as f64,
            _ => 0.0,
        }
    }

    fn write(&self, text: &mut String) {
        let target = self
            .target
            .map_or("-".to_owned(), |target| target.to_string());
        let remaining = match self.remaining {
            Some(seconds) if self.is_catching_up => format!("{seconds:.0} s"),
            _ => "-".to_owned(),
        };
        let hash = self.app_hash.get(..16).unwrap_or(&self.app_hash);
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "{:<6} {:<14} {:>8} {:>8} {:>6.1} {:>9.0} {:>5} {:>7}  {hash}",
            self.name,
            self.mode,
            self.height,
            target,
            self.percent(),
            self.rate,
            self.peers,
            remaining
        );
    }
}

const HEAD: &str =
    "node   mode             height   target      %  blocks/s peers     ETA  app hash";

/// Draws the table over the last one, or writes one line; returns how many lines were drawn.
fn show(rows: &[Row], is_terminal: bool, drawn: usize, start: Instant) -> anyhow::Result<usize> {
    let mut text = String::new();
    if !is_terminal {
        let late = rows.last().context("there are four nodes")?;
        let _ = write!(text, "{:>5.0} s  ", start.elapsed().as_secs_f64());
        late.write(&mut text);
        for row in rows.iter().rev().skip(1).rev() {
            let _ = write!(text, "  {} {}", row.name, row.height);
        }
        println!("{text}");
        return Ok(0);
    }
    if drawn > 0 {
        let _ = write!(text, "\x1b[{drawn}A");
    }
    let _ = writeln!(text, "\x1b[K{HEAD}");
    for row in rows {
        text.push_str("\x1b[K");
        row.write(&mut text);
        text.push('\n');
    }
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(rows.len() + 1)
}

fn stop_all(mut nodes: Vec<NodeProcess>) -> anyhow::Result<()> {
    for node in &mut nodes {
        node.signal_stop()?;
    }
    for node in nodes {
        let name = node.name().to_owned();
        let status = node.stop()?;
        ensure!(status.success(), "{name} ended with {status}");
    }
    println!("All nodes are stopped.");
    Ok(())
}

/// A folder that was named is kept.
fn remove(options: &Options, folder: &Path) -> anyhow::Result<()> {
    if options.dir.is_some() || !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}
