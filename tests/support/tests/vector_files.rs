//! No file of the vectors is forgotten.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use perihelion_test_support::{
    files::{ADDED, LATER, READ, find, matches},
    folder,
};

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(all_files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The vectors, as paths below their folder: without what makes them and what explains them.
fn vectors() -> Vec<String> {
    let folder = folder();
    let mut names: Vec<String> = all_files(&folder)
        .iter()
        .map(|path| {
            path.strip_prefix(&folder)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .filter(|name| !name.starts_with("maker/") && !name.ends_with(".md"))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "{} is empty", folder.display());
    names
}

/// Each entry of the lists stands for a file that is there and holds something; no file is on both.
#[test]
fn every_vector_file_that_is_listed_is_there() {
    let names = vectors();
    for (pattern, of) in READ.iter().chain(LATER) {
        let found: Vec<_> = names.iter().filter(|name| matches(pattern, name)).collect();
        assert!(!found.is_empty(), "{pattern} ({of}) is missing");
        for name in found {
            let length = fs::metadata(folder().join(name)).unwrap().len();
            assert!(length > 0, "{name} is empty");
            let both = find(READ, name).is_some() && find(LATER, name).is_some();
            assert!(!both, "{name} is read, and waits");
        }
    }
}

/// Each file that the workspace's own vectors have is read or waits for a reason. (Another set may
/// have files that nobody knows yet.)
#[test]
fn every_vector_file_is_read_or_waits() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors");
    if folder().canonicalize().unwrap() != own.canonicalize().unwrap() {
        return;
    }
    for name in vectors() {
        assert!(
            [READ, ADDED, LATER]
                .iter()
                .any(|list| find(list, &name).is_some()),
            "nobody reads {name}: list it in tests/support/src/files.rs"
        );
    }
}

/// The tests of the crate that is said to read a file speak of it.
#[test]
fn every_vector_file_that_is_read_is_named_by_its_reader() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates");
    for (pattern, reader) in READ.iter().chain(ADDED) {
        let name = pattern.rsplit('/').next().unwrap();
        let stem = name.split(['.', '*']).next().unwrap();
        let stem = stem.trim_end_matches('_');
        let named = all_files(&crates.join(reader)).iter().any(|path| {
            fs::read_to_string(path).is_ok_and(|text| {
                ["\"", "/"].iter().any(|before| {
                    [".", "_", "\""]
                        .iter()
                        .any(|after| text.contains(&format!("{before}{stem}{after}")))
                })
            })
        });
        assert!(named, "no test of {reader} names {pattern}");
    }
}

#[test]
fn patterns_stand_for_parts_of_names() {
    assert!(matches("a*.json", "a.json") && matches("a*.json", "a_v1.json"));
    assert!(matches("c/*/k.json", "c/v1/k.json") && !matches("c/*.json", "c/v1/k.json"));
    assert!(!matches("a.json", "b.json") && !matches("a*b", "ab/b"));
}
