//! Binaries, ports and homes.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use perihelion_testkit::{
    network::{NetworkShape, connect},
    process::Launch,
};
use toml_edit::{Array, InlineTable};

use crate::options::Options;

/// What was found to be there before anything is made.
pub(crate) struct Plan {
    perihelion: PathBuf,
    cometbft: Option<CometBft>,
}

struct CometBft {
    program: PathBuf,
    /// Whether its blocks' times follow v0.40's rule.
    is_v040: bool,
}

/// Finds binaries and free ports.
pub(crate) fn plan(options: &Options) -> anyhow::Result<Plan> {
    let perihelion = match &options.perihelion {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("perihelion"),
    };
    ensure!(
        perihelion.is_file(),
        "there is no binary {}: run `make build`, or set PERIHELION to where it is",
        perihelion.display()
    );
    ensure!(
        options.cometbft_validators <= options.validators,
        "COMETBFT_VALIDATORS={} is more than VALIDATORS={}",
        options.cometbft_validators,
        options.validators
    );
    let cometbft = match options.cometbft_validators {
        0 => None,
        _ => Some(find_cometbft(options)?),
    };
    if let Some(problem) = options.app.problem(options.nodes()) {
        bail!(problem);
    }
    check_ports(options)?;
    Ok(Plan {
        perihelion,
        cometbft,
    })
}

fn find_cometbft(options: &Options) -> anyhow::Result<CometBft> {
    let program = options.cometbft.clone().with_context(|| {
        format!(
            "COMETBFT_VALIDATORS={} needs CometBFT: set COMETBFT to its binary",
            options.cometbft_validators
        )
    })?;
    let output = Command::new(&program).arg("version").output();
    let output = output.with_context(|| format!("COMETBFT={} cannot be run", program.display()))?;
    let version = String::from_utf8_lossy(&output.stdout);
    let version = version.trim().trim_start_matches('v');
    ensure!(
        ["0.38.", "0.39.", "0.40."]
            .iter()
            .any(|known| version.starts_with(known)),
        "COMETBFT={} is version {version:?}: v0.38 to v0.40 are known",
        program.display()
    );
    Ok(CometBft {
        is_v040: version.starts_with("0.40."),
        program,
    })
}

/// Ports of node `number`: for peers; those for clients and metrics are above.
fn port(options: &Options, number: u16) -> Option<u16> {
    let port = options.base_port.checked_add(number.checked_mul(10)?)?;
    (port > 0 && port < u16::MAX - 1).then_some(port)
}

fn check_ports(options: &Options) -> anyhow::Result<()> {
    let nodes = options.nodes();
    for number in 0..nodes {
        let port = port(options, number).with_context(|| {
            format!(
                "BASE_PORT={} is too high: {nodes} nodes need {} ports above it",
                options.base_port,
                u32::from(nodes) * 10
            )
        })?;
        for port in [port, port + 1, port + 2] {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => {
                    anyhow!("port {port} may not be used by you: set BASE_PORT to one above 1023")
                }
                _ => anyhow!(
                    "port {port} is in use: stop what has it, or set BASE_PORT to another ({error})"
                ),
            })?;
        }
    }
    Ok(())
}

/// Makes the homes; tells how the nodes are started, validators first.
pub(crate) fn make(options: &Options, plan: &Plan, folder: &Path) -> anyhow::Result<Vec<Launch>> {
    let shape =
        NetworkShape::new("localnet", options.validators.into()).others(options.full_nodes.into());
    let mut launches = shape.make(folder, &plan.perihelion)?;
    let theirs = options.validators - options.cometbft_validators..options.validators;
    for (number, launch) in (0..).zip(&mut launches) {
        let port = port(options, number).context("it was free before")?;
        launch.p2p_port = port;
        launch.rpc_port = port + 1;
        let metrics = format!("127.0.0.1:{}", port + 2);
        let mut set = |key: &str, value: toml_edit::Value| {
            launch.config.push((key.to_owned(), value));
        };
        let application = options.app.of(number).context("it was looked at before")?;
        set("proxy_app", application.into());
        set("instrumentation.prometheus", true.into());
        set("instrumentation.prometheus_listen_addr", metrics.into());
        if let Some(cometbft) = &plan.cometbft {
            if theirs.contains(&number) {
                launch.program.clone_from(&cometbft.program);
                launch.name += " (CometBFT)";
            } else if cometbft.is_v040 {
                set("perihelion.median_time", v040());
            }
        }
    }
    connect(&mut launches, options.validators.into())?;
    Ok(launches)
}

/// v0.40's rule for block times from the first height on.
fn v040() -> toml_edit::Value {
    let mut rule = InlineTable::new();
    rule.insert("from_height", 1.into());
    rule.insert("rule", "v0.40".into());
    Array::from_iter([rule]).into()
}
