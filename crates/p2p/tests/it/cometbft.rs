//! With a real CometBFT: `COMETBFT` names its binary, or it is on the `PATH`.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use perihelion_p2p::{
    ChannelDescriptor, MConnectionConfig, NodeInfo, NodeKey, P2pConfig, PeerAddress, PeerEvent,
    Switch, SwitchHandle, SwitchSetup,
};
use perihelion_proto::tendermint::blocksync as pb;
use prost::Message as _;
use tokio::sync::mpsc;

use crate::util::{free_port, node_info, soon};

const BLOCKSYNC: u8 = 0x40;
const CHANNELS: [u8; 8] = [BLOCKSYNC, 0x20, 0x21, 0x22, 0x23, 0x30, 0x38, 0x00];
/// Our pings that CometBFT must answer for the connection to be called kept.
const PING: Duration = Duration::from_millis(300);

fn binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("COMETBFT") {
        return Some(PathBuf::from(path));
    }
    let found = std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join("cometbft"))
        .find(|path| path.is_file());
    if found.is_none() {
        // Not by a macro, whose output the test harness keeps to itself.
        let _unseen = writeln!(
            std::io::stderr(),
            "\n*** NOT RUN: no CometBFT (set COMETBFT to its binary) ***\n"
        );
    }
    found
}

struct Comet {
    process: Child,
    home: tempfile::TempDir,
    port: u16,
}

impl Drop for Comet {
    fn drop(&mut self) {
        self.process
            .kill()
            .and_then(|()| self.process.wait())
            .unwrap();
    }
}

fn run(binary: &Path, home: &Path, command: &str) -> String {
    let output = Command::new(binary)
        .args([command, "--home"])
        .arg(home)
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn set(config: &mut String, section: &str, key: &str, value: &str) {
    let start = config.find(&format!("\n[{section}]")).unwrap();
    let key_at = start + config[start..].find(&format!("\n{key} =")).unwrap() + 1;
    let end = key_at + config[key_at..].find('\n').unwrap();
    config.replace_range(key_at..end, &format!("{key} = {value}"));
}

impl Comet {
    /// A fresh home whose node listens on loopback only and dials `persistent_peers`.
    fn start(binary: &Path, persistent_peers: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        run(binary, home.path(), "init");
        let path = home.path().join("config/config.toml");
        let mut config = fs::read_to_string(&path).unwrap();
        let port = free_port();
        set(
            &mut config,
            "p2p",
            "laddr",
            &format!("\"tcp://127.0.0.1:{port}\""),
        );
        set(
            &mut config,
            "p2p",
            "persistent_peers",
            &format!("\"{persistent_peers}\""),
        );
        set(&mut config, "p2p", "addr_book_strict", "false");
        set(&mut config, "p2p", "allow_duplicate_ip", "true");
        set(&mut config, "rpc", "laddr", "\"tcp://127.0.0.1:0\"");
        fs::write(&path, config).unwrap();
        let process = Command::new(binary)
            .args(["start", "--proxy_app", "kvstore", "--home"])
            .arg(home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            process,
            home,
            port,
        }
    }

    fn network(&self) -> String {
        let genesis = fs::read(self.home.path().join("config/genesis.json")).unwrap();
        let genesis: serde_json::Value = serde_json::from_slice(&genesis).unwrap();
        genesis["chain_id"].as_str().unwrap().to_owned()
    }

    fn address(&self, binary: &Path) -> PeerAddress {
        let id = run(binary, self.home.path(), "show-node-id");
        format!("{id}@127.0.0.1:{}", self.port).parse().unwrap()
    }
}

async fn switch(
    key: NodeKey,
    network: &str,
    laddr: String,
    persistent_peers: Vec<PeerAddress>,
) -> (SwitchHandle, mpsc::Receiver<PeerEvent>) {
    let channels = CHANNELS.map(|id| ChannelDescriptor::new(id, 5, 100, 22 << 20));
    let info = NodeInfo {
        channels: bytes::Bytes::new(),
        listen_addr: laddr.clone(),
        ..node_info("perihelion", network)
    };
    let (switch, mut events) = Switch::start(SwitchSetup {
        config: P2pConfig {
            laddr,
            persistent_peers,
            ..P2pConfig::default()
        },
        connection: MConnectionConfig {
            ping_interval: PING,
            pong_timeout: PING / 2,
            ..MConnectionConfig::default()
        },
        node_key: key,
        node_info: info,
        reactors: vec![("interop", channels.to_vec())],
        filter: None,
    })
    .await
    .unwrap();
    (switch, events.pop().unwrap())
}

/// Asks for the status until a few pings were answered, and answers what is asked.
async fn exchange(events: &mut mpsc::Receiver<PeerEvent>, outbound: bool) {
    let peer = loop {
        match soon("CometBFT to connect", events.recv()).await.unwrap() {
            PeerEvent::Added(peer) => break peer,
            event => eprintln!("before it connected: {event:?}"),
        }
    };
    assert_eq!(peer.is_outbound(), outbound);
    assert!(peer.node_info().version.starts_with("0."));
    let request = pb::message::Sum::StatusRequest(pb::StatusRequest {});
    let request = pb::Message { sum: Some(request) }.encode_to_vec();
    let mut ask = tokio::time::interval(PING);
    let (mut asked, mut answers, mut kinds) = (0, 0, std::collections::BTreeSet::new());
    while answers < 3 || peer.stats().connected_for < PING * 6 {
        tokio::select! {
            _ = ask.tick() => {
                peer.send(BLOCKSYNC, request.clone().into()).await.unwrap();
                asked += 1;
                assert!(asked < 200, "CometBFT does not answer");
            }
            event = events.recv() => match event.unwrap() {
                PeerEvent::Message { channel, bytes, .. } => {
                    kinds.insert(channel);
                    if channel == BLOCKSYNC
                        && let Some(pb::message::Sum::StatusResponse(status)) =
                            pb::Message::decode(bytes).unwrap().sum
                    {
                        assert!(status.base <= status.height && status.height >= 0);
                        answers += 1;
                    }
                }
                event => panic!("the connection was not kept: {event:?}"),
            }
        }
    }
    eprintln!(
        "CometBFT {} answered {answers} status requests; messages on channels {kinds:02x?}; kept for {:?}",
        peer.node_info().version,
        peer.stats().connected_for
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cometbft_is_dialled_and_keeps_the_connection() {
    let Some(binary) = binary() else { return };
    let comet = Comet::start(&binary, "");
    let peers = vec![comet.address(&binary)];
    let (switch, mut events) =
        switch(NodeKey::generate(), &comet.network(), String::new(), peers).await;
    exchange(&mut events, true).await;
    drop(events);
    switch.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cometbft_dials_and_keeps_the_connection() {
    let Some(binary) = binary() else { return };
    let key = NodeKey::generate();
    let port = free_port();
    let comet = Comet::start(&binary, &format!("{}@127.0.0.1:{port}", key.id()));
    let laddr = format!("tcp://127.0.0.1:{port}");
    let (switch, mut events) = switch(key, &comet.network(), laddr, Vec::new()).await;
    exchange(&mut events, false).await;
    drop(events);
    switch.shutdown().await;
}
