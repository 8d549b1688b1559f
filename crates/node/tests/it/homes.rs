//! What commands make of a home.

use std::{fs, os::unix::fs::PermissionsExt as _};

use perihelion_node::{
    config::{Config, Overrides},
    files::{SignState, genesis_id, load_genesis},
    prepare,
};

use crate::binary::{Home, perihelion, succeed, tree};

#[test]
fn init_makes_a_home_once() {
    let home = Home::new();
    for (name, mode) in [
        ("config/node_key.json", 0o600),
        ("config/priv_validator_key.json", 0o600),
        ("data/priv_validator_state.json", 0o600),
        ("config/genesis.json", 0o644),
        ("config", 0o700),
        ("data", 0o700),
    ] {
        let found = fs::metadata(home.file(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{name}");
    }
    let (genesis, _) = load_genesis(&home.file("config/genesis.json")).unwrap();
    let tail = genesis.chain_id.strip_prefix("test-chain-").unwrap();
    assert!(tail.len() == 6 && tail.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_eq!(genesis.validators.len(), 1);
    assert_eq!(genesis.validators[0].power, 10);
    let before = tree(home.path());
    // Flags before and after the command, and an argument that CometBFT passes by too.
    succeed(&["--home", home.text(), "init", "validator"]);
    succeed(&["init", "--log_level", "error", "--home", home.text()]);
    assert!(tree(home.path()) == before);
}

#[test]
fn a_home_found_by_the_environment() {
    let home = Home::new();
    let id = succeed(&["show-node-id", "--home", home.text()]);
    for name in ["CMTHOME", "PERIHELION_HOME", "CMT_HOME"] {
        let mut command = perihelion(&["show_node_id"]);
        let output = command.env(name, home.path()).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), id, "{name}");
    }
}

#[test]
fn no_key_is_ever_in_the_output_of_init() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let output = perihelion(&["init", "--home", home, "--log_level", "trace"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    for name in ["node_key.json", "priv_validator_key.json"] {
        let text = fs::read(folder.path().join("config").join(name)).unwrap();
        let key: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let secret = key["priv_key"]["value"].as_str().unwrap();
        assert!(!said.contains(&secret[..12]), "{said}");
    }
    assert!(said.contains("Generated node key"), "{said}");
}

#[test]
fn a_key_is_not_given_a_fresh_state_nor_a_state_a_fresh_key() {
    let home = Home::new();
    let state = home.file("data/priv_validator_state.json");
    fs::remove_file(&state).unwrap();
    home.refuses(
        &["init"],
        &["without its state", "unsafe-reset-priv-validator"],
    );
    let signed = SignState {
        height: 7,
        ..SignState::default()
    };
    signed.save(&state).unwrap();
    fs::remove_file(home.file("config/priv_validator_key.json")).unwrap();
    home.refuses(
        &["init"],
        &["priv_validator_key.json does not exist", "restore the key"],
    );
}

fn fill(home: &Home) -> SignState {
    for name in ["perihelion", "blockstore.db", "state.db", "cs.wal", "other"] {
        fs::create_dir(home.file("data").join(name)).unwrap();
        fs::write(home.file("data").join(name).join("x"), name).unwrap();
    }
    fs::write(home.file("config/addrbook.json"), "{}").unwrap();
    let state = SignState {
        height: 9,
        round: 1,
        step: 3,
        ..SignState::default()
    };
    state
        .save(&home.file("data/priv_validator_state.json"))
        .unwrap();
    state
}

#[test]
fn reset_all_leaves_keys_and_configuration() {
    for keep in [false, true] {
        let home = Home::new();
        fill(&home);
        let config = tree(&home.file("config"));
        let flag: &[&str] = if keep { &["--keep-addr-book"] } else { &[] };
        succeed(&[&["unsafe-reset-all", "--home", home.text()], flag].concat());
        let mut after = config.clone();
        if !keep {
            after.remove(&home.file("config/addrbook.json"));
        }
        assert!(tree(&home.file("config")) == after);
        let data: Vec<_> = tree(&home.file("data")).into_keys().collect();
        assert_eq!(
            data,
            [
                home.file("data"),
                home.file("data/priv_validator_state.json")
            ]
        );
        let state = SignState::load(&home.file("data/priv_validator_state.json")).unwrap();
        assert_eq!(state, SignState::default());
    }
}

#[test]
fn reset_state_leaves_what_was_signed() {
    let home = Home::new();
    let state = fill(&home);
    let config = tree(&home.file("config"));
    succeed(&["reset_state", "--home", home.text()]);
    assert!(tree(&home.file("config")) == config);
    for name in ["perihelion", "blockstore.db", "state.db", "cs.wal"] {
        assert!(!home.file("data").join(name).exists(), "{name}");
    }
    assert!(home.file("data/other").exists());
    let left = SignState::load(&home.file("data/priv_validator_state.json")).unwrap();
    assert_eq!(left, state);
}

#[test]
fn a_data_folder_that_holds_the_keys_is_not_removed() {
    for folder in [".", "config", "/"] {
        let home = Home::new();
        home.edit("db_dir = \"data\"", &format!("db_dir = \"{folder}\""));
        home.refuses(&["unsafe-reset-all"], &["db_dir", "is not removed"]);
    }
}

#[test]
fn a_network_shares_its_genesis_and_knows_its_peers() {
    let folder = tempfile::tempdir().unwrap();
    let net = folder.path().join("net");
    let arguments = ["--o", net.to_str().unwrap(), "--v", "2", "--n", "1"];
    let more = [
        "--starting-ip-address",
        "127.0.0.2",
        "--initial-height",
        "1000",
    ];
    succeed(&[&["testnet"], &arguments[..], &more[..]].concat());
    let (genesis, hash) = load_genesis(&net.join("node0/config/genesis.json")).unwrap();
    assert_eq!(genesis.initial_height.get(), 1000);
    let names: Vec<_> = genesis
        .validators
        .iter()
        .map(|v| (&*v.name, v.power))
        .collect();
    assert_eq!(names, [("node0", 1), ("node1", 1)]);
    let mut peers = Vec::new();
    for index in 0..3 {
        let home = net.join(format!("node{index}"));
        let id = succeed(&["show-node-id", "--home", home.to_str().unwrap()]);
        peers.push(format!("{}@127.0.0.{}:26656", id.trim(), index + 2));
    }
    for index in 0..3 {
        let home = net.join(format!("node{index}"));
        assert_eq!(
            load_genesis(&home.join("config/genesis.json")).unwrap().1,
            hash
        );
        let (config, warnings) = Config::load(&home, &Overrides::default()).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(config.p2p.persistent_peers, peers.join(","));
        assert!(!config.p2p.addr_book_strict && config.p2p.allow_duplicate_ip);
    }
    let again = perihelion(&[&["testnet"], &arguments[..]].concat())
        .output()
        .unwrap();
    let error = crate::binary::error_of(&again);
    assert!(
        error.contains("node0/config/genesis.json exists already"),
        "{error}"
    );
}

#[test]
fn data_of_cometbft_is_recognised_and_left_alone() {
    let home = Home::new();
    fill(&home);
    let before = tree(home.path());
    let (config, _) = Config::load(home.path(), &Overrides::default()).unwrap();
    let prepared = prepare::prepare(config, None).unwrap();
    assert_eq!(
        prepared.foreign_data,
        [home.file("data/blockstore.db"), home.file("data/state.db")]
    );
    let message = prepare::foreign_data_message(&prepared.foreign_data);
    for part in [
        "blockstore.db",
        "state.db",
        "belong to CometBFT",
        "not read",
        "perihelion",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(tree(home.path()) == before);
}

#[test]
fn a_genesis_is_told_from_others_by_what_it_says() {
    let (home, other) = (Home::new(), Home::new());
    let id = |home: &Home| {
        let (genesis, _) = load_genesis(&home.file("config/genesis.json")).unwrap();
        genesis_id(&genesis)
    };
    let first = id(&home);
    assert_ne!(first, id(&other));
    // Other spaces do not make another chain.
    let file = home.file("config/genesis.json");
    let value: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let order = [
        "genesis_time",
        "chain_id",
        "initial_height",
        "consensus_params",
        "validators",
        "app_hash",
    ];
    let fields = order.map(|name| format!("\"{name}\": {}", value[name]));
    fs::write(&file, format!("{{ {} }}\n\n", fields.join(", "))).unwrap();
    assert_eq!(id(&home), first);
}

#[test]
fn version_and_completion() {
    let version = succeed(&["version"]);
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"));
    let verbose: serde_json::Value =
        serde_json::from_str(&succeed(&["version", "--verbose"])).unwrap();
    assert_eq!(verbose["block_protocol"], 11);
    assert_eq!(verbose["p2p_protocol"], 8);
    assert_eq!(verbose["abci"], "2.0.0");
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            succeed(&["completion", shell]).contains("unsafe-reset-all"),
            "{shell}"
        );
    }
    assert!(succeed(&["help"]).contains("show-node-id"));
}
