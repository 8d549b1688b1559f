//! A home that another process uses, and a store or consensus log that is not this chain's or
//! damaged.

use std::{fs, net::TcpListener};

use perihelion_consensus_reactor::wal::{Wal, WalOptions};
use perihelion_node::files::{SignState, read_genesis};
use perihelion_store::{Store, StoreOptions};
use perihelion_types::{Hash, Height, Time};

use crate::binary::{Home, error_of, perihelion, succeed};

/// A home whose store is bound to its genesis, and was last opened by another process.
pub(crate) fn with_store() -> Home {
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
        ("FORMAT", Some("9\n"), &["FORMAT says \"9\"", "newer"][..]),
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

/// A home whose validator signed height 27, and whose consensus log is damaged before that.
fn with_damaged_log(home: &Home) {
    let head = home.file("data/cs.wal/wal");
    let now = Time::new(1_700_000_000, 0);
    let (mut wal, _) = Wal::open(&head, WalOptions::default(), now).unwrap();
    for height in 1..=26 {
        wal.end_height(now, Height::new(height)).unwrap();
    }
    drop(wal);
    let mut bytes = fs::read(&head).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&head, bytes).unwrap();
    let signed = SignState {
        height: 27,
        step: 3,
        ..SignState::default()
    };
    let file = home.file("data/priv_validator_state.json");
    signed.save(&file).unwrap();
}

/// Before anything is bound, and with what is known of whether it can be done without.
#[test]
fn a_consensus_log_that_is_damaged() {
    let home = Home::new();
    with_damaged_log(&home);
    let parts = [
        "cs.wal/wal is damaged at offset ",
        "checksum ",
        "move the folder of the log away",
    ];
    home.refuses(&["start"], &parts);
    let end = "Height 27 was signed last, and the store ends at block 0";
    home.refuses(&["start"], &[end]);
    let output = perihelion(&["config", "check", "--home", home.text()])
        .output()
        .unwrap();
    assert_eq!(error_of(&output), "1 problem found");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(parts[0]), "{text}");
}
