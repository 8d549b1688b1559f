//! Keys, types and defaults as CometBFT has them.

use std::{fs, path::Path};

use perihelion_node::config::{self, Config, Overrides};
use perihelion_test_support as vectors;
use serde::Deserialize;
use toml::{Table, Value};

/// The versions whose fresh homes there are.
pub(crate) fn versions() -> Vec<String> {
    let folder = vectors::folder().join("config");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "{folder:?} is empty");
    names
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyCase {
    default: String,
    key: String,
    section: String,
    #[serde(rename = "type")]
    kind: String,
}

fn read(text: &str) -> config::Reading {
    config::read(
        Path::new("/home"),
        Path::new("config.toml"),
        text,
        &Overrides::default(),
    )
}

#[test]
fn vector_config_keys_are_known_with_their_types_and_defaults() {
    for version in versions() {
        let cases: Vec<KeyCase> = vectors::load(&format!("config/{version}/config_keys.json"));
        vectors::each(&version, &cases, |_, case| {
            let row = case.section == "p2p.libp2p.scaler.overrides";
            let text = match (case.section.as_str(), row) {
                ("", _) => format!("{} = {}\n", case.key, case.default),
                (section, true) => format!(
                    "[[{section}]]\nreactor = \"X\"\nmax_workers = 9999\n{}",
                    match case.key.as_str() {
                        "reactor" | "max_workers" => String::new(),
                        key => format!("{key} = {}\n", case.default),
                    }
                ),
                (section, false) => format!("[{section}]\n{} = {}\n", case.key, case.default),
            };
            let reading = read(&text);
            assert_eq!(reading.problems, [], "{version}: {text}");
            // A value of a wrong type is refused with its line, unless any text will do.
            let free_text = case.kind == "string"
                && read(&text.replace(&case.default, "\"0x\""))
                    .problems
                    .is_empty();
            if !row && !free_text {
                let wrong = text.replace(&format!("= {}", case.default), "= {}");
                let problems = read(&wrong).problems;
                assert_eq!(problems.len(), 1, "{version}: {wrong}: {problems:?}");
                assert!(!problems[0].is_warning(), "{problems:?}");
            }
        });
    }
}

/// A TOML document, keys of tables with their paths.
fn flat(table: &Table, prefix: &str, into: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let path = format!("{prefix}{name}");
        match value {
            Value::Table(inner) => flat(inner, &format!("{path}."), into),
            value => into.push((path, value.clone())),
        }
    }
}

fn flat_text(text: &str) -> Vec<(String, Value)> {
    let mut list = Vec::new();
    flat(&text.parse().unwrap(), "", &mut list);
    assert!(!list.is_empty());
    list
}

#[test]
fn vector_fresh_config_has_the_keys_and_values_of_v0_38() {
    let version = versions()
        .into_iter()
        .find(|version| version.starts_with("v0.38"))
        .expect("a home of v0.38");
    let theirs = vectors::read(&format!("config/{version}/config.toml"));
    let mut config = Config::new(Path::new("/home"));
    config.base.moniker = "node".to_owned();
    let ours = flat_text(&config::write(&config));
    for (path, value) in flat_text(&theirs) {
        let found = ours.iter().find(|(other, _)| *other == path);
        assert_eq!(found.map(|(_, value)| value), Some(&value), "{path}");
    }
    // What is more is ours.
    let theirs = flat_text(&theirs);
    for (path, _) in &ours {
        let known = theirs.iter().any(|(other, _)| other == path);
        let own = path.starts_with("perihelion.") || path.starts_with("blocksync.");
        assert!(known || own, "{path}");
    }
}

#[test]
fn vector_fresh_homes_of_both_versions_are_read_as_they_are() {
    for version in versions() {
        let text = vectors::read(&format!("config/{version}/config.toml"));
        let reading = read(&text);
        assert_eq!(reading.problems, [], "{version}");
        // Written again, no value has changed.
        let again = flat_text(&config::write(&reading.config));
        for (path, value) in flat_text(&text) {
            let found = again.iter().find(|(other, _)| *other == path);
            let quiet_default = found.is_none()
                && config::all_keys().iter().any(|(other, default)| {
                    let default: Table = format!("x = {default}").parse().unwrap();
                    *other == path && default["x"] == value
                });
            assert!(
                quiet_default || found.is_some_and(|(_, found)| *found == value),
                "{version}: {path} = {value}, then {found:?}"
            );
        }
    }
}
