//! Starts the nodes, shows them, and compares them.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use perihelion_testkit::process::{Launch, NodeProcess};
use tokio_util::sync::CancellationToken;

use crate::{
    folder::Folder,
    load,
    options::Options,
    table::{HEAD, Look, Row},
};

/// How often the table is drawn on a terminal, and how often a line is written elsewhere.
const REDRAW: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(2);

/// Runs the network until told to stop, or with ONCE=1 until the late nodes are in consensus.
/// `nodes` has all that were started, also when this fails.
pub(crate) fn run(
    options: &Options,
    folder: &Folder,
    launches: Vec<Launch>,
    nodes: &mut Vec<NodeProcess>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let validators = usize::from(options.validators);
    println!(
        "{} and {} of chain \"localnet\" in {}",
        count(validators, "validator"),
        count(options.full_nodes.into(), "late node"),
        folder.path().display()
    );
    start(folder, &launches[..validators], nodes)?;
    let rpc = nodes.iter().map(NodeProcess::rpc).collect();
    let mut net = Net {
        options,
        looks: launches.iter().map(|_| Look::new()).collect(),
        sent: load::start(options.load, rpc, stop.clone()),
        txs: Transactions::default(),
        screen: Screen::new(),
        start: Instant::now(),
    };
    let mut is_late = launches.len() > validators;
    let mut has_compared = false;
    while !stop.is_cancelled() {
        let rows = net.look(nodes)?;
        let top = rows.iter().map(|row| row.height).max().unwrap_or(0);
        if is_late
            && net.start.elapsed() >= Duration::from_secs(options.late)
            && top >= i64::from(options.blocks)
        {
            is_late = false;
            net.screen.say(&format!(
                "{} while the chain is at height {top}.",
                starting(options.full_nodes.into())
            ));
            start(folder, &launches[validators..], nodes)?;
        } else if !is_late && !has_compared && rows.iter().all(|row| row.mode == "consensus") {
            has_compared = true;
            net.screen.say(&compare(nodes)?);
            if options.is_once() {
                return Ok(());
            }
            net.screen.say("Ctrl-C stops all nodes.");
        }
        thread::sleep(net.screen.pause());
    }
    Ok(())
}

fn start(folder: &Folder, launches: &[Launch], nodes: &mut Vec<NodeProcess>) -> anyhow::Result<()> {
    for launch in launches {
        nodes.push(launch.start()?);
        folder.note(nodes)?;
    }
    Ok(())
}

/// Compares all nodes' hashes at the lowest of their heights.
fn compare(nodes: &[NodeProcess]) -> anyhow::Result<String> {
    let mut height = i64::MAX;
    for node in nodes {
        height = height.min(node.status()?.height);
    }
    let hashes = nodes
        .iter()
        .map(|node| node.hashes(height))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (block, app) = hashes.first().context("there are nodes")?;
    ensure!(
        hashes.iter().all(|other| other == &hashes[0]),
        "the nodes differ at height {height}: {hashes:?}"
    );
    Ok(format!(
        "All {} nodes are in consensus; at height {height} they have the same block {block} and app hash {app}.",
        nodes.len()
    ))
}

struct Net<'a> {
    options: &'a Options,
    looks: Vec<Look>,
    sent: std::sync::Arc<std::sync::atomic::AtomicU64>,
    txs: Transactions,
    screen: Screen,
    start: Instant,
}

impl Net<'_> {
    /// Asks all nodes and shows what they say.
    fn look(&mut self, nodes: &mut [NodeProcess]) -> anyhow::Result<Vec<Row>> {
        for node in nodes.iter_mut() {
            node.check_alive()?;
        }
        let rows: Vec<_> = nodes
            .iter()
            .zip(&mut self.looks)
            .map(|(node, look)| look.at(node))
            .collect();
        if let Some(node) = nodes.first() {
            self.txs.count(node);
        }
        let seconds = self.start.elapsed().as_secs();
        let mut foot = format!(
            "{seconds} s, transactions: {} sent, {} in blocks",
            self.sent.load(Ordering::Relaxed),
            self.txs.committed
        );
        let waits = self.options.late.saturating_sub(seconds);
        if nodes.len() < usize::from(self.options.nodes()) && waits > 0 {
            let late = starting(self.options.full_nodes.into());
            foot += &format!("; {late} in {waits} s");
        }
        self.screen.show(&rows, &foot)?;
        Ok(rows)
    }
}

/// So many of them: `1 validator`, `4 validators`.
fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// Who starts late: `1 late node starts`.
fn starting(number: usize) -> String {
    let verb = if number == 1 { "starts" } else { "start" };
    format!("{} {verb}", count(number, "late node"))
}

/// Counts transactions in blocks.
#[derive(Default)]
struct Transactions {
    height: i64,
    committed: u64,
}

impl Transactions {
    /// Blocks that `/blockchain` tells of at once.
    const PAGE: i64 = 20;

    fn count(&mut self, node: &NodeProcess) {
        let (from, to) = (self.height + 1, self.height + Self::PAGE);
        let path = format!("/blockchain?minHeight={from}&maxHeight={to}");
        let answer = node.call(&path).unwrap_or_default();
        for meta in answer["block_metas"].as_array().into_iter().flatten() {
            let number = |text: &serde_json::Value| text.as_str().and_then(|it| it.parse().ok());
            self.height = self
                .height
                .max(number(&meta["header"]["height"]).unwrap_or(0));
            self.committed += number(&meta["num_txs"]).unwrap_or(0).unsigned_abs();
        }
    }
}

/// A table on a terminal, lines elsewhere.
struct Screen {
    is_terminal: bool,
    /// Lines of the table that stand on the terminal.
    drawn: usize,
}

impl Screen {
    fn new() -> Self {
        Self {
            is_terminal: std::io::stdout().is_terminal(),
            drawn: 0,
        }
    }

    fn pause(&self) -> Duration {
        if self.is_terminal { REDRAW } else { LINE }
    }

    /// Says something that stays; the table goes on below it.
    fn say(&mut self, text: &str) {
        println!("{text}");
        self.drawn = 0;
    }

    fn show(&mut self, rows: &[Row], foot: &str) -> anyhow::Result<()> {
        let mut text = String::new();
        if self.is_terminal {
            if self.drawn > 0 {
                text += &format!("\x1b[{}A", self.drawn);
            }
            text += &format!("\x1b[K{HEAD}\n");
            for row in rows {
                text.push_str("\x1b[K");
                row.write(&mut text);
                text.push('\n');
            }
            text += &format!("\x1b[K{foot}\n");
            self.drawn = rows.len() + 2;
        } else {
            let rows: Vec<_> = rows.iter().map(Row::brief).collect();
            text = format!("{foot} | {}\n", rows.join(" | "));
        }
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_is_no_nodes() {
        assert_eq!(count(4, "validator"), "4 validators");
        assert_eq!(count(1, "validator"), "1 validator");
        assert_eq!(starting(1), "1 late node starts");
        assert_eq!(starting(2), "2 late nodes start");
    }
}
