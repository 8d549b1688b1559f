//! What the project aims for in consensus, beside what was measured.

use perihelion_testkit::measure::{Contender, align};

use crate::{
    measure::{Figures, Stage, Variant},
    report::{Row, is_judged, rows},
};

/// How often more transactions a second than CometBFT, and how often less CPU a block.
const THROUGHPUT: f64 = 2.0;
const CPU: f64 = 2.0;
/// What an idle node may take: percent of a core, and MiB.
const IDLE_CPU: f64 = 1.0;
const IDLE_MEMORY: f64 = 100.0;

/// Goals that were judged so far.
#[derive(Debug, Default)]
pub(crate) struct Goals {
    lines: Vec<[String; 4]>,
    least: Vec<Least>,
}

/// Of another contender: the row in which ours is the least above it.
#[derive(Debug)]
struct Least {
    other: String,
    row: String,
    /// How often better ours is there.
    ratio: f64,
}

impl Goals {
    /// Judges a stage by the medians of its runs: the first contender is ours.
    pub(crate) fn judge(
        &mut self,
        variant: Variant,
        stage: Stage,
        contenders: &[Contender],
        measured: &[(usize, Figures)],
    ) {
        for row in rows(variant, stage) {
            let ours = row.median(0, measured);
            let most = match row {
                Row::CpuShare => IDLE_CPU,
                Row::Memory => IDLE_MEMORY,
                _ => f64::INFINITY,
            };
            // What an idle node is: four that decide at the pace that operators see.
            if (variant, stage) == (Variant::Default, Stage::Idle) && most.is_finite() {
                self.lines.push([
                    format!("{}; {variant}; {stage}", row.title()),
                    format!("under {most}"),
                    format!("{ours:.2}"),
                    verdict(ours < most),
                ]);
            }
            if !is_judged(row, variant, stage) {
                continue;
            }
            for (index, other) in contenders.iter().enumerate().skip(1) {
                let ratio = row.ratio(ours, row.median(index, measured));
                self.compare(row, (variant, stage), &other.name, ratio);
            }
        }
    }

    fn compare(&mut self, row: Row, (variant, stage): (Variant, Stage), other: &str, ratio: f64) {
        let name = format!("{}; {variant}; {stage}", row.title());
        // Nothing beside nothing is no number, and nothing that was reached.
        let ratio = if ratio.is_nan() { 0.0 } else { ratio };
        let goal = match (row, stage) {
            // The load decides that, and none is worse for a transaction that came a moment later.
            (Row::Throughput, Stage::Paced(_)) => return,
            (Row::Throughput, _) => Some(THROUGHPUT),
            (Row::CpuOfBlocks, _) => Some(CPU),
            _ => None,
        };
        if let Some(goal) = goal {
            self.lines.push([
                format!("{name}; against {other}"),
                format!("at least {goal} times"),
                format!("{ratio:.2} times"),
                verdict(ratio >= goal),
            ]);
        }
        let new = Least {
            other: other.to_owned(),
            row: name,
            ratio,
        };
        match self.least.iter_mut().find(|least| least.other == other) {
            Some(least) if new.ratio >= least.ratio => {}
            Some(least) => *least = new,
            None => self.least.push(new),
        }
    }

    /// Each goal, what was measured, and whether it holds.
    pub(crate) fn table(&self) -> String {
        let mut table = vec![["goal", "", "measured", ""].map(str::to_owned).to_vec()];
        table.extend(self.lines.iter().map(|line| line.to_vec()));
        for Least { other, row, ratio } in &self.least {
            table.push(vec![
                format!("no judged row worse than {other}: least is {row}"),
                "at least 1 times".to_owned(),
                format!("{ratio:.2} times"),
                verdict(*ratio >= 1.0),
            ]);
        }
        let mut text = format!("\nGoals, by medians\n{}", align(&table));
        if self.least.is_empty() {
            text += "Goals against CometBFT were NOT MEASURED: COMETBFT names no binary.\n";
        }
        text
    }
}

