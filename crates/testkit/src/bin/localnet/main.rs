//! A network on this machine: validators that decide blocks, and full nodes that come late, catch
//! up and follow.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

mod folder;
mod load;
mod looks;
mod nodes;
mod options;
mod screen;
mod table;
mod transactions;
mod watch;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use perihelion_testkit::process::NodeProcess;
use tokio_util::sync::CancellationToken;

use self::{
    folder::Folder,
    options::{Action, Options},
};

/// How long nodes may take to end before they are killed: several that write all they have to one
/// disk at the same time need long.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing is said of that.
const SOON: Duration = Duration::from_millis(500);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

fn main() {
    let options = Options::read();
    let result = match options.action {
        Action::Run => run_until_signal(&options),
        Action::Down => folder::down(&options.folder()),
        Action::Clean => folder::clean(&options.folder()),
    };
    if let Err(error) = result {
        eprintln!("localnet: {error:#}");
        std::process::exit(1);
    }
}

fn run_until_signal(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let _entered = runtime.enter();
    let stop = CancellationToken::new();
    // The nodes are stopped in any case; those that a second signal finds are killed.
    let kill = CancellationToken::new();
    let killed = kill.clone();
    perihelion_node::signals::watch_with(stop.clone(), move |_| killed.cancel())?;
    run(options, &stop, &kill)
}

fn run(
    options: &Options,
    stop: &CancellationToken,
    kill: &CancellationToken,
) -> anyhow::Result<()> {
    let plan = nodes::plan(options)?;
    let folder = Folder::make(options)?;
    let mut running = Vec::new();
    let ended = nodes::make(options, &plan, folder.path())
        .and_then(|launches| watch::run(options, &folder, launches, &mut running, stop));
    if ended.is_err() && running.is_empty() {
        // Nobody has run: there is nothing to be looked at.
        folder.remove()?;
        return ended;
    }
    let stopped = stop_all(running, kill);
    match ended.and(stopped) {
        Ok(()) => folder.end(),
        Err(error) => {
            let path = folder.keep()?;
            bail!(
                "{error:#}\nthe nodes' homes and logs are kept in {0} (`make localnet-clean LOCALNET_DIR={0}` \
                 removes them)",
                path.display()
            );
        }
    }
}

/// Stops them, and says for which it waits; `kill` kills those.
fn stop_all(mut nodes: Vec<NodeProcess>, kill: &CancellationToken) -> anyhow::Result<()> {
    for node in &mut nodes {
        node.signal_stop()?;
    }
    let began = Instant::now();
    let (mut said, mut problem) = (String::new(), None);
    loop {
        let mut left = Vec::new();
        for mut node in nodes {
            match node.ended()? {
                None => left.push(node),
                Some(status) if status.success() => {}
                Some(status) => {
                    let (name, log) = (node.name(), node.log().display());
                    let text = format!("{name} ended with {status}; its log is {log}");
                    problem.get_or_insert(text);
                }
            }
        }
        nodes = left;
        let names: Vec<_> = nodes.iter().map(|node| node.name().to_owned()).collect();
        if names.is_empty() {
            break;
        }
        if kill.is_cancelled() || began.elapsed() >= PATIENCE {
            for node in nodes {
                node.kill()?;
            }
            bail!("did not end and had to be killed: {}", names.join(", "));
        }
        let text = waiting(&names);
        if text != said && began.elapsed() >= SOON {
            println!("{text}");
            said = text;
        }
        thread::sleep(LOOK);
    }
    if let Some(problem) = problem {
        bail!(problem);
    }
    println!("All nodes are stopped.");
    Ok(())
}

/// For whom it is waited, and how not to.
fn waiting(names: &[String]) -> String {
    let whom = if names.len() == 1 { "it" } else { "them" };
    let names = names.join(", ");
    format!("stopping: waiting for {names}; Ctrl-C again kills {whom}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_waited_for_are_named() {
        let names = ["node0", "node2"].map(str::to_owned);
        assert_eq!(
            waiting(&names[..1]),
            "stopping: waiting for node0; Ctrl-C again kills it"
        );
        assert_eq!(
            waiting(&names),
            "stopping: waiting for node0, node2; Ctrl-C again kills them"
        );
    }
}
