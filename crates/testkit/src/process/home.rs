//! Homes of nodes.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use perihelion_node::files::load_node_key;
use toml_edit::{DocumentMut, Item, Table, value};

/// Changes keys, named with dots, of `config/config.toml` in a home.
///
/// # Errors
/// When the file cannot be read, is not TOML, or cannot be written.
pub fn edit_config<'a>(
    home: &Path,
    edits: impl IntoIterator<Item = (&'a str, toml_edit::Value)>,
) -> anyhow::Result<()> {
    let path = home.join("config/config.toml");
    let content =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut document: DocumentMut = content
        .parse()
        .with_context(|| format!("{} is not TOML", path.display()))?;
    for (key, new) in edits {
        let mut table = document.as_table_mut();
        let mut name = key;
        while let Some((section, rest)) = name.split_once('.') {
            table = table
                .entry(section)
                .or_insert(Item::Table(Table::new()))
                .as_table_mut()
                .with_context(|| format!("{section} of {key} is no table"))?;
            name = rest;
        }
        table.insert(name, value(new));
    }
    fs::write(&path, document.to_string())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The identity of the node in a home.
///
/// # Errors
/// When there is no node key.
pub fn node_id(home: &Path) -> anyhow::Result<String> {
    let key = load_node_key(&home.join("config/node_key.json"))?;
    Ok(key.public_key().node_id().to_string())
}

/// Makes a home by the binary's own `init` (either node's), and gives it the genesis of another.
///
/// # Errors
/// When the binary fails, or the genesis cannot be copied.
pub fn init_home(program: &Path, home: &Path, genesis_of: &Path) -> anyhow::Result<()> {
    init(program, home)?;
    let genesis = "config/genesis.json";
    fs::copy(genesis_of.join(genesis), home.join(genesis))
        .with_context(|| format!("cannot copy the genesis of {}", genesis_of.display()))?;
    Ok(())
}

/// Makes a home by the binary's own `init` (either node's): a chain of its own with itself as the
/// only validator.
///
/// # Errors
/// When the binary is not there, or fails.
pub fn init(program: &Path, home: &Path) -> anyhow::Result<()> {
    ensure!(
        program.is_file(),
        "there is no binary {}: build it first, or name one that is there",
        program.display()
    );
    let output = Command::new(program)
        .arg("init")
        .arg("--home")
        .arg(home)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} init: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
