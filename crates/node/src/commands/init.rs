//! `init`: the files of a new home.

use perihelion_consensus_reactor::privval::WITHOUT_A_COPY;
use perihelion_types::{GenesisValidator, Height};

use super::Context;
use crate::{
    config::{self, Config},
    files::{
        self, FileError, SignState, ValidatorKey, create_folder, generate_node_key, genesis_json,
        load_genesis, load_node_key, new_genesis, write_atomically,
    },
};

/// Power of the one validator of a new chain.
const POWER: i64 = 10;

pub(super) fn run(context: &Context) -> anyhow::Result<()> {
    make_home(&context.configured()?.logged()?)?;
    Ok(())
}

/// Makes whatever of a home is not there yet; what is there is checked and kept.
///
/// # Errors
/// When a file that is there cannot be used, or one cannot be written.
pub(super) fn make_home(config: &Config) -> anyhow::Result<ValidatorKey> {
    make_folders(config)?;
    let file = config.file();
    if !file.exists() {
        write_atomically(
            &file,
            config::write(&Config::new(config.home())).as_bytes(),
            0o644,
        )?;
        tracing::info!(path = %file.display(), "Wrote the configuration");
    }
    let validator = make_validator(config)?;

    let path = config.node_key_file();
    if path.exists() {
        load_node_key(&path)?;
        tracing::info!(path = %path.display(), "Found node key");
    } else {
        generate_node_key(&path)?;
        tracing::info!(path = %path.display(), "Generated node key");
    }

    let path = config.genesis_file();
    if path.exists() {
        load_genesis(&path)?;
        tracing::info!(path = %path.display(), "Found genesis file");
    } else {
        let chain_id = format!("test-chain-{}", files::random_text(6));
        let validators = vec![genesis_validator(&validator, POWER, "")];
        let genesis = new_genesis(chain_id, Height::new(1), validators);
        write_atomically(&path, genesis_json(&genesis).as_bytes(), 0o644)?;
        tracing::info!(path = %path.display(), "Generated genesis file");
    }
    Ok(validator)
}

/// The folders of all files that the configuration names.
fn make_folders(config: &Config) -> Result<(), FileError> {
    create_folder(&config.home().join("config"))?;
    create_folder(&config.home().join("data"))?;
    create_folder(&config.data_dir())?;
    for file in [
        config.genesis_file(),
        config.node_key_file(),
        config.priv_validator_key_file(),
        config.priv_validator_state_file(),
    ] {
        if let Some(folder) = file.parent() {
            create_folder(folder)?;
        }
    }
    Ok(())
}

/// The validator's key and state. A key without its state is not given a new one: nobody knows
/// what it has signed.
fn make_validator(config: &Config) -> anyhow::Result<ValidatorKey> {
    let key_file = config.priv_validator_key_file();
    let state_file = config.priv_validator_state_file();
    let (key, message) = if key_file.exists() {
        let key = ValidatorKey::load(&key_file)?;
        anyhow::ensure!(
            SignState::exists(&state_file)?,
            "{} is there without its state {}. For a key that never signed, \
             `perihelion unsafe-reset-priv-validator` makes one. For one that has, restore the newest \
             copy; without a copy, {WITHOUT_A_COPY}",
            key_file.display(),
            state_file.display()
        );
        SignState::load(&state_file)?;
        (key, "Found private validator")
    } else {
        if SignState::exists(&state_file)? {
            let state = SignState::load(&state_file)?;
            anyhow::ensure!(
                state == SignState::default(),
                "{} says what a key has signed, but {} does not exist: restore the key, or remove the state",
                state_file.display(),
                key_file.display()
            );
        }
        let key = ValidatorKey::generate();
        SignState::default().save(&state_file)?;
        key.save_new(&key_file)?;
        (key, "Generated private validator")
    };
    tracing::info!(
        key_file = %key_file.display(),
        state_file = %state_file.display(),
        "{message}"
    );
    Ok(key)
}

/// A validator's line in a genesis.
pub(super) fn genesis_validator(key: &ValidatorKey, power: i64, name: &str) -> GenesisValidator {
    let pub_key = key.public_key();
    GenesisValidator {
        address: pub_key.address(),
        pub_key,
        power,
        name: name.to_owned(),
    }
}
