//! Nodes as real processes on loopback: Perihelion's or CometBFT's, since both take the same
//! home and the same command line.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use perihelion_node::files::load_node_key;
use serde_json::Value;
use toml_edit::{DocumentMut, Item, Table, value};

/// How long one request may take. A busy node answers late; one that takes longer hangs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node may take to end after SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of the log's end that an error quotes.
const LOG_END: usize = 2_000;

/// A node that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct NodeProcess {
    name: String,
    child: Child,
    home: PathBuf,
    log: PathBuf,
    p2p: SocketAddr,
    rpc: SocketAddr,
    /// Whether it was told to stop: the second time a node ends at once.
    is_stopping: bool,
}

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What messages call it.
    pub name: String,
    /// The binary: `perihelion` or `cometbft`.
    pub program: PathBuf,
    /// Its home, with its configuration.
    pub home: PathBuf,
    /// Port for peers.
    pub p2p_port: u16,
    /// Port for clients.
    pub rpc_port: u16,
    /// `ID@HOST:PORT` each.
    pub persistent_peers: Vec<String>,
    /// Further keys of `config.toml`, dotted, such as `p2p.send_rate`.
    pub config: Vec<(String, toml_edit::Value)>,
    /// Further words on the command line behind `start --home HOME`.
    pub arguments: Vec<String>,
}

/// What a node says of itself (`/status`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its identity.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The highest block, 0 when there is none.
    pub height: i64,
    /// The lowest block, 0 when there is none.
    pub base: i64,
    /// The hash of the highest block, in upper-case hexadecimal.
    pub block_hash: String,
    /// The application hash, in upper-case hexadecimal, that the node tells with it.
    pub app_hash: String,
    /// Whether it is still syncing.
    pub catching_up: bool,
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// CPU time of all its threads, in seconds.
    pub cpu_seconds: f64,
    /// The most memory that was resident at once, in bytes.
    pub peak_rss_bytes: u64,
}

impl Launch {
    /// A node of `program` in `home` on two free ports of loopback, without peers.
    ///
    /// # Errors
    /// When no ports are free.
    pub fn new(name: &str, program: &Path, home: &Path) -> anyhow::Result<Self> {
        let [p2p_port, rpc_port] = free_ports()?;
        Ok(Self {
            name: name.to_owned(),
            program: program.to_owned(),
            home: home.to_owned(),
            p2p_port,
            rpc_port,
            persistent_peers: Vec::new(),
            config: Vec::new(),
            arguments: Vec::new(),
        })
    }

    /// The same with these peers, which it dials again and again.
    #[must_use]
    pub fn persistent_peers(mut self, peers: impl IntoIterator<Item = String>) -> Self {
        self.persistent_peers = peers.into_iter().collect();
        self
    }

