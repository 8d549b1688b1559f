//! Log levels in CometBFT's syntax, and the subscriber that follows them.

mod json;

use std::{fmt, io};

use thiserror::Error;
use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    filter::Targets,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
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

/// Names that stand for the crate `perihelion_NAME`, and those of CometBFT's modules that are not
/// here, which a configuration may have all the same.
const OTHERS: [&str; 19] = [
    "abci",
    "abci-server",
    "blocksync-reactor",
    "certify",
    "consensus-reactor",
    "crypto",
    "events",
    "evidence",
    "light",
    "mempool",
    "node",
    "pool",
    "privval",
    "pubsub",
    "rpc-client",
    "schedule",
    "state-sync",
    "statesync",
    "types",
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

    /// The modules that there are not: their levels have no effect.
    #[must_use]
    pub fn unknown_modules(&self) -> Vec<&str> {
        let names = self.modules.iter().map(|(name, _)| name.as_str());
        names
            .filter(|name| !OTHERS.contains(name) && MODULES.iter().all(|(known, _)| known != name))
            .collect()
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

/// The name of the module whose events have this target, as `log_level` takes it: CometBFT's, else
/// that of the crate here.
fn module(target: &str) -> &str {
    let is_in = |path: &str| {
        let rest = target.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let crates = MODULES
        .iter()
        .flat_map(|(name, crates)| crates.iter().map(move |path| (*name, *path)));
    // Of `p2p` and `p2p::pex` the longer one is meant; of two names for one crate, the first.
    let mut found: Option<(&str, &str)> = None;
    for (name, path) in crates.filter(|(_, path)| is_in(path)) {
        if found.is_none_or(|(_, longest)| path.len() > longest.len()) {
            found = Some((name, path));
        }
    }
    let own = || target.strip_prefix("perihelion_")?.split("::").next();
    found.map(|(name, _)| name).or_else(own).unwrap_or(target)
}

/// Lines of time, level, module, message and fields.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (level, module) = (event.metadata().level(), module(event.metadata().target()));
        if writer.has_ansi_escapes() {
            let colour = match *level {
                Level::ERROR => 31,
                Level::WARN => 33,
                Level::INFO => 32,
                Level::DEBUG => 34,
                Level::TRACE => 35,
            };
            write!(writer, "\u{1b}[2m")?;
            SystemTime.format_time(&mut writer)?;
            write!(
                writer,
                "\u{1b}[0m \u{1b}[{colour}m{level:>5}\u{1b}[0m \u{1b}[2m{module}:\u{1b}[0m "
            )?;
        } else {
            SystemTime.format_time(&mut writer)?;
            write!(writer, " {level:>5} {module}: ")?;
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Whether colours may be written: to a terminal that shows them, unless `NO_COLOR` is set.
#[must_use]
pub fn colours(is_terminal: bool, no_color: Option<&str>, term: Option<&str>) -> bool {
    is_terminal && no_color.unwrap_or_default().is_empty() && term != Some("dumb")
}

/// Starts logging to `writer` for the rest of the process. Does nothing when it was started before.
pub fn start<W>(levels: &LogLevels, format: LogFormat, colours: bool, writer: W)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let registry = tracing_subscriber::registry().with(levels.targets());
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let started = match format {
        LogFormat::Plain => registry
            .with(lines.with_ansi(colours).event_format(Lines))
            .try_init(),
        LogFormat::Json => registry
            .with(lines.with_ansi(false).event_format(json::JsonLines))
            .try_init(),
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
    use super::*;

    #[test]
    fn modules_have_the_names_that_levels_are_set_by() {
        for (target, name) in [
            ("perihelion", "main"),
            ("perihelion_node::run", "main"),
            ("perihelion_p2p::switch::tasks", "p2p"),
            ("perihelion_p2p::pex::book", "pex"),
            ("perihelion_p2pool", "p2pool"),
            ("perihelion_pool::routine", "blocksync"),
            ("perihelion_store", "store"),
            ("perihelion_store::index::write", "txindex"),
            ("perihelion_mempool::cache", "mempool"),
            ("hyper::proto", "hyper::proto"),
        ] {
            assert_eq!(module(target), name);
            if target.starts_with("perihelion") && name != "p2pool" {
                let levels = LogLevels::parse(&format!("{name}:debug,*:error")).unwrap();
                assert_eq!(levels.unknown_modules(), Vec::<&str>::new());
                assert!(levels.targets().would_enable(target, &Level::DEBUG));
            }
        }
    }

    #[test]
    fn modules_that_there_are_not() {
        let levels = LogLevels::parse("foo:debug,p2p:info,statesync:debug,*:error").unwrap();
        assert_eq!(levels.unknown_modules(), ["foo"]);
    }

    #[test]
    fn colours_where_they_are_shown_and_wanted() {
        for (is_terminal, no_color, term, expected) in [
            (true, None, Some("xterm"), true),
            (true, None, None, true),
            (true, Some(""), Some("xterm"), true),
            (true, Some("1"), Some("xterm"), false),
            (true, None, Some("dumb"), false),
            (false, None, Some("xterm"), false),
        ] {
            assert_eq!(colours(is_terminal, no_color, term), expected);
        }
    }

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
