//! Key and state files as CometBFT writes them, read and written again byte for byte.

use std::{fs, path::Path};

use perihelion_node::files::{
    SignState, ValidatorKey, genesis_json, load_genesis, load_node_key, node_key_json,
};
use perihelion_test_support as vectors;
use serde::Deserialize;

use crate::config_vectors::versions;

/// A file of a version's fresh home, in a folder of its own.
fn file(version: &str, name: &str, folder: &Path) -> (std::path::PathBuf, String) {
    let text = vectors::read(&format!("config/{version}/{name}"));
    let path = folder.join(name);
    fs::write(&path, &text).unwrap();
    (path, text)
}

#[test]
fn vector_files_of_a_home_come_back_byte_for_byte() {
    for version in versions() {
        let folder = tempfile::tempdir().unwrap();
        let (path, text) = file(&version, "node_key.json", folder.path());
        assert_eq!(*node_key_json(&load_node_key(&path).unwrap()), text);

        let (path, text) = file(&version, "priv_validator_key.json", folder.path());
        let key = ValidatorKey::load(&path).unwrap();
        let again = folder.path().join("again.json");
        key.save_new(&again).unwrap();
        assert_eq!(fs::read_to_string(again).unwrap(), text);

        let (path, text) = file(&version, "priv_validator_state.json", folder.path());
        let state = SignState::load(&path).unwrap();
        state.save(&path).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), text);

        let (path, text) = file(&version, "genesis.json", folder.path());
        let (genesis, _) = load_genesis(&path).unwrap();
        assert_eq!(genesis_json(&genesis), text);
        assert_eq!(genesis.validators[0].pub_key, key.public_key());
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SigningCase {
    name: String,
    #[serde(rename = "request")]
    _request: String,
    #[serde(default, rename = "signed")]
    _signed: Option<String>,
    state_file: String,
    #[serde(rename = "verdict")]
    _verdict: vectors::Verdict,
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

#[test]
fn vector_states_of_a_signer_come_back_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    for version in versions() {
        let cases: Vec<SigningCase> = vectors::load(&format!("config/{version}/signing.json"));
        vectors::each(&version, &cases, |_, case| {
            assert!(case.unknown.is_empty(), "{:?}", case.unknown);
            fs::write(&path, &case.state_file).unwrap();
            let state = SignState::load(&path).unwrap();
            state.save(&path).unwrap();
            assert_eq!(
                fs::read_to_string(&path).unwrap(),
                case.state_file,
                "{}",
                case.name
            );
        });
    }
}
