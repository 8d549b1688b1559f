//! Figures as tables.

use std::fmt::Write as _;

use perihelion_testkit::measure::{align, median, plot::Series, sorted};

use crate::{
    chains::BenchChain,
    measure::{Subject, Sync},
};

/// Syncs that are measured for less are coarse.
const COARSE_SECONDS: f64 = 1.0;

/// One run.
pub(crate) fn line(chain: &str, subject: &Subject, sync: &Sync) -> String {
    format!(
        "{chain} run {}  {:<18} {:>8.1} blocks/s over {:>4.1} s{}, CPU of the client {:>6.2} s/1000, of the server {:>5.2}; others used {:.1} cores, the host took {:.1}",
        sync.run + 1,
        subject.name,
        sync.blocks_per_second,
        sync.seconds,
        if sync.syncs > 1 {
            format!(" in {} syncs", sync.syncs)
        } else {
            String::new()
        },
        sync.client_cpu,
        sync.server_cpu,
        sync.other_cores,
        sync.stolen_cores
    )
}

/// Medians of all runs, and how the first subject's relate to those of the others.
pub(crate) fn table(chain: &BenchChain, subjects: &[Subject], syncs: &[Sync]) -> String {
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
        "consensus",
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
        "s",
        "cores",
        "cores",
    ];
    let mut rows: Vec<Vec<String>> = vec![
        heads.map(str::to_owned).to_vec(),
        units.map(str::to_owned).to_vec(),
    ];
    for (index, subject) in subjects.iter().enumerate() {
        let of = |figure: fn(&Sync) -> f64| figures(syncs, index, figure);
        let rates = of(|sync| sync.blocks_per_second);
        let rate = median(&rates);
        let runs = syncs.iter().filter(|sync| sync.subject == index);
        let entered = sorted(runs.filter_map(|sync| sync.until_consensus));
        rows.push(vec![
            subject.name.clone(),
            rates.len().to_string(),
            format!("{:.1}", median(&of(|sync| sync.seconds))),
            {
                let digits = if rate < 10.0 { 2 } else { 0 };
                format!(
                    "{rate:.digits$} ({:.digits$}-{:.digits$})",
                    rates[0],
                    rates[rates.len() - 1]
                )
            },
            format!("{:.1}", rate * chain.block_bytes as f64 / 1e6),
            format!("{:.2}", median(&of(|sync| sync.client_cpu))),
            format!("{:.2}", median(&of(|sync| sync.server_cpu))),
            format!(
                "{:.0}",
                median(&of(|sync| sync.peak_rss_bytes as f64)) / f64::from(1 << 20)
            ),
            format!("{:.0}", median(&of(|sync| sync.disk_bytes_per_block))),
            format!("{:.2}", median(&of(|sync| sync.until_first))),
            if entered.is_empty() {
                "-".to_owned()
            } else {
                format!("{:.2}", median(&entered))
            },
            format!("{:.1}", median(&of(|sync| sync.other_cores))),
            format!("{:.1}", median(&of(|sync| sync.stolen_cores))),
        ]);
    }
    text += &align(&rows);
    if syncs.iter().any(|sync| sync.seconds < COARSE_SECONDS) {
        text += "A sync was measured for less than a second: heights are looked at each 50 ms, so take its figures for coarse ones.\n";
    }
    for (index, subject) in subjects.iter().enumerate() {
        let of = syncs.iter().filter(|sync| sync.subject == index);
        let (runs, all) = (of.clone().count(), of.map(|sync| sync.syncs).sum::<usize>());
        if all > runs {
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "{} synced {all} times in {runs} runs: short syncs were repeated, and those of a run are added up",
                subject.name
            );
        }
    }
    for (index, subject) in subjects.iter().enumerate() {
        let cut = syncs
            .iter()
            .filter(|sync| sync.subject == index && sync.is_cut);
        let cut = cut.count();
        if cut > 0 {
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "{cut} syncs of {} were cut off before the chain's end: their figures are of the blocks until then",
                subject.name
            );
        }
    }
    for (index, subject) in subjects.iter().enumerate() {
        let of = syncs.iter().filter(|sync| sync.subject == index);
        let stranded = of.filter(|sync| sync.is_stranded()).count();
        if stranded > 0 {
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "{stranded} syncs of {} did NOT come to consensus after the last block while it was waited for: they count as that long",
                subject.name
            );
        }
    }
    for (index, subject) in subjects.iter().enumerate().skip(1) {
        let more = ratios(syncs, 0, index, |sync| sync.blocks_per_second);
        let less = ratios(syncs, index, 0, |sync| sync.client_cpu);
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "chain {}: {} syncs {} times as many blocks a second as {}, with 1/{} of its CPU a block",
            chain.name,
            subjects[0].name,
            spread(&more),
            subject.name,
            spread(&less)
        );
    }
    text
}

