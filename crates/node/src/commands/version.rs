//! `version`.

use serde::Serialize;

use super::{arguments::Version, output};
use crate::config::COMETBFT_VERSION;

/// Versions of the protocols.
#[derive(Debug, Serialize)]
struct Versions {
    perihelion: &'static str,
    /// The CometBFT version that the node presents itself as.
    cometbft: &'static str,
    abci: &'static str,
    block_protocol: u64,
    p2p_protocol: u64,
}

pub(super) fn run(options: &Version) -> anyhow::Result<()> {
    let versions = Versions {
        perihelion: env!("CARGO_PKG_VERSION"),
        cometbft: COMETBFT_VERSION,
        abci: "2.0.0",
        block_protocol: 11,
        p2p_protocol: 8,
    };
    if options.verbose {
        output::line(&serde_json::to_string_pretty(&versions)?);
    } else {
        output::line(versions.perihelion);
    }
    Ok(())
}
