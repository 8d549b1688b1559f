//! Starts the nodes, shows them, and compares them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use perihelion_testkit::process::{Launch, NodeClient, NodeProcess};
use tokio_util::sync::CancellationToken;

use crate::{
    folder::Folder,
    load,
    looks::{PATIENCE, Watched},
    options::Options,
    screen::Screen,
    table::Row,
    transactions,
};

/// Between two looks at what the nodes have said.
const TICK: Duration = Duration::from_millis(50);

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
    let late = count(options.full_nodes.into(), "late node");
    println!(
        "{} and {late} of chain \"localnet\" in {}",
        count(validators, "validator"),
        folder.path().display()
    );
    let (first, others) = launches.split_at(validators);
    let mut net = Net::start(options, folder, first, nodes, stop)?;
    let mut is_late = !others.is_empty();
    let mut has_compared = false;
    while !stop.is_cancelled() {
        for node in nodes.iter_mut() {
            node.check_alive()?;
        }
        let rows = net.rows();
        net.tell_caught_up(&rows);
        net.tell_overdue(nodes);
        net.show(&rows)?;
        if is_late && net.is_time(&rows) {
            is_late = false;
            net.start_late(folder, others, nodes, stop)?;
        } else if !is_late
            && !has_compared
            && rows.iter().all(Row::is_deciding)
            && let Some(text) = compare(nodes)?
        {
            has_compared = true;
            net.screen.say(&text);
            if options.is_once() {
                return Ok(());
            }
            net.screen.say("Ctrl-C stops all nodes.");
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// What runs, and what is shown of it.
struct Net<'a> {
    options: &'a Options,
    watched: Vec<Watched>,
    /// How many of the late nodes, which stand behind the validators, are in consensus.
    caught_up: Vec<bool>,
    sent: Arc<AtomicU64>,
    committed: Arc<AtomicU64>,
    screen: Screen,
    start: Instant,
}

impl<'a> Net<'a> {
    /// Starts the validators.
    fn start(
        options: &'a Options,
        folder: &Folder,
        launches: &[Launch],
        nodes: &mut Vec<NodeProcess>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        start(folder, launches, nodes)?;
        let clients: Vec<_> = nodes.iter().map(|node| node.client().clone()).collect();
        let watched = clients.iter();
        Ok(Self {
            options,
            watched: watched
                .map(|node| Watched::start(node, stop.clone()))
                .collect(),
            caught_up: Vec::new(),
            committed: transactions::start(clients.clone(), stop.clone()),
            sent: load::start(options.load, clients, stop),
            screen: Screen::new(),
            start: Instant::now(),
        })
    }

    fn rows(&self) -> Vec<Row> {
        self.watched.iter().map(Watched::row).collect()
    }

    /// Whether the late nodes are to start.
    fn is_time(&self, rows: &[Row]) -> bool {
        self.start.elapsed() >= Duration::from_secs(self.options.late)
            && highest(rows) >= i64::from(self.options.blocks)
    }

    fn start_late(
        &mut self,
        folder: &Folder,
        launches: &[Launch],
        nodes: &mut Vec<NodeProcess>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        self.screen.say(&format!(
            "{} while the chain is at height {}.",
            starting(launches.len()),
            highest(&self.rows())
        ));
        let before = nodes.len();
        start(folder, launches, nodes)?;
        for node in &nodes[before..] {
            let watched = Watched::start(node.client(), stop.clone());
            self.watched.push(watched);
            self.caught_up.push(false);
        }
        Ok(())
    }

    /// The late nodes.
    fn late<'r>(&self, rows: &'r [Row]) -> &'r [Row] {
        &rows[rows.len() - self.caught_up.len()..]
    }

    /// Says of each late node once that it has caught up, and how fast.
    fn tell_caught_up(&mut self, rows: &[Row]) {
        let rows = self.late(rows);
        for (row, told) in rows.iter().zip(&mut self.caught_up) {
            if let Some(caught_up) = row.caught_up.filter(|_| !*told) {
                *told = true;
                self.screen
                    .say(&format!("{} caught up: {caught_up}", row.name));
            }
        }
    }

    /// Says once of each node that never answers what it says itself: it may wait for its application.
    fn tell_overdue(&mut self, nodes: &[NodeProcess]) {
        let now = Instant::now();
        for (watched, node) in self.watched.iter_mut().zip(nodes) {
            if watched.is_overdue(now) {
                self.screen.say(&overdue(node.name(), &node.log_end()));
            }
        }
    }

    /// Shows what the nodes have said, where it is time to.
    fn show(&mut self, rows: &[Row]) -> anyhow::Result<()> {
        let now = Instant::now();
        let is_quick = self.late(rows).iter().any(|row| row.target.is_some());
        if !self.screen.is_due(now, is_quick) {
            return Ok(());
        }
        let seconds = self.start.elapsed().as_secs();
        // Read in this order, those in blocks are no more than those that were sent.
        let committed = self.committed.load(Ordering::Relaxed);
        let sent = self.sent.load(Ordering::Relaxed);
        let mut foot = format!("{seconds} s, transactions: {sent} sent, {committed} in blocks");
        let waits = self.options.late.saturating_sub(seconds);
        if rows.len() < usize::from(self.options.nodes()) && waits > 0 {
            let late = starting(self.options.full_nodes.into());
            foot += &format!("; {late} in {waits} s");
        }
        self.screen.show(now, rows, &foot)
    }
}