    /// The same with another value for a key of `config.toml`, named with dots.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<toml_edit::Value>) -> Self {
        self.config.push((key.to_owned(), value.into()));
        self
    }

    /// Both ends at full speed: rates of 500 MB/s, packets flushed after 1 ms, nothing indexed.
    #[must_use]
    pub fn tuned(self) -> Self {
        self.set("p2p.send_rate", 500_000_000)
            .set("p2p.recv_rate", 500_000_000)
            .set("p2p.flush_throttle_timeout", "1ms")
            .set("tx_index.indexer", "null")
    }

    /// Short waits, for networks that share one machine: blocks come a tenth of a second after one
    /// another, gossip pauses for 10 ms.
    #[must_use]
    pub fn quick(self) -> Self {
        self.set("consensus.timeout_propose", "300ms")
            .set("consensus.timeout_propose_delta", "100ms")
            .set("consensus.timeout_prevote", "100ms")
            .set("consensus.timeout_prevote_delta", "100ms")
            .set("consensus.timeout_precommit", "100ms")
            .set("consensus.timeout_precommit_delta", "100ms")
            .set("consensus.timeout_commit", "100ms")
            .set("consensus.peer_gossip_sleep_duration", "10ms")
            .set("p2p.flush_throttle_timeout", "1ms")
    }

    /// `ID@HOST:PORT`, under which other nodes dial this one.
    ///
    /// # Errors
    /// When the home has no node key.
    pub fn address(&self) -> anyhow::Result<String> {
        Ok(format!(
            "{}@127.0.0.1:{}",
            node_id(&self.home)?,
            self.p2p_port
        ))
    }

    /// Writes the configuration and starts the node. Its output goes to `node.log` in its home.
    ///
    /// # Errors
    /// When the binary is not there, the configuration cannot be edited or the process cannot be
    /// started.
    pub fn start(&self) -> anyhow::Result<NodeProcess> {
        ensure!(
            self.program.is_file(),
            "there is no binary {}: build it first (make build)",
            self.program.display()
        );
        self.configure()?;
        let log = self.home.join("node.log");
        // What an earlier run said stays.
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(&self.program)
            .arg("start")
            .arg("--home")
            .arg(&self.home)
            .args(&self.arguments)
            // Ctrl-C is for who started it, and who then stops it in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        Ok(NodeProcess {
            name: self.name.clone(),
            child,
            home: self.home.clone(),
            log,
            p2p: loopback(self.p2p_port),
            rpc: loopback(self.rpc_port),
            is_stopping: false,
        })
    }

    /// Runs the node by another binary, with the configuration that this binary's `init` writes.
    ///
    /// # Errors
    /// When the binary is not there, or fails.
    pub fn run_by(&mut self, program: &Path) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        init(program, folder.path())?;
        let config = "config/config.toml";
        fs::copy(folder.path().join(config), self.home.join(config))?;
        program.clone_into(&mut self.program);
        Ok(())
    }

    fn configure(&self) -> anyhow::Result<()> {
        let mut edits: Vec<(&str, toml_edit::Value)> = vec![
            (
                "p2p.laddr",
                format!("tcp://127.0.0.1:{}", self.p2p_port).into(),
            ),
            (
                "rpc.laddr",
                format!("tcp://127.0.0.1:{}", self.rpc_port).into(),
            ),
            (
                "p2p.persistent_peers",
                self.persistent_peers.join(",").into(),
            ),
            ("p2p.addr_book_strict", false.into()),
            ("p2p.allow_duplicate_ip", true.into()),
            ("p2p.pex", false.into()),
        ];
        edits.extend(
            self.config
                .iter()
                .map(|(key, value)| (&key[..], value.clone())),
        );
        edit_config(&self.home, edits)
    }
}

impl NodeProcess {
    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its home.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Where it listens for peers.
    #[must_use]
    pub fn p2p(&self) -> SocketAddr {
        self.p2p
    }

