//! Figures as tables.

use perihelion_testkit::measure::{Contender, align, median, sorted};

use crate::measure::{Figures, Stage, Variant};

/// A figure of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    Interval,
    Throughput,
    CpuOfBlocks,
    CpuOfTxs,
    CpuShare,
    Memory,
}

const MIB: f64 = (1 << 20) as f64;

impl Row {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Interval => "block interval, ms",
            Self::Throughput => "transactions/s",
            Self::CpuOfBlocks => "CPU of a node, s per 1,000 blocks",
            Self::CpuOfTxs => "CPU of a node, s per 1,000 transactions",
            Self::CpuShare => "CPU of a node, % of a core",
            Self::Memory => "most memory of a node so far, MiB",
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Interval => 1,
            Self::Throughput | Self::Memory => 0,
            Self::CpuOfBlocks | Self::CpuShare => 2,
            Self::CpuOfTxs => 3,
        }
    }

    fn figure(self, of: &Figures) -> f64 {
        match self {
            Self::Interval => of.interval * 1_000.0,
            Self::Throughput => of.txs_per_second,
            Self::CpuOfBlocks => of.cpu_per_blocks,
            Self::CpuOfTxs => of.cpu_per_txs,
            Self::CpuShare => of.cpu_share * 100.0,
            Self::Memory => of.peak_rss_bytes as f64 / MIB,
        }
    }

    /// The median of a contender's runs, which `measured` has by the contender's number.
    pub(crate) fn median(self, contender: usize, measured: &[(usize, Figures)]) -> f64 {
        let of = measured.iter().filter(|(index, _)| *index == contender);
        median(&sorted(of.map(|(_, figures)| self.figure(figures))))
    }

    /// How often better `ours` is.
    pub(crate) fn ratio(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Self::Throughput => ours / theirs,
            _ => theirs / ours,
        }
    }
}

/// What a table has of a stage.
pub(crate) fn rows(variant: Variant, stage: Stage) -> Vec<Row> {
    let mut rows = vec![Row::Interval];
    if stage != Stage::Idle {
        rows.push(Row::Throughput);
    }
    rows.push(Row::CpuOfBlocks);
    let is_paced = matches!(stage, Stage::Paced(_));
    if stage == Stage::AsManyAsTaken || (is_paced && variant == Variant::NoCommit) {
        rows.push(Row::CpuOfTxs);
    }
    if stage != Stage::AsManyAsTaken {
        rows.push(Row::CpuShare);
    }
    rows.push(Row::Memory);
    rows
}

/// Whether a row of a stage is held against another contender's, or only told. Where nodes decide at
/// their own pace and the load does not grow with it, what one takes in a second, or for a
/// transaction, grows with the blocks that it makes.
pub(crate) fn is_judged(row: Row, variant: Variant, stage: Stage) -> bool {
    let is_own_pace = variant == Variant::NoCommit && stage != Stage::AsManyAsTaken;
    !(is_own_pace && matches!(row, Row::CpuShare | Row::CpuOfTxs))
}

/// One stage of one run.
pub(crate) fn line(
    variant: Variant,
    stage: Stage,
    run: usize,
    contender: &Contender,
    figures: &Figures,
) -> String {
    format!(
        "{variant}, {stage}, run {}  {:<18} {:>6.0} blocks, {:>7.1} ms each, {:>6.0} transactions/s ({} not taken), CPU {:>6.2} s/1000 blocks, {:.1} MiB; others used {:.1} cores, the host took {:.1}",
        run + 1,
        contender.name,
        figures.blocks,
        figures.interval * 1_000.0,
        figures.txs_per_second,
        figures.refused,
        figures.cpu_per_blocks,
        figures.peak_rss_bytes as f64 / MIB,
        figures.other_cores,
        figures.stolen_cores
    )
}

