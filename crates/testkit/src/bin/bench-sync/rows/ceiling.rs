//! Chains from a CometBFT server, beside what that serves at most.

use std::time::Duration;

use perihelion_testkit::measure::{Served, median, sorted};

use crate::{
    bench::{Bench, Way},
    chains,
    goals::Figure,
    measure::{Feed, Settings, Sync},
    report::spread,
    rows::serving::{self, Server, Turns},
};

/// How long syncs are measured in a turn, as far as some of them together take so long: what the
/// server serves at most is measured for about as long.
const AT_LEAST: Duration = Duration::from_secs(2);

/// A sync of ours beside what the server gave in the same turn to a requester that does nothing
/// with the blocks.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// Blocks a second, of what it serves at most.
    reached: f64,
    /// The share of the cores that client and server used.
    busy: f64,
    /// The share that other work and the host took meanwhile.
    taken: f64,
    /// Blocks a second if the two had all of the cores' time.
    bound: f64,
    /// The same, of what it serves at most.
    bound_of_most: f64,
}

impl Turn {
    fn new(sync: &Sync, most: &Served, cores: f64) -> Self {
        let busy = sync.share_of_bound(cores);
        let bound = sync.blocks_per_second / busy;
        let most = most.blocks_per_second();
        Self {
            reached: sync.blocks_per_second / most,
            busy,
            taken: (sync.other_cores + sync.stolen_cores) / cores,
            bound,
            bound_of_most: bound / most,
        }
    }
}

/// All turns of the first subject; `most` has one of each turn, in order.
fn turns(syncs: &[Sync], most: &[Served], cores: f64) -> Vec<Turn> {
    let ours = syncs.iter().filter(|sync| sync.subject == 0);
    ours.filter_map(|sync| Some(Turn::new(sync, most.get(sync.run)?, cores)))
        .collect()
}

/// One figure of all turns, in order.
fn of(turns: &[Turn], figure: fn(&Turn) -> f64) -> Vec<f64> {
    sorted(turns.iter().map(figure))
}

/// Whether the cores or the node are the limit, in a few words.
fn remark(turns: &[Turn]) -> String {
    let percent = |figure| 100.0 * median(&of(turns, figure));
    format!(
        "client and server used {:.0} % of the cores, others {:.0} %; all of the cores would carry {:.0} % of it",
        percent(|turn| turn.busy),
        percent(|turn| turn.taken),
        percent(|turn| turn.bound_of_most),
    )
}

/// The same with what turns differed by.
fn line(turns: &[Turn]) -> String {
    let percent = |figure| {
        let shares = of(turns, figure);
        let percent: Vec<_> = shares.iter().map(|share| 100.0 * share).collect();
        spread(&percent)
    };
    format!(
        "it and Perihelion used {} % of the cores; busy all the time, these would carry {:.0} blocks/s, {} % of what it serves at most; reached: {} %",
        percent(|turn| turn.busy),
        median(&of(turns, |turn| turn.bound)),
        percent(|turn| turn.bound_of_most),
        percent(|turn| turn.reached),
    )
}

/// Chains from a CometBFT server; what that serves at most is measured in each turn, next to our
/// sync, so that what else the machine does hits both.
pub(super) fn from_cometbft(bench: &mut Bench) -> anyhow::Result<()> {
    let Some(cometbft) = bench.cometbft().cloned() else {
        let ceilings = bench.chains().into_iter().map(Figure::Ceiling);
        let figures: Vec<_> = ceilings.chain([Figure::FromCometBft]).collect();
        bench.needs_cometbft(figures);
        return Ok(());
    };
    for name in bench.chains() {
        let chain = bench.chain(&name.to_string())?;
        let home = bench.cometbft_home(&chain, &cometbft)?;
        let height = serving::served_height(&home, &cometbft)?;
        let launch = chains::cometbft_server(&cometbft, &home)?;
        let mut subjects = bench.subjects();
        subjects.truncate(1);
        if name == 'c' {
            let others = bench.subjects().into_iter();
            subjects.extend(others.filter(|subject| subject.contender.is_cometbft));
        }
        println!("\nFrom one server, {}:", cometbft.name);
        let (time, before) = serving::times(bench);
        let mut most = Turns::new(&cometbft.name);
        let beside = || {
            let server = Server::start(&launch)?;
            server.ask(&chain, height, 1, before)?;
            most.served.push(server.ask(&chain, height, 1, time)?);
            server.node.stop()?;
            Ok(())
        };
        let feed = Feed {
            addresses: None,
            chain: &chain,
            servers: vec![launch.clone()],
            last: height - 1,
        };
        let settings = Settings {
            at_least: AT_LEAST,
            ..bench.settings()
        };
        let syncs = bench.sync_beside(&feed, &subjects, &settings, bench.runs, beside)?;
        println!(
            "What it serves to a requester that does nothing with the blocks, next to each sync of ours:"
        );
        let turns = turns(&syncs, &most.served, Bench::cores()?);
        print!("{}", serving::table(&[most]));
        println!("{}: {}", chain.title, line(&turns));
        let figure = Figure::Ceiling(name);
        bench
            .sheet
            .add(figure, turns.iter().map(|turn| turn.reached));
        bench.sheet.remark(figure, remark(&turns));
        if name == 'c' {
            let more = Way::MoreIsBetter(super::rate);
            bench.compare(Figure::FromCometBft, 0, &subjects, &syncs, more);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sync;

    fn served(blocks: u64) -> Served {
        Served {
            blocks,
            bytes: 1,
            seconds: 2.0,
            cpu_seconds: 1.0,
        }
    }

    #[test]
    fn a_sync_is_held_against_what_was_served_in_its_turn() {
        // Each block takes 3 ms of CPU. The machine was half as fast in the second turn.
        let syncs = [
            sync(0, 0, 500.0),
            sync(1, 0, 7.0),
            sync(1, 1, 7.0),
            Sync {
                other_cores: 0.3,
                stolen_cores: 0.1,
                ..sync(0, 1, 250.0)
            },
        ];
        let turns = turns(&syncs, &[served(2_000), served(1_000)], 2.0);
        let close = |figure, expected: [f64; 2]| {
            let figures = of(&turns, figure);
            assert_eq!(figures.len(), 2);
            let differ = figures.iter().zip(expected).map(|(a, b)| (a - b).abs());
            assert!(differ.into_iter().all(|by| by < 1e-9), "{figures:?}");
        };
        close(|turn| turn.reached, [0.5, 0.5]);
        close(|turn| turn.busy, [0.375, 0.75]);
        close(|turn| turn.bound, [2_000.0 / 3.0, 2_000.0 / 3.0]);
        close(|turn| turn.bound_of_most, [2.0 / 3.0, 4.0 / 3.0]);
        let told = line(&turns);
        assert!(told.contains("56.2 (37.5-75.0) % of the cores"), "{told}");
        assert!(told.ends_with("reached: 50.0 (50.0-50.0) %"), "{told}");
        let told = remark(&turns);
        assert!(
            told.contains("used 56 % of the cores, others 10 %"),
            "{told}"
        );
        assert!(told.contains("would carry 100 %"), "{told}");
    }
}