    /// Where it listens for clients.
    #[must_use]
    pub fn rpc(&self) -> SocketAddr {
        self.rpc
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The result of a call, `path` being such as `/block?height=3`.
    ///
    /// # Errors
    /// When the node does not answer, or answers with an error.
    pub fn call(&self, path: &str) -> anyhow::Result<Value> {
        let body = http_get(self.rpc, path).with_context(|| format!("{} {path}", self.name))?;
        let mut answer: Value = serde_json::from_slice(&body)
            .with_context(|| format!("{} {path}: not JSON", self.name))?;
        match answer.get_mut("result").map(Value::take) {
            Some(result) => Ok(result),
            None => Err(anyhow!("{} {path}: {}", self.name, answer["error"])),
        }
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it does not answer in the form of `/status`.
    pub fn status(&self) -> anyhow::Result<NodeStatus> {
        NodeStatus::from_json(&self.call("/status")?)
    }

    /// What it says of its sync; Perihelion only.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn sync_status(&self) -> anyhow::Result<Value> {
        self.call("/sync_status")
    }

    /// The hash of the block at a height and the application hash in its header, in upper-case
    /// hexadecimal.
    ///
    /// # Errors
    /// When the node does not answer or has no such block.
    pub fn hashes(&self, height: i64) -> anyhow::Result<(String, String)> {
        let commit = self.call(&format!("/commit?height={height}"))?;
        let signed = &commit["signed_header"];
        let block = text(&signed["commit"]["block_id"]["hash"], "block hash")?;
        Ok((block, text(&signed["header"]["app_hash"], "app_hash")?))
    }

    /// Hands a transaction in, without waiting for a block.
    ///
    /// # Errors
    /// When the node does not take it.
    pub fn broadcast(&self, tx: &[u8]) -> anyhow::Result<()> {
        let mut path = "/broadcast_tx_sync?tx=0x".to_owned();
        for byte in tx {
            // Writing into a String cannot fail.
            let _ = write!(path, "{byte:02x}");
        }
        let answer = self.call(&path)?;
        ensure!(answer["code"] == 0, "{} {path}: {answer}", self.name);
        Ok(())
    }

    /// How it ended, `None` while it runs.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Fails when it has ended, quoting its log.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.log_end()),
        }
    }

    /// Waits until it answers `/status`.
    ///
    /// # Errors
    /// When it ends, or `patience` does.
    pub fn wait_ready(&mut self, patience: Duration) -> anyhow::Result<NodeStatus> {
        self.wait_for("an answer to /status", patience, |_| true)
    }

    /// Waits for a status of which `is_wanted` is true.
    ///
    /// # Errors
    /// When the node ends, or `patience` does; `what` then says what was awaited.
    pub fn wait_for(
        &mut self,
        what: &str,
        patience: Duration,
        mut is_wanted: impl FnMut(&NodeStatus) -> bool,
    ) -> anyhow::Result<NodeStatus> {
        let deadline = Instant::now() + patience;
        loop {
            self.check_alive()?;
            let last = self.status();
            if let Ok(status) = &last
                && is_wanted(status)
            {
                return last;
            }
            ensure!(
                Instant::now() < deadline,
                "{}: waited {patience:?} for {what}; last: {last:?}; its log ends:\n{}",
                self.name,
                self.log_end()
            );
            thread::sleep(LOOK);
        }
    }

    /// What it has used so far. The time of threads that ended counts.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        usage(self.pid())
    }

    /// Sends SIGTERM, unless that was done, and waits for the end; kills it after 20 seconds.
    ///
    /// # Errors
    /// When it had to be killed, or could not be signalled.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.signal_stop()?;
        self.wait_stopped()
    }

    /// Sends SIGTERM without waiting, to be followed by [`stop`](Self::stop): so several nodes end
    /// at the same time.
    ///
    /// # Errors
    /// When it could not be signalled.
    pub fn signal_stop(&mut self) -> anyhow::Result<()> {
        if self.is_stopping || self.ended()?.is_some() {
            return Ok(());
        }
        self.is_stopping = true;
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .context("a process id is positive")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .with_context(|| format!("cannot stop {}", self.name))
    }

    fn wait_stopped(&mut self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            thread::sleep(LOOK);
        }
        self.child.kill()?;
        self.child.wait()?;
        bail!(
            "{} did not end within {STOP_TIMEOUT:?} of SIGTERM and was killed",
            self.name
        )
    }

    /// Ends it at once, as a crash would (SIGKILL).
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// The end of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let start = log.len().saturating_sub(LOG_END);
        String::from_utf8_lossy(&log[start..]).into_owned()
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

impl NodeStatus {
    fn from_json(status: &Value) -> anyhow::Result<Self> {
        let sync = &status["sync_info"];
        Ok(Self {
            id: text(&status["node_info"]["id"], "id")?,
            version: text(&status["node_info"]["version"], "version")?,
            height: number(&sync["latest_block_height"], "latest_block_height")?,
            base: number(&sync["earliest_block_height"], "earliest_block_height")?,
            block_hash: text(&sync["latest_block_hash"], "latest_block_hash")?,
            app_hash: text(&sync["latest_app_hash"], "latest_app_hash")?,
            catching_up: sync["catching_up"].as_bool().context("no catching_up")?,
        })
    }
}

/// CPU time and memory of a process.
///
/// # Errors
/// When there is no such process.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold anything, blanks and brackets too.
    let (_, fields) = stat
        .rsplit_once(") ")
        .context("no name in /proc/PID/stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |index: usize| -> anyhow::Result<u64> {
        Ok(fields
            .get(index)
            .context("/proc/PID/stat is short")?
            .parse()?)
    };
    let (user, system) = (ticks(11)?, ticks(12)?);
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kilobytes| kilobytes.trim().parse::<u64>().ok())
        .context("the process has ended")?;
    Ok(Usage {
        cpu_seconds: (user + system) as f64 / rustix::param::clock_ticks_per_second() as f64,
        peak_rss_bytes: peak * 1024,
    })
}

