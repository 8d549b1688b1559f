//! Whatever is wrong is named with its remedy, ends with exit code 1, and changes nothing on disk.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use perihelion_node::files::read_genesis;
use perihelion_store::{Store, StoreOptions};
use perihelion_types::Hash;

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

#[test]
fn settings_that_are_not_offered() {
    for (old, new, parts) in [
        (
            "\"kvstore\"",
            "\"unix://\"",
            &["proxy_app", "tcp://HOST:PORT"][..],
        ),
        (
            "indexer = \"kv\"",
            "indexer = \"psql\"",
            &["tx_index.indexer", "kv or null"],
        ),
        (
            "type = \"flood\"",
            "type = \"app\"",
            &["mempool.type", "flood or nop"],
        ),
        (
            "[blocksync]",
            "[p2p.libp2p]\nenabled = true\n[blocksync]",
            &["p2p.libp2p.enabled", "set it to false"],
        ),
    ] {
        let home = Home::new();
        home.edit(old, new);
        home.refuses(&["start"], parts);
    }
}

#[test]
fn a_port_in_use() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", taken.local_addr().unwrap());
    for flag in ["--p2p.laddr", "--rpc.laddr"] {
        let key = flag.trim_start_matches('-');
        home.refuses(
            &["start", flag, &address],
            &[key, &address, "stop the program that has the port"],
        );
    }
    home.refuses(
        &["start", "--p2p.laddr", "tcp://192.0.2.1:26656"],
        &["p2p.laddr", "192.0.2.1", "interfaces"],
    );
}

#[test]
fn one_port_for_two_servers() {
    let home = Home::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let rpc = format!("tcp://127.0.0.1:{port}");
    for host in ["127.0.0.1", "0.0.0.0"] {
        let p2p = format!("tcp://{host}:{port}");
        home.refuses(
            &["start", "--p2p.laddr", &p2p, "--rpc.laddr", &rpc],
            &["rpc.laddr", &rpc, "p2p.laddr", &p2p, "give each its own"],
        );
    }
}

/// A home whose store is bound to its genesis, and was last opened by another process.
fn with_store() -> Home {
    let home = Home::new();
    let store = Store::open(&home.file("data"), &StoreOptions::default()).unwrap();
    let genesis = read_genesis(&home.file("config/genesis.json")).unwrap();
    store.save_genesis_hash(Hash::new(genesis.id)).unwrap();
    drop(store);
    fs::write(home.file("data/perihelion/LOCK"), "1\n").unwrap();
    home
}

#[test]
fn a_store_that_another_process_has_open() {
    let home = with_store();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", taken.local_addr().unwrap());
    let _open = Store::open(&home.file("data"), &StoreOptions::default()).unwrap();
    let holder = format!("process {}", std::process::id());
    for arguments in [
        &["start"][..],
        &["start", "--p2p.laddr", &address],
        &["unsafe-reset-all"],
        &["unsafe-reset-all", "--keep-addr-book"],
        &["reset-state"],
        &["unsafe-reset-priv-validator"],
    ] {
        home.refuses(
            arguments,
            &["perihelion/LOCK", &holder, "stop that process"],
        );
    }
}

/// CometBFT locks a file in each of its databases.
#[test]
fn a_home_on_which_cometbft_runs() {
    let home = with_store();
    for name in ["blockstore.db", "state.db", "evidence.db", "tx_index.db"] {
        let folder = home.file("data").join(name);
        fs::create_dir(&folder).unwrap();
        let lock = fs::File::create(folder.join("LOCK")).unwrap();
        lock.try_lock().unwrap();
        let holder = format!("process {} (", std::process::id());
        for arguments in [
            &["start"][..],
            &["unsafe-reset-all"],
            &["unsafe-reset-all", "--keep-addr-book"],
            &["reset-state"],
            &["unsafe-reset-priv-validator"],
        ] {
            let parts = [name, "/LOCK", &holder, "CometBFT", "stop that process"];
            home.refuses(arguments, &parts);
        }
    }
    // All are free again.
    succeed(&["unsafe-reset-all", "--home", home.text()]);
}

#[test]
fn a_home_that_is_not_there_is_not_reset() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("hmoe");
    for command in [
        "reset-state",
        "unsafe-reset-all",
        "unsafe-reset-priv-validator",
    ] {
        let arguments = [command, "--home", home.to_str().unwrap()];
        let error = error_of(&perihelion(&arguments).output().unwrap());
        for part in ["hmoe is no folder", "--home"] {
            assert!(error.contains(part), "no {part:?} in {error}");
        }
        assert!(!home.exists(), "{command}");
    }
}

#[test]
fn a_store_of_another_chain() {
    let home = with_store();
    let file = home.file("config/genesis.json");
    let mut genesis: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    genesis["chain_id"] = "another".into();
    fs::write(&file, genesis.to_string()).unwrap();
    home.refuses(
        &["start"],
        &["data/perihelion", "genesis.json", "another home"],
    );
}

