//! Nodes of one network as real processes: started, killed, stopped and asked by number.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use perihelion_node::files::ValidatorKey;
use serde_json::Value;

use crate::process::{Launch, NodeProcess, NodeStatus};

/// Pause between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(20);
/// How long a node is asked for what an error says of it.
const ERROR_PATIENCE: Duration = Duration::from_secs(5);

/// The nodes of a network, numbered as they were given. Those that run are killed when this is
/// dropped.
#[derive(Debug)]
pub struct Cluster {
    launches: Vec<Launch>,
    nodes: Vec<Option<NodeProcess>>,
    patience: Duration,
}

impl Cluster {
    /// Nodes of which none runs yet. Whatever is awaited is awaited for `patience`: far longer than
    /// it takes.
    #[must_use]
    pub fn new(launches: Vec<Launch>, patience: Duration) -> Self {
        Self {
            nodes: launches.iter().map(|_| None).collect(),
            launches,
            patience,
        }
    }

    /// How many there are, running or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How a node is started, to be changed before it is.
    pub fn launch(&mut self, number: usize) -> &mut Launch {
        &mut self.launches[number]
    }

    /// The same of all.
    pub fn launches_mut(&mut self) -> &mut [Launch] {
        &mut self.launches
    }

    /// A node that runs.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn node(&self, number: usize) -> &NodeProcess {
        self.nodes[number].as_ref().expect("the node runs")
    }

    /// The same, to be waited for.
    ///
    /// # Panics
    /// When it does not run.
    pub fn node_mut(&mut self, number: usize) -> &mut NodeProcess {
        self.nodes[number].as_mut().expect("the node runs")
    }

    /// The numbers of those that run.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        let nodes = self.nodes.iter().enumerate();
        let running = nodes.filter(|(_, node)| node.is_some());
        running.map(|(number, _)| number).collect()
    }

    /// Starts nodes that do not run.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn start(&mut self, numbers: impl IntoIterator<Item = usize>) -> anyhow::Result<()> {
        for number in numbers {
            ensure!(self.nodes[number].is_none(), "node {number} runs already");
            self.nodes[number] = Some(self.launches[number].start()?);
        }
        Ok(())
    }

    /// Kills nodes as crashes would (SIGKILL), one right after the other.
    ///
    /// # Errors
    /// When one does not run, or cannot be killed.
    pub fn kill(&mut self, numbers: impl IntoIterator<Item = usize>) -> anyhow::Result<()> {
        for number in numbers {
            self.take(number)?.kill()?;
        }
        Ok(())
    }

    /// Tells nodes to stop (SIGTERM), all at once, and waits until they have.
    ///
    /// # Errors
    /// When one does not run, does not end in time, or ends with an error.
    pub fn stop(&mut self, numbers: impl IntoIterator<Item = usize>) -> anyhow::Result<()> {
        let mut stopping = Vec::new();
        for number in numbers {
            let mut node = self.take(number)?;
            node.signal_stop()?;
            stopping.push(node);
        }
        for node in stopping {
            let (name, log) = (node.name().to_owned(), node.log().to_owned());
            let status = node.stop()?;
            ensure!(
                status.success(),
                "{name} ended with {status}; its log is {}",
                log.display()
            );
        }
        Ok(())
    }

    fn take(&mut self, number: usize) -> anyhow::Result<NodeProcess> {
        let node = self.nodes[number].take();
        node.with_context(|| format!("node {number} does not run"))
    }

    /// Waits for a status of a node of which `is_wanted` is true.
    ///
    /// # Errors
    /// When patience ends, or one of the running nodes does.
    pub fn wait(
        &mut self,
        number: usize,
        what: &str,
        is_wanted: impl FnMut(&NodeStatus) -> bool,
    ) -> anyhow::Result<NodeStatus> {
        let patience = self.patience;
        let waited = self.node_mut(number).wait_for(what, patience, is_wanted);
        waited.with_context(|| self.overview())
    }

    /// Waits until a node has a block of this height. It may take as long as it likes where blocks
    /// come: patience begins anew with each.
    ///
    /// # Errors
    /// When patience or a node ends.
    pub fn wait_height(&mut self, number: usize, height: i64) -> anyhow::Result<NodeStatus> {
        self.follow(number, &format!("height {height}"), |node| {
            match node.status() {
                Ok(status) if status.height >= height => ControlFlow::Break(status),
                Ok(status) => ControlFlow::Continue(status.height),
                Err(_) => ControlFlow::Continue(0),
            }
        })
    }

    /// Waits until all that run have a block of this height.
    ///
    /// # Errors
    /// When patience or a node ends.
    pub fn wait_heights(&mut self, height: i64) -> anyhow::Result<()> {
        for number in self.running() {
            self.wait_height(number, height)?;
        }
        Ok(())
    }

    /// Waits until a node's `/sync_status` tells this mode, and tells its height then; Perihelion
    /// only.
    ///
    /// # Errors
    /// When patience or a node ends.
    pub fn wait_mode(&mut self, number: usize, mode: &str) -> anyhow::Result<i64> {
        let told = self.poll(number, &format!("mode {mode}"), |node| {
            let status = node.sync_status().ok()?;
            (status["mode"] == mode).then(|| status["height"].as_str().map(str::to_owned))?
        })?;
        Ok(told.parse()?)
    }

    /// Waits until `look` finds something at a node.
    ///
    /// # Errors
    /// When patience or a node ends; `what` then says what was awaited.
    pub fn poll<T>(
        &mut self,
        number: usize,
        what: &str,
        mut look: impl FnMut(&NodeProcess) -> Option<T>,
    ) -> anyhow::Result<T> {
        self.follow(number, what, |node| match look(node) {
            Some(found) => ControlFlow::Break(found),
            None => ControlFlow::Continue(0),
        })
    }

    /// Waits until `look` finds something at a node, and as long as it comes nearer: patience begins
    /// anew whenever `look` tells a higher number than ever before. What it tells must be bounded,
    /// or nothing ends the wait for what never comes.
    ///
    /// # Errors
    /// When patience or a node ends; `what` then says what was awaited.
    pub fn follow<T>(
        &mut self,
        number: usize,
        what: &str,
        mut look: impl FnMut(&NodeProcess) -> ControlFlow<T, i64>,
    ) -> anyhow::Result<T> {
        let mut deadline = Instant::now() + self.patience;
        let mut highest = i64::MIN;
        loop {
            let node = self.node_mut(number);
            node.check_alive()?;
            match look(node) {
                ControlFlow::Break(found) => return Ok(found),
                ControlFlow::Continue(at) if at > highest => {
                    highest = at;
                    deadline = Instant::now() + self.patience;
                }
                ControlFlow::Continue(_) => {}
            }
            if Instant::now() >= deadline {
                anyhow::bail!(
                    "node {number}: waited {:?} for {what}\n{}\nits log ends:\n{}",
                    self.patience,
                    self.overview(),
                    self.node(number).log_end()
                );
            }
            thread::sleep(LOOK);
        }
    }

    /// The highest block that any of the running nodes has; the answer of each is waited for.
    ///
    /// # Errors
    /// When patience or a node ends.
    pub fn top(&mut self) -> anyhow::Result<i64> {
        let mut top = 0;
        for number in self.running() {
            top = top.max(self.wait(number, "its height", |_| true)?.height);
        }
        Ok(top)
    }

    /// The address of a node's validator key, in upper-case hexadecimal.
    ///
    /// # Errors
    /// When its home has no key.
    pub fn address(&self, number: usize) -> anyhow::Result<String> {
        let file = "config/priv_validator_key.json";
        let key = ValidatorKey::load(&self.launches[number].home.join(file))?;
        Ok(key.public_key().address().to_string())
    }

    /// Waits until a block at `from` or above carries the precommit of node `signer`, as node
    /// `number` tells, and tells its height.
    ///
    /// # Errors
    /// When patience or a node ends.
    pub fn wait_signed(&mut self, number: usize, signer: usize, from: i64) -> anyhow::Result<i64> {
        let address = self.address(signer)?;
        let mut height = from;
        self.poll(number, &format!("a precommit of node {signer}"), |node| {
            // The commit that stands in the next block: it is final.
            while node.status().ok()?.height > height {
                let signers = signers(&node.call(&format!("/commit?height={height}")).ok()?);
                if signers.contains(&address) {
                    return Some(height);
                }
                height += 1;
            }
            None
        })
    }

    /// Asserts that all running nodes have the same block and application hash at each height from
    /// `from` to the lowest of their heights, and tells that height.
    ///
    /// # Errors
    /// When they differ or do not answer.
    pub fn agree(&self, from: i64) -> anyhow::Result<i64> {
        let running = self.running();
        let mut to = i64::MAX;
        for &number in &running {
            to = to.min(self.node(number).status()?.height);
        }
        let mut first = from;
        while first <= to {
            let last = to.min(first + 19);
            let path = format!("/blockchain?minHeight={first}&maxHeight={last}");
            let mut told: Option<(usize, Value)> = None;
            for &number in &running {
                let metas = self.node(number).call(&path)?["block_metas"].take();
                ensure!(
                    metas.as_array().map(Vec::len) == usize::try_from(last - first + 1).ok(),
                    "node {number} does not tell blocks {first} to {last}: {metas}"
                );
                match &told {
                    None => told = Some((number, metas)),
                    Some((other, same)) => ensure!(
                        *same == metas,
                        "nodes {other} and {number} differ between {first} and {last}:\n{same}\n{metas}"
                    ),
                }
            }
            first = last + 1;
        }
        Ok(to)
    }

    /// What each node says of itself, for an error.
    #[must_use]
    pub fn overview(&self) -> String {
        let line = |(number, node): (usize, &Option<NodeProcess>)| {
            let Some(node) = node else {
                return format!("node {number} does not run");
            };
            let client = node.client().clone().patience(ERROR_PATIENCE);
            let mode = client.sync_status().unwrap_or_default();
            let round = client.call("/consensus_state").unwrap_or_default();
            format!(
                "node {number}: {} height {} peers {} round {}",
                mode["mode"],
                mode["height"],
                mode["peers"].as_array().map_or(0, Vec::len),
                round["round_state"]["height/round/step"],
            )
        };
        let lines: Vec<_> = self.nodes.iter().enumerate().map(line).collect();
        lines.join("\n")
    }
}

/// The addresses whose precommits for the block stand in the answer to `/commit`.
#[must_use]
pub fn signers(commit: &Value) -> BTreeSet<String> {
    let places = commit["signed_header"]["commit"]["signatures"].as_array();
    let for_block = places.into_iter().flatten().filter(|place| {
        // BLOCK_ID_FLAG_COMMIT.
        place["block_id_flag"] == 2
    });
    let addresses = for_block.filter_map(|place| place["validator_address"].as_str());
    addresses.map(str::to_owned).collect()
}
