//! Applications in another process: CometBFT's under Perihelion, and Perihelion's under CometBFT.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::prelude::*;
use perihelion_testkit::{
    network::NetworkShape,
    process::{Launch, NodeProcess, free_ports},
};

use crate::{
    both_ways::CHURN,
    setup::{Client, PATIENCE, assert_equal, fresh_home, on_path, perihelion, turn},
};

/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(20);

/// CometBFT's `abci-cli`.
///
/// # Panics
/// When there is none: who asks for the suite has it.
fn abci_cli() -> PathBuf {
    let named = env::var_os("ABCI_CLI").map(PathBuf::from);
    named
        .or_else(|| on_path("abci-cli"))
        .expect("CometBFT's own application: set ABCI_CLI to the binary of abci-cli")
}

/// An application: its command line without the address, and where it listens.
struct App {
    program: PathBuf,
    arguments: Vec<String>,
    address: String,
    log: PathBuf,
}

/// A running one, which ends with the test.
struct AppProcess(Child);

impl App {
    fn new(program: &Path, arguments: &[&str], address: String, log: PathBuf) -> Self {
        let mut arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        arguments.extend(["--address".to_owned(), address.clone()]);
        Self {
            program: program.to_owned(),
            arguments,
            address,
            log,
        }
    }

    fn start(&self) -> AppProcess {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.unwrap();
        let mut command = Command::new(&self.program);
        let child = command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        AppProcess(child.unwrap())
    }
}

impl AppProcess {
    /// Ends it at once.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for AppProcess {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            drop(self.0.wait());
        }
    }
}

fn free_address() -> String {
    let [port] = free_ports().unwrap();
    format!("tcp://127.0.0.1:{port}")
}

/// Waits for a node that ends by itself.
fn wait_ended(node: &mut NodeProcess) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = node.ended().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "{} goes on", node.name());
        thread::sleep(LOOK);
    }
}

/// The application's height, as a node's RPC tells it.
fn application_height(node: &NodeProcess) -> i64 {
    let info = Client::of(node).call("/abci_info").unwrap();
    let height = info["response"]["last_block_height"].as_str().unwrap();
    height.parse().unwrap()
}

/// Syncs up to `height`, and kills the application there.
fn sync_and_kill_application(node: &Launch, app: &App, height: i64) -> NodeProcess {
    let running = app.start();
    let mut node = node.start().unwrap();
    let status = node.wait_for("its application's end", PATIENCE, |it| it.height >= height);
    running.kill();
    let at = status.unwrap().height;
    eprintln!("{}: application killed at {at}", node.name());
    node
}

fn ours_with_cometbfts_application(transport: &str) {
    let Some(turn) = turn() else { return };
    let abci_cli = abci_cli();
    let cometbft = &turn.cometbft;
    let (chain, name) = (CHURN, |role: &str| format!("app-{transport}-{role}"));
    let (server, peer) = chain.serve_by_cometbft(cometbft, &name("server")).unwrap();
    let folder = fresh_home(&name("state")).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    let kept = folder.join("kvstore").display().to_string();
    let arguments = ["kvstore", "--persist", &kept, "--abci", transport];
    let app = App::new(&abci_cli, &arguments, free_address(), folder.join("log"));
    let program = perihelion().unwrap();
    let node = chain.fresh_node(&program, &name("node"), [peer]).unwrap();
    let node = node
        .set("proxy_app", app.address.as_str())
        .set("abci", transport);

    let mut ending = sync_and_kill_application(&node, &app, 150);
    let (status, log) = (wait_ended(&mut ending), ending.log_end());
    assert_eq!(status.code(), Some(1), "{log}");
    eprintln!(
        "{}: {}",
        ending.name(),
        log.lines().last().unwrap_or_default()
    );
    assert!(
        log.contains("start the application again, then this node"),
        "{log}"
    );

    // The node is there before its application, and is killed itself then.
    let mut waiting = node.start().unwrap();
    let running = app.start();
    let reached = waiting.wait_for("a kill", PATIENCE, |it| it.height >= 350);
    eprintln!(
        "{}: node killed at {}",
        waiting.name(),
        reached.unwrap().height
    );
    waiting.kill().unwrap();
    // It may have executed a block that it was not told to commit, and would tell that height.
    running.kill();
    let running = app.start();

    let mut last = node.start().unwrap();
    let height = chain.last();
    let reached = last.wait_for("the last height", PATIENCE, |it| it.height >= height);
    assert_eq!(reached.unwrap().height, height);
    // The last block is stored before it is executed.
    let deadline = Instant::now() + PATIENCE;
    while application_height(&last) < height && Instant::now() < deadline {
        thread::sleep(LOOK);
    }
    assert_eq!(application_height(&last), height);
    assert_equal(&last, &server, chain.initial, height);
    eprintln!(
        "{}: all {height} blocks equal over {transport}",
        last.name()
    );
    assert!(last.stop().unwrap().success());
    drop(running);
}