/// Medians of all runs, and how the first contender's relate to those of the others: above 1 is
/// better in each row.
pub(crate) fn table(
    variant: Variant,
    stage: Stage,
    contenders: &[Contender],
    measured: &[(usize, Figures)],
) -> String {
    let mut head = vec![format!("{variant}; {stage}")];
    head.extend(contenders.iter().map(|contender| contender.name.clone()));
    let others = contenders.iter().skip(1);
    head.extend(others.map(|other| format!("better than {}", other.name)));
    let mut table = vec![head];
    for row in rows(variant, stage) {
        let medians: Vec<f64> = (0..contenders.len())
            .map(|contender| row.median(contender, measured))
            .collect();
        let mut title = row.title().to_owned();
        if !is_judged(row, variant, stage) {
            title += " (not judged)";
        }
        let mut cells = vec![title];
        let digits = row.digits();
        cells.extend(medians.iter().map(|figure| format!("{figure:.digits$}")));
        let ratios = medians.iter().skip(1);
        let ratios = ratios.map(|other| row.ratio(medians[0], *other));
        cells.extend(ratios.map(|ratio| format!("{ratio:.2} times")));
        table.push(cells);
    }
    format!("\n{}", align(&table))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn figures(txs_per_second: f64, interval: f64) -> Figures {
        Figures {
            blocks: 10.0,
            interval,
            txs_per_second,
            cpu_per_blocks: 1.0,
            cpu_per_txs: 1.0,
            cpu_share: 0.1,
            peak_rss_bytes: 1 << 20,
            refused: 0,
            other_cores: 0.0,
            stolen_cores: 0.0,
        }
    }

    pub(crate) fn contender(name: &str) -> Contender {
        Contender {
            name: name.to_owned(),
            program: name.into(),
            is_cometbft: name != "ours",
        }
    }

    #[test]
    fn ratios_above_one_are_better_in_each_row() {
        let contenders = [contender("ours"), contender("theirs")];
        let measured = [
            (0, figures(400.0, 0.5)),
            (1, figures(100.0, 2.0)),
            (0, figures(400.0, 0.5)),
        ];
        let table = table(
            Variant::Default,
            Stage::AsManyAsTaken,
            &contenders,
            &measured,
        );
        let row = |title: &str| {
            let line = table.lines().find(|line| line.starts_with(title)).unwrap();
            line.split_whitespace().rev().take(4).collect::<Vec<_>>()
        };
        assert_eq!(row("transactions/s"), ["times", "4.00", "100", "400"]);
        assert_eq!(row("block interval"), ["times", "4.00", "2000.0", "500.0"]);
        let idle = super::table(Variant::Default, Stage::Idle, &contenders, &measured);
        assert!(!idle.contains("transactions"), "{idle}");
    }

    #[test]
    fn what_a_node_takes_at_its_own_pace_is_told_and_not_judged() {
        let contenders = [contender("ours")];
        let measured = [(0, figures(400.0, 0.5))];
        let lines = |variant, stage| {
            let table = table(variant, stage, &contenders, &measured);
            let of_cpu = table.lines().filter(|line| line.starts_with("CPU"));
            let title = |line: &str| {
                line.rsplit_once("  ")
                    .map(|(title, _)| title.trim().to_owned())
            };
            of_cpu.filter_map(title).collect::<Vec<_>>()
        };
        let (blocks, txs) = (Row::CpuOfBlocks.title(), Row::CpuOfTxs.title());
        let share = Row::CpuShare.title();
        let paced = Stage::Paced(200.0);
        assert_eq!(lines(Variant::Default, Stage::Idle), [blocks, share]);
        assert_eq!(lines(Variant::Default, paced), [blocks, share]);
        let not_judged = |title: &str| format!("{title} (not judged)");
        let idle = lines(Variant::NoCommit, Stage::Idle);
        assert_eq!(idle, [blocks.to_owned(), not_judged(share)]);
        let paced = lines(Variant::NoCommit, paced);
        assert_eq!(
            paced,
            [blocks.to_owned(), not_judged(txs), not_judged(share)]
        );
        for variant in [Variant::Default, Variant::NoCommit, Variant::Mempool(1)] {
            assert_eq!(lines(variant, Stage::AsManyAsTaken), [blocks, txs]);
        }
    }
}
