//! Log levels in CometBFT's syntax, and the subscriber that follows them.

use std::io;

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    filter::Targets, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::LogFormat;

/// CometBFT's module names, and the crates here that do their work. A name that is not here
/// stands for the crate `perihelion_NAME`.
const MODULES: [(&str, &[&str]); 12] = [
    ("main", &["perihelion", "perihelion_node"]),
    (
        "blocksync",
        &[
            "perihelion_pool",
            "perihelion_schedule",
            "perihelion_blocksync_reactor",
            "perihelion_certify",
        ],
    ),
    ("p2p", &["perihelion_p2p"]),
    ("pex", &["perihelion_p2p::pex"]),
    ("state", &["perihelion_state"]),
    ("store", &["perihelion_store"]),
    ("txindex", &["perihelion_store::index"]),
    ("rpc", &["perihelion_rpc"]),
    ("rpc-server", &["perihelion_rpc"]),
    ("abci-client", &["perihelion_abci"]),
    ("proxy", &["perihelion_abci"]),
    (
        "consensus",
        &["perihelion_consensus", "perihelion_consensus_reactor"],
    ),
];

/// A `log_level` that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogLevelError {
    /// Nothing was given.
    #[error("is empty: write info, or a list such as p2p:debug,*:error")]
    Empty,
    /// No such level.
    #[error("{0:?} is no level: write debug, info, warn, error or none")]
    Level(String),
    /// An entry of a list that is no pair.
    #[error("{0:?} is no pair: write MODULE:LEVEL, with commas between pairs")]
    Pair(String),
}

/// Levels by module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevels {
    default: LevelFilter,
    modules: Vec<(String, LevelFilter)>,
}

impl LogLevels {
    /// Reads a level for all (`info`), or pairs of module and level (`p2p:debug,*:error`), `*` being
    /// all other modules; without it they have `info`. `warn` and `trace` are ours.
    ///
    /// # Errors
    /// Names the part that cannot be read.
    pub fn parse(text: &str) -> Result<Self, LogLevelError> {
        if text.is_empty() {
            return Err(LogLevelError::Empty);
        }
        let mut levels = Self {
            default: LevelFilter::INFO,
            modules: Vec::new(),
        };
        if !text.contains(':') {
            levels.default = level(text)?;
            return Ok(levels);
        }
        for pair in text.split(',') {
            let (module, name) = pair
                .split_once(':')
                .filter(|(module, _)| !module.is_empty())
                .ok_or_else(|| LogLevelError::Pair(pair.to_owned()))?;
            if module == "*" {
                levels.default = level(name)?;
            } else {
                levels.modules.push((module.to_owned(), level(name)?));
            }
        }
        Ok(levels)
    }

    /// The filter by the targets of events.
    #[must_use]
    pub fn targets(&self) -> Targets {
        let mut targets = Targets::new().with_default(self.default);
        for (module, level) in &self.modules {
            match MODULES.iter().find(|(name, _)| name == module) {
                Some((_, crates)) => {
                    targets = targets.with_targets(crates.iter().map(|name| (*name, *level)));
                }
                None => {
                    let target = format!("perihelion_{}", module.replace('-', "_"));
                    targets = targets.with_target(target, *level);
                }
            }
        }
        targets
    }
}

fn level(name: &str) -> Result<LevelFilter, LogLevelError> {
    Ok(match name {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" => LevelFilter::WARN,
        "error" => LevelFilter::ERROR,
        "none" => LevelFilter::OFF,
        _ => return Err(LogLevelError::Level(name.to_owned())),
    })
}

/// Starts logging to `writer` for the rest of the process. Does nothing when it was started before.
pub fn start<W>(levels: &LogLevels, format: LogFormat, colours: bool, writer: W)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let registry = tracing_subscriber::registry().with(levels.targets());
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let started = match format {
        LogFormat::Plain => registry.with(lines.with_ansi(colours)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    // An embedding program that logs already keeps its own subscriber.
    drop(started);
}

/// Standard output, as CometBFT logs to it.
#[must_use]
pub fn stdout() -> impl for<'w> MakeWriter<'w> + Send + Sync + 'static {
    io::stdout
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_by_module() {
        let targets = LogLevels::parse("p2p:debug,blocksync:none,*:error")
            .unwrap()
            .targets();
        assert!(targets.would_enable("perihelion_p2p::switch", &Level::DEBUG));
        assert!(!targets.would_enable("perihelion_p2p::switch", &Level::TRACE));
        assert!(!targets.would_enable("perihelion_pool", &Level::ERROR));
        assert!(!targets.would_enable("perihelion_schedule", &Level::ERROR));
        assert!(targets.would_enable("perihelion_rpc", &Level::ERROR));
        assert!(!targets.would_enable("perihelion_rpc", &Level::INFO));
    }

    #[test]
    fn other_modules_have_info_unless_said() {
        let targets = LogLevels::parse("mempool:error").unwrap().targets();
        assert!(targets.would_enable("perihelion_p2p", &Level::INFO));
        assert!(!targets.would_enable("perihelion_p2p", &Level::DEBUG));
        assert!(!targets.would_enable("perihelion_mempool", &Level::INFO));
    }

    #[test]
    fn wrong_levels_are_named() {
        for (text, error) in [
            ("", LogLevelError::Empty),
            ("loud", LogLevelError::Level("loud".into())),
            ("p2p:loud", LogLevelError::Level("loud".into())),
            ("p2p:info,rpc", LogLevelError::Pair("rpc".into())),
            (":info", LogLevelError::Pair(":info".into())),
            ("p2p:info:x", LogLevelError::Level("info:x".into())),
        ] {
            assert_eq!(LogLevels::parse(text), Err(error), "{text}");
        }
    }
}
