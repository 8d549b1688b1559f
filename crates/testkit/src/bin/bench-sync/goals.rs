//! What the project aims for, and how far a run is from it.

use std::{collections::BTreeMap, fmt};

use perihelion_testkit::measure::{median, sorted};

use crate::{Rows, report::align_words};

/// Pairs that a figure is to rest on.
pub(crate) const PAIRS: usize = 5;

/// A figure that has a goal. Chains by their letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// Blocks a second against CometBFT.
    Rate(char),
    /// The same on chain c, both with an index of transactions.
    IndexedRate,
    /// CPU of the client a block, against CometBFT's.
    Cpu(char),
    /// Blocks a second against CometBFT, from a CometBFT.
    FromCometBft,
    /// Blocks a second from a CometBFT against what it serves to who does nothing with them.
    Ceiling(char),
    /// Blocks a second against CometBFT, with vote extensions.
    Extensions,
    /// Blocks a second against CometBFT, each commit verified.
    Every(char),
    /// Blocks a second against what the cores would do if they never waited.
    Bound(char),
    /// The share of time that a slow application is busy.
    Busy,
    /// Blocks served a second against CometBFT.
    Served(char),
    /// CPU of the server a block, against CometBFT's.
    ServedCpu(char),
    /// Blocks served a second to twenty peers against one.
    Peers,
    /// Most memory with large blocks.
    Memory,
    /// Bytes on disk a block, against CometBFT's.
    Disk(char),
    /// The same on chain c, both with an index of transactions.
    IndexedDisk,
    /// From the start of the process to its first block.
    First,
    /// From the last block to consensus.
    Switch,
    /// Time a block at a million blocks against at a thousand.
    Growth,
    /// Bytes a second over a long and lossy way, against plain connections.
    Lossy,
    /// Bytes a second from so many servers with the default rates, against what they may send.
    DefaultRates(u8),
}

/// How a figure is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Times,
    Share,
    Mebibytes,
    Seconds,
}

/// What is aimed for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Told for comparison only.
    None,
}

/// What became of a figure in this run.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    /// Of each pair or sync.
    Measured(Vec<f64>),
    /// Why there is none.
    Left(String),
    /// It was not asked for.
    NotChosen,
}

impl Figure {
    /// All, as they are listed.
    fn all() -> Vec<Self> {
        let chains = ['a', 'b', 'c'];
        let of = |figure: fn(char) -> Self| chains.map(figure);
        let mut all = Vec::new();
        all.extend(of(Self::Rate));
        all.push(Self::IndexedRate);
        all.extend(of(Self::Cpu));
        all.push(Self::FromCometBft);
        all.extend(of(Self::Ceiling));
        all.extend([Self::Extensions, Self::Every('b'), Self::Every('c')]);
        all.extend(of(Self::Bound));
        all.push(Self::Busy);
        all.extend(of(Self::Served));
        all.extend(of(Self::ServedCpu));
        all.extend([Self::Peers, Self::Memory]);
        all.extend(of(Self::Disk));
        all.extend([Self::IndexedDisk, Self::First, Self::Switch, Self::Growth]);
        all.extend([Self::Lossy, Self::DefaultRates(1), Self::DefaultRates(3)]);
        all
    }

    /// What measures it.
    fn rows(self) -> Rows {
        match self {
            Self::Rate(_)
            | Self::Cpu(_)
            | Self::Every(_)
            | Self::Bound(_)
            | Self::Disk(_)
            | Self::First
            | Self::Switch => Rows::Syncs,
            Self::IndexedRate | Self::IndexedDisk => Rows::Index,
            Self::FromCometBft | Self::Ceiling(_) => Rows::Cometbft,
            Self::Extensions => Rows::Extensions,
            Self::Busy => Rows::Application,
            Self::Served(_) | Self::ServedCpu(_) | Self::Peers => Rows::Serving,
            Self::Memory => Rows::Memory,
            Self::Growth => Rows::Growth,
            Self::DefaultRates(_) => Rows::Rates,
            Self::Lossy => Rows::Lossy,
        }
    }

    /// The one of the chosen chains without which it is not measured.
    fn chain(self) -> Option<char> {
        match self {
            Self::Rate(chain)
            | Self::Cpu(chain)
            | Self::Ceiling(chain)
            | Self::Every(chain)
            | Self::Bound(chain)
            | Self::Served(chain)
            | Self::ServedCpu(chain)
            | Self::Disk(chain) => Some(chain),
            Self::FromCometBft | Self::Peers => Some('c'),
            _ => None,
        }
    }

