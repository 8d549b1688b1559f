//! Commands, aliases and flags as CometBFT has them.

use perihelion_test_support as vectors;
use serde::Deserialize;

use crate::{
    binary::{perihelion, succeed, tree},
    config_vectors::versions,
};

/// CometBFT's commands that this node does not have.
const NOT_OFFERED: [&str; 11] = [
    "debug",
    "debug dump",
    "debug kill",
    "experimental-compact-goleveldb",
    "inspect",
    "light",
    "reindex-event",
    "replay",
    "replay-console",
    "rollback",
    "",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandCase {
    aliases: Vec<String>,
    command: String,
    flags: Vec<FlagCase>,
    #[serde(rename = "hidden")]
    _hidden: bool,
    #[serde(rename = "use")]
    _usage: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlagCase {
    default: String,
    name: String,
    #[serde(default)]
    short: Option<String>,
    #[serde(rename = "type")]
    kind: String,
}

impl FlagCase {
    /// Arguments that give the flag a value of its type, in each way of writing it.
    fn arguments(&self) -> Vec<String> {
        let value = match self.kind.as_str() {
            "bytesHex" => "00".repeat(32),
            "stringArray" => "name".to_owned(),
            _ => self.default.clone(),
        };
        let mut list = vec![format!("--{}={value}", self.name)];
        match self.kind.as_str() {
            "bool" => {
                list.push(format!("--{}", self.name));
                list.extend(self.short.iter().map(|short| format!("-{short}")));
            }
            _ => list.push(format!("--{}={value}", self.name)),
        }
        list
    }
}

/// Whether the flag is understood before the command: then help is shown.
fn is_understood(command: &str, argument: &str) -> bool {
    let mut arguments: Vec<_> = command.split_whitespace().collect();
    arguments.extend([argument, "--help"]);
    perihelion(&arguments).output().unwrap().status.success()
}

#[test]
fn vector_commands_and_flags_are_understood() {
    for version in versions() {
        let cases: Vec<CommandCase> = vectors::load(&format!("config/{version}/commands.json"));
        vectors::each(&version, &cases, |_, case| {
            let command = case.command.trim_start_matches("cometbft").trim();
            if NOT_OFFERED.contains(&command) {
                return;
            }
            for name in case.aliases.iter().map(String::as_str).chain([command]) {
                assert!(is_understood(name, "--home=/x"), "{version}: {name}");
                assert!(!is_understood(name, "--no-such-flag"), "{version}: {name}");
            }
            for flag in &case.flags {
                for argument in flag.arguments() {
                    assert!(
                        is_understood(command, &argument),
                        "{version}: {command} {argument}"
                    );
                }
            }
        });
        // The global ones, before the command and after it.
        let global = cases
            .iter()
            .find(|case| case.command == "cometbft")
            .unwrap();
        for flag in &global.flags {
            let argument = format!("--{}={}", flag.name, flag.default);
            assert!(
                is_understood(&format!("{argument} start"), "--trace"),
                "{argument}"
            );
            assert!(is_understood("start", &argument), "{argument}");
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestnetCase {
    arguments: String,
    files: Vec<String>,
}

#[test]
fn vector_testnet_makes_the_files() {
    for version in versions() {
        let case: TestnetCase = vectors::load(&format!("config/{version}/testnet_files.json"));
        assert!(!case.files.is_empty(), "{version}");
        let folder = tempfile::tempdir().unwrap();
        let net = folder.path().join("net");
        let mut arguments: Vec<_> = case.arguments.split_whitespace().collect();
        arguments.extend(["--o", net.to_str().unwrap()]);
        let said = succeed(&arguments);
        let nodes = case
            .files
            .iter()
            .filter(|file| file.matches('/').count() == 1 && file.ends_with('/'));
        let last = format!(
            "Successfully initialized {} node directories",
            nodes.count()
        );
        assert_eq!(said.lines().last(), Some(last.as_str()), "{version}");
        let mut found: Vec<_> = tree(&net)
            .into_keys()
            .filter(|path| *path != net)
            .map(|path| {
                let name = path
                    .strip_prefix(&net)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                if path.is_dir() { name + "/" } else { name }
            })
            .collect();
        let mut expected = case.files.clone();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{version}");
    }
}
