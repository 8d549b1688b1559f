//! Starting a node.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::{NodeClient, NodeProcess, edit_config, init, node_id};
#[cfg(target_os = "linux")]
use crate::power::{RecordedProcess, SyncRecord, SyncWatch};

/// How long an answer of a node may take: a disk that stands still for some seconds is no fault of
/// the node, and who tests it asks once.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

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

    /// Both ends at full speed: rates of 5 GB/s, packets flushed after 1 ms, nothing indexed.
    #[must_use]
    pub fn tuned(self) -> Self {
        self.set("p2p.send_rate", 5_000_000_000_i64)
            .set("p2p.recv_rate", 5_000_000_000_i64)
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

    /// Writes the configuration and starts the node. Its output goes to `node.log` in its home; its
    /// answers may take a minute each.
    ///
    /// # Errors
    /// When the binary is not there, the configuration cannot be edited or the process cannot be
    /// started.
    pub fn start(&self) -> anyhow::Result<NodeProcess> {
        let child = self.command()?.spawn();
        let child = child.with_context(|| format!("cannot run {}", self.program.display()))?;
        Ok(self.started(child))
    }

    /// [`Self::start`], with the syncs of its data folder noted: what a power cut would leave of that
    /// can be had once the node has ended.
    ///
    /// # Errors
    /// As [`Self::start`], and where the kernel does not report syncs.
    #[cfg(target_os = "linux")]
    pub fn start_recorded(&self) -> anyhow::Result<(NodeProcess, RecordedProcess)> {
        let mut command = self.command()?;
        let kept = self.home.join("data.kept");
        let record = SyncRecord::begin(&self.home.join("data"), &kept)
            .with_context(|| format!("cannot keep files in {}", kept.display()))?;
        let (child, recorded) = SyncWatch::new(record)
            .spawn(&mut command)
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        Ok((self.started(child), recorded))
    }

    /// Writes the configuration; how the node is started then.
    fn command(&self) -> anyhow::Result<Command> {
        ensure!(
            self.program.is_file(),
            "there is no binary {}: build it first (make build)",
            self.program.display()
        );
        self.configure()?;
        let log = self.log();
        // What an earlier run said stays.
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&self.program);
        command
            .arg("start")
            .arg("--home")
            .arg(&self.home)
            .args(&self.arguments)
            // Ctrl-C is for who started it, and who then stops it in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        Ok(command)
    }

    fn started(&self, child: Child) -> NodeProcess {
        NodeProcess {
            client: NodeClient::new(&self.name, loopback(self.rpc_port)).patience(ANSWER_PATIENCE),
            child,
            home: self.home.clone(),
            log: self.log(),
            p2p: loopback(self.p2p_port),
            is_stopping: false,
        }
    }

    fn log(&self) -> PathBuf {
        self.home.join("node.log")
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

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
