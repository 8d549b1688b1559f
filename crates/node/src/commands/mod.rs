//! The command line: CometBFT's commands and flags, and a few of our own.
//!
//! Whatever fails prints `ERROR: …` on standard error and ends with exit code 1. As with CometBFT,
//! arguments that a command does not need are passed by, and global flags may stand before or
//! after the command.

mod abci;
mod arguments;
mod bench;
mod check;
mod init;
mod keys;
mod output;
mod reset;
mod start;
mod start_flags;
mod status;
mod testnet;
mod version;

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use anyhow::Context as _;
use arguments::{Arguments, Command};
use clap::{
    Parser as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    config::{Config, ConfigError, Flag, Overrides, Problem},
    home, logging,
    logging::LogLevels,
    progress::LiveLine,
};

/// The environment of this process, without what is no Unicode.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Where a command works and what was said besides the file.
struct Context {
    home: PathBuf,
    /// Whether the command line names the home.
    names_home: bool,
    overrides: Overrides,
}

impl Context {
    /// The configuration; a home without a file has the defaults.
    fn config(&self) -> Result<Config, ConfigError> {
        self.configured().map(|configured| configured.config)
    }

    /// The same with what is to be said of it; a home without a file has the defaults.
    fn configured(&self) -> Result<Configured, ConfigError> {
        let (config, warnings) = Config::load(&self.home, &self.overrides)?;
        Ok(Configured { config, warnings })
    }

    /// The same of a home that must have a file.
    fn existing(&self) -> Result<Configured, ConfigError> {
        let path = Config::new(&self.home).file();
        if path.exists() {
            return self.configured();
        }
        // A home that cannot be entered must not look like one without a file.
        match std::fs::metadata(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(ConfigError::Read { path, source })
            }
            _ => Err(ConfigError::Missing {
                path,
                home: self.home.clone(),
            }),
        }
    }
}

/// A configuration, and what in it has no effect: to be logged, as soon as it is known how.
struct Configured {
    config: Config,
    warnings: Vec<Problem>,
}

impl Configured {
    /// Logs as the configuration says, from the warnings on.
    fn logged(self) -> anyhow::Result<Config> {
        self.logged_above(None)
    }

    /// Logs as the configuration says, above the live line when there is one.
    fn logged_above(self, live: Option<&LiveLine>) -> anyhow::Result<Config> {
        let Self { config, warnings } = self;
        let levels = LogLevels::parse(&config.base.log_level).context("log_level")?;
        let set = |name| std::env::var(name).ok();
        let colours = logging::colours(
            std::io::IsTerminal::is_terminal(&std::io::stdout()),
            set("NO_COLOR").as_deref(),
            set("TERM").as_deref(),
        );
        let writer = live.map(LiveLine::log_writer).unwrap_or_default();
        logging::start(&levels, config.base.log_format, colours, writer);
        for warning in warnings {
            tracing::warn!("{warning}: it has no effect");
        }
        for module in levels.unknown_modules() {
            tracing::warn!("log_level: there is no module {module:?}: it has no effect");
        }
        Ok(config)
    }
}

/// What the process tells whoever started it.
const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;

/// Runs the command line `arguments`, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) => return not_understood(&error),
    };
    match execute(parsed) {
        Ok(()) => SUCCESS,
        Err(error) => {
            output::error(&told_once(&error));
            FAILURE
        }
    }
}

/// The error and its causes, without those that an error above has told already.
fn told_once(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Answers a command line that asks for help, or that is wrong.
fn not_understood(error: &clap::Error) -> u8 {
    let text = error.render().to_string();
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        output::write(&text);
        return SUCCESS;
    }
    let mut paragraphs = text.trim_start_matches("error: ").split("\n\n");
    let what = paragraphs.next().unwrap_or_default().replace('\n', " ");
    let suggestions = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand];
    let nearest = suggestions
        .into_iter()
        .find_map(|kind| match error.get(kind)? {
            ContextValue::String(name) => Some(name.clone()),
            // The best stands last.
            ContextValue::Strings(names) => names.last().cloned(),
            _ => None,
        });
    let nearest = nearest.map_or(String::new(), |name| format!(": did you mean {name}?"));
    output::error(&format!(
        "{what}{nearest} (`perihelion help` lists commands and flags)"
    ));
    FAILURE
}

fn execute(arguments: Arguments) -> anyhow::Result<()> {
    // These need no home.
    match &arguments.command {
        Command::Version(options) => return version::run(options),
        Command::GenValidator(_) => return keys::gen_validator(),
        Command::Completion(options) => return keys::completion(options),
        Command::Bench(options) => return bench::run(options),
        Command::Abci(options) => {
            return abci::run(&options.application, arguments.log_level.as_deref());
        }
        _ => {}
    }
    let environment = environment();
    let home = home::resolve(arguments.home.clone(), &environment)?;
    let mut flags = BTreeMap::new();
    if let Some(value) = arguments.log_level.clone() {
        let name = "log_level".to_owned();
        flags.insert(name.clone(), Flag { name, value });
    }
    if let Command::Start(options) = &arguments.command {
        flags.extend(options.flags());
    }
    let context = Context {
        home,
        names_home: arguments.home.is_some(),
        overrides: Overrides { environment, flags },
    };
    match arguments.command {
        Command::Init(_) => init::run(&context),
        Command::ShowNodeId(options) => keys::show_node_id(&context, options.libp2p),
        Command::GenNodeKey(_) => keys::gen_node_key(&context),
        Command::ShowValidator(_) => keys::show_validator(&context),
        Command::UnsafeResetAll(options) => reset::all(&context, options.keep_addr_book),
        Command::UnsafeResetPrivValidator(_) => reset::validator(&context),
        Command::ResetState(_) => reset::state(&context),
        Command::Testnet(options) => testnet::run(&context, &options),
        Command::Config(options) => check::run(&context, &options),
        Command::Version(_)
        | Command::GenValidator(_)
        | Command::Completion(_)
        | Command::Bench(_)
        | Command::Abci(_) => Ok(()),
        Command::Start(options) => start::run(&context, &options),
        Command::Status(options) => status::run(&context, &options),
    }
}
