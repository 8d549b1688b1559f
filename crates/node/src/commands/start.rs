//! `start`.

use super::{Context, start_flags::StartFlags};
use crate::prepare::{self, Prepared};

/// Loads and checks everything, and then runs the node until it is told to stop.
pub(super) fn run(context: &Context, options: &StartFlags) -> anyhow::Result<()> {
    let config = context.existing_config()?;
    Context::start_logging(&config)?;
    let prepared = prepare::prepare(config, options.genesis_hash.map(|hash| hash.0))?;
    if !prepared.foreign_data.is_empty() {
        tracing::warn!("{}", prepare::foreign_data_message(&prepared.foreign_data));
    }
    run_prepared(prepared)
}

/// Runs a node.
fn run_prepared(prepared: Prepared) -> anyhow::Result<()> {
    tracing::info!(
        chain_id = prepared.genesis.chain_id,
        node_id = %prepared.node_key.public_key().node_id(),
        home = %prepared.config.home().display(),
        "The home is in order"
    );
    Ok(())
}