fn highest(rows: &[Row]) -> i64 {
    rows.iter().map(|row| row.height).max().unwrap_or(0)
}

fn start(folder: &Folder, launches: &[Launch], nodes: &mut Vec<NodeProcess>) -> anyhow::Result<()> {
    for launch in launches {
        nodes.push(launch.start()?);
        folder.note(nodes)?;
    }
    Ok(())
}

/// Compares all nodes' hashes at the lowest of their heights; `None` where one does not answer now.
///
/// # Errors
/// When they differ.
fn compare(nodes: &[NodeProcess]) -> anyhow::Result<Option<String>> {
    // Who waits at the screen is told soon that one does not answer.
    let clients = nodes.iter().map(|node| node.client().clone());
    let nodes: Vec<_> = clients.map(|node| node.patience(PATIENCE)).collect();
    let statuses: anyhow::Result<Vec<_>> = nodes.iter().map(NodeClient::status).collect();
    let Ok(statuses) = statuses else {
        return Ok(None);
    };
    let height = statuses.iter().map(|status| status.height).min();
    let height = height.context("there are nodes")?;
    let hashes: anyhow::Result<Vec<_>> = nodes.iter().map(|node| node.hashes(height)).collect();
    let Ok(hashes) = hashes else {
        return Ok(None);
    };
    let (block, app) = hashes.first().context("there are nodes")?;
    ensure!(
        hashes.iter().all(|other| other == &hashes[0]),
        "the nodes differ at height {height}: {hashes:?}"
    );
    let (who, have) = match nodes.len() {
        1 => ("The node is".to_owned(), "it has"),
        number => (format!("All {number} nodes are"), "they have the same"),
    };
    Ok(Some(format!(
        "{who} in consensus; at height {height} {have} block {block} and app hash {app}."
    )))
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

/// That a node does not answer, and how its log ends.
fn overdue(name: &str, log: &str) -> String {
    let mut lines = log.lines().rev();
    match lines.find(|line| !line.trim().is_empty()) {
        Some(last) => format!(
            "{name} does not answer yet; its log ends with: {}",
            last.trim()
        ),
        None => format!("{name} does not answer yet, and has logged nothing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_waits_says_for_what() {
        let log =
            "INFO starting\nWARN cannot connect to tcp://127.0.0.1:1; trying again in 3 s\n\n";
        assert_eq!(
            overdue("node0", log),
            "node0 does not answer yet; its log ends with: WARN cannot connect to tcp://127.0.0.1:1; trying again in 3 s"
        );
        assert_eq!(
            overdue("node1", "\n"),
            "node1 does not answer yet, and has logged nothing"
        );
    }

    #[test]
    fn one_node_is_no_nodes() {
        assert_eq!(count(4, "validator"), "4 validators");
        assert_eq!(count(1, "validator"), "1 validator");
        assert_eq!(starting(1), "1 late node starts");
        assert_eq!(starting(2), "2 late nodes start");
    }
}
