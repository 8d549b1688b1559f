//! Networks of real processes on loopback: the homes of validators and other nodes of one chain.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use perihelion_node::{
    config::{self, Config},
    files::{
        SignState, ValidatorKey, create_folder, generate_node_key, genesis_json, new_genesis,
        write_atomically,
    },
};
use perihelion_types::{GenesisValidator, Height};

use crate::{
    home::{CopyData, MadeChain, copy_home, validator_key},
    process::Launch,
};

/// A network that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkShape {
    /// The chain's id, 1 to 50 bytes.
    pub chain_id: String,
    /// The power of each validator of the genesis, at least one, each positive.
    pub powers: Vec<i64>,
    /// Further nodes, with keys of their own that are in no set.
    pub others: usize,
    /// Vote extensions from this height on; 0 for never.
    pub extensions_height: i64,
}

impl NetworkShape {
    /// So many validators of equal power, and no other nodes.
    #[must_use]
    pub fn new(chain_id: &str, validators: usize) -> Self {
        Self {
            chain_id: chain_id.to_owned(),
            powers: vec![10; validators],
            others: 0,
            extensions_height: 0,
        }
    }

    /// The same with so many further nodes.
    #[must_use]
    pub fn others(mut self, others: usize) -> Self {
        self.others = others;
        self
    }

    /// Makes the homes of all nodes, validators first, as `node0`, `node1`, … below `folder`, and
    /// tells how they are started: by `program` on free ports, connected as by [`connect`].
    ///
    /// # Errors
    /// When a home is there already, or cannot be written.
    pub fn make(&self, folder: &Path, program: &Path) -> anyhow::Result<Vec<Launch>> {
        ensure!(!self.powers.is_empty(), "a network has validators");
        let homes: Vec<_> = (0..self.powers.len() + self.others)
            .map(|node| folder.join(format!("node{node}")))
            .collect();
        let mut validators = Vec::new();
        for (node, home) in homes.iter().enumerate() {
            let key = ValidatorKey::generate();
            make_home(home, &key)?;
            if let Some(&power) = self.powers.get(node) {
                let pub_key = key.public_key();
                validators.push(GenesisValidator {
                    address: pub_key.address(),
                    pub_key,
                    power,
                    name: format!("node{node}"),
                });
            }
        }
        let mut genesis = new_genesis(self.chain_id.clone(), Height::new(1), validators);
        genesis.consensus_params.abci.vote_extensions_enable_height = self.extensions_height;
        let genesis = genesis_json(&genesis);
        for home in &homes {
            let file = home.join("config/genesis.json");
            write_atomically(&file, genesis.as_bytes(), 0o644)?;
        }
        connected(&homes, self.powers.len(), program)
    }
}

/// Homes of the validators of a chain that was made by [`make_home`](crate::home::make_home), of
/// the same `seed`, and of `others` that have nothing yet: all as [`NetworkShape::make`] has them.
/// The validators begin with the whole chain and go on with it.
///
/// # Errors
/// When a home is there already, or cannot be written.
pub fn go_on_with(
    chain: &MadeChain,
    seed: u64,
    validators: u32,
    others: usize,
    folder: &Path,
    program: &Path,
) -> anyhow::Result<Vec<Launch>> {
    let mut homes = Vec::new();
    for number in 0..validators {
        let home = folder.join(format!("node{number}"));
        copy_home(&chain.home, &home, CopyData::Linked)?;
        become_validator(
            &home,
            chain,
            &ValidatorKey {
                key: validator_key(seed, number),
            },
        )?;
        homes.push(home);
    }
    for _ in 0..others {
        let home = folder.join(format!("node{}", homes.len()));
        copy_home(&chain.home, &home, CopyData::None)?;
        homes.push(home);
    }
    connected(&homes, validators as usize, program)
}

/// Puts the chain of another home, with the same genesis, in the place of what a stopped node has:
/// as if it had gone on for some time. Keys stay.
///
/// # Errors
/// When a file cannot be read or written.
pub fn move_on_to(launch: &Launch, chain: &MadeChain) -> anyhow::Result<()> {
    let key_file = launch.home.join("config/priv_validator_key.json");
    let key = ValidatorKey::load(&key_file)?;
    // Beside the home: files are linked and renamed.
    let beside = launch.home.parent().context("a home is in a folder")?;
    let kept = tempfile::tempdir_in(beside)?;
    copy_home(&chain.home, kept.path(), CopyData::Linked)?;
    fs::remove_dir_all(launch.home.join("data"))?;
    fs::rename(kept.path().join("data"), launch.home.join("data"))?;
    become_validator(&launch.home, chain, &key)
}

/// Gives a home a validator's key. The chain is signed by it: only what comes after may be.
fn become_validator(home: &Path, chain: &MadeChain, key: &ValidatorKey) -> anyhow::Result<()> {
    let file = home.join("config/priv_validator_key.json");
    fs::remove_file(&file)?;
    key.save_new(&file)?;
    let signed = SignState {
        height: chain.height.get(),
        round: i32::MAX,
        step: 3,
        ..SignState::default()
    };
    signed.save(&home.join("data/priv_validator_state.json"))?;
    Ok(())
}

/// How nodes in these homes are started: on free ports, connected as by [`connect`].
fn connected(homes: &[PathBuf], validators: usize, program: &Path) -> anyhow::Result<Vec<Launch>> {
    let mut launches = Vec::new();
    for home in homes {
        let name = home.file_name().unwrap_or_default().to_string_lossy();
        launches.push(Launch::new(&name, program, home)?);
    }
    connect(&mut launches, validators)?;
    Ok(launches)
}

/// Makes each node dial all `validators` (the first so many) but itself, again and again. Nobody
/// dials the others: who has a peer that is not there yet waits for it before it counts as caught
/// up.
///
/// # Errors
/// When a home has no node key.
pub fn connect(launches: &mut [Launch], validators: usize) -> anyhow::Result<()> {
    let addresses = launches
        .iter()
        .take(validators)
        .map(Launch::address)
        .collect::<anyhow::Result<Vec<_>>>()?;
    for (number, launch) in launches.iter_mut().enumerate() {
        let others = addresses.iter().enumerate();
        let others = others.filter(|(other, _)| *other != number);
        launch.persistent_peers = others.map(|(_, address)| address.clone()).collect();
    }
    Ok(())
}

/// A home with configuration and keys, but without a genesis.
fn make_home(home: &Path, key: &ValidatorKey) -> anyhow::Result<()> {
    create_folder(&home.join("config"))?;
    create_folder(&home.join("data"))?;
    let config = Config::new(home);
    write_atomically(&config.file(), config::write(&config).as_bytes(), 0o644)?;
    generate_node_key(&config.node_key_file())?;
    key.save_new(&config.priv_validator_key_file())?;
    SignState::default().save(&config.priv_validator_state_file())?;
    Ok(())
}
