//! What can be set.

use std::{net::ToSocketAddrs as _, path::PathBuf};

use clap::{
    Parser, ValueEnum,
    builder::PossibleValuesParser,
    error::{ContextKind, ContextValue, ErrorKind},
};
use perihelion_abci::AppAddress;

/// The folder where none is named: removed at the end, unless something went wrong. Of a network at
/// another port than the first, with that port behind.
const FOLDER: &str = "localnet";
/// The first node's port where none is named.
const BASE_PORT: u16 = 26_656;
/// Validators at most, and as many further nodes: each is a process of its own.
const MAX_NODES: i64 = 100;
/// Transactions a second at most, and of the other numbers: far above what anybody wants.
const MAX_LOAD: i64 = 10_000;
const MAX_SECONDS: u64 = 1_000_000;
/// The highest port of a first node: two more are used above it.
const MAX_PORT: i64 = 65_533;

/// Validators and late full nodes on loopback, as real processes. Each option can be set by the
/// variable that stands in for its value.
#[derive(Debug, Parser)]
#[command(name = "localnet")]
pub(crate) struct Options {
    /// What to do.
    #[arg(value_enum, default_value_t = Action::Run)]
    pub(crate) action: Action,
    /// Validators, of equal power.
    #[arg(long, env = "VALIDATORS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=MAX_NODES))]
    pub(crate) validators: u16,
    /// Nodes that are no validators and start late.
    #[arg(long, env = "FULL_NODES", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=MAX_NODES))]
    pub(crate) full_nodes: u16,
    /// Seconds before they start.
    #[arg(long, env = "LATE", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=MAX_SECONDS))]
    pub(crate) late: u64,
    /// Blocks that must be there too before they start.
    #[arg(long, env = "BLOCKS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) blocks: u32,
    /// Node k (0, 1, …; validators first) listens for peers on this port plus 10 k, for clients one
    /// above, and serves metrics two above.
    #[arg(long, env = "BASE_PORT", default_value_t = BASE_PORT, value_parser = clap::value_parser!(u16).range(1..=MAX_PORT))]
    pub(crate) base_port: u16,
    /// A folder that is not there yet; kept at the end [default: ./localnet, or ./localnet-PORT at
    /// another base port; removed at the end].
    #[arg(long, env = "LOCALNET_DIR", value_name = "LOCALNET_DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The application: a built-in one, or an address: node k's is at the port plus k, or at the
    /// Unix socket's path with `.k` behind.
    #[arg(long, env = "APP", default_value = "kvstore", value_parser = Application::parse)]
    pub(crate) app: Application,
    /// Transactions a second.
    #[arg(long, env = "LOAD", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=MAX_LOAD))]
    pub(crate) load: u32,
    /// How many of the validators, the last ones, are a real CometBFT.
    #[arg(long, env = "COMETBFT_VALIDATORS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=MAX_NODES))]
    pub(crate) cometbft_validators: u16,
    /// CometBFT's binary, of v0.38 to v0.40.
    #[arg(long, env = "COMETBFT")]
    pub(crate) cometbft: Option<PathBuf>,
    /// The node's binary [default: perihelion beside this program].
    #[arg(long, env = "PERIHELION")]
    pub(crate) perihelion: Option<PathBuf>,
    /// 1: end when the late nodes are in consensus and all hashes were compared.
    #[arg(long, env = "ONCE", default_value = "0", value_parser = PossibleValuesParser::new(["0", "1"]))]
    pub(crate) once: String,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    /// Run a network until Ctrl-C.
    Run,
    /// Stop the network of the folder.
    Down,
    /// Remove the folder of a network that has ended.
    Clean,
}

/// What executes blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Application {
    /// In the nodes themselves.
    BuiltIn(String),
    /// At an address: node k's is at the port plus k, or at the path with `.k` behind.
    At(AppAddress),
}

impl Application {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if ["kvstore", "persistent_kvstore", "noop"].contains(&text) {
            return Ok(Self::BuiltIn(text.to_owned()));
        }
        match text.parse() {
            Ok(AppAddress::Tcp { port: 0, .. }) | Err(_) => Err("no application"),
            Ok(address) => Ok(Self::At(address)),
        }
    }

    /// Where node `number` finds it; `None` where there is no such port.
    pub(crate) fn of(&self, number: u16) -> Option<String> {
        Some(match self {
            Self::BuiltIn(name) => name.clone(),
            Self::At(AppAddress::Unix(path)) => format!("unix://{}.{number}", path.display()),
            Self::At(AppAddress::Tcp { host, port }) => AppAddress::Tcp {
                host: host.clone(),
                port: port.checked_add(number)?,
            }
            .to_string(),
        })
    }

    /// Why so many nodes cannot have one.
    pub(crate) fn problem(&self, nodes: u16) -> Option<String> {
        let Self::At(address @ AppAddress::Tcp { host, port }) = self else {
            return None;
        };
        if self.of(nodes.saturating_sub(1)).is_none() {
            return Some(format!(
                "APP={address} is too high: {nodes} nodes need that port and those above it"
            ));
        }
        // An empty one is this machine.
        let error = (host.as_str(), *port)
            .to_socket_addrs()
            .err()
            .filter(|_| !host.is_empty())?;
        Some(format!("APP={address}: there is no host {host}: {error}"))
    }
}

impl Options {
    /// Those of the command line and the environment. A value that cannot be used ends the process
    /// with one line.
    pub(crate) fn read() -> Self {
        Self::try_parse().unwrap_or_else(|error| match explain(&error) {
            Some(text) => {
                eprintln!("localnet: {text}");
                std::process::exit(1);
            }
            None => error.exit(),
        })
    }