/// Changes keys, named with dots, of `config/config.toml` in a home.
///
/// # Errors
/// When the file cannot be read, is not TOML, or cannot be written.
pub fn edit_config<'a>(
    home: &Path,
    edits: impl IntoIterator<Item = (&'a str, toml_edit::Value)>,
) -> anyhow::Result<()> {
    let path = home.join("config/config.toml");
    let content =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut document: DocumentMut = content
        .parse()
        .with_context(|| format!("{} is not TOML", path.display()))?;
    for (key, new) in edits {
        let mut table = document.as_table_mut();
        let mut name = key;
        while let Some((section, rest)) = name.split_once('.') {
            table = table
                .entry(section)
                .or_insert(Item::Table(Table::new()))
                .as_table_mut()
                .with_context(|| format!("{section} of {key} is no table"))?;
            name = rest;
        }
        table.insert(name, value(new));
    }
    fs::write(&path, document.to_string())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The identity of the node in a home.
///
/// # Errors
/// When there is no node key.
pub fn node_id(home: &Path) -> anyhow::Result<String> {
    let key = load_node_key(&home.join("config/node_key.json"))?;
    Ok(key.public_key().node_id().to_string())
}

/// Makes a home by the binary's own `init` (either node's), and gives it the genesis of another.
///
/// # Errors
/// When the binary fails, or the genesis cannot be copied.
pub fn init_home(program: &Path, home: &Path, genesis_of: &Path) -> anyhow::Result<()> {
    init(program, home)?;
    let genesis = "config/genesis.json";
    fs::copy(genesis_of.join(genesis), home.join(genesis))
        .with_context(|| format!("cannot copy the genesis of {}", genesis_of.display()))?;
    Ok(())
}

/// Makes a home by the binary's own `init` (either node's): a chain of its own with itself as the
/// only validator.
///
/// # Errors
/// When the binary is not there, or fails.
pub fn init(program: &Path, home: &Path) -> anyhow::Result<()> {
    ensure!(
        program.is_file(),
        "there is no binary {}: build it first, or name one that is there",
        program.display()
    );
    let output = Command::new(program)
        .arg("init")
        .arg("--home")
        .arg(home)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} init: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Where [`free_ports`] looks: below the ports that systems give to outgoing connections, one of
/// which could else have taken a node's port while the node is restarted.
const FREE_PORTS: Range<u16> = 12_000..22_000;

/// Ports of loopback that are free now, all different.
///
/// # Errors
/// When there are too few.
pub fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let count = u32::from(FREE_PORTS.end - FREE_PORTS.start);
    // Another process begins elsewhere, and who asks again gets others, used yet or not.
    static START: OnceLock<u32> = OnceLock::new();
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let start = *START.get_or_init(|| rand::random_range(0..count));
    let mut candidates = (0..count).filter_map(|_| {
        let next = GIVEN.fetch_add(1, Ordering::Relaxed).wrapping_add(start);
        u16::try_from(u32::from(FREE_PORTS.start) + next % count).ok()
    });
    let mut ports = [0; N];
    // All are held until the last is there.
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let (free, listener) = candidates
            .by_ref()
            .find_map(|port| {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
                Some((port, listener))
            })
            .context("no port is free")?;
        *port = free;
        held.push(listener);
    }
    Ok(ports)
}

/// The body of the answer to a request.
///
/// # Errors
/// When nobody listens there, or no whole answer comes within 5 seconds.
pub fn http_get(address: SocketAddr, path: &str) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, REQUEST_TIMEOUT)?;
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
    // Version 1.0: the body is whole and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("the answer is cut short")?;
    Ok(answer.split_off(end + 4))
}

/// Bytes of all files below a folder, as the disk allots them.
///
/// # Errors
/// When the folder cannot be read.
pub fn disk_bytes(folder: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(total)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn text(value: &Value, what: &str) -> anyhow::Result<String> {
    Ok(value
        .as_str()
        .with_context(|| format!("no {what}"))?
        .to_owned())
}

fn number(value: &Value, what: &str) -> anyhow::Result<i64> {
    let text = value.as_str().with_context(|| format!("no {what}"))?;
    text.parse().with_context(|| format!("{what} is no number"))
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