    /// What it is aimed to be, and how it is written.
    fn goal(self) -> (Goal, Unit) {
        match self {
            Self::Rate(_) | Self::Cpu(_) => (Goal::AtLeast(20.0), Unit::Times),
            Self::IndexedRate | Self::Extensions => (Goal::AtLeast(10.0), Unit::Times),
            Self::FromCometBft | Self::Every(_) => (Goal::AtLeast(8.0), Unit::Times),
            Self::Ceiling(_) | Self::Peers => (Goal::AtLeast(1.0), Unit::Share),
            Self::Bound(_) => (Goal::AtLeast(0.7), Unit::Share),
            Self::Busy => (Goal::AtLeast(0.9), Unit::Share),
            Self::Served('a') => (Goal::None, Unit::Times),
            Self::Served(_) | Self::ServedCpu(_) => (Goal::AtLeast(5.0), Unit::Times),
            Self::Memory => (Goal::AtMost(512.0), Unit::Mebibytes),
            Self::Disk(_) | Self::IndexedDisk => (Goal::AtMost(0.5), Unit::Share),
            Self::First | Self::Switch => (Goal::AtMost(1.0), Unit::Seconds),
            Self::Growth => (Goal::AtMost(1.1), Unit::Times),
            Self::Lossy => (Goal::AtLeast(0.8), Unit::Share),
            Self::DefaultRates(_) => (Goal::AtLeast(0.95), Unit::Share),
        }
    }

    /// What is reached for beyond the goal, where anything is.
    fn reach(self) -> Option<f64> {
        match self {
            Self::Rate(_) | Self::Cpu(_) => Some(40.0),
            Self::IndexedRate | Self::Extensions => Some(20.0),
            Self::Every(_) => Some(12.0),
            Self::Bound(_) => Some(0.85),
            Self::Busy => Some(0.95),
            Self::Served('b' | 'c') | Self::ServedCpu(_) => Some(10.0),
            Self::Memory => Some(256.0),
            Self::Disk(_) | Self::IndexedDisk => Some(1.0 / 3.0),
            Self::First | Self::Switch => Some(0.3),
            Self::Served(_)
            | Self::FromCometBft
            | Self::Ceiling(_)
            | Self::Peers
            | Self::Growth
            | Self::Lossy
            | Self::DefaultRates(_) => None,
        }
    }

    /// How far a median is: 1 is the goal, more is better. `None` where there is no goal.
    fn progress(self, median: f64) -> Option<f64> {
        match self.goal().0 {
            Goal::AtLeast(goal) => Some(median / goal),
            Goal::AtMost(goal) => Some(goal / median),
            Goal::None => None,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(chain) => write!(out, "{chain}: blocks/s against CometBFT"),
            Self::IndexedRate => out.write_str("c: blocks/s against CometBFT, index kv"),
            Self::Cpu(chain) => write!(out, "{chain}: CPU a block, CometBFT's against ours"),
            Self::FromCometBft => {
                out.write_str("c: blocks/s against CometBFT, both from a CometBFT server")
            }
            Self::Ceiling(chain) => write!(
                out,
                "{chain}: blocks/s from a CometBFT server, of what it serves at most"
            ),
            Self::Extensions => {
                out.write_str("blocks/s against CometBFT, vote extensions, 100 validators")
            }
            Self::Every(chain) => {
                write!(
                    out,
                    "{chain}: blocks/s against CometBFT, verify = \"every\""
                )
            }
            Self::Bound(chain) => write!(
                out,
                "{chain}: share of the bound, cores / (CPU of client and server a block)"
            ),
            Self::Busy => {
                out.write_str("share of time that an application of 5 ms a block is busy")
            }
            Self::Served(chain) => write!(out, "{chain}: blocks served a second against CometBFT"),
            Self::ServedCpu(chain) => {
                write!(out, "{chain}: CPU a served block, CometBFT's against ours")
            }
            Self::Peers => out.write_str("blocks served a second to 20 peers, of those to one"),
            Self::Memory => out.write_str("peak memory, 10 MB blocks from 10 peers"),
            Self::Disk(chain) => write!(out, "{chain}: bytes on disk a block, of CometBFT's"),
            Self::IndexedDisk => out.write_str("c: bytes on disk a block, of CometBFT's, index kv"),
            Self::First => out.write_str("process start to first block"),
            Self::Switch => out.write_str("last block to consensus"),
            Self::Growth => {
                out.write_str("a: time a block at 1,000,000 stored blocks against at 1,000")
            }
            Self::Lossy => out.write_str(
                "100 ms round trip, 1 % loss, 10 peers: of what plain connections carry",
            ),
            Self::DefaultRates(servers) => write!(
                out,
                "c: default rates, servers of CometBFT: of {servers} x 5.12 MB/s"
            ),
        }
    }
}

