//! Files of a home with one byte changed: refused with the file's name, or still of a meaning
//! that cannot be told from an intended one; never a panic, and never a secret in the error.

use std::{fs, path::Path};

use perihelion_node::{
    config::{self, Config, Overrides, Problem},
    files::{FileError, SignState, ValidatorKey, load_genesis, load_node_key},
};

use crate::binary::Home;

/// Calls `check` with the file changed at each byte in turn, by several bits.
fn each_change(path: &Path, mut check: impl FnMut(usize)) {
    let good = fs::read(path).unwrap();
    assert!(!good.is_empty());
    for at in 0..good.len() {
        for bits in [0x01, 0x20, 0x80] {
            let mut bad = good.clone();
            bad[at] ^= bits;
            fs::write(path, bad).unwrap();
            check(at);
        }
    }
    fs::write(path, good).unwrap();
}

/// The error names the file and shows no run of the secret.
fn assert_discreet(error: &FileError, path: &Path, secret: &str) {
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    for start in 0..secret.len() - 8 {
        assert!(!text.contains(&secret[start..start + 8]), "{text}");
    }
}

fn secret(path: &Path) -> String {
    let file: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    file["priv_key"]["value"].as_str().unwrap().to_owned()
}

#[test]
fn of_the_node_key() {
    let home = Home::new();
    let path = home.file("config/node_key.json");
    let (secret, id) = (secret(&path), load_node_key(&path).unwrap().public_key());
    each_change(&path, |at| match load_node_key(&path) {
        Ok(key) => assert_eq!(key.public_key(), id, "byte {at}"),
        Err(error) => assert_discreet(&error, &path, &secret),
    });
}

#[test]
fn of_the_validator_key() {
    let home = Home::new();
    let path = home.file("config/priv_validator_key.json");
    let (secret, public) = (
        secret(&path),
        ValidatorKey::load(&path).unwrap().public_key(),
    );
    each_change(&path, |at| match ValidatorKey::load(&path) {
        Ok(key) => assert_eq!(key.public_key(), public, "byte {at}"),
        Err(error) => assert_discreet(&error, &path, &secret),
    });
}

#[test]
fn of_the_validator_state() {
    let home = Home::new();
    let path = home.file("data/priv_validator_state.json");
    let mut refused = 0;
    each_change(&path, |_| {
        if let Err(error) = SignState::load(&path) {
            assert!(
                error.to_string().contains(path.to_str().unwrap()),
                "{error}"
            );
            refused += 1;
        }
    });
    assert!(refused > 0);
}

#[test]
fn of_the_genesis() {
    let home = Home::new();
    let path = home.file("config/genesis.json");
    let (_, hash) = load_genesis(&path).unwrap();
    let mut refused = 0;
    each_change(&path, |at| match load_genesis(&path) {
        Ok((_, other)) => assert_ne!(other, hash, "byte {at}: --genesis_hash would not see it"),
        Err(error) => {
            assert!(
                error.to_string().contains(path.to_str().unwrap()),
                "{error}"
            );
            refused += 1;
        }
    });
    assert!(refused > 0);
}

#[test]
fn of_the_configuration() {
    let path = Path::new("/home/config/config.toml");
    let good = config::write(&Config::new(Path::new("/home")));
    let mut refused = 0;
    let mut start = 0;
    for line in good.split_inclusive('\n') {
        // A comment says what it will.
        let changed = if line.starts_with('#') { 0 } else { line.len() };
        for at in start..start + changed {
            let mut bad = good.clone().into_bytes();
            bad[at] ^= 1;
            let bad = String::from_utf8_lossy(&bad);
            let problems =
                config::read(Path::new("/home"), path, &bad, &Overrides::default()).problems;
            refused += usize::from(!problems.iter().all(Problem::is_warning));
            for problem in &problems {
                let text = problem.to_string();
                let named = text.starts_with(path.to_str().unwrap()) || text.starts_with("not set");
                assert!(named, "byte {at}: {text}");
            }
        }
        start += line.len();
    }
    assert!(refused > 0);
}
