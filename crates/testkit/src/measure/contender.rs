//! Nodes that are measured.

use std::path::{Path, PathBuf};

use anyhow::ensure;

/// A node that is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contender {
    /// Its name in tables.
    pub name: String,
    /// Its binary.
    pub program: PathBuf,
    /// Whether it is a real CometBFT.
    pub is_cometbft: bool,
}

impl Contender {
    /// Our node: the named binary, or the one that stands beside this program.
    ///
    /// # Errors
    /// When it is not there.
    pub fn perihelion(named: Option<&Path>) -> anyhow::Result<Self> {
        let program = match named {
            Some(path) => path.to_owned(),
            None => std::env::current_exe()?.with_file_name("perihelion"),
        };
        ensure!(
            program.is_file(),
            "there is no binary {}: run `make build`, or set PERIHELION to where it is",
            program.display()
        );
        Ok(Self {
            name: "perihelion".to_owned(),
            program,
            is_cometbft: false,
        })
    }

    /// Another build of our node: `[NAME=]PATH`.
    ///
    /// # Errors
    /// When there is no such binary.
    pub fn other(named: &str) -> anyhow::Result<Self> {
        let (name, path) = named.split_once('=').unwrap_or(("other", named));
        Ok(Self {
            name: name.to_owned(),
            ..Self::perihelion(Some(Path::new(path)))?
        })
    }

    /// A CometBFT: `[NAME=]PATH`.
    ///
    /// # Errors
    /// When there is no such binary.
    pub fn cometbft(named: &str) -> anyhow::Result<Self> {
        let (name, path) = match named.split_once('=') {
            Some((name, path)) => (format!("cometbft {name}"), path),
            None => ("cometbft".to_owned(), named),
        };
        ensure!(
            Path::new(path).is_file(),
            "COMETBFT: there is no binary {path}: go install github.com/cometbft/cometbft/cmd/cometbft@v0.38.25"
        );
        Ok(Self {
            name,
            program: path.into(),
            is_cometbft: true,
        })
    }
}