impl Unit {
    fn write(self, figure: f64) -> String {
        let digits = usize::from(figure.abs() < 10.0);
        match self {
            Self::Times => format!("{figure:.*}", digits + 1),
            Self::Share => format!("{:.1} %", 100.0 * figure),
            Self::Mebibytes => format!("{figure:.0}"),
            Self::Seconds => format!("{figure:.2}"),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Times => " times",
            Self::Share => "",
            Self::Mebibytes => " MiB",
            Self::Seconds => " s",
        }
    }
}

/// All figures, measured or not.
#[derive(Debug)]
pub(crate) struct Sheet {
    outcomes: BTreeMap<Figure, Outcome>,
    /// What else is to be known beside what was measured; judged by nobody.
    remarks: BTreeMap<Figure, String>,
}

/// How far a figure is, for a plot.
pub(crate) struct Reached {
    pub(crate) name: String,
    /// 1 is the goal.
    pub(crate) progress: f64,
    /// The median.
    pub(crate) text: String,
}

impl Sheet {
    /// Nothing measured yet of what was chosen.
    pub(crate) fn new(rows: &[Rows], chains: &[char]) -> Self {
        let outcome = |figure: Figure| {
            let is_chosen = rows.contains(&figure.rows())
                && figure.chain().is_none_or(|it| chains.contains(&it));
            let outcome = match figure {
                Figure::Growth if !is_chosen => {
                    Outcome::Left("left out: --rows growth (make bench-growth)".to_owned())
                }
                _ if is_chosen => Outcome::Left("nothing came of it".to_owned()),
                _ => Outcome::NotChosen,
            };
            (figure, outcome)
        };
        Self {
            outcomes: Figure::all().into_iter().map(outcome).collect(),
            remarks: BTreeMap::new(),
        }
    }

    /// Says why what rows were to measure is not there, as far as it is not.
    pub(crate) fn fail(&mut self, rows: Rows, why: &str) {
        for (figure, outcome) in &mut self.outcomes {
            if figure.rows() == rows
                && let Outcome::Left(before) = outcome
            {
                why.clone_into(before);
            }
        }
    }

    /// Adds what was measured, one figure a pair or sync.
    pub(crate) fn add(&mut self, figure: Figure, measured: impl IntoIterator<Item = f64>) {
        let mut measured: Vec<f64> = measured.into_iter().collect();
        if measured.is_empty() {
            return;
        }
        match self.outcomes.get_mut(&figure) {
            Some(Outcome::Measured(before)) => before.append(&mut measured),
            _ => drop(self.outcomes.insert(figure, Outcome::Measured(measured))),
        }
    }

    /// Says what stands behind a figure, besides whether its goal holds.
    pub(crate) fn remark(&mut self, figure: Figure, remark: String) {
        self.remarks.insert(figure, remark);
    }

    /// Says why a figure is not there.
    pub(crate) fn leave_out(&mut self, figure: Figure, why: &str) {
        self.outcomes.insert(figure, Outcome::Left(why.to_owned()));
    }

