//! Each key of the configuration is read somewhere, or said to do nothing. What reads it is looked
//! for in the sources: `SECTION.FIELD` outside of rules, descriptions and defaults.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use perihelion_node::config;
use perihelion_test_support as vectors;
use serde::Deserialize;

use crate::config_vectors::versions;

/// Keys that nothing reads: precisely those that the book names in this sentence.
const WITHOUT_EFFECT: [&str; 13] = [
    "version",
    "db_backend",
    "event_bus_buffer_capacity",
    "blocksync.version",
    "blocksync.adaptive_sync",
    "mempool.wal_dir",
    "mempool.max_batch_bytes",
    "p2p.flush_throttle_timeout",
    "p2p.test_dial_fail",
    "p2p.test_fuzz",
    "rpc.grpc_laddr",
    "rpc.grpc_max_open_connections",
    "rpc.pprof_laddr",
];
const SENTENCE: &str = "Without effect are ";

/// Keys, or the tables of keys, of what `start` refuses to offer.
const OF_WHAT_IS_REFUSED: [(&str, &str); 8] = [
    ("statesync.", "statesync.enable"),
    ("p2p.libp2p.", "p2p.libp2p.enabled"),
    ("tx_index.psql-conn", "tx_index.indexer"),
    ("mempool.seen_cache_size", "mempool.type"),
    ("mempool.reap_max_bytes", "mempool.type"),
    ("mempool.reap_max_gas", "mempool.type"),
    ("mempool.reap_interval", "mempool.type"),
    ("mempool.check_tx_retry_delay", "mempool.type"),
];

fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
}

fn all_sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    assert!(found.len() > 20, "{found:?}");
    found
}

/// The fields of keys, by the key's name: each is described by `Key::…("NAME", …), &mut self.FIELD`.
fn fields(sources: &[(PathBuf, String)]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for (_, text) in sources {
        for described in text.split("Key::").skip(1) {
            let Some((_, rest)) = described.split_once('"') else {
                continue;
            };
            let Some((name, rest)) = rest.split_once('"') else {
                continue;
            };
            let Some((_, rest)) = rest.split_once("&mut self.") else {
                continue;
            };
            let end = rest.find(|letter: char| !is_word(letter)).unwrap();
            let before = fields.insert(name.to_owned(), rest[..end].to_owned());
            assert!(before.is_none_or(|it| it == rest[..end]), "{name}");
        }
    }
    fields
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The code, without comments, what stands between quotation marks, and descriptions.
fn code(sources: &[(PathBuf, String)]) -> String {
    let mut code = String::new();
    for (path, text) in sources {
        if path.ends_with("config/rules.rs") || path.ends_with("config/tests.rs") {
            continue;
        }
        for line in text.lines() {
            let line = line.trim_start();
            if line.starts_with("//") || line.contains("&mut self.") {
                continue;
            }
            if !line.starts_with('.') {
                code.push('\n');
            }
            code.extend(line.split('"').step_by(2));
        }
    }
    code
}

/// Whether `SECTION.FIELD` stands in the code, as whole words.
fn is_read(code: &str, section: &str, field: &str) -> bool {
    let pattern = format!("{section}.{field}");
    code.match_indices(&pattern).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let behind = code[at + pattern.len()..].chars().next();
        !before.is_some_and(is_word) && !behind.is_some_and(is_word)
    })
}

/// Where the keys of a table are kept.
fn section(table: &str) -> &str {
    match table {
        "" => "base",
        "statesync" => "state_sync",
        "blocksync" => "block_sync",
        table => table,
    }
}

#[derive(Deserialize)]
struct Case {
    key: String,
    section: String,
}

/// Ours, and those of every version of CometBFT.
fn keys() -> BTreeSet<String> {
    let mut keys: BTreeSet<_> = config::all_keys()
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    for version in versions() {
        let cases: Vec<Case> = vectors::load(&format!("config/{version}/config_keys.json"));
        assert!(!cases.is_empty(), "{version}");
        keys.extend(cases.into_iter().map(|case| {
            let dot = if case.section.is_empty() { "" } else { "." };
            format!("{}{dot}{}", case.section, case.key)
        }));
    }
    keys
}

fn book() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book/operate.md");
    fs::read_to_string(file).unwrap()
}

#[test]
fn vector_config_keys_are_read_or_said_to_do_nothing() {
    let sources = all_sources();
    let (fields, code) = (fields(&sources), code(&sources));
    let mut wrong = Vec::new();
    for key in keys() {
        if OF_WHAT_IS_REFUSED
            .iter()
            .any(|(begin, switch)| key.starts_with(begin) && key != *switch)
        {
            continue;
        }
        let (table, name) = key.rsplit_once('.').unwrap_or(("", &key));
        let Some(field) = fields.get(name) else {
            wrong.push(format!("{key} has no field"));
            continue;
        };
        let read = is_read(&code, section(table), field);
        if read == WITHOUT_EFFECT.contains(&key.as_str()) {
            wrong.push(format!("{key}: read: {read}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_book_names_the_keys_without_effect() {
    let book = book();
    let begin = book.find(SENTENCE).unwrap();
    let paragraph = book[begin..].split("\n\n").next().unwrap();
    let words = paragraph.split('`').skip(1).step_by(2);
    let keys = keys();
    let named: BTreeSet<_> = words.filter(|word| keys.contains(*word)).collect();
    assert_eq!(named, BTreeSet::from(WITHOUT_EFFECT));
    for (_, switch) in OF_WHAT_IS_REFUSED {
        let refused = match switch {
            "tx_index.indexer" => "the indexer `psql`".to_owned(),
            "mempool.type" => "the mempool `app`".to_owned(),
            switch => format!("`{switch}`"),
        };
        assert!(book.contains(&refused), "{switch}");
    }
}
