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
    crate::run::run(prepared, live)
}
