//! Beside a real CometBFT, where the variable `COMETBFT` names its binary: the same home gives the
//! same output, and each starts on what the other made.

use std::{
    ffi::OsString,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use perihelion_node::{
    config::{Config, Overrides},
    prepare,
};

use crate::{
    binary::{Home, error_of, perihelion, succeed},
    running::Running,
};

/// CometBFT's binary; `None`, said loudly, where the variable is not set.
fn binary() -> Option<OsString> {
    let named = std::env::var_os("COMETBFT").filter(|name| !name.is_empty());
    if named.is_none() {
        // Not by a macro, whose output the test harness keeps to itself.
        let _unseen = writeln!(
            io::stderr(),
            "\n*** NOT RUN: a home beside a real CometBFT (set COMETBFT to its binary) ***\n"
        );
    }
    named
}

fn cometbft(binary: &OsString, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent");
    command
}

/// Form of a JSON text: every scalar by its kind and, of texts, length.
fn form(value: &serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(map) => map
            .iter()
            .map(|(name, value)| (name.clone(), form(value)))
            .collect(),
        serde_json::Value::String(text) if text.len() > 30 => text.len().into(),
        other => other.clone(),
    }
}

#[test]
fn each_reads_what_the_other_made_and_prints_the_same() {
    let Some(binary) = binary() else { return };
    let ours = Home::new();
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("home");
    let made = cometbft(&binary, &["init", "--home", theirs.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    for home in [ours.text(), theirs.to_str().unwrap()] {
        for command in [
            "show-node-id",
            "show_node_id",
            "show-validator",
            "show_validator",
        ] {
            let arguments = [command, "--home", home];
            let expected = cometbft(&binary, &arguments).output().unwrap();
            assert!(expected.status.success(), "{expected:?}");
            let found = perihelion(&arguments).output().unwrap();
            assert_eq!(
                (found.status.code(), found.stdout, found.stderr),
                (expected.status.code(), expected.stdout, expected.stderr),
                "{arguments:?}"
            );
        }
    }
    let home = theirs.to_str().unwrap();
    let generated = |text: &[u8]| form(&serde_json::from_slice(text).unwrap());
    let expected = cometbft(&binary, &["gen-validator", "--home", home])
        .output()
        .unwrap();
    let found = succeed(&["gen-validator"]);
    assert_eq!(found.lines().count(), 1);
    assert_eq!(generated(found.as_bytes()), generated(&expected.stdout));
    fs::remove_file(theirs.join("config/node_key.json")).unwrap();
    let id = succeed(&["gen-node-key", "--home", home]);
    let expected = cometbft(&binary, &["show-node-id", "--home", home])
        .output()
        .unwrap();
    assert_eq!(id.as_bytes(), expected.stdout);

    succeed(&["config", "check", "--home", home]);
    let (mut config, warnings) = Config::load(&theirs, &Overrides::default()).unwrap();
    assert_eq!(warnings, []);
    config.p2p.laddr = "tcp://127.0.0.1:0".to_owned();
    config.rpc.laddr = "tcp://127.0.0.1:0".to_owned();
    assert!(prepare::prepare(config, None).unwrap().may_stand_in);
}

#[test]
fn cometbft_starts_on_our_home() {
    let Some(binary) = binary() else { return };
    let ours = Home::new();
    let mut child = cometbft(&binary, &["start", "--home", ours.text()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    let started = lines.map_while(Result::ok).any(|line| {
        let started = line.contains("Started node");
        said.push(line);
        started
    });
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        started,
        "{said:#?} {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Neither starts where the other runs, and nothing is removed beside a CometBFT node.
#[test]
fn one_home_is_run_by_one_node() {
    let Some(binary) = binary() else { return };
    let ours = Home::new();
    let start = ["start", "--home", ours.text()];
    let mut child = cometbft(&binary, &start)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let started = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("Started node"));
    let refused = [
        "start",
        "unsafe-reset-all",
        "reset-state",
        "unsafe-reset-priv-validator",
    ]
    .map(|command| {
        let arguments = [command, "--home", ours.text()];
        (command, perihelion(&arguments).output().unwrap())
    });
    child.kill().unwrap();
    let holder = format!("process {} (cometbft)", child.id());
    child.wait().unwrap();
    assert!(started);
    for (command, output) in refused {
        let error = error_of(&output);
        for part in [".db/LOCK", &holder, "stop that process"] {
            assert!(error.contains(part), "{command}: no {part:?} in {error}");
        }
    }

    let mut node = Running::start(&ours, &[]);
    node.says("Perihelion is running");
    let theirs = cometbft(&binary, &start).output().unwrap();
    assert!(!theirs.status.success(), "{theirs:?}");
    let said = String::from_utf8_lossy(&theirs.stderr);
    assert!(said.contains("resource temporarily unavailable"), "{said}");
}