    /// All rows: what is aimed for, what was measured, and whether it holds.
    pub(crate) fn table(&self) -> String {
        let mut not_chosen = 0;
        let heads = ["", "goal", "reach for", "median", "min", "max", "runs", ""];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        for figure in Figure::all() {
            let (goal, unit) = figure.goal();
            let reach = figure.reach();
            let reach_for = reach.map_or("-".to_owned(), |reach| whole(unit, reach));
            let mut row = vec![figure.to_string(), aim(goal, unit), reach_for];
            match self.outcomes.get(&figure) {
                Some(Outcome::Measured(figures)) => {
                    let figures = sorted(figures.iter().copied());
                    let median = median(&figures);
                    row.push(unit.write(median));
                    row.push(unit.write(figures[0]));
                    row.push(unit.write(figures[figures.len() - 1]));
                    row.push(figures.len().to_string());
                    let mut said = verdict(goal, reach, unit, median);
                    if let Some(remark) = self.remarks.get(&figure) {
                        said += &format!(" (not judged: {remark})");
                    }
                    row.push(said);
                }
                Some(Outcome::Left(why)) => {
                    row.extend(["-", "-", "-", "0"].map(str::to_owned));
                    row.push(format!("NOT MEASURED: {why}"));
                }
                Some(Outcome::NotChosen) | None => {
                    not_chosen += 1;
                    continue;
                }
            }
            rows.push(row);
        }
        let mut text = format!("\nGoals\n{}", align_words(rows));
        if not_chosen > 0 {
            text += &format!("{not_chosen} further goals were left out by --rows or --chains.\n");
        }
        if self
            .outcomes
            .values()
            .any(|outcome| matches!(outcome, Outcome::Measured(figures) if figures.len() < PAIRS))
        {
            text += &format!(
                "Figures of fewer than {PAIRS} runs say little: `make bench` has {PAIRS} of each but memory and growth.\n"
            );
        }
        text
    }

    /// What was measured and has a goal.
    pub(crate) fn reached(&self) -> Vec<Reached> {
        let all = Figure::all().into_iter();
        all.filter_map(|figure| {
            let Some(Outcome::Measured(figures)) = self.outcomes.get(&figure) else {
                return None;
            };
            let median = median(&sorted(figures.iter().copied()));
            let (goal, unit) = figure.goal();
            Some(Reached {
                name: figure.to_string(),
                progress: figure.progress(median)?,
                text: format!(
                    "{}{} ({})",
                    unit.write(median),
                    unit.word(),
                    aim(goal, unit)
                ),
            })
        })
        .collect()
    }
}

fn aim(goal: Goal, unit: Unit) -> String {
    match goal {
        Goal::AtLeast(goal) => format!("at least {}", whole(unit, goal)),
        Goal::AtMost(goal) => format!("at most {}", whole(unit, goal)),
        Goal::None => "none".to_owned(),
    }
}

/// A goal has no more digits than it needs.
fn whole(unit: Unit, goal: f64) -> String {
    match unit {
        Unit::Share => format!("{:.0} %", 100.0 * goal),
        _ => format!("{goal}{}", unit.word()),
    }
}