/// Its proposals are prepared and processed by CometBFT's application, and its blocks executed.
fn a_validator_with_cometbfts_application(transport: &str) {
    let Some(_turn) = turn() else { return };
    let folder = fresh_home(&format!("app-{transport}-validator")).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    let arguments = ["kvstore", "--abci", transport];
    let app = App::new(&abci_cli(), &arguments, free_address(), folder.join("log"));
    let shape = NetworkShape::new("app-validator", 1);
    let launch = shape.make(&folder, &perihelion().unwrap()).unwrap();
    let launch = launch.into_iter().next().unwrap().quick();
    let launch = launch
        .set("proxy_app", app.address.as_str())
        .set("abci", transport);
    let running = app.start();
    let mut node = launch.start().unwrap();
    node.wait_for("its first block", PATIENCE, |it| it.height > 1)
        .unwrap();
    let client = Client::of(&node);
    for number in 0..20 {
        let answer = client
            .call(&format!(
                "/broadcast_tx_commit?tx=%22k{number}%3Dv{number}%22"
            ))
            .unwrap();
        assert_eq!(answer["check_tx"]["code"], 0, "{answer}");
        assert_eq!(answer["tx_result"]["code"], 0, "{answer}");
        let found = client
            .call(&format!("/abci_query?path=%22%22&data=%22k{number}%22"))
            .unwrap();
        let value = BASE64_STANDARD.encode(format!("v{number}"));
        assert_eq!(found["response"]["value"], value.as_str(), "{found}");
    }
    assert!(node.stop().unwrap().success());
    drop(running);
}

#[test]
fn a_validator_with_cometbfts_application_over_a_socket() {
    a_validator_with_cometbfts_application("socket");
}

#[test]
fn a_validator_with_cometbfts_application_over_grpc() {
    a_validator_with_cometbfts_application("grpc");
}

#[test]
fn cometbfts_application_over_a_socket() {
    ours_with_cometbfts_application("socket");
}

#[test]
fn cometbfts_application_over_grpc() {
    ours_with_cometbfts_application("grpc");
}

fn cometbft_with_our_application(transport: &str, address: impl FnOnce(&Path) -> String) {
    let Some(turn) = turn() else { return };
    let cometbft = &turn.cometbft;
    let (chain, name) = (CHURN, |role: &str| format!("our-app-{transport}-{role}"));
    let (server, peer) = chain.serve_by_cometbft(cometbft, &name("server")).unwrap();
    let folder = fresh_home(&name("state")).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    let kept = folder.join("kvstore").display().to_string();
    let arguments = ["abci", "kvstore", "--persist", &kept, "--abci", transport];
    let program = perihelion().unwrap();
    let app = App::new(&program, &arguments, address(&folder), folder.join("log"));
    let node = chain.fresh_node(cometbft, &name("node"), [peer]).unwrap();
    let node = node
        .set("proxy_app", app.address.as_str())
        .set("abci", transport);

    // Without its application CometBFT may end, wait for ever (over gRPC), or hang while it stops.
    let ending = sync_and_kill_application(&node, &app, 150);
    ending.kill().unwrap();

    let running = app.start();
    let mut again = node.start().unwrap();
    let wanted = chain.reachable() - 2;
    let reached = again.wait_for("the last height", PATIENCE, |it| it.height >= wanted);
    let height = reached.unwrap().height;
    assert!(application_height(&again) >= height);
    assert_equal(&again, &server, chain.initial, height);
    eprintln!(
        "{}: all {height} blocks equal over {transport}",
        again.name()
    );
    again.stop().unwrap();
    drop(running);
}

#[test]
fn our_application_under_cometbft_over_a_socket() {
    cometbft_with_our_application("socket", |folder| {
        format!("unix://{}", folder.join("sock").display())
    });
}

#[test]
fn our_application_under_cometbft_over_grpc() {
    // CometBFT's gRPC looks for a host of the whole name where a scheme stands before it.
    cometbft_with_our_application("grpc", |_| free_address().split_off("tcp://".len()));
}
