//! Which crate may depend on which: the manifests against the order of the layers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use toml::Table;

/// The layers from the bottom up: each crate, and the crates right below it. It may depend on those
/// and on all that is below them.
const LAYERS: [(&str, &[&str]); 21] = [
    ("proto", &[]),
    ("crypto", &["proto"]),
    ("types", &["proto", "crypto"]),
    ("certify", &["types", "crypto"]),
    ("schedule", &["types"]),
    ("consensus", &["types", "certify"]),
    ("store", &["types"]),
    ("abci", &["types"]),
    ("events", &["types"]),
    ("state", &["certify", "store", "abci", "events"]),
    ("p2p", &["proto", "crypto"]),
    ("pool", &["schedule", "certify", "state"]),
    ("blocksync-reactor", &["p2p", "pool", "store"]),
    ("evidence", &["state", "p2p"]),
    ("mempool", &["abci", "p2p"]),
    ("consensus-reactor", &["consensus", "mempool", "evidence"]),
    ("rpc", &["pool", "consensus-reactor"]),
    ("bench", &["blocksync-reactor"]),
    ("node", &["bench", "rpc"]),
    ("testkit", &["node"]),
    ("test-support", &[]),
];

/// Crates without a shell: no task, clock, socket, file or global randomness.
const PURE: [&str; 4] = ["types", "certify", "schedule", "consensus"];

/// What a pure crate may name of others' crates: data and computation.
const PLAIN: [&str; 10] = [
    "base64",
    "bytes",
    "hex",
    "prost",
    "prost-types",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "time",
];

/// Crates that are a shell; none may be found anywhere below a pure crate.
const SHELLS: [&str; 14] = [
    "async-io",
    "async-std",
    "crossbeam-channel",
    "hyper",
    "mio",
    "polling",
    "rayon",
    "rocksdb",
    "rustix",
    "smol",
    "socket2",
    "tempfile",
    "tokio",
    "ureq",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn parse(path: &Path) -> Table {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.parse()
        .unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

fn own(name: &str) -> Option<&str> {
    name.strip_prefix("perihelion-")
}

/// Every package of the workspace, without the common prefix, and what `[dependencies]` names,
/// those of single targets included.
fn manifests() -> BTreeMap<String, BTreeSet<String>> {
    let root = root();
    let mut folders = vec![root.clone(), root.join("tests/support")];
    let crates = fs::read_dir(root.join("crates")).unwrap();
    folders.extend(crates.map(|entry| entry.unwrap().path()));
    let mut found = BTreeMap::new();
    for folder in folders {
        let manifest = parse(&folder.join("Cargo.toml"));
        let name = manifest["package"]["name"].as_str().unwrap();
        let name = own(name).unwrap_or_else(|| panic!("{name} has another prefix"));
        let of_targets = manifest.get("target").and_then(toml::Value::as_table);
        let tables = of_targets
            .into_iter()
            .flat_map(Table::values)
            .filter_map(toml::Value::as_table)
            .chain([&manifest]);
        let named = tables
            .filter_map(|table| table.get("dependencies")?.as_table())
            .flat_map(Table::keys)
            .cloned()
            .collect();
        found.insert(name.to_owned(), named);
    }
    found
}

/// What each crate may depend on.
fn allowed() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut all = BTreeMap::<_, BTreeSet<_>>::new();
    for (name, right_below) in LAYERS {
        let mut below = BTreeSet::new();
        for right_below in right_below {
            let further = all
                .get(right_below)
                .unwrap_or_else(|| panic!("{name} stands below {right_below}"));
            below.extend(further.iter().copied());
            below.insert(*right_below);
        }
        all.insert(name, below);
    }
    all
}

#[test]
fn arrows_point_downward_only() {
    let (found, allowed) = (manifests(), allowed());
    let names: BTreeSet<_> = found.keys().map(String::as_str).collect();
    let expected: BTreeSet<_> = allowed.keys().copied().collect();
    assert_eq!(names, expected, "the workspace's crates and the layers");
    for (name, dependencies) in &found {
        let allowed = &allowed[name.as_str()];
        for dependency in dependencies.iter().filter_map(|name| own(name)) {
            assert!(
                allowed.contains(dependency),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn pure_crates_name_plain_crates_only() {
    let found = manifests();
    for name in PURE {
        for dependency in found[name].iter().filter(|name| own(name).is_none()) {
            assert!(
                PLAIN.contains(&dependency.as_str()),
                "{name} is pure and must not depend on {dependency}"
            );
        }
    }
}

/// Everything that a package of the lock file depends on, itself included. Packages of one name
/// count as one.
fn closure(lock: &BTreeMap<&str, BTreeSet<&str>>, from: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left = vec![from.to_owned()];
    while let Some(name) = left.pop() {
        let further = lock
            .get(name.as_str())
            .unwrap_or_else(|| panic!("Cargo.lock has no {name}"));
        if found.insert(name) {
            left.extend(further.iter().map(|&name| name.to_owned()));
        }
    }
    found
}

#[test]
fn no_shell_is_below_a_pure_crate() {
    let lock = parse(&root().join("Cargo.lock"));
    let mut packages = BTreeMap::<_, BTreeSet<_>>::new();
    for package in lock["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let dependencies = package.get("dependencies").and_then(toml::Value::as_array);
        // "name", or "name version" where there are several.
        let names = dependencies
            .into_iter()
            .flatten()
            .map(|entry| entry.as_str().unwrap().split(' ').next().unwrap());
        packages.entry(name).or_default().extend(names);
    }
    assert!(
        closure(&packages, "hyper-util").contains("mio"),
        "the lock file is read wrongly"
    );
    let (found, allowed) = (manifests(), allowed());
    for name in PURE {
        // The lock file mixes what a package of ours needs with what its tests need; so its own
        // dependencies come from the manifests.
        let own_crates = allowed[name].iter().copied().chain([name]);
        for dependency in own_crates.flat_map(|name| &found[name]) {
            if own(dependency).is_some() {
                continue;
            }
            let below = closure(&packages, dependency);
            for shell in SHELLS {
                assert!(
                    !below.contains(shell),
                    "{shell} is below {name}, which is pure, through {dependency}"
                );
            }
        }
    }
}

#[test]
fn pure_crates_ban_the_same_calls() {
    let bans = |name: &str| parse(&root().join("crates").join(name).join("clippy.toml"));
    let first = bans(PURE[0]);
    for list in ["disallowed-methods", "disallowed-types"] {
        assert!(!first[list].as_array().unwrap().is_empty());
    }
    for name in PURE {
        assert_eq!(bans(name), first, "{name}");
    }
}