fn verdict(goal: Goal, reach: Option<f64>, unit: Unit, median: f64) -> String {
    let differs = |by: f64, way: &str| format!("{way} it by {}{}", unit.write(by), unit.word());
    match goal {
        Goal::None => String::new(),
        Goal::AtLeast(goal) if median < goal => differs(goal - median, "short of"),
        Goal::AtMost(goal) if median > goal => differs(median - goal, "above"),
        Goal::AtLeast(_) if reach.is_some_and(|reach| median >= reach) => {
            "holds (reached)".to_owned()
        }
        Goal::AtMost(_) if reach.is_some_and(|reach| median <= reach) => {
            "holds (reached)".to_owned()
        }
        Goal::AtLeast(_) | Goal::AtMost(_) => "holds".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    fn row(sheet: &Sheet, figure: Figure) -> String {
        let table = sheet.table();
        let name = figure.to_string();
        let line = table.lines().find(|line| line.starts_with(&name)).unwrap();
        line[name.len()..]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn everything() -> Sheet {
        Sheet::new(Rows::value_variants(), &['a', 'b', 'c'])
    }

    #[test]
    fn every_figure_has_a_row_measured_or_not() {
        let mut sheet = everything();
        sheet.leave_out(Figure::Memory, "no disk");
        let table = sheet.table();
        for figure in Figure::all() {
            assert!(table.contains(&figure.to_string()), "{figure}");
        }
        assert_eq!(table.matches("NOT MEASURED").count(), Figure::all().len());
        assert!(table.contains("NOT MEASURED: no disk"));
    }

    #[test]
    fn what_was_not_chosen_is_counted_and_not_listed() {
        let table = Sheet::new(&[Rows::Syncs, Rows::Memory], &['c']).table();
        assert!(table.contains(&Figure::Every('c').to_string()));
        assert!(!table.contains(&Figure::Every('b').to_string()));
        assert!(table.contains(&Figure::Memory.to_string()));
        // Of chain c: rate, CPU, bound, disk and every; memory, first block, consensus; and one that
        // is always named.
        let rest = Figure::all().len() - 9;
        assert!(table.contains(&format!("{rest} further goals")), "{table}");
    }

    #[test]
    fn a_failure_is_told_in_the_rows_that_it_leaves_empty() {
        let mut sheet = everything();
        sheet.add(Figure::Served('b'), [6.0]);
        sheet.fail(Rows::Serving, "a server fell silent");
        let table = sheet.table();
        // Chains a and c, CPU of all three, and the peers.
        assert_eq!(table.matches("a server fell silent").count(), 6, "{table}");
        assert!(row(&sheet, Figure::Served('b')).ends_with("holds"));
    }

    #[test]
    fn a_goal_holds_by_the_median_and_says_else_what_is_missing() {
        let mut sheet = everything();
        sheet.add(Figure::Rate('c'), [30.0, 8.5]);
        sheet.add(Figure::Rate('c'), [9.0]);
        sheet.add(Figure::Rate('b'), [25.0, 19.0, 20.0]);
        sheet.add(Figure::Memory, [600.0]);
        sheet.add(Figure::Disk('a'), [0.5]);
        assert_eq!(
            row(&sheet, Figure::Rate('c')),
            "at least 20 times 40 times 9.00 8.50 30.0 3 short of it by 11.0 times"
        );
        assert!(row(&sheet, Figure::Rate('b')).ends_with("3 holds"));
        assert!(row(&sheet, Figure::Memory).ends_with("above it by 88 MiB"));
        assert!(row(&sheet, Figure::Disk('a')).ends_with("holds"));
    }

    #[test]
    fn a_remark_stands_behind_the_verdict_of_what_was_measured() {
        let mut sheet = everything();
        sheet.add(Figure::Ceiling('b'), [0.7, 0.8, 0.6]);
        for chain in ['a', 'b'] {
            sheet.remark(Figure::Ceiling(chain), "all cores busy".to_owned());
        }
        let said = row(&sheet, Figure::Ceiling('b'));
        let end = "3 short of it by 30.0 % (not judged: all cores busy)";
        assert!(said.ends_with(end), "{said}");
        assert!(row(&sheet, Figure::Ceiling('a')).ends_with("NOT MEASURED: nothing came of it"));
    }

    #[test]
    fn what_is_reached_for_stands_beside_the_goal() {
        let mut sheet = everything();
        sheet.add(Figure::Memory, [256.0]);
        sheet.add(Figure::Bound('c'), [0.86]);
        sheet.add(Figure::First, [0.31]);
        sheet.add(Figure::Growth, [1.0]);
        for (figure, reach, verdict) in [
            (
                Figure::Memory,
                "at most 512 MiB 256 MiB 256",
                "holds (reached)",
            ),
            (
                Figure::Bound('c'),
                "at least 70 % 85 % 86.0 %",
                "holds (reached)",
            ),
            (Figure::First, "at most 1 s 0.3 s 0.31", "holds"),
            (Figure::Growth, "at most 1.1 times - 1.00", "holds"),
            (
                Figure::Disk('b'),
                "at most 50 % 33 % - -",
                "nothing came of it",
            ),
        ] {
            let row = row(&sheet, figure);
            assert!(row.starts_with(reach) && row.ends_with(verdict), "{row}");
        }
    }

    #[test]
    fn progress_is_one_at_the_goal_and_grows_with_what_is_better() {
        let close = |left: Option<f64>, right: f64| (left.unwrap() - right).abs() < 1e-9;
        assert!(close(Figure::Rate('a').progress(40.0), 2.0));
        assert!(close(Figure::Memory.progress(1024.0), 0.5));
        assert_eq!(Figure::Served('a').progress(3.0), None);
        let mut sheet = everything();
        sheet.add(Figure::Served('a'), [3.0]);
        sheet.add(Figure::First, [0.5]);
        let reached = sheet.reached();
        assert_eq!(reached.len(), 1);
        assert!(close(Some(reached[0].progress), 2.0));
    }
}
