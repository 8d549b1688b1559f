//! What all rows share.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use perihelion_testkit::measure::{
    Contender, median,
    plot::{self, Bar},
};

use crate::{
    INDEX, Options, Rows,
    chains::{self, BenchChain},
    goals::{Figure, Sheet},
    measure::{Feed, Settings, Subject, Sync},
    predictions::{self, Predictions},
    report, turns,
};

/// Why a comparison is not there.
pub(crate) const NO_COMETBFT: &str = "no CometBFT is named (COMETBFT=v0.40.0=PATH)";

/// Where a bar ends at most: a goal that is far surpassed must not make all others small.
const LONGEST_BAR: f64 = 3.0;

/// A run of the benchmark.
pub(crate) struct Bench {
    /// Ours first, then other builds of it, then CometBFT's.
    contenders: Vec<Contender>,
    pub(crate) folder: PathBuf,
    pub(crate) quick: bool,
    pub(crate) runs: usize,
    pub(crate) cut: Duration,
    chains: Vec<char>,
    app: String,
    plots: Option<PathBuf>,
    pub(crate) sheet: Sheet,
    pub(crate) predictions: Predictions,
}

impl Bench {
    pub(crate) fn new(
        options: &Options,
        rows: &[Rows],
        contenders: Vec<Contender>,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(&options.dir)
            .with_context(|| format!("cannot make {}", options.dir.display()))?;
        let cut = options.cut.unwrap_or(if options.quick { 5 } else { 15 });
        Ok(Self {
            contenders,
            folder: options.dir.clone(),
            quick: options.quick,
            runs: options.runs,
            cut: Duration::from_secs(cut.max(1)),
            chains: options.chains.clone(),
            app: options.app.clone(),
            plots: options.plots.clone(),
            sheet: Sheet::new(rows, &options.chains),
            predictions: Predictions::default(),
        })
    }

    /// Our node.
    pub(crate) fn ours(&self) -> &Contender {
        &self.contenders[0]
    }

    /// The CometBFT that serves where one does.
    pub(crate) fn cometbft(&self) -> Option<&Contender> {
        self.contenders.last().filter(|last| last.is_cometbft)
    }

    /// Everybody, ours first.
    pub(crate) fn subjects(&self) -> Vec<Subject> {
        self.contenders.iter().map(Subject::new).collect()
    }

    /// Those of chains a, b and c that are to be measured.
    pub(crate) fn chains(&self) -> Vec<char> {
        self.chains.clone()
    }

    /// Lets our node predict how fast it will sync the chains, where they are synced.
    pub(crate) fn predict(&mut self, rows: &[Rows]) -> anyhow::Result<()> {
        // Where builds are compared, only how they differ is asked.
        let builds = self.contenders.iter().filter(|it| !it.is_cometbft);
        if !rows.contains(&Rows::Syncs) || builds.count() > 1 {
            return Ok(());
        }
        if self.app != predictions::APPLICATION {
            println!(
                "Nothing is predicted: `perihelion bench` does so for the application {}.",
                predictions::APPLICATION
            );
            return Ok(());
        }
        eprintln!("perihelion bench measures the stages of a sync, which takes half a minute");
        let program = &self.contenders[0].program;
        self.predictions.make(program, &self.chains, &self.folder)
    }

    /// Finds or makes a chain.
    pub(crate) fn chain(&self, name: &str) -> anyhow::Result<BenchChain> {
        chains::prepare(&self.folder, name, self.quick)
    }

    /// Finds or makes the home of the serving CometBFT with a chain.
    pub(crate) fn cometbft_home(
        &self,
        chain: &BenchChain,
        cometbft: &Contender,
    ) -> anyhow::Result<PathBuf> {
        chains::prepare_cometbft(&self.folder, chain, self.ours(), cometbft, self.quick)
    }