fn verdict(holds: bool) -> String {
    // As wide as the other, so that both begin at one column.
    if holds { "ok   " } else { "SHORT" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{contender, figures};

    fn line(table: &str, part: &str) -> String {
        let mut lines = table.lines().filter(|line| line.contains(part));
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("no {part:?} in {table}"));
        assert_eq!(lines.next(), None, "{part}: {table}");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_row_that_misses_its_goal_is_named() {
        let contenders = [contender("ours"), contender("theirs"), contender("others")];
        let ours = Figures {
            cpu_per_blocks: 1.0,
            ..figures(300.0, 1.0)
        };
        let theirs = Figures {
            cpu_per_blocks: 2.5,
            ..figures(100.0, 2.0)
        };
        // More transactions, and less memory.
        let others = Figures {
            cpu_per_blocks: 1.9,
            peak_rss_bytes: ours.peak_rss_bytes / 2,
            ..figures(160.0, 1.0)
        };
        let measured = [(0, ours), (1, theirs), (2, others)];
        let mut goals = Goals::default();
        goals.judge(
            Variant::NoCommit,
            Stage::AsManyAsTaken,
            &contenders,
            &measured,
        );
        let table = goals.table();
        let of = |part: &str| line(&table, part);
        let end = "; timeout_commit = 0; as many transactions as are taken";
        for (start, least, expected) in [
            ("transactions/s", "theirs", "at least 2 times 3.00 times ok"),
            (
                "transactions/s",
                "others",
                "at least 2 times 1.88 times SHORT",
            ),
            (
                "CPU of a node, s per 1,000 blocks",
                "theirs",
                "at least 2 times 2.50 times ok",
            ),
            (
                "CPU of a node, s per 1,000 blocks",
                "others",
                "at least 2 times 1.90 times SHORT",
            ),
        ] {
            let name = format!("{start}{end}; against {least}");
            assert_eq!(of(&name), format!("{name} {expected}"));
        }
        let worst = of("no judged row worse than others");
        assert!(
            worst.contains("most memory of a node so far, MiB"),
            "{worst}"
        );
        assert!(
            worst.ends_with("at least 1 times 0.50 times SHORT"),
            "{worst}"
        );
        // Equal ones are not worse.
        assert!(
            of("no judged row worse than theirs").ends_with("1.00 times ok"),
            "{table}"
        );
    }

    /// No block, and no transaction: no figure of these is a ratio.
    #[test]
    fn what_cannot_be_compared_hides_nothing_and_is_short() {
        let contenders = [contender("ours"), contender("theirs")];
        let ours = figures(1.0, 2.0);
        let nothing = figures(0.0, f64::INFINITY);
        for measured in [
            [(0, nothing), (1, nothing)],
            // A row that is worse, and one behind it that is better.
            [
                (
                    0,
                    Figures {
                        cpu_per_blocks: 1.0,
                        txs_per_second: 0.0,
                        ..ours
                    },
                ),
                (
                    1,
                    Figures {
                        interval: 1.0,
                        txs_per_second: 0.0,
                        cpu_per_blocks: 2.0,
                        cpu_per_txs: 2.0,
                        peak_rss_bytes: 2 << 20,
                        ..ours
                    },
                ),
            ],
        ] {
            let mut goals = Goals::default();
            let stage = Stage::AsManyAsTaken;
            goals.judge(Variant::NoCommit, stage, &contenders, &measured);
            let worst = line(&goals.table(), "no judged row worse than theirs");
            assert!(worst.ends_with("0.00 times SHORT"), "{worst}");
        }
    }

    #[test]
    fn what_a_node_takes_at_its_own_pace_is_no_row_that_is_worse() {
        let contenders = [contender("ours"), contender("theirs")];
        let theirs = figures(400.0, 20.0);
        let ours = Figures {
            cpu_share: 10.0 * theirs.cpu_share,
            cpu_per_txs: 10.0 * theirs.cpu_per_txs,
            ..figures(400.0, 1.0)
        };
        let worst = |variant, stage| {
            let mut goals = Goals::default();
            goals.judge(variant, stage, &contenders, &[(0, ours), (1, theirs)]);
            line(&goals.table(), "worse than theirs")
        };
        for stage in [Stage::Idle, Stage::Paced(1.0)] {
            let own_pace = worst(Variant::NoCommit, stage);
            assert!(own_pace.ends_with("1.00 times ok"), "{own_pace}");
            let same_pace = worst(Variant::Default, stage);
            assert!(same_pace.ends_with("0.10 times SHORT"), "{same_pace}");
        }
        let flood = worst(Variant::NoCommit, Stage::AsManyAsTaken);
        assert!(flood.ends_with("0.10 times SHORT"), "{flood}");
    }

    #[test]
    fn an_idle_node_is_judged_by_itself() {
        let idle = |share, memory: u64| {
            let figures = Figures {
                cpu_share: share,
                peak_rss_bytes: memory << 20,
                ..figures(0.0, 1.0)
            };
            let mut goals = Goals::default();
            let ours = [contender("ours")];
            goals.judge(Variant::Default, Stage::Idle, &ours, &[(0, figures)]);
            // Not where it does not rest.
            goals.judge(Variant::NoCommit, Stage::Idle, &ours, &[(0, figures)]);
            goals.judge(Variant::Default, Stage::Paced(1.0), &ours, &[(0, figures)]);
            let table = goals.table();
            assert!(table.contains("NOT MEASURED"), "{table}");
            let cpu = line(&table, "% of a core");
            (cpu, line(&table, "most memory"))
        };
        let (cpu, memory) = idle(0.008, 99);
        assert!(cpu.ends_with("under 1 0.80 ok"), "{cpu}");
        assert!(memory.ends_with("under 100 99.00 ok"), "{memory}");
        let (cpu, memory) = idle(0.012, 101);
        assert!(cpu.ends_with("under 1 1.20 SHORT"), "{cpu}");
        assert!(memory.ends_with("under 100 101.00 SHORT"), "{memory}");
    }
}
