//! Kills until there have been enough.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use perihelion_testkit::{
    power::RecordedProcess,
    process::{Launch, NodeProcess},
};
use tempfile::TempDir;

use crate::{
    application::App,
    chain::{Chain, perihelion},
    plan::{Draw, Moment, Plan},
    syncing::{Life, Syncing},
};

/// How long a server may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(240);
/// The last moment at which a node is killed: a slow sync has as many lives as a quick one.
const LAST_MOMENT: Duration = Duration::from_millis(1_500);

/// What happens to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// It is killed (SIGKILL).
    Kill,
    /// It is killed, and what it had not synced is not there any more.
    PowerCut,
}

/// A chain, its server, and how a syncing node is treated.
pub(crate) struct Trial {
    pub(crate) crash: Crash,
    pub(crate) app: App,
    /// `blocksync.verify`.
    pub(crate) verify: &'static str,
    pub(crate) chain: Chain,
    /// `ID@HOST:PORT` of the server.
    pub(crate) server: String,
    pub(crate) folder: TempDir,
    plan: Plan,
    _serving: NodeProcess,
}

/// Half of the kills with each application. One test at a time: their processes share the processors.
pub(crate) fn try_with_each_application(crash: Crash, verify: &'static str) {
    static SUITE: Mutex<()> = Mutex::new(());
    // A failed test says nothing of the next one.
    let _alone = SUITE.lock().unwrap_or_else(PoisonError::into_inner);
    let plan = Plan::from_environment();
    let half = plan.kills / 2;
    for (app, kills) in App::ALL.into_iter().zip([plan.kills - half, half]) {
        Trial::new(crash, verify, app, plan).kill_often(kills);
    }
}

impl Trial {
    fn new(crash: Crash, verify: &'static str, app: App, plan: Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let chain = Chain::make(&folder.path().join("chain"), app.blocks(plan));
        let server = Launch::new("server", &perihelion(), &chain.home).unwrap();
        let server = server.tuned();
        let mut serving = server.start().unwrap();
        serving.wait_ready(PATIENCE).unwrap();
        Self {
            crash,
            app,
            verify,
            chain,
            server: server.address().unwrap(),
            folder,
            plan,
            _serving: serving,
        }
    }

    fn kill_often(&self, kills: usize) {
        let title = format!("{:?}, verify {}, {:?}", self.crash, self.verify, self.app);
        eprintln!("{title}: {kills} kills, seed {}", self.plan.seed);
        let mut draw = Draw::new(self.plan, &title);
        let span = (!self.plan.is_short()).then(|| self.undisturbed(&mut draw));
        let mut syncing = Syncing::fresh(self);
        let (mut whole, mut in_between) = (0, 0);
        for kill in 0..kills {
            let mut life = syncing.live(self.moment(kill, kills, span, &mut draw), &mut draw);
            while life.is_whole {
                whole += 1;
                syncing.assert_whole();
                syncing = Syncing::fresh(self);
                if span.is_none() {
                    // However few there are, they end: this one was at the last moment.
                    break;
                }
                life = syncing.live(self.moment(kill, kills, span, &mut draw), &mut draw);
            }
            let began = life.began.unwrap_or(0);
            in_between += usize::from(began > 0 && began < self.chain.last());
            tell(kill + 1, &life);
        }
        assert!(syncing.live(Moment::AtTheEnd, &mut draw).is_whole);
        syncing.assert_whole();
        eprintln!(
            "{title}: {kills} kills, {in_between} of nodes that had resumed in between; {} whole syncs, all {} blocks equal",
            whole + 1,
            self.chain.last()
        );
        assert!(
            self.plan.is_short() || in_between > 0,
            "no sync was ever resumed"
        );
    }

    /// The next kill: at a moment of `span` where there is one, else in its own part of the chain, above the first.
    fn moment(&self, kill: usize, kills: usize, span: Option<Duration>, draw: &mut Draw) -> Moment {
        match span {
            Some(span) => Moment::After(draw.within(span)),
            None => {
                let part = self.chain.last() / i64::try_from(kills + 1).unwrap();
                let into = draw.below(u64::try_from(part).unwrap());
                let below = i64::try_from(kill + 1).unwrap() * part;
                Moment::At(below + i64::try_from(into).unwrap())
            }
        }
    }

    /// Lets a sync be until its end: how long it takes, up to the last moment of a kill.
    fn undisturbed(&self, draw: &mut Draw) -> Duration {
        let mut syncing = Syncing::fresh(self);
        let life = syncing.live(Moment::AtTheEnd, draw);
        assert!(life.is_whole);
        syncing.assert_whole();
        eprintln!("undisturbed it takes {:.2} s", life.lasted.as_secs_f64());
        life.lasted.min(LAST_MOMENT)
    }
}

fn tell(kill: usize, life: &Life) {
    let began = life
        .began
        .map_or("not yet begun".to_owned(), |began| format!("from {began}"));
    let lost = if life.lost.is_empty() {
        String::new()
    } else {
        format!("; {}", life.lost)
    };
    eprintln!(
        "kill {kill} after {:.3} s, {began}, at {}{lost}",
        life.lasted.as_secs_f64(),
        life.reached
    );
}

/// Cuts the power of a process that was killed.
pub(crate) fn lost(recorded: RecordedProcess, draw: &mut Draw) -> String {
    let keeps_names = draw.keeps_names();
    let lost = recorded
        .cut(keeps_names, |bytes| draw.share(bytes))
        .unwrap();
    format!(
        "lost {} bytes of {} files and {} names",
        lost.bytes, lost.files, lost.names
    )
}
