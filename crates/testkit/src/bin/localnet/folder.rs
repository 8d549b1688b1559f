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
        if let Some(problem) = problem(&path) {
            bail!("{problem}");
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
            let path = self.keep()?;
            println!(
                "{0} is kept: `make localnet-clean LOCALNET_DIR={0}` removes it, which a next run there \
                 needs.",
                path.display()
            );
            Ok(())
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
        "no network runs in {}: set LOCALNET_DIR to the folder of the network",
        full(folder).display()
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
        is_networks(folder),
        "{} is not the folder of a network: it stays",
        folder.display()
    );
    remove(folder)?;
    println!("{} is removed.", folder.display());
    Ok(())
}

/// Why no network can be made there: nothing may be there yet.
fn problem(path: &Path) -> Option<String> {
    let there = path.symlink_metadata().is_ok();
    let (what, is_folder) = match path.metadata() {
        Ok(found) if found.is_dir() => ("the folder", true),
        Ok(_) => ("the file", false),
        Err(_) if there => ("the link", false),
        Err(_) => {
            let above = path.ancestors().skip(1).find(|above| above.exists())?;
            return (!above.is_dir()).then(|| {
                let (path, above) = (full(path), full(above));
                let (path, above) = (path.display(), above.display());
                format!(
                    "no folder {path} can be made: {above} is a file: set LOCALNET_DIR to another"
                )
            });
        }
    };
    let advice = if !running(path).is_empty() {
        "a network runs in it: stop that (make localnet-down), or set LOCALNET_DIR to another"
    } else if is_folder && is_networks(path) {
        "remove it (make localnet-clean), or set LOCALNET_DIR to another"
    } else {
        "set LOCALNET_DIR to a folder that is not there yet"
    };
    let path = full(path);
    Some(format!(
        "{what} {} is there already: {advice}",
        path.display()
    ))
}

/// Whether a folder is that of a network, or holds nothing.
fn is_networks(folder: &Path) -> bool {
    folder.join("node0/config/genesis.json").is_file()
        || fs::read_dir(folder).is_ok_and(|mut entries| {
            entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == PIDS))
        })
}

/// The whole path, for messages.
fn full(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_such_that_it_can_be_followed() {
        let home = tempfile::tempdir().unwrap();
        let told = |name: &str| problem(&home.path().join(name)).unwrap_or_default();
        assert_eq!(told("new/one"), "");
        fs::create_dir_all(home.path().join("own/papers")).unwrap();
        assert!(told("own").ends_with("set LOCALNET_DIR to a folder that is not there yet"));
        fs::create_dir(home.path().join("empty")).unwrap();
        assert!(told("empty").contains("make localnet-clean"));
        let genesis = home.path().join("ended/node0/config/genesis.json");
        fs::create_dir_all(genesis.parent().unwrap()).unwrap();
        fs::write(genesis, "{}").unwrap();
        assert!(told("ended").contains("make localnet-clean"));
        fs::write(home.path().join("file"), "").unwrap();
        let path = home.path().join("file").display().to_string();
        let text = told("file");
        assert!(
            text.starts_with(&format!("the file {path} is there")),
            "{text}"
        );
        assert!(!text.contains("localnet-clean"), "{text}");
        let text = told("file/below");
        assert!(text.contains(&format!("{path} is a file")), "{text}");
    }

    #[test]
    fn who_stops_no_network_is_told_where_none_is() {
        let error = down(Path::new("no/network")).unwrap_err().to_string();
        let here = std::env::current_dir().unwrap().join("no/network");
        assert!(error.contains(here.to_str().unwrap()), "{error}");
        assert!(
            error.ends_with("set LOCALNET_DIR to the folder of the network"),
            "{error}"
        );
    }
}
