//! Settings that cannot be used are named with their place and what would be accepted.

use std::{fs, net::TcpListener};

use crate::{
    bad_store::with_store,
    binary::{Home, error_of, perihelion},
};

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
    // Whether anybody has it does not matter: both are compared before either is bound.
    let rpc = "tcp://127.0.0.1:26000";
    for host in ["127.0.0.1", "0.0.0.0"] {
        let p2p = format!("tcp://{host}:26000");
        home.refuses(
            &["start", "--p2p.laddr", &p2p, "--rpc.laddr", rpc],
            &["rpc.laddr", rpc, "p2p.laddr", &p2p, "give each its own"],
        );
    }
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
fn an_unknown_key_is_no_reason_not_to_start() {
    let home = Home::new();
    home.edit("moniker = ", "some_future_key = 1\nmoniker = ");
    let mut taken = perihelion(&["show-node-id", "--home", home.text()]);
    let output = taken.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim().len(), 40);
}
