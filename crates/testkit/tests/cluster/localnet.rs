//! The program behind `make localnet`, as its user runs it.

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use crate::setup::{PATIENCE, perihelion, turn};

/// Ports that a network of two nodes has above its first one.
const PORTS: u16 = 12;
/// How often other ports are tried where somebody has some of them.
const TRIES: usize = 50;

/// A port with nobody behind it or right above it, as far as that can be known.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        if port < u16::MAX - PORTS {
            return port;
        }
    }
}

/// The program, for one validator and one node that comes at once; without any other variable.
fn localnet(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_localnet"));
    command
        .env_clear()
        .env("PERIHELION", perihelion())
        .env("LOCALNET_DIR", folder)
        .env("BASE_PORT", port.to_string())
        .env("VALIDATORS", "1")
        .env("FULL_NODES", "1")
        .env("LATE", "0")
        .env("LOAD", "5");
    command
}

/// The one line with which it refuses to run.
fn refusal(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

#[test]
fn a_local_network_runs_once_and_its_folder_is_kept() {
    let turn = turn();
    let folder = turn.folder.path().join("net");
    let run = || {
        let mut command = localnet(&folder, free_port());
        command.env("ONCE", "1").output().unwrap()
    };
    let is_taken = |output: &Output| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        !output.status.success() && stderr.contains("is in use")
    };
    let mut output = run();
    for _ in 0..TRIES {
        if !is_taken(&output) {
            break;
        }
        output = run();
    }
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    for part in ["in consensus", "All nodes are stopped.", "is kept"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    for node in ["node0", "node1"] {
        assert!(folder.join(node).join("node.log").is_file(), "{node}");
    }
    let mut again = run();
    for _ in 0..TRIES {
        if !is_taken(&again) {
            break;
        }
        again = run();
    }
    let why = refusal(&again);
    for part in [
        folder.to_str().unwrap(),
        "is there already",
        "localnet-clean",
    ] {
        assert!(why.contains(part), "no {part:?} in {why}");
    }
    let cleaned = localnet(&folder, 1).arg("clean").output().unwrap();
    assert!(cleaned.status.success(), "{cleaned:?}");
    assert!(!folder.exists());
}

#[test]
fn what_a_local_network_lacks_is_named_and_nothing_is_made() {
    let turn = turn();
    let folder = turn.folder.path().join("net");
    // The last port of the second node, say.
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let why = refusal(&localnet(&folder, port - (PORTS - 1)).output().unwrap());
    // Somebody else may have one below it.
    assert!(
        why.contains("is in use") && why.contains("BASE_PORT"),
        "{why}"
    );
    let mut lacking = localnet(&folder, free_port());
    let why = refusal(&lacking.env("PERIHELION", "/nowhere").output().unwrap());
    for part in ["/nowhere", "make build"] {
        assert!(why.contains(part), "no {part:?} in {why}");
    }
    let down = localnet(&folder, 1).arg("down").output().unwrap();
    assert!(refusal(&down).contains("no network runs"), "{down:?}");
    assert!(!folder.exists());
}

/// A network that runs until it is told to stop, with the lines that it says.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Starts one, on ports that are free; the first line that it says.
fn start(folder: &Path) -> (Running, String) {
    for _ in 0..TRIES {
        let mut command = localnet(folder, free_port());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Nobody may listen any more.
                let _unheard = sender.send(line);
            }
        });
        let running = Running { child, lines };
        if let Ok(line) = running.lines.recv_timeout(PATIENCE) {
            return (running, line);
        }
    }
    panic!("no {PORTS} ports are free");
}

#[test]
fn a_local_network_is_stopped_from_elsewhere() {
    let turn = turn();
    let folder = turn.folder.path().join("net");
    let (mut net, first) = start(&folder);
    assert!(first.contains("1 validator and 1 late node"), "{first}");
    while !net
        .lines
        .recv_timeout(PATIENCE)
        .unwrap()
        .contains("Ctrl-C stops all nodes")
    {}
    let cleaned = localnet(&folder, 1).arg("clean").output().unwrap();
    assert!(
        refusal(&cleaned).contains("a network runs in"),
        "{cleaned:?}"
    );
    let down = localnet(&folder, 1).arg("down").output().unwrap();
    assert!(down.status.success(), "{down:?}");
    assert!(net.child.wait().unwrap().success());
    let said: Vec<String> = net.lines.iter().collect();
    assert!(
        said.iter().any(|line| line == "All nodes are stopped."),
        "{said:?}"
    );
}
