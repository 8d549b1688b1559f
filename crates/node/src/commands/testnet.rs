//! `testnet`: the homes of a network.

use std::{fs, net::Ipv4Addr, path::Path};

use anyhow::Context as _;
use perihelion_types::Height;

use super::{
    Configured, Context,
    arguments::Testnet,
    init::{genesis_validator, make_home},
    output,
};
use crate::{
    config::{self, Config, ConfigError, Overrides, Problem},
    files::{self, genesis_json, load_node_key, new_genesis, write_atomically},
};

/// Power of each validator.
const POWER: i64 = 1;

pub(super) fn run(context: &Context, options: &Testnet) -> anyhow::Result<()> {
    let total = options
        .validators
        .checked_add(options.others)
        .context("too many nodes")?;
    anyhow::ensure!(
        options.validators > 0,
        "testnet --v 0: no chain begins without a validator, at least 1 is needed"
    );
    anyhow::ensure!(
        options.hostname.is_empty() || options.hostname.len() == total as usize,
        "testnet needs precisely {total} hostnames (number of validators plus non-validators) if --hostname parameter is used",
    );
    let base = base_config(context, options)?.logged()?;
    let hosts = (0..total)
        .map(|index| host(options, index))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let initial_height = i64::try_from(options.initial_height)
        .context("--initial-height is beyond the largest height")?
        .max(1);

    let mut homes = Vec::new();
    let mut validators = Vec::new();
    for index in 0..total {
        let name = format!("{}{index}", options.node_dir_prefix);
        let config = base.with_home(&options.output.join(&name));
        refuse_used(&config)?;
        let key = make_home(&config)?;
        if index < options.validators {
            validators.push(genesis_validator(&key, POWER, &name));
        }
        homes.push(config);
    }
    let chain_id = format!("chain-{}", files::random_text(6));
    let genesis = genesis_json(&new_genesis(
        chain_id,
        Height::new(initial_height),
        validators,
    ));
    let peers = persistent_peers(&homes, &hosts, options.p2p_port)?;
    for (index, mut config) in homes.into_iter().enumerate() {
        write_atomically(&config.genesis_file(), genesis.as_bytes(), 0o644)?;
        config.p2p.addr_book_strict = false;
        config.p2p.allow_duplicate_ip = true;
        if options.populate_persistent_peers {
            config.p2p.persistent_peers.clone_from(&peers);
        }
        config.base.moniker = moniker(options, &hosts[index]);
        write_atomically(&config.file(), config::write(&config).as_bytes(), 0o644)?;
    }
    output::line(&format!(
        "Successfully initialized {total} node directories"
    ));
    Ok(())
}

/// The configuration that all begin with: that of `--config`, else the defaults.
fn base_config(context: &Context, options: &Testnet) -> anyhow::Result<Configured> {
    let log_level = context.overrides.flags.get("log_level");
    let mut configured = match options.config.as_str() {
        "" => Configured {
            config: Config::new(Path::new("")),
            warnings: Vec::new(),
        },
        path => read_config(Path::new(path))?,
    };
    if let Some(flag) = log_level {
        configured.config.base.log_level.clone_from(&flag.value);
    }
    Ok(configured)
}

fn read_config(path: &Path) -> anyhow::Result<Configured> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("--config {} cannot be read", path.display()))?;
    let reading = config::read(Path::new(""), path, &text, &Overrides::default());
    let (warnings, wrong): (Vec<_>, Vec<_>) =
        reading.problems.into_iter().partition(Problem::is_warning);
    if !wrong.is_empty() {
        return Err(ConfigError::Wrong(wrong).into());
    }
    Ok(Configured {
        config: reading.config,
        warnings,
    })
}

/// A home whose chain has begun is not made anew.
fn refuse_used(config: &Config) -> anyhow::Result<()> {
    let genesis = config.genesis_file();
    anyhow::ensure!(
        !genesis.exists(),
        "{} exists already: choose another folder with --o, or remove it",
        genesis.display()
    );
    Ok(())
}

fn host(options: &Testnet, index: u32) -> anyhow::Result<String> {
    if let Some(name) = options.hostname.get(index as usize) {
        return Ok(name.clone());
    }
    let start = &options.starting_ip_address;
    if start.is_empty() {
        let (prefix, suffix) = (&options.hostname_prefix, &options.hostname_suffix);
        return Ok(format!("{prefix}{index}{suffix}"));
    }
    let first: Ipv4Addr = start
        .parse()
        .ok()
        .with_context(|| format!("--starting-ip-address {start:?} is no IPv4 address"))?;
    let address = u32::from(first)
        .checked_add(index)
        .with_context(|| format!("--starting-ip-address {start}: no address is left"))?;
    Ok(Ipv4Addr::from(address).to_string())
}

fn persistent_peers(homes: &[Config], hosts: &[String], port: u16) -> anyhow::Result<String> {
    let mut peers = Vec::new();
    for (config, host) in homes.iter().zip(hosts) {
        let id = load_node_key(&config.node_key_file())?
            .public_key()
            .node_id();
        peers.push(format!("{id}@{host}:{port}"));
    }
    Ok(peers.join(","))
}

fn moniker(options: &Testnet, host: &str) -> String {
    let random = options.random_monikers
        || (!options.starting_ip_address.is_empty() && options.hostname.is_empty());
    if random {
        format!("{:016X}", rand::random::<u64>())
    } else {
        host.to_owned()
    }
}
