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

use anyhow::Context as _;
use perihelion_testkit::process::NodeProcess;
use tokio_util::sync::CancellationToken;

use self::{
    folder::Folder,
    options::{Action, Options},
};

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
    // A second signal changes nothing: the nodes are stopped in any case.
    perihelion_node::signals::watch_with(stop.clone(), |_| ())?;
    run(options, &stop)
}

fn run(options: &Options, stop: &CancellationToken) -> anyhow::Result<()> {
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
    let stopped = stop_all(running);
    match ended.and(stopped) {
        Ok(()) => folder.end(),
        Err(error) => {
            let path = folder.keep()?;
            anyhow::bail!(
                "{error:#}\nthe nodes' homes and logs are kept in {} (`make localnet-clean` removes them)",
                path.display()
            );
        }
    }
}

fn stop_all(mut nodes: Vec<NodeProcess>) -> anyhow::Result<()> {
    for node in &mut nodes {
        node.signal_stop()?;
    }
    for node in nodes {
        let (name, log) = (node.name().to_owned(), node.log().to_owned());
        let status = node.stop()?;
        anyhow::ensure!(
            status.success(),
            "{name} ended with {status}; its log is {}",
            log.display()
        );
    }
    println!("All nodes are stopped.");
    Ok(())
}
