//! Figures as tables.

use std::fmt::Write as _;

use perihelion_testkit::measure::{Contender, align, median, sorted};

use crate::{chains::BenchChain, measure::Sync};

/// Syncs that are measured for less are coarse.
const COARSE_SECONDS: f64 = 1.0;

/// One run.
pub(crate) fn line(chain: &str, run: usize, contender: &Contender, sync: &Sync) -> String {
    format!(
        "{chain} run {}  {:<18} {:>8.0} blocks/s over {:>4.1} s, CPU of the client {:>6.2} s/1000, of the server {:>5.2}; others used {:.1} cores, the host took {:.1}",
        run + 1,
        contender.name,
        sync.blocks_per_second,
        sync.seconds,
        sync.client_cpu,
        sync.server_cpu,
        sync.other_cores,
        sync.stolen_cores
    )
}

/// Medians of all runs, and how the first contender's relate to those of the others.
pub(crate) fn table(chain: &BenchChain, contenders: &[Contender], syncs: &[Sync]) -> String {
    let mut text = format!("\n{}\n", chain.title);
    let heads = [
        "",
        "runs",
        "measured",
        "blocks/s",
        "MB/s",
        "client CPU",
        "server CPU",
        "peak RSS",
        "disk",
        "first block",
        "others",
        "stolen",
    ];
    let units = [
        "",
        "",
        "s",
        "median (min-max)",
        "",
        "s/1000",
        "s/1000",
        "MiB",
        "B/block",
        "s",
        "cores",
        "cores",
    ];
    let mut rows: Vec<Vec<String>> = vec![
        heads.map(str::to_owned).to_vec(),
        units.map(str::to_owned).to_vec(),
    ];
    let medians: Vec<(f64, f64)> = contenders
        .iter()
        .enumerate()
        .map(|(index, contender)| {
            let of = |figure: fn(&Sync) -> f64| figures(syncs, index, figure);
            let rates = of(|sync| sync.blocks_per_second);
            let (rate, cpu) = (median(&rates), median(&of(|sync| sync.client_cpu)));
            rows.push(vec![
                contender.name.clone(),
                rates.len().to_string(),
                format!("{:.1}", median(&of(|sync| sync.seconds))),
                format!("{rate:.0} ({:.0}-{:.0})", rates[0], rates[rates.len() - 1]),
                format!("{:.1}", rate * chain.block_bytes as f64 / 1e6),
                format!("{cpu:.2}"),
                format!("{:.2}", median(&of(|sync| sync.server_cpu))),
                format!(
                    "{:.0}",
                    median(&of(|sync| sync.peak_rss_bytes as f64)) / f64::from(1 << 20)
                ),
                format!("{:.0}", median(&of(|sync| sync.disk_bytes_per_block))),
                format!("{:.1}", median(&of(|sync| sync.until_first))),
                format!("{:.1}", median(&of(|sync| sync.other_cores))),
                format!("{:.1}", median(&of(|sync| sync.stolen_cores))),
            ]);
            (rate, cpu)
        })
        .collect();
    text += &align(&rows);
    if syncs.iter().any(|sync| sync.seconds < COARSE_SECONDS) {
        text += "A sync was measured for less than a second: heights are looked at each 50 ms, so take its figures for coarse ones.\n";
    }
    for (index, contender) in contenders.iter().enumerate() {
        let cut = syncs
            .iter()
            .filter(|sync| sync.contender == index && sync.is_cut);
        let cut = cut.count();
        if cut > 0 {
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "{cut} syncs of {} were cut off before the chain's end: their figures are of the blocks until then",
                contender.name
            );
        }
    }
    for (contender, (rate, cpu)) in contenders.iter().zip(&medians).skip(1) {
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "chain {}: {} syncs {:.1} times as many blocks a second as {}, with 1/{:.1} of its CPU a block",
            chain.name,
            contenders[0].name,
            medians[0].0 / rate,
            contender.name,
            cpu / medians[0].1
        );
    }
    text
}

/// One figure of all runs of a contender, in order.
fn figures(syncs: &[Sync], contender: usize, figure: fn(&Sync) -> f64) -> Vec<f64> {
    let of = syncs.iter().filter(|sync| sync.contender == contender);
    sorted(of.map(figure))
}
