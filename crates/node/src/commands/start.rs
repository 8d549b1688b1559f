//! `start`.

use super::{Context, start_flags::StartFlags};
use crate::{config::ProgressDisplay, prepare, progress::LiveLine};

/// Loads and checks everything, and then runs the node until it is told to stop.
pub(super) fn run(context: &Context, options: &StartFlags) -> anyhow::Result<()> {
    let configured = context.existing()?;
    let live = match configured.config.perihelion.progress {
        ProgressDisplay::Auto => LiveLine::on_terminal(),
        ProgressDisplay::Log | ProgressDisplay::None => None,
    };
    let config = configured.logged_above(live.as_ref())?;
    let mut prepared = prepare::prepare(config, options.genesis_hash.map(|hash| hash.0))?;
    prepared.may_stand_in &= !context.overrides.sets("proxy_app");
    if !prepared.foreign_data.is_empty() {
        tracing::warn!("{}", prepare::foreign_data_message(&prepared.foreign_data));
    }
    // What boltdb keeps in a file a folder would stand in the way of.
    if prepared.config.base.db_backend != "boltdb" {
        let data = prepared.config.data_dir();
        prepared.cometbft.keep_out(&data)?;
    }
    crate::run::run(prepared, live)
}
