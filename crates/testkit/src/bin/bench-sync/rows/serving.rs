//! Serving: how fast blocks are handed out.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use perihelion_testkit::{
    measure::{Ask, Contender, Served, align, median, request_blocks, sorted},
    process::{Launch, NodeProcess},
};
use perihelion_types::{Height, HeightRange};

use crate::{
    PATIENCE,
    bench::Bench,
    chains::{self, BenchChain},
    goals::Figure,
};

/// Requests in flight of one requester.
const WINDOW: usize = 200;
/// Requesters at once that stand for syncing peers.
const PEERS: usize = 20;

/// A server that is asked.
pub(super) struct Server {
    name: String,
    pub(super) node: NodeProcess,
    address: String,
    height: i64,
}

impl Server {
    pub(super) fn start(launch: &Launch) -> anyhow::Result<Self> {
        let address = launch.address()?;
        let mut node = launch.start()?;
        let height = node.wait_ready(PATIENCE)?.height;
        Ok(Self {
            name: launch.name.clone(),
            node,
            address,
            height,
        })
    }

    /// Has it serve the blocks up to a height.
    pub(super) fn ask(
        &self,
        chain: &BenchChain,
        to: i64,
        peers: usize,
        time: Duration,
    ) -> anyhow::Result<Served> {
        let heights = HeightRange::new(Height::new(1), Height::new(to));
        let ask = Ask {
            address: self.address.clone(),
            chain_id: chain.name.clone(),
            heights: heights.context("the server has blocks")?,
            window: WINDOW,
            peers,
            time,
        };
        request_blocks(&self.node, &ask).with_context(|| format!("{} serves", self.name))
    }
}

/// The height of a CometBFT home.
pub(super) fn served_height(home: &Path, cometbft: &Contender) -> anyhow::Result<i64> {
    let server = Server::start(&chains::cometbft_server(cometbft, home)?)?;
    let height = server.height;
    server.node.stop()?;
    ensure!(height > 1, "{} has no chain", home.display());
    Ok(height)
}

/// How long a server is asked, and before that, so that nothing is read for the first time.
pub(super) fn times(bench: &Bench) -> (Duration, Duration) {
    let time = Duration::from_secs(if bench.quick { 1 } else { 3 });
    (time, time / 3)
}

/// What several servers, or one in several ways, served in turn.
pub(super) struct Turns {
    name: String,
    pub(super) served: Vec<Served>,
}

impl Turns {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            served: Vec::new(),
        }
    }
}

/// One figure against another in the same turn.
fn ratios(of: &Turns, against: &Turns, figure: fn(&Served) -> f64) -> Vec<f64> {
    let pairs = of.served.iter().zip(&against.served);
    pairs
        .map(|(one, other)| figure(one) / figure(other))
        .collect()
}

pub(super) fn table(turns: &[Turns]) -> String {
    let heads = [
        "",
        "blocks/s",
        "min",
        "max",
        "MB/s",
        "server CPU s/1000",
        "server cores",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for turns in turns {
        let of = |figure: fn(&Served) -> f64| sorted(turns.served.iter().map(figure));
        let rates = of(Served::blocks_per_second);
        rows.push(vec![
            turns.name.clone(),
            format!("{:.0}", median(&rates)),
            format!("{:.0}", rates[0]),
            format!("{:.0}", rates[rates.len() - 1]),
            format!(
                "{:.1}",
                median(&of(|it| it.bytes as f64 / 1e6 / it.seconds))
            ),
            format!("{:.3}", median(&of(Served::cpu_per_thousand))),
            format!("{:.2}", median(&of(|it| it.cpu_seconds / it.seconds))),
        ]);
    }
    align(&rows)
}

/// Blocks served to one requester, and by ours to many.
pub(super) fn serving(bench: &mut Bench) -> anyhow::Result<()> {
    for name in bench.chains() {
        let chain = bench.chain(&name.to_string())?;
        // Before our own server runs, which may have to give it the chain.
        let cometbft = bench.cometbft().cloned();
        let home = cometbft
            .as_ref()
            .map(|cometbft| bench.cometbft_home(&chain, cometbft));
        let mut servers = vec![Server::start(&chains::server(bench.ours(), &chain)?)?];
        servers[0].name = bench.ours().name.clone();
        if let (Some(cometbft), Some(home)) = (cometbft, home.transpose()?) {
            servers.push(Server::start(&chains::cometbft_server(&cometbft, &home)?)?);
        }
        println!(
            "\nServing one requester with {WINDOW} requests in flight, {}",
            chain.title
        );
        let turns = in_turn(bench, &chain, &servers)?;
        print!("{}", table(&turns));
        match &turns[..] {
            [ours, theirs, ..] => {
                let more = ratios(ours, theirs, Served::blocks_per_second);
                let less = ratios(theirs, ours, Served::cpu_per_thousand);
                bench.sheet.add(Figure::Served(name), more);
                bench.sheet.add(Figure::ServedCpu(name), less);
            }
            _ => bench.needs_cometbft([Figure::Served(name), Figure::ServedCpu(name)]),
        }
        // Those with the most bytes a block.
        if name == 'c' {
            many_peers(bench, &chain, &servers[0])?;
        }
        for server in servers {
            server.node.stop()?;
        }
    }
    Ok(())
}

fn in_turn(bench: &Bench, chain: &BenchChain, servers: &[Server]) -> anyhow::Result<Vec<Turns>> {
    let (time, before) = times(bench);
    let heights = servers.iter().map(|server| server.height);
    let to = heights.min().context("there are servers")?;
    let mut turns: Vec<_> = servers.iter().map(|it| Turns::new(&it.name)).collect();
    for server in servers {
        server.ask(chain, to, 1, before)?;
    }
    for run in 0..bench.runs {
        for place in 0..servers.len() {
            let index = (run + place) % servers.len();
            turns[index]
                .served
                .push(servers[index].ask(chain, to, 1, time)?);
        }
    }
    Ok(turns)
}

/// One process that serves many.
fn many_peers(bench: &mut Bench, chain: &BenchChain, server: &Server) -> anyhow::Result<()> {
    let (time, before) = times(bench);
    let mut turns = [
        Turns::new("one peer"),
        Turns::new(&format!("{PEERS} peers, in all")),
    ];
    server.ask(chain, server.height, PEERS, before)?;
    for _ in 0..bench.runs {
        for (turns, peers) in turns.iter_mut().zip([1, PEERS]) {
            turns
                .served
                .push(server.ask(chain, server.height, peers, time)?);
        }
    }
    println!("\nServing several peers, {}", chain.title);
    print!("{}", table(&turns));
    let shares = ratios(&turns[1], &turns[0], Served::blocks_per_second);
    bench.sheet.add(Figure::Peers, shares);
    Ok(())
}
