//! The rows: what is started, and which figures come of it.

mod ceiling;
pub(crate) mod lossy;
mod serving;

use std::time::Duration;

use anyhow::Context as _;
use perihelion_testkit::{
    home::{CopyData, copy_home},
    process::Launch,
};

use crate::{
    Rows,
    bench::{Bench, Way},
    chains::{self, EXTENDED, LARGE, LONG, LONG_FROM, STRETCH},
    goals::Figure,
    measure::{self, Feed, Settings, Subject, Sync},
    slow_app::AppProcess,
};

/// Servers of the chain of large blocks.
const MANY: usize = 10;
/// Syncs of that chain by each node at most: they take long, and the memory of two differs little.
const MEMORY_RUNS: usize = 2;
/// What a connection carries each second by default.
const DEFAULT_RATE: f64 = 5_120_000.0;
/// Where the first stretch of a long chain that is timed begins: before it, the node is still starting.
const LONG_BEGIN: i64 = 1_000;
/// A sync of a million blocks may take this long.
const LONG_CUT: Duration = Duration::from_secs(900);

/// Measures rows.
pub(crate) fn measure(rows: Rows, bench: &mut Bench) -> anyhow::Result<()> {
    match rows {
        Rows::Syncs => syncs(bench),
        Rows::Index => index(bench),
        Rows::Extensions => extensions(bench),
        Rows::Memory => memory(bench),
        Rows::Serving => serving::serving(bench),
        Rows::Cometbft => ceiling::from_cometbft(bench),
        Rows::Application => application(bench),
        Rows::Rates => rates(bench),
        Rows::Lossy => lossy::lossy(bench),
        Rows::Growth => growth(bench),
    }
}

fn rate(sync: &Sync) -> f64 {
    sync.blocks_per_second
}

fn cpu(sync: &Sync) -> f64 {
    sync.client_cpu
}

fn disk(sync: &Sync) -> f64 {
    sync.disk_bytes_per_block
}

fn syncs(bench: &mut Bench) -> anyhow::Result<()> {
    let cores = Bench::cores()?;
    for name in bench.chains() {
        let chain = bench.chain(&name.to_string())?;
        let mut subjects = bench.subjects();
        let every = subjects.len();
        if name != 'a' {
            subjects.push(Subject::every(bench.ours()));
        }
        let settings = bench.settings();
        let syncs = bench.sync(&bench.feed(&chain)?, &subjects, &settings, bench.runs)?;
        bench.compare(
            Figure::Rate(name),
            0,
            &subjects,
            &syncs,
            Way::MoreIsBetter(rate),
        );
        bench.compare(
            Figure::Cpu(name),
            0,
            &subjects,
            &syncs,
            Way::LessIsBetter(cpu),
        );
        bench.compare(Figure::Disk(name), 0, &subjects, &syncs, Way::Share(disk));
        if name != 'a' {
            bench.compare(
                Figure::Every(name),
                every,
                &subjects,
                &syncs,
                Way::MoreIsBetter(rate),
            );
        }
        let ours = || syncs.iter().filter(|sync| sync.subject == 0);
        let rates: Vec<_> = ours().map(rate).collect();
        bench.predictions.note(name, &rates);
        let bound = ours().map(|sync| sync.share_of_bound(cores));
        bench.sheet.add(Figure::Bound(name), bound);
        let first = ours().map(|sync| sync.until_first);
        bench.sheet.add(Figure::First, first);
        let entered = ours().filter_map(|sync| sync.until_consensus);
        bench.sheet.add(Figure::Switch, entered);
        let title = format!("Blocks a second, {}", chain.title);
        bench.plot_over_time(&format!("blocks-{name}"), &title, &subjects, &syncs)?;
    }
    Ok(())
}

fn index(bench: &mut Bench) -> anyhow::Result<()> {
    let chain = bench.chain("c")?;
    let subjects = bench.subjects();
    let settings = Settings {
        index: "kv",
        ..bench.settings()
    };
    println!("\nWith an index of transactions (kv):");
    let syncs = bench.sync(&bench.feed(&chain)?, &subjects, &settings, bench.runs)?;
    let (more, share) = (Way::MoreIsBetter(rate), Way::Share(disk));
    bench.compare(Figure::IndexedRate, 0, &subjects, &syncs, more);
    bench.compare(Figure::IndexedDisk, 0, &subjects, &syncs, share);
    let title = format!("Blocks a second with an index, {}", chain.title);
    bench.plot_over_time("blocks-c-indexed", &title, &subjects, &syncs)
}

fn extensions(bench: &mut Bench) -> anyhow::Result<()> {
    let chain = bench.chain(EXTENDED)?;
    let subjects = bench.subjects();
    let settings = bench.settings();
    let syncs = bench.sync(&bench.feed(&chain)?, &subjects, &settings, bench.runs)?;
    let more = Way::MoreIsBetter(rate);
    bench.compare(Figure::Extensions, 0, &subjects, &syncs, more);
    let title = format!("Blocks a second, {}", chain.title);
    bench.plot_over_time("blocks-extensions", &title, &subjects, &syncs)
}