    /// Clients at full speed, without an index.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            app: self.app.clone(),
            index: INDEX,
            cut: self.cut,
            is_tuned: true,
            tells_busy: false,
            at_least: Duration::ZERO,
        }
    }

    /// From our own server.
    pub(crate) fn feed<'a>(&self, chain: &'a BenchChain) -> anyhow::Result<Feed<'a>> {
        Ok(Feed {
            chain,
            servers: vec![chains::server(self.ours(), chain)?],
            addresses: None,
            last: chain.blocks - 1,
        })
    }

    /// Lets all subjects sync in turn and prints a table of it.
    pub(crate) fn sync(
        &self,
        feed: &Feed<'_>,
        subjects: &[Subject],
        settings: &Settings,
        runs: usize,
    ) -> anyhow::Result<Vec<Sync>> {
        self.sync_beside(feed, subjects, settings, runs, || Ok(()))
    }

    /// The same, with something else measured once in each turn, next to the first subject's sync.
    pub(crate) fn sync_beside(
        &self,
        feed: &Feed<'_>,
        subjects: &[Subject],
        settings: &Settings,
        runs: usize,
        beside: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Sync>> {
        let name = &feed.chain.name;
        let tell = |subject: &Subject, sync: &Sync| {
            eprintln!("{}", report::line(name, subject, sync));
        };
        let syncs = turns::take(&self.folder, feed, subjects, settings, runs, beside, tell)?;
        print!("{}", report::table(feed.chain, subjects, &syncs));
        Ok(syncs)
    }

    /// Records how a subject compares with the CometBFT that is best at it, in each turn; or that
    /// there is none.
    pub(crate) fn compare(
        &mut self,
        figure: Figure,
        subject: usize,
        subjects: &[Subject],
        syncs: &[Sync],
        way: Way,
    ) {
        let others = (0..subjects.len()).filter(|index| subjects[*index].contender.is_cometbft);
        let measured = others.map(|other| match way {
            Way::MoreIsBetter(of) => report::ratios(syncs, subject, other, of),
            Way::LessIsBetter(of) => report::ratios(syncs, other, subject, of),
            Way::Share(of) => report::ratios(syncs, subject, other, of),
        });
        let measured = measured.filter(|ratios| !ratios.is_empty());
        let worst = match way {
            Way::MoreIsBetter(_) | Way::LessIsBetter(_) => {
                measured.min_by(|a, b| median(a).total_cmp(&median(b)))
            }
            Way::Share(_) => measured.max_by(|a, b| median(a).total_cmp(&median(b))),
        };
        match worst {
            Some(ratios) => self.sheet.add(figure, ratios),
            None => self.sheet.leave_out(figure, NO_COMETBFT),
        }
    }

    /// Says that figures need a CometBFT.
    pub(crate) fn needs_cometbft(&mut self, figures: impl IntoIterator<Item = Figure>) {
        for figure in figures {
            self.sheet.leave_out(figure, NO_COMETBFT);
        }
    }

    /// Plots blocks a second over time.
    pub(crate) fn plot_over_time(
        &self,
        name: &str,
        title: &str,
        subjects: &[Subject],
        syncs: &[Sync],
    ) -> anyhow::Result<()> {
        let Some(folder) = &self.plots else {
            return Ok(());
        };
        let series = report::over_time(subjects, syncs);
        let text = plot::lines(title, "seconds since the first block", "blocks/s", &series);
        write_plot(folder, name, &text)
    }

    /// Cores of this machine.
    pub(crate) fn cores() -> anyhow::Result<f64> {
        Ok(thread::available_parallelism()?.get() as f64)
    }

    /// Prints all goals, and plots them.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        print!("{}{}", self.sheet.table(), self.predictions.table());
        if self.cometbft().is_none() {
            println!(
                "WITHOUT COMETBFT: all that compares with it was left out. Name its binaries: COMETBFT=v0.38.25=PATH,v0.40.0=PATH"
            );
        }
        let Some(folder) = &self.plots else {
            return Ok(());
        };
        let bars: Vec<Bar> = self
            .sheet
            .reached()
            .into_iter()
            .map(|it| Bar {
                name: it.name,
                // The text tells all of it.
                value: it.progress.min(LONGEST_BAR),
                text: it.text,
            })
            .collect();
        let title = format!("How far each goal is (1: reached; bars end at {LONGEST_BAR})");
        let text = plot::bars(&title, &bars);
        write_plot(folder, "goals", &text)
    }
}

/// Which of two figures is better.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// Ours over CometBFT's, the smallest such ratio counts.
    MoreIsBetter(fn(&Sync) -> f64),
    /// CometBFT's over ours, the smallest such ratio counts.
    LessIsBetter(fn(&Sync) -> f64),
    /// Ours over CometBFT's, of which less is better: the largest counts.
    Share(fn(&Sync) -> f64),
}

fn write_plot(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{name}.svg"));
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("plotted {}", path.display());
    Ok(())
}