#[test]
fn a_store_that_cannot_be_used() {
    let reset = "perihelion reset-state --home ";
    for (name, content, parts) in [
        ("FORMAT", Some("9\n"), &["FORMAT has format 9", "newer"][..]),
        ("FORMAT", Some("0\n"), &["FORMAT has format 0", reset]),
        ("FORMAT", Some("x"), &["does not name a format", reset]),
        ("FORMAT", None, &["does not name a format", reset]),
        ("db/CURRENT", None, &["CURRENT", "sync again", reset]),
        (
            "db/CURRENT",
            Some("MANIFEST-000099\n"),
            &["MANIFEST-000099", "sync again", reset],
        ),
    ] {
        let home = with_store();
        let path = home.file("data/perihelion").join(name);
        match content {
            Some(content) => fs::write(path, content).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        home.refuses(&["start"], parts);
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
fn config_check_says_all_at_once() {
    let home = Home::new();
    let good = perihelion(&["config", "check", "--home", home.text()])
        .output()
        .unwrap();
    assert!(good.status.success(), "{good:?}");
    home.edit("moniker = ", "monicker = ");
    home.edit("send_rate = 5120000", "send_rate = \"fast\"");
    home.edit("indexer = \"kv\"", "indexer = \"psql\"");
    fs::remove_file(home.file("config/node_key.json")).unwrap();
    fs::write(home.file("config/genesis.json"), "{").unwrap();
    let mut command = perihelion(&["config", "check", "--home", home.text()]);
    command.env("CMT_P2P_RECV_RAT", "1");
    let output = command.output().unwrap();
    assert_eq!(error_of(&output), "6 problems found");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "unknown key \"monicker\"; the nearest known key is \"moniker\"",
        "p2p.send_rate = \"fast\" is not allowed",
        "CMT_P2P_RECV_RAT: no such key; the nearest known variable is CMT_P2P_RECV_RATE",
        "genesis.json is damaged",
        "node_key.json does not exist",
        "tx_index.indexer = \"psql\" is not offered",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert_eq!(text.lines().count(), 6, "{text}");
}

/// What `start` refuses, `config check` finds.
#[test]
fn config_check_finds_what_start_refuses() {
    let home = with_store();
    let file = home.file("config/genesis.json");
    let mut genesis: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    genesis["chain_id"] = "another".into();
    fs::write(&file, genesis.to_string()).unwrap();
    home.edit("external_address = \"\"", "external_address = \"foo\"");
    home.edit("proxy_app = \"kvstore\"", "proxy_app = \"tcp://127.0.0.1\"");
    for (flag, parts) in [
        (
            &["--p2p.external_address", ""][..],
            &[
                "config.toml:",
                "proxy_app = \"tcp://127.0.0.1\" is no application",
            ][..],
        ),
        (
            &["--proxy_app", "kvstore"],
            &[
                "config.toml:",
                "p2p.external_address = \"foo\" is no address",
            ],
        ),
        (
            &["--proxy_app", "", "--p2p.external_address", ""],
            &["flag --proxy_app", "is no application"],
        ),
        (
            &["--proxy_app", "kvstore", "--p2p.external_address", ""],
            &["perihelion", "genesis"],
        ),
    ] {
        home.refuses(&[&["start"], flag].concat(), parts);
    }
    let one = "tcp://127.0.0.1:26000";
    home.edit(
        "laddr = \"tcp://127.0.0.1:0\"",
        &format!("laddr = \"{one}\""),
    );
    home.edit(
        "laddr = \"tcp://127.0.0.1:0\"",
        &format!("laddr = \"{one}\""),
    );
    let mut command = perihelion(&["config", "check", "--home", home.text()]);
    command.env("PERIHELION_FOO", "1").env("CMT_P2P_FOO", "x");
    command
        .env("PERIHELION_HOME", home.text())
        .env("CMT_HOME", "");
    let output = command.output().unwrap();
    assert_eq!(error_of(&output), "6 problems found");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "proxy_app = \"tcp://127.0.0.1\" is no application",
        "p2p.external_address = \"foo\" is no address",
        "have one port",
        "variable PERIHELION_FOO: no such key",
        "variable CMT_P2P_FOO: no such key",
        "holds a chain whose genesis has the hash",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn what_is_not_offered_is_named_with_its_line() {
    for (old, new) in [
        ("indexer = \"kv\"", "indexer = \"psql\""),
        (
            "priv_validator_laddr = \"\"",
            "priv_validator_laddr = \"tcp://127.0.0.1:1\"",
        ),
        ("type = \"flood\"", "type = \"app\""),
    ] {
        let home = Home::new();
        home.edit(old, new);
        let text = fs::read_to_string(home.file("config/config.toml")).unwrap();
        let line = text.lines().position(|line| line == new).unwrap() + 1;
        let place = format!("config.toml:{line}: ");
        home.refuses(&["start"], &[&place, "is not offered by this version"]);
    }
}

#[test]
fn a_key_like_no_other_has_no_hint() {
    let home = Home::new();
    home.edit("moniker = ", "foo = 1\nmoniker = ");
    let output = perihelion(&["config", "check", "--home", home.text()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.trim_end().ends_with("unknown key \"foo\""), "{text}");
}

#[test]
fn a_peer_is_refused_for_its_wrong_part() {
    let home = Home::new();
    let id = "0".repeat(40);
    for (peer, part) in [
        ("h:1".to_owned(), "it has no @"),
        ("12@h:1".to_owned(), "its id is not 40"),
        (format!("{id}@h"), "no host with a port"),
    ] {
        home.refuses(&["start", "--p2p.persistent_peers", &peer], &[&peer, part]);
    }
}

#[test]
fn a_folder_in_the_place_of_the_configuration() {
    let home = Home::new();
    fs::remove_file(home.file("config/config.toml")).unwrap();
    fs::create_dir(home.file("config/config.toml")).unwrap();
    home.refuses(&["start"], &["config.toml", "move that folder away"]);
}

#[test]
fn the_version_is_a_flag_too() {
    let version = succeed(&["--version"]);
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    assert_eq!(succeed(&["-v"]), version);
}

#[test]
fn an_unknown_key_is_no_reason_not_to_start() {
    let home = Home::new();
    home.edit("moniker = ", "some_future_key = 1\nmoniker = ");
    let mut taken = perihelion(&["show-node-id", "--home", home.text()]);
    let output = taken.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim().len(), 40);
}