    /// Where the homes are.
    pub(crate) fn folder(&self) -> PathBuf {
        match (&self.dir, self.base_port) {
            (Some(named), _) => named.clone(),
            (None, BASE_PORT) => FOLDER.into(),
            (None, port) => format!("{FOLDER}-{port}").into(),
        }
    }

    /// Whether the folder is kept at the end: one that was named is.
    pub(crate) fn is_kept(&self) -> bool {
        self.dir.is_some()
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> u16 {
        self.validators + self.full_nodes
    }

    /// Whether to end when all is well.
    pub(crate) fn is_once(&self) -> bool {
        self.once == "1"
    }
}

/// One line for a value that cannot be used; `None` for what else is wrong with a command line.
fn explain(error: &clap::Error) -> Option<String> {
    if !matches!(
        error.kind(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::InvalidUtf8
    ) {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    // `--validators <VALIDATORS>`: what stands for a value is its variable.
    let argument = text(ContextKind::InvalidArg)?;
    let (_, name) = argument.split_once('<')?;
    let name = name.trim_end_matches('>');
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let expected = expected(name)?;
    Some(format!("{name}={value:?} cannot be used: {expected}"))
}

/// What a variable may be.
fn expected(name: &str) -> Option<String> {
    Some(match name {
        "VALIDATORS" => format!("a number from 1 to {MAX_NODES} is expected"),
        "FULL_NODES" | "COMETBFT_VALIDATORS" => {
            format!("a number from 0 to {MAX_NODES} is expected")
        }
        "LATE" => format!("seconds from 0 to {MAX_SECONDS} are expected"),
        "BLOCKS" => "a number from 0 to 1000000 is expected".to_owned(),
        "BASE_PORT" => format!("a port from 1 to {MAX_PORT} is expected"),
        "LOAD" => format!("transactions a second, 0 to {MAX_LOAD}, are expected"),
        "ONCE" => "0 or 1 is expected".to_owned(),
        "APP" => "kvstore, persistent_kvstore, noop, tcp://HOST:PORT or unix://PATH is expected"
            .to_owned(),
        "LOCALNET_DIR" => "a folder that is not there yet is expected".to_owned(),
        "COMETBFT" | "PERIHELION" => "the path of a binary is expected".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of an option's value.
    fn said(option: &str, value: &str) -> String {
        let parsed = Options::try_parse_from(["localnet", option, value]);
        explain(&parsed.unwrap_err()).unwrap()
    }

    #[test]
    fn each_value_that_cannot_be_used_is_one_line_with_its_variable() {
        for (option, variable, values) in [
            ("--validators", "VALIDATORS", &["x", "0", "101", ""][..]),
            ("--full-nodes", "FULL_NODES", &["-1", "101", "1.5"]),
            ("--late", "LATE", &["soon", "-3"]),
            ("--blocks", "BLOCKS", &["many", "99999999999"]),
            ("--base-port", "BASE_PORT", &["0", "65534", "99999", "http"]),
            ("--load", "LOAD", &["x", "4000000000"]),
            ("--cometbft-validators", "COMETBFT_VALIDATORS", &["x"]),
            ("--once", "ONCE", &["maybe", "2", ""]),
            ("--dir", "LOCALNET_DIR", &[""]),
            (
                "--app",
                "APP",
                &[
                    "foo",
                    "",
                    "tcp://nohost",
                    "tcp://127.0.0.1:99999",
                    "tcp://h:0",
                    "unix://",
                ],
            ),
        ] {
            for value in values {
                let argument = format!("{option}={value}");
                let parsed = Options::try_parse_from(["localnet", &argument]);
                let said = explain(&parsed.unwrap_err()).unwrap();
                let start = format!("{variable}={value:?} cannot be used: ");
                assert!(said.starts_with(&start), "{said}");
                assert!(said.ends_with(" expected"), "{said}");
                assert_eq!(said.lines().count(), 1, "{said}");
            }
        }
        assert!(said("--app", "foo").contains("tcp://HOST:PORT"));
    }

    /// A second network, at another port, needs no name for its folder.
    #[test]
    fn the_folder_follows_the_port_unless_it_is_named() {
        for (arguments, folder) in [
            (&[][..], "localnet"),
            (&["--base-port=26656"], "localnet"),
            (&["--base-port=27000"], "localnet-27000"),
            (&["down", "--base-port=27000"], "localnet-27000"),
            (&["--base-port=27000", "--dir=named"], "named"),
        ] {
            let arguments = ["localnet"].iter().chain(arguments);
            let options = Options::try_parse_from(arguments).unwrap();
            assert_eq!(options.folder(), PathBuf::from(folder));
        }
    }

    #[test]
    fn each_node_has_an_application_of_its_own() {
        let of = |text: &str| Application::parse(text).unwrap();
        assert_eq!(of("noop").of(3).unwrap(), "noop");
        assert_eq!(of("unix:///a").of(3).unwrap(), "unix:///a.3");
        for text in ["tcp://127.0.0.1:26658", "127.0.0.1:26658"] {
            assert_eq!(of(text).of(3).unwrap(), "tcp://127.0.0.1:26661");
        }
        assert_eq!(of("127.0.0.1:65535").of(1), None);
        assert_eq!(of("127.0.0.1:65535").problem(1), None);
        let problem = of("127.0.0.1:65535").problem(2).unwrap();
        assert!(problem.contains("2 nodes need that port"), "{problem}");
        let problem = of("tcp://no.host.invalid:1").problem(1).unwrap();
        assert!(
            problem.contains("there is no host no.host.invalid"),
            "{problem}"
        );
    }
}