/// Rows with their columns below each other, of which the last one has words: they stand to the left.
pub(crate) fn align_words(mut rows: Vec<Vec<String>>) -> String {
    let words = rows.iter().filter_map(|row| row.last());
    let widest = words.map(|word| word.chars().count()).max().unwrap_or(0);
    for word in rows.iter_mut().filter_map(|row| row.last_mut()) {
        *word = format!("{word:<widest$}");
    }
    let mut text = String::new();
    for line in align(&rows).lines() {
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// The median of sorted figures, the least and the most.
pub(crate) fn spread(figures: &[f64]) -> String {
    let figure = |figure: f64| {
        let digits = if figure < 3.0 { 3 } else { 1 };
        format!("{figure:.digits$}")
    };
    format!(
        "{} ({}-{})",
        figure(median(figures)),
        figure(figures[0]),
        figure(figures[figures.len() - 1])
    )
}

/// One figure of all runs of a subject, in order.
pub(crate) fn figures(syncs: &[Sync], subject: usize, figure: fn(&Sync) -> f64) -> Vec<f64> {
    let of = syncs.iter().filter(|sync| sync.subject == subject);
    sorted(of.map(figure))
}

/// A subject's figure against another's in the same turn, in order.
pub(crate) fn ratios(
    syncs: &[Sync],
    of: usize,
    against: usize,
    figure: fn(&Sync) -> f64,
) -> Vec<f64> {
    let run = |subject, run| {
        let mut found = syncs.iter();
        found.find(|sync: &&Sync| sync.subject == subject && sync.run == run)
    };
    let ours = syncs.iter().filter(|sync| sync.subject == of);
    sorted(ours.filter_map(|sync| Some(figure(sync) / figure(run(against, sync.run)?))))
}

/// Blocks a second over time, of the run of each subject that is nearest to its median.
pub(crate) fn over_time(subjects: &[Subject], syncs: &[Sync]) -> Vec<Series> {
    let series = subjects.iter().enumerate().filter_map(|(index, subject)| {
        let middle = median(&figures(syncs, index, |sync| sync.blocks_per_second));
        let distance = |sync: &&Sync| (sync.blocks_per_second - middle).abs();
        let of = syncs.iter().filter(|sync| sync.subject == index);
        let sync = of.min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        Some(Series {
            name: subject.name.clone(),
            points: rates(&sync.heights, (sync.seconds / 30.0).max(0.1)),
        })
    });
    series.collect()
}

/// Rates over stretches of at least so many seconds, each at its middle.
fn rates(heights: &[(f64, f64)], stretch: f64) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let Some(mut begin) = heights.first().copied() else {
        return points;
    };
    for &(second, height) in heights {
        if second - begin.0 >= stretch {
            let rate = (height - begin.1) / (second - begin.0);
            points.push((f64::midpoint(begin.0, second), rate));
            begin = (second, height);
        }
    }
    points
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sync(subject: usize, run: usize, blocks_per_second: f64) -> Sync {
        Sync {
            subject,
            run,
            syncs: 1,
            blocks_per_second,
            seconds: 2.0,
            until_first: 0.1,
            until_consensus: None,
            client_cpu: 2.0,
            server_cpu: 1.0,
            peak_rss_bytes: 1,
            disk_bytes_per_block: 1.0,
            other_cores: 0.0,
            stolen_cores: 0.0,
            is_cut: false,
            busy_share: None,
            heights: vec![(0.0, 1.0), (1.0, 101.0), (2.0, 301.0)],
        }
    }

    fn close(left: &[f64], right: &[f64]) -> bool {
        let pairs = left.iter().zip(right);
        left.len() == right.len() && pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-9)
    }

    #[test]
    fn ratios_are_of_the_same_turn() {
        let syncs = [
            sync(0, 0, 100.0),
            sync(1, 0, 10.0),
            sync(1, 1, 20.0),
            sync(0, 1, 80.0),
            sync(0, 2, 5.0),
        ];
        let ratios = ratios(&syncs, 0, 1, |sync| sync.blocks_per_second);
        assert!(close(&ratios, &[4.0, 10.0]), "{ratios:?}");
    }

    #[test]
    fn who_does_not_come_to_consensus_stays_in_the_figures() {
        let late = Sync {
            until_consensus: Some(10.0),
            ..sync(0, 0, 1.0)
        };
        let quick = Sync {
            until_consensus: Some(0.1),
            ..sync(0, 1, 1.0)
        };
        assert!(late.is_stranded());
        assert!(!quick.is_stranded());
        assert!(!sync(0, 2, 1.0).is_stranded(), "it was cut off");
    }

    #[test]
    fn the_bound_is_what_the_cores_would_do_if_they_never_waited() {
        // 3 ms of CPU a block: two cores do 667 a second.
        let share = sync(0, 0, 500.0).share_of_bound(2.0);
        assert!(close(&[share], &[0.75]), "{share}");
    }

    #[test]
    fn stretches_of_a_sync_are_timed_between_two_looks() {
        let sync = sync(0, 0, 1.0);
        assert!(close(&[sync.seconds_between(51, 201).unwrap()], &[1.0]));
        assert_eq!(sync.seconds_between(1, 302), None);
        assert_eq!(rates(&sync.heights, 0.5), [(0.5, 100.0), (1.5, 200.0)]);
    }
}
