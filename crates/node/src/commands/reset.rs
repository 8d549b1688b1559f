//! Commands that remove data.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use perihelion_store::{StoreLock, lock_store};

use super::Context;
use crate::{
    cometbft::{CometBftError, CometBftLocks},
    config::Config,
    files::{SignState, ValidatorKey, create_folder},
    home,
};

/// What `reset-state` removes from the data folder: our database and CometBFT's.
const DATA: [&str; 6] = [
    home::DATABASE,
    "blockstore.db",
    "state.db",
    "cs.wal",
    "evidence.db",
    "tx_index.db",
];

pub(super) fn all(context: &Context, keep_addr_book: bool) -> anyhow::Result<()> {
    let config = context.configured()?.logged()?;
    let data = config.data_dir();
    refuse_to_remove(&data, &config)?;
    let key = existing_key(&config.priv_validator_key_file())?;
    // Whatever is in the folder goes with it.
    let _stopped = no_node_runs(&config, CometBftLocks::of_all)?;
    if keep_addr_book {
        tracing::info!("The address book remains intact");
    } else {
        remove(&config.addr_book_file(), "address book")?;
    }
    remove(&data, "all blockchain history")?;
    create_folder(&data)?;
    reset_validator(key, &config)
}

pub(super) fn state(context: &Context) -> anyhow::Result<()> {
    let config = context.configured()?.logged()?;
    let data = config.data_dir();
    let _stopped = no_node_runs(&config, CometBftLocks::of_a_node)?;
    for name in DATA {
        remove(&data.join(name), name)?;
    }
    create_folder(&data)?;
    Ok(())
}

pub(super) fn validator(context: &Context) -> anyhow::Result<()> {
    let config = context.configured()?.logged()?;
    let key = existing_key(&config.priv_validator_key_file())?;
    let _stopped = no_node_runs(&config, CometBftLocks::of_a_node)?;
    reset_validator(key, &config)
}

/// Keeps nodes, CometBFT's too, from this home as long as the value lives; a node that runs there is
/// an error. So is a home that is not there: its name was mistyped.
fn no_node_runs(
    config: &Config,
    databases: fn(&Path) -> Result<CometBftLocks, CometBftError>,
) -> anyhow::Result<(StoreLock, CometBftLocks)> {
    let data = config.data_dir();
    anyhow::ensure!(
        config.home().is_dir(),
        "{} is no folder: pass --home with the home that is meant",
        config.home().display()
    );
    Ok((lock_store(&data)?, databases(&data)?))
}

/// The key, when there is one. A damaged key stops a command before anything is removed.
fn existing_key(path: &Path) -> anyhow::Result<Option<ValidatorKey>> {
    Ok(if path.exists() {
        Some(ValidatorKey::load(path)?)
    } else {
        None
    })
}

fn reset_validator(key: Option<ValidatorKey>, config: &Config) -> anyhow::Result<()> {
    let key_file = config.priv_validator_key_file();
    let state_file = config.priv_validator_state_file();
    for file in [&key_file, &state_file] {
        if let Some(folder) = file.parent() {
            create_folder(folder)?;
        }
    }
    SignState::default().save(&state_file)?;
    let message = if key.is_some() {
        "Reset private validator file to genesis state"
    } else {
        ValidatorKey::generate().save_new(&key_file)?;
        "Generated private validator file"
    };
    tracing::info!(
        key_file = %key_file.display(),
        state_file = %state_file.display(),
        "{message}"
    );
    Ok(())
}

/// A data folder that holds the home, its configuration or the root cannot be meant.
fn refuse_to_remove(data: &Path, config: &Config) -> anyhow::Result<()> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let data_folder = real(data);
    let kept: [PathBuf; 3] = [
        real(config.home()),
        real(&config.home().join("config")),
        real(&config.priv_validator_key_file()),
    ];
    if let Some(inside) = kept.iter().find(|path| path.starts_with(&data_folder)) {
        anyhow::bail!(
            "db_dir is {}, which holds {}: it is not removed; set db_dir to a folder of its own",
            data.display(),
            inside.display()
        );
    }
    Ok(())
}

/// Removes a file or folder when it is there.
fn remove(path: &Path, what: &str) -> anyhow::Result<()> {
    let folder = match path.symlink_metadata() {
        Ok(data) => data.is_dir(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
    };
    let removed = if folder {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.with_context(|| format!("{} cannot be removed", path.display()))?;
    tracing::info!(path = %path.display(), "Removed {what}");
    Ok(())
}