/// The most memory with large blocks from many servers.
fn memory(bench: &mut Bench) -> anyhow::Result<()> {
    let chain = bench.chain(LARGE)?;
    let folder = bench.folder.join("servers");
    chains::remove(&folder)?;
    let mut servers = Vec::new();
    for number in 0..MANY {
        let home = folder.join(number.to_string());
        copy_home(&chain.home, &home, CopyData::Linked)?;
        let name = format!("server{number}");
        servers.push(Launch::new(&name, &bench.ours().program, &home)?.tuned());
    }
    let feed = Feed {
        chain: &chain,
        servers,
        addresses: None,
        last: chain.blocks - 1,
    };
    let settings = Settings {
        app: "persistent_kvstore".to_owned(),
        // The most memory may come late.
        cut: 8 * bench.cut,
        ..bench.settings()
    };
    println!("\nFrom {MANY} servers, application persistent_kvstore:");
    let runs = bench.runs.min(MEMORY_RUNS);
    let syncs = bench.sync(&feed, &bench.subjects(), &settings, runs)?;
    let ours = syncs.iter().filter(|sync| sync.subject == 0);
    let mebibytes = ours.map(|sync| sync.peak_rss_bytes as f64 / f64::from(1 << 20));
    bench.sheet.add(Figure::Memory, mebibytes);
    chains::remove(&folder)
}

fn application(bench: &mut Bench) -> anyhow::Result<()> {
    let chain = bench.chain("c")?;
    let subjects = [Subject::new(bench.ours())];
    println!(
        "\nWith an application in its own process that takes 5 ms a block, over a Unix socket:"
    );
    // One for each sync: it keeps its state in memory.
    for run in 0..bench.runs {
        let app = AppProcess::start(&bench.folder.join("app"))?;
        let settings = Settings {
            app: app.address(),
            tells_busy: true,
            ..bench.settings()
        };
        let feed = bench.feed(&chain)?;
        let sync = measure::sync(&bench.folder, &feed, &subjects[0], &settings)?;
        let share = sync.busy_share.context("the application tells")?;
        println!(
            "run {}: {:.1} blocks/s over {:.1} s, the application was busy for {:.1} % of the time",
            run + 1,
            sync.blocks_per_second,
            sync.seconds,
            100.0 * share
        );
        bench.sheet.add(Figure::Busy, [share]);
    }
    Ok(())
}

fn rates(bench: &mut Bench) -> anyhow::Result<()> {
    let counts = [1_u8, 3];
    let Some(cometbft) = bench.cometbft().cloned() else {
        bench.needs_cometbft(counts.map(Figure::DefaultRates));
        return Ok(());
    };
    let chain = bench.chain("c")?;
    let home = bench.cometbft_home(&chain, &cometbft)?;
    for count in counts {
        let folder = bench.folder.join("servers");
        chains::remove(&folder)?;
        let mut servers = Vec::new();
        for number in 0..count {
            let copy = folder.join(number.to_string());
            copy_home(&home, &copy, CopyData::Linked)?;
            let mut launch = chains::cometbft_server(&cometbft, &copy)?;
            launch.config.clear();
            launch.run_by(&cometbft.program)?;
            servers.push(
                launch
                    .set("proxy_app", "persistent_kvstore")
                    .set("tx_index.indexer", "null")
                    .set("log_level", "error"),
            );
        }
        let feed = Feed {
            chain: &chain,
            addresses: None,
            last: serving::served_height(&home, &cometbft)? - 1,
            servers,
        };
        let settings = Settings {
            is_tuned: false,
            ..bench.settings()
        };
        println!(
            "\nFrom {count} servers of {}, default rates:",
            cometbft.name
        );
        let subjects = [Subject::new(bench.ours())];
        let syncs = bench.sync(&feed, &subjects, &settings, bench.runs)?;
        let most = f64::from(count) * DEFAULT_RATE;
        let shares = syncs
            .iter()
            .map(|sync| sync.blocks_per_second * chain.block_bytes as f64 / most);
        bench.sheet.add(Figure::DefaultRates(count), shares);
        chains::remove(&folder)?;
    }
    Ok(())
}

fn growth(bench: &mut Bench) -> anyhow::Result<()> {
    let chain = bench.chain(LONG)?;
    let subjects = [Subject::new(bench.ours())];
    let settings = Settings {
        cut: LONG_CUT,
        ..bench.settings()
    };
    let syncs = bench.sync(&bench.feed(&chain)?, &subjects, &settings, bench.runs)?;
    let title = format!("Blocks a second, {}", chain.title);
    bench.plot_over_time("blocks-long", &title, &subjects, &syncs)?;
    let mut grown = Vec::new();
    for sync in &syncs {
        let (early, late) = stretches(sync)?;
        println!(
            "run {}: {STRETCH} blocks from height {LONG_BEGIN} took {early:.2} s, from {LONG_FROM} {late:.2} s",
            sync.run + 1
        );
        grown.push(late / early);
    }
    bench.sheet.add(Figure::Growth, grown);
    Ok(())
}

/// Seconds that the early and the late stretch of the long chain took.
///
/// # Errors
/// When the sync was cut off before their end: without it, the median would be of the quicker ones.
fn stretches(sync: &Sync) -> anyhow::Result<(f64, f64)> {
    let stretch = |from| sync.seconds_between(from, from + STRETCH);
    let both = stretch(LONG_BEGIN).zip(stretch(LONG_FROM));
    both.with_context(|| {
        format!(
            "run {} did not come to height {} within {} s",
            sync.run + 1,
            LONG_FROM + STRETCH,
            LONG_CUT.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sync;

    #[test]
    fn a_long_sync_that_was_cut_off_is_an_error() {
        let end = LONG_FROM + STRETCH;
        let all = Sync {
            heights: vec![(0.0, 1.0), (100.0, end as f64)],
            ..sync(0, 0, 1.0)
        };
        let (early, late) = stretches(&all).unwrap();
        assert!((early - late).abs() < 1e-6, "{early} {late}");
        let cut = Sync {
            heights: vec![(0.0, 1.0), (900.0, (end - 1) as f64)],
            ..all
        };
        let error = stretches(&cut).unwrap_err().to_string();
        assert!(error.contains(&end.to_string()), "{error}");
    }
}
