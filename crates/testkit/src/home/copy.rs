//! Further homes of a chain that was made.

use std::{fs, io, path::Path};

use anyhow::{Context as _, ensure};
use perihelion_node::files::{SignState, ValidatorKey, create_folder, generate_node_key};

/// What of the chain a copy begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyData {
    /// Nothing: a node that has everything to sync.
    None,
    /// All of it, in files of its own.
    Copied,
    /// All of it; files that a database never changes are the same ones on disk. For many servers
    /// of one large chain.
    Linked,
}

/// Makes another node of the chain in `from`, which does not run: configuration and genesis are
/// copied, its keys are its own.
///
/// # Errors
/// When `to` holds a home already, or a file cannot be read or written.
pub fn copy_home(from: &Path, to: &Path, data: CopyData) -> anyhow::Result<()> {
    let config = to.join("config");
    ensure!(
        !config.join("genesis.json").exists(),
        "{} holds a home already: remove it, or choose another folder",
        to.display()
    );
    create_folder(&config)?;
    create_folder(&to.join("data"))?;
    for name in ["config.toml", "genesis.json"] {
        fs::copy(from.join("config").join(name), config.join(name))
            .with_context(|| format!("cannot copy {name} of {}", from.display()))?;
    }
    generate_node_key(&config.join("node_key.json"))?;
    ValidatorKey::generate().save_new(&config.join("priv_validator_key.json"))?;
    let copied = match data {
        CopyData::None => Ok(()),
        CopyData::Copied => copy_folder(&from.join("data"), &to.join("data"), |_| false),
        CopyData::Linked => copy_folder(&from.join("data"), &to.join("data"), never_changes),
    };
    copied.with_context(|| format!("cannot copy the data of {}", from.display()))?;
    SignState::default().save(&to.join("data/priv_validator_state.json"))?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path, is_linked: fn(&Path) -> bool) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &target, is_linked)?;
        } else if is_linked(&path) {
            fs::hard_link(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// Tables and blobs are written once, by RocksDB and by CometBFT's LevelDB.
fn never_changes(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| ["sst", "blob", "ldb"].iter().any(|it| extension == *it))
}
