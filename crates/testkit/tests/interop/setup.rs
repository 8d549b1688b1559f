//! Binaries, chains and homes.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use perihelion_testkit::process::{Launch, NodeProcess, init_home};
use serde_json::Value;

/// Far longer than anything takes: who waits so long waits for what never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A chain that the chain maker makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    /// Its name, which is its id too.
    pub(crate) name: &'static str,
    pub(crate) initial: i64,
    pub(crate) blocks: i64,
    /// Whether an extended commit certifies its last block.
    pub(crate) is_extended: bool,
    /// Flags of the chain maker.
    pub(crate) flags: &'static str,
}

impl Chain {
    pub(crate) const fn last(&self) -> i64 {
        self.initial + self.blocks - 1
    }

    /// The height up to which blocksync takes a node: the commit of the block after it has come.
    /// The last block follows by consensus.
    pub(crate) const fn reachable(&self) -> i64 {
        self.last() - !self.is_extended as i64
    }

    /// Its home, made when it is not there.
    pub(crate) fn home(&self) -> anyhow::Result<PathBuf> {
        let folder = format!("{}-{}", self.name, self.blocks);
        let home = cache().join("chains").join(folder);
        // The chain maker writes its summary last.
        if home.join("chain.json").is_file() {
            return Ok(home);
        }
        if home.exists() {
            fs::remove_dir_all(&home)?;
        }
        fs::create_dir_all(cache().join("chains"))?;
        let mut command = Command::new(chain_maker()?);
        command.arg("--home").arg(&home);
        command.args(["--chain-id", self.name, "--blocks"]);
        command.arg(self.blocks.to_string());
        command
            .arg("--initial-height")
            .arg(self.initial.to_string());
        let output = command.args(self.flags.split_whitespace()).output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "chain {}: {error}", self.name);
        Ok(home)
    }

    /// A CometBFT at its last height, in a fresh home called `name`.
    pub(crate) fn serve_by_cometbft(
        &self,
        cometbft: &Path,
        name: &str,
    ) -> anyhow::Result<(NodeProcess, String)> {
        let home = fresh_home(name)?;
        let chain = self.home()?;
        init_home(cometbft, &home, &chain)?;
        fs::remove_dir_all(home.join("data"))?;
        copy_folder(&chain.join("data"), &home.join("data"))?;
        let launch = launch(name, cometbft, &home)?;
        let mut server = launch.start()?;
        server.wait_for("the whole chain", PATIENCE, |it| it.height == self.last())?;
        Ok((server, launch.address()?))
    }

    /// A node of either kind with nothing but the chain's genesis, and these peers.
    pub(crate) fn fresh_node(
        &self,
        program: &Path,
        name: &str,
        peers: impl IntoIterator<Item = String>,
    ) -> anyhow::Result<Launch> {
        let home = fresh_home(name)?;
        init_home(program, &home, &self.home()?)?;
        Ok(launch(name, program, &home)?.persistent_peers(peers))
    }

    /// The home of a stopped Perihelion that has synced the chain from CometBFT.
    pub(crate) fn synced_home(&self, cometbft: &Path) -> anyhow::Result<PathBuf> {
        let home = run_folder().join(format!("synced-{}", self.name));
        if home.join("synced").is_file() {
            return Ok(home);
        }
        let name = format!("source-{}", self.name);
        let (server, address) = self.serve_by_cometbft(cometbft, &name)?;
        let name = format!("synced-{}", self.name);
        let mut node = self.fresh_node(&perihelion()?, &name, [address])?.start()?;
        let last = self.reachable();
        node.wait_for("the whole chain", PATIENCE, |it| it.height >= last)?;
        node.stop()?;
        server.stop()?;
        fs::write(home.join("synced"), "")?;
        Ok(home)
    }
}

pub(crate) fn launch(name: &str, program: &Path, home: &Path) -> anyhow::Result<Launch> {
    let launch = Launch::new(name, program, home)?.tuned();
    Ok(launch.set("proxy_app", "persistent_kvstore"))
}

