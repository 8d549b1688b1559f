//! Whatever is wrong is named with its remedy, ends with exit code 1, and changes nothing on disk:
//! command lines, the environment, the files of a home.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use crate::binary::{Home, error_of, perihelion, succeed};

#[test]
fn wrong_command_lines() {
    let home = Home::new();
    let zeros = "0".repeat(64);
    for (arguments, parts) in [
        (&["start", "--nope"][..], &["--nope", "perihelion help"][..]),
        (
            &["start", "--p2p.laddrr", "x"],
            &["--p2p.laddrr", "did you mean", "--p2p.laddr"],
        ),
        (&["strat"], &["strat", "did you mean start"]),
        (
            &["start", "--p2p.pex=maybe"],
            &["flag --p2p.pex", "true or false"],
        ),
        (
            &["start", "--p2p.laddr", "here"],
            &["flag --p2p.laddr", "tcp://HOST:PORT"],
        ),
        (
            &["start", "--p2p.laddr", "tcp://:26656"],
            &["flag --p2p.laddr", "the host 0.0.0.0"],
        ),
        (
            &["start", "--p2p.seeds", "x@h:1"],
            &["flag --p2p.seeds", "ID@HOST:PORT", "show-node-id"],
        ),
        (
            &["start", "--p2p.private_peer_ids", "x"],
            &["--p2p.private_peer_ids", "40 hexadecimal"],
        ),
        (
            &["start", "--moniker", ""],
            &["flag --moniker", "\"\" is no name", "printable ASCII"],
        ),
        (
            &["start", "--moniker", "Zürich"],
            &["flag --moniker", "Zürich", "printable ASCII"],
        ),
        (
            &["start", "--rpc.laddr", "unix:///tmp/zoë/x"],
            &["flag --rpc.laddr", "zoë", "printable ASCII"],
        ),
        (
            &["start", "--consensus.create_empty_blocks_interval", "5"],
            &[
                "flag --consensus.create_empty_blocks_interval",
                "a duration such as",
            ],
        ),
        (
            &["start", "--consensus.double_sign_check_height", "-1"],
            &["double_sign_check_height"],
        ),
        (
            &["start", "--abci", "carrier"],
            &["flag --abci", "\"socket\", \"grpc\""],
        ),
        (
            &["start", "--genesis_hash", "12"],
            &["--genesis_hash", "64 hexadecimal digits"],
        ),
        (
            &["start", "--genesis_hash", &zeros],
            &["--genesis_hash=0000", "genesis.json"],
        ),
        (
            &["--log_level", "loud", "start"],
            &["flag --log_level", "debug, info, warn"],
        ),
        (
            &["start", "--proxy_app", "kvstor"],
            &["proxy_app", "kvstore"],
        ),
        (&["show-node-id", "--libp2p"], &["--libp2p"]),
        (
            &["gen-node-key"],
            &["node_key.json already exists", "remove it"],
        ),
        (&["testnet", "--v", "x"], &["--v"]),
        (&["testnet", "--v", "0"], &["--v 0", "at least 1"]),
        (
            &["testnet", "--v", "2", "--hostname", "a"],
            &["precisely 2 hostnames"],
        ),
        (&["testnet", "--starting-ip-address", "::1"], &["IPv4"]),
        (
            &["testnet", "--config", "/nonexistent/c"],
            &["--config /nonexistent/c"],
        ),
        (&["completion", "tcsh"], &["tcsh"]),
        (&["config", "chekc"], &["chekc", "did you mean check"]),
        (
            &["status", "--rpc", "x"],
            &["\"x\"", "--rpc tcp://HOST:PORT"],
        ),
    ] {
        home.refuses(arguments, parts);
    }
}

#[test]
fn wrong_environment() {
    let home = Home::new();
    let mut command = perihelion(&["start", "--home", home.text()]);
    command.env("CMT_P2P_SEND_RATE", "fast");
    home.refuses_by(command, &["CMT_P2P_SEND_RATE", "fast", "whole number"]);
    let mut command = perihelion(&["start"]);
    command.env_remove("HOME");
    home.refuses_by(command, &["--home", "PERIHELION_HOME"]);
}

/// The files that a node needs, what an error calls them, and a part of its remedy.
const FILES: [(&str, &str); 5] = [
    ("config/config.toml", "perihelion init"),
    ("config/genesis.json", "genesis of your chain"),
    ("config/node_key.json", "gen-node-key"),
    ("config/priv_validator_key.json", "copy"),
    ("data/priv_validator_state.json", "double signing"),
];

#[test]
fn missing_files() {
    for (name, _) in FILES {
        let home = Home::new();
        fs::remove_file(home.file(name)).unwrap();
        home.refuses(&["start"], &[name, "does not exist", "perihelion init"]);
    }
    let home = Home::new();
    let none = home.file("none");
    home.refuses_by(
        perihelion(&["start", "--home", none.to_str().unwrap()]),
        &[
            "none/config/config.toml does not exist",
            "perihelion init --home",
        ],
    );
}

#[test]
fn broken_files() {
    for (name, remedy) in &FILES[1..] {
        for content in ["", "{", "[]", "{}", "null", "\u{0}", "{\"priv_key\": 5}"] {
            let home = Home::new();
            fs::write(home.file(name), content).unwrap();
            home.refuses(&["start"], &[name, "is damaged", remedy]);
        }
    }
    for (content, parts) in [
        ("[", &["config.toml:1: not valid TOML"][..]),
        (
            "moniker = \"a\"\n\n[p2p]\nladdr = 5\n",
            &["config.toml:4: p2p.laddr"],
        ),
        (
            "\n[rpc]\nmax_body_bytes = \"x\"\n",
            &["config.toml:3: rpc.max_body_bytes", "whole number"],
        ),
        ("a = [\n", &["not valid TOML"]),
        (
            "rpc = 1\np2p = 1\n",
            &[
                "config.toml:1: rpc must be a table",
                "and 1 more",
                "config check",
            ],
        ),
    ] {
        let home = Home::new();
        fs::write(home.file("config/config.toml"), content).unwrap();
        home.refuses(&["start"], parts);
        home.refuses(&["show-node-id"], parts);
    }
}

