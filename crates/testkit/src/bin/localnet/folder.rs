//! The folder of a network, and who runs in it.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use perihelion_testkit::process::NodeProcess;
use rustix::process::{Pid, Signal, kill_process};

use crate::options::Options;

/// The process ids of the network: its own on the first line, those of the nodes behind.
const PIDS: &str = "pids";
/// How long a network may take to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// A folder that this network has made.
pub(crate) struct Folder {
    path: PathBuf,
    is_kept: bool,
}

impl Folder {
    /// Makes it.
    pub(crate) fn make(options: &Options) -> anyhow::Result<Self> {
        let path = options.folder();
        if path.exists() {
            let what = if running(&path).is_empty() {
                "remove it (make localnet-clean)"
            } else {
                "a network runs in it: stop that (make localnet-down)"
            };
            bail!(
                "the folder {} is there already: {what}, or set LOCALNET_DIR to another",
                path.display()
            );
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let folder = Self {
            path: path.canonicalize()?,
            is_kept: options.is_kept(),
        };
        folder.note(&[])?;
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes who runs.
    pub(crate) fn note(&self, nodes: &[NodeProcess]) -> anyhow::Result<()> {
        let mut pids = vec![std::process::id().to_string()];
        pids.extend(nodes.iter().map(|node| node.pid().to_string()));
        fs::write(self.path.join(PIDS), pids.join("\n") + "\n")
            .with_context(|| format!("cannot write into {}", self.path.display()))
    }

    /// Removes it, with what was made in it.
    pub(crate) fn remove(self) -> anyhow::Result<()> {
        remove(&self.path)
    }

    /// Removes it, unless its user named it.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        if self.is_kept {
            self.keep().map(drop)
        } else {
            self.remove()
        }
    }

    /// Keeps it, without anybody running in it.
    pub(crate) fn keep(self) -> anyhow::Result<PathBuf> {
        fs::remove_file(self.path.join(PIDS))?;
        Ok(self.path)
    }
}

/// Stops the network of a folder: the program that runs it stops its nodes; nodes that it left
/// behind are stopped too.
pub(crate) fn down(folder: &Path) -> anyhow::Result<()> {
    let mut left = running(folder);
    ensure!(
        !left.is_empty(),
        "no network runs in {}: LOCALNET_DIR names another folder",
        folder.display()
    );
    let deadline = Instant::now() + PATIENCE;
    while let Some(&first) = left.first() {
        // The network itself stands first.
        signal(first)?;
        while running(folder).contains(&first) {
            ensure!(
                Instant::now() < deadline,
                "process {first} does not end: its folder is {}",
                folder.display()
            );
            thread::sleep(LOOK);
        }
        left = running(folder);
    }
    println!("The network in {} is stopped.", folder.display());
    Ok(())
}

/// Removes the folder of a network that has ended.
pub(crate) fn clean(folder: &Path) -> anyhow::Result<()> {
    if !folder.exists() {
        println!("There is no folder {}.", folder.display());
        return Ok(());
    }
    ensure!(
        running(folder).is_empty(),
        "a network runs in {}: stop it first (make localnet-down)",
        folder.display()
    );
    ensure!(
        folder.join("node0/config/genesis.json").is_file() || is_empty(folder)?,
        "{} is not the folder of a network: it stays",
        folder.display()
    );
    remove(folder)?;
    println!("{} is removed.", folder.display());
    Ok(())
}

fn is_empty(folder: &Path) -> anyhow::Result<bool> {
    Ok(fs::read_dir(folder)?.all(|entry| entry.is_ok_and(|entry| entry.file_name() == PIDS)))
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Those of the noted processes that run, and are what was noted: other processes may have got the
/// numbers since.
fn running(folder: &Path) -> Vec<i32> {
    let noted = fs::read_to_string(folder.join(PIDS)).unwrap_or_default();
    let noted = noted.lines().filter_map(|line| line.parse().ok());
    let folder = folder.canonicalize().unwrap_or_default();
    noted
        .enumerate()
        .filter(|(place, pid)| is_ours(*pid, *place == 0, &folder))
        .map(|(_, pid)| pid)
        .collect()
}

/// Whether a process is a network's own program, or a node with a home in `folder`.
fn is_ours(pid: i32, is_network: bool, folder: &Path) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command);
    if is_network {
        let program = command.split('\0').next().unwrap_or_default();
        Path::new(program).file_name() == Some("localnet".as_ref())
    } else {
        command
            .split('\0')
            .any(|word| Path::new(word).starts_with(folder))
    }
}

fn signal(pid: i32) -> anyhow::Result<()> {
    let pid = Pid::from_raw(pid).context("a process id is positive")?;
    // It may have ended by itself.
    match kill_process(pid, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context("cannot stop a process of the network"),
    }
}