/// A test's turn: the tests of this suite share folders, ports and processors, so only one runs at
/// a time, whatever the number of test threads.
pub(crate) struct Turn {
    /// CometBFT's binary.
    pub(crate) cometbft: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

/// Waits for this test's turn; `None`, said loudly, unless `PERIHELION_INTEROP` asks for the suite.
///
/// # Panics
/// When it is asked for and there is no CometBFT.
pub(crate) fn turn() -> Option<Turn> {
    static SAID: Once = Once::new();
    static SUITE: Mutex<()> = Mutex::new(());
    if !is_asked_for(env::var_os("PERIHELION_INTEROP").as_deref()) {
        SAID.call_once(|| {
            // Not by a macro, whose output the test harness keeps to itself.
            let _unseen = writeln!(
                io::stderr(),
                "\n*** NOT RUN: the tests beside a real CometBFT (COMETBFT=/path/to/cometbft make interop) ***\n"
            );
        });
        return None;
    }
    let named = env::var_os("COMETBFT").map(PathBuf::from);
    Some(Turn {
        cometbft: named
            .or_else(|| on_path("cometbft"))
            .expect("set COMETBFT to the path of CometBFT's binary"),
        _alone: SUITE.lock().unwrap_or_else(PoisonError::into_inner),
    })
}

fn is_asked_for(variable: Option<&OsStr>) -> bool {
    variable.is_some_and(|value| !value.is_empty() && value != "0")
}

/// A CometBFT that happens to be there is no reason to run the suite.
#[test]
fn the_suite_runs_when_it_is_asked_for() {
    for (value, asked) in [
        (None, false),
        (Some(""), false),
        (Some("0"), false),
        (Some("1"), true),
    ] {
        assert_eq!(is_asked_for(value.map(OsStr::new)), asked, "{value:?}");
    }
    if !is_asked_for(env::var_os("PERIHELION_INTEROP").as_deref()) {
        assert!(turn().is_none());
    }
}

/// Our own binary: of the build that this test belongs to.
pub(crate) fn perihelion() -> anyhow::Result<PathBuf> {
    if let Some(named) = env::var_os("PERIHELION") {
        return Ok(named.into());
    }
    let test = env::current_exe()?;
    let profile = test.parent().and_then(Path::parent);
    Ok(profile
        .context("a test in a target folder")?
        .join("perihelion"))
}

/// Whether a CometBFT has the rules of v0.38.
pub(crate) fn is_v038(cometbft: &Path) -> anyhow::Result<bool> {
    let output = Command::new(cometbft).arg("version").output()?;
    Ok(output.stdout.starts_with(b"0.38."))
}

/// What outlives a run.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop")
}

/// What belongs to this run: emptied when the next one begins.
fn run_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = cache().join("run");
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        folder
    })
}

pub(crate) fn fresh_home(name: &str) -> anyhow::Result<PathBuf> {
    let home = run_folder().join(name);
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    Ok(home)
}

pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn chain_maker() -> anyhow::Result<PathBuf> {
    if let Some(named) = env::var_os("CHAIN_MAKER") {
        return Ok(named.into());
    }
    let binary = cache().join("chain-maker");
    if !binary.is_file() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/chain-maker");
        let mut go = Command::new("go");
        let built = go.current_dir(source).args(["build", "-o"]).arg(&binary);
        let status = built.arg(".").status().context(
            "no chain maker: install Go 1.25 or newer, or set CHAIN_MAKER to its binary",
        )?;
        ensure!(
            status.success(),
            "the chain maker in {source} does not build"
        );
    }
    Ok(binary)
}

pub(crate) fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Calls over one connection that is kept.
pub(crate) struct Client {
    agent: ureq::Agent,
    server: String,
}

impl Client {
    pub(crate) fn of(node: &NodeProcess) -> Self {
        let config = ureq::Agent::config_builder().proxy(None).build();
        Self {
            agent: config.into(),
            server: format!("http://{}", node.rpc()),
        }
    }

    pub(crate) fn call(&self, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.server);
        let text = self.agent.get(&url).call().context(url)?;
        let text = text.into_body().read_to_string()?;
        let mut answer: Value = serde_json::from_str(&text)?;
        Ok(answer["result"].take())
    }
}

/// Asserts that two nodes tell the same of every height: block id, header (with the hashes of
/// application, validators and results), size and number of transactions.
pub(crate) fn assert_same_chain(one: &NodeProcess, other: &NodeProcess, first: i64, last: i64) {
    let (a, b) = (Client::of(one), Client::of(other));
    let mut from = first;
    while from <= last {
        let to = last.min(from + 19);
        let path = format!("/blockchain?minHeight={from}&maxHeight={to}");
        let metas = |client: &Client| client.call(&path).unwrap()["block_metas"].take();
        let (ours, theirs) = (metas(&a), metas(&b));
        assert_eq!(
            ours.as_array().map(Vec::len),
            Some((to - from + 1) as usize)
        );
        assert_eq!(ours, theirs, "{} and {}: {path}", one.name(), other.name());
        from = to + 1;
    }
}

/// Asserts that two nodes tell the same of every height: as [`assert_same_chain`], and results.
pub(crate) fn assert_equal(one: &NodeProcess, other: &NodeProcess, first: i64, last: i64) {
    assert_same_chain(one, other, first, last);
    let (a, b) = (Client::of(one), Client::of(other));
    for height in first..=last {
        let path = format!("/block_results?height={height}");
        let (ours, theirs) = (a.call(&path).unwrap(), b.call(&path).unwrap());
        assert!(!ours.is_null(), "{} has no results at {height}", one.name());
        assert_eq!(ours, theirs, "{} and {}: {path}", one.name(), other.name());
    }
    for height in [first, (first + last) / 2, last] {
        let path = format!("/validators?height={height}&per_page=100");
        assert_eq!(a.call(&path).unwrap(), b.call(&path).unwrap(), "{path}");
    }
}

/// A number in `/sync_status`, where large ones are texts.
pub(crate) fn figure(status: &Value, name: &str) -> u64 {
    let value = &status[name];
    let text = value.as_str().map(str::to_owned);
    let text = text.unwrap_or_else(|| value.to_string());
    text.parse()
        .unwrap_or_else(|_| panic!("{name} is no number in {status}"))
}
