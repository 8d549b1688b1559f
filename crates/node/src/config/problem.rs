//! What can be wrong with a configuration, and where.

use std::{fmt, io, path::PathBuf};

use thiserror::Error;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of the file, from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
    /// Nowhere: its default stands.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Default => f.write_str("not set"),
        }
    }
}

impl Place {
    /// The place and the key there; a flag is named by its key.
    pub(crate) fn of(&self, key: &str) -> String {
        match self {
            Self::Flag(name) if name == key => self.to_string(),
            _ => format!("{self}: {key}"),
        }
    }
}

/// Names the nearest known key, when there is one.
fn hint(nearest: &str) -> String {
    if nearest.is_empty() {
        String::new()
    } else {
        format!("; the nearest known key is {nearest:?}")
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// The file is no TOML.
    #[error("{place}: not valid TOML: {reason}")]
    Syntax {
        /// Where.
        place: Place,
        /// The parser's words.
        reason: String,
    },
    /// No such key.
    #[error("{place}: unknown key {key:?}{}", hint(.nearest))]
    UnknownKey {
        /// Where.
        place: Place,
        /// Its path, tables first.
        key: String,
        /// The path of the known key that is most like it; empty when none is like it.
        nearest: String,
    },
    /// A table stands where a key should, or the other way round.
    #[error("{place}: {key} must be a table, written [{key}]")]
    NotATable {
        /// Where.
        place: Place,
        /// Its path.
        key: String,
    },
    /// A value that its key cannot have.
    #[error("{} = {found} is not allowed: expected {expected}", place.of(key))]
    Value {
        /// Where.
        place: Place,
        /// The key's path.
        key: String,
        /// What was found, as written.
        found: String,
        /// What is accepted.
        expected: String,
    },
    /// A value that contradicts a rule.
    #[error("{}: {rule}", place.of(key))]
    Rule {
        /// Where.
        place: Place,
        /// The key's path.
        key: String,
        /// The rule, in words.
        rule: String,
    },
}

impl Problem {
    /// Whether a node starts in spite of it. CometBFT passes unknown keys by, and programs that
    /// drive it rely on that.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::UnknownKey { .. } => true,
            Self::Syntax { .. }
            | Self::NotATable { .. }
            | Self::Value { .. }
            | Self::Rule { .. } => false,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        match self {
            Self::Syntax { place, .. }
            | Self::UnknownKey { place, .. }
            | Self::NotATable { place, .. }
            | Self::Value { place, .. }
            | Self::Rule { place, .. } => place,
        }
    }
}

/// A configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error("{} does not exist: `perihelion init --home {}` makes it", path.display(), home.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The home.
        home: PathBuf,
    },
    /// The file cannot be read.
    #[error("{} cannot be read: {source}{}", path.display(), read_remedy(.source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is wrong.
    #[error("{}", Self::summary(.0))]
    Wrong(Vec<Problem>),
}

/// What to do about a file that cannot be read.
fn read_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": let the user who runs the node read it",
        io::ErrorKind::IsADirectory => ": move that folder away, and put the file there",
        io::ErrorKind::NotADirectory => ": the home must be a folder, pass --home",
        _ => "",
    }
}

impl ConfigError {
    /// The first problem, and how to see the others.
    fn summary(problems: &[Problem]) -> String {
        match problems {
            [] => "the configuration is wrong".to_owned(),
            [only] => only.to_string(),
            [first, rest @ ..] => format!(
                "{first} (and {} more: `perihelion config check` shows them all)",
                rest.len()
            ),
        }
    }
}