#[test]
fn a_folder_where_a_file_should_be() {
    for (name, _) in FILES {
        let home = Home::new();
        fs::remove_file(home.file(name)).unwrap();
        fs::create_dir(home.file(name)).unwrap();
        home.refuses(&["start"], &[name, "cannot be read"]);
    }
}

#[test]
fn a_broken_key_stops_every_command_that_touches_it() {
    let home = Home::new();
    fs::write(home.file("config/priv_validator_key.json"), "{}").unwrap();
    for command in [
        "init",
        "show-validator",
        "unsafe-reset-all",
        "unsafe-reset-priv-validator",
    ] {
        home.refuses(&[command], &["priv_validator_key.json is damaged", "copy"]);
    }
}

#[test]
fn keys_that_do_not_belong_together() {
    let (home, other) = (Home::new(), Home::new());
    let file = home.file("config/priv_validator_key.json");
    let read = |home: &Home| -> serde_json::Value {
        let text = fs::read(home.file("config/priv_validator_key.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    for field in ["address", "pub_key", "priv_key"] {
        let mut key = read(&home);
        key[field] = read(&other)[field].clone();
        let before = fs::read(&file).unwrap();
        fs::write(&file, key.to_string()).unwrap();
        home.refuses(&["start"], &["priv_validator_key.json is damaged"]);
        fs::write(&file, before).unwrap();
    }
}

#[test]
fn genesis_rules() {
    let home = Home::new();
    let file = home.file("config/genesis.json");
    let good: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let long = "x".repeat(51);
    for (pointer, value) in [
        ("/chain_id", serde_json::json!("")),
        ("/chain_id", serde_json::json!(long)),
        ("/initial_height", serde_json::json!("-1")),
        ("/initial_height", serde_json::json!(1.5)),
        ("/validators/0/power", serde_json::json!("0")),
        ("/validators/0/address", serde_json::json!("00".repeat(20))),
        ("/consensus_params/block/max_bytes", serde_json::json!("0")),
        ("/genesis_time", serde_json::json!("yesterday")),
    ] {
        let mut genesis = good.clone();
        *genesis.pointer_mut(pointer).unwrap() = value;
        fs::write(&file, genesis.to_string()).unwrap();
        home.refuses(
            &["start"],
            &["genesis.json is damaged", "fetch the genesis"],
        );
    }
}

/// Someone who may enter no folder that is not open to all, running a copy of the binary that may
/// be run by all.
fn stranger(folder: &Path, arguments: &[&str]) -> Command {
    let copy = folder.join("perihelion");
    if !copy.exists() {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        // Not by this process: a child started by another thread meanwhile would hold the copy open
        // for writing, and it could not be run.
        let copied = Command::new("cp")
            .args([env!("CARGO_BIN_EXE_perihelion").as_ref(), copy.as_os_str()])
            .status()
            .unwrap();
        assert!(copied.success());
    }
    let mut command = Command::new(copy);
    command.args(arguments).env_clear();
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    command
}

fn set_modes(home: &Home, folders: u32, files: u32) {
    for name in ["config", "data", ""] {
        fs::set_permissions(home.file(name), Permissions::from_mode(0o700)).unwrap();
    }
    for (name, _) in FILES {
        fs::set_permissions(home.file(name), Permissions::from_mode(files)).unwrap();
    }
    for name in ["config", "data", ""] {
        fs::set_permissions(home.file(name), Permissions::from_mode(folders)).unwrap();
    }
}

/// Runs and fails; the home is compared with full rights again.
fn refused_to_stranger(
    home: &Home,
    folder: &Path,
    modes: (u32, u32),
    command: &str,
    parts: &[&str],
) {
    let content = |home: &Home| FILES.map(|(name, _)| fs::read(home.file(name)).unwrap());
    set_modes(home, 0o700, 0o600);
    let before = content(home);
    set_modes(home, modes.0, modes.1);
    let output = stranger(folder, &[command, "--home", home.text()])
        .output()
        .unwrap();
    set_modes(home, 0o700, 0o600);
    let error = error_of(&output);
    for part in parts {
        assert!(error.contains(part), "{command}: no {part:?} in {error:?}");
    }
    assert!(content(home) == before, "{command} changed the home");
}

#[test]
fn a_home_without_permission() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new();
    let closed = (0o000, 0o600);
    for command in ["start", "init", "show-node-id"] {
        refused_to_stranger(
            &home,
            folder.path(),
            closed,
            command,
            &["config.toml", "read"],
        );
    }
    let only_read = (0o555, 0o444);
    refused_to_stranger(
        &home,
        folder.path(),
        only_read,
        "start",
        &[
            home.text(),
            "cannot be written",
            "let the user who runs the node own it",
        ],
    );
    refused_to_stranger(
        &home,
        folder.path(),
        only_read,
        "unsafe-reset-priv-validator",
        &["priv_validator_state.json cannot be written"],
    );
}

#[test]
fn the_version_is_a_flag_too() {
    let version = succeed(&["--version"]);
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    assert_eq!(succeed(&["-v"]), version);
}
