//! One sync, over the lives of its node.

use std::{
    cmp::max,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use perihelion_testkit::{
    home::{CopyData, copy_home},
    process::{Launch, NodeProcess},
};
use serde_json::Value;

use crate::{
    application::App,
    chain::perihelion,
    plan::{Draw, Moment},
    trial::{Crash, Trial, lost},
};

/// Far longer than anything takes: who waits so long waits for what never comes.
const PATIENCE: Duration = Duration::from_secs(240);
/// Between two looks at the node.
const LOOK: Duration = Duration::from_millis(20);
/// Catching up, a node waits for the disk once after its start: after a hundred blocks, or a second.
/// Who has seen it so far ahead has seen it wait.
const FIRST_WAIT: i64 = 200;

/// A sync that is not finished.
pub(crate) struct Syncing<'a> {
    trial: &'a Trial,
    home: PathBuf,
    launch: Launch,
    /// The height that the next life must begin at, or above it.
    durable: i64,
}

/// How a life of the node ended.
pub(crate) struct Life {
    /// It had all, and was in consensus, which begins once all is durable.
    pub(crate) is_whole: bool,
    /// The height that it began with, unless it was killed before it knew.
    pub(crate) began: Option<i64>,
    /// The last height that it told of, 0 when it told of none.
    pub(crate) reached: i64,
    /// How long it was.
    pub(crate) lasted: Duration,
    /// Where its power was cut, what that took.
    pub(crate) lost: String,
}

impl<'a> Syncing<'a> {
    /// A node that has nothing.
    pub(crate) fn fresh(trial: &'a Trial) -> Self {
        let home = trial.folder.path().join("syncing");
        if home.exists() {
            fs::remove_dir_all(&home).unwrap();
        }
        copy_home(&trial.chain.home, &home, CopyData::None).unwrap();
        let launch = Launch::new("syncing", &perihelion(), &home).unwrap();
        let launch = launch
            .tuned()
            .persistent_peers([trial.server.clone()])
            .set("proxy_app", trial.app.proxy_app(&home))
            .set("abci", "socket")
            .set("blocksync.verify", trial.verify)
            .set("log_format", "json")
            .set("log_level", "info");
        Self {
            trial,
            home,
            launch,
            durable: 0,
        }
    }

    /// Starts the node on what is there, and kills it at `moment`, or once it has all.
    pub(crate) fn live(&mut self, moment: Moment, draw: &mut Draw) -> Life {
        let log = self.home.join("node.log");
        let told = fs::metadata(&log).map_or(0, |log| log.len());
        let mut app = self.trial.app.start(&self.home, self.trial.crash);
        let begun = Instant::now();
        let (mut node, recorded) = match self.trial.crash {
            Crash::Kill => (self.launch.start().unwrap(), None),
            Crash::PowerCut => {
                let (node, recorded) = self.launch.start_recorded().unwrap();
                (node, Some(recorded))
            }
        };
        let (mut reached, mut moved, mut is_whole) = (0, begun, false);
        while !is_whole && !is_over(moment, begun.elapsed(), reached) {
            node.check_alive().unwrap();
            app.iter_mut().for_each(|app| app.check_alive());
            // Until it listens, it does not answer.
            if let Ok(status) = node.status() {
                if status.height > reached {
                    (reached, moved) = (status.height, Instant::now());
                }
                // The last block comes by consensus: its commit is in no block.
                is_whole = reached == self.trial.chain.last();
            }
            assert!(
                moved.elapsed() < PATIENCE,
                "it has been at {reached} for {PATIENCE:?}:\n{}",
                node.log_end()
            );
            pause(moment, begun.elapsed());
        }
        let lasted = begun.elapsed();
        let end = node.log_end();
        kill(node);
        let mut taken = recorded.map_or(String::new(), |recorded| lost(recorded, draw));
        taken += &app.map_or(String::new(), |app| app.crash(draw));
        let life = Life {
            is_whole,
            began: began_at(&log, told),
            reached,
            lasted,
            lost: taken,
        };
        self.check(&life, &end);
        life
    }

    /// Asserts that it went on from all that was durable; what this life makes durable counts for the
    /// next one.
    fn check(&mut self, life: &Life, log_end: &str) {
        let Some(began) = life.began else {
            assert_eq!(life.reached, 0, "it had begun:\n{log_end}");
            return;
        };
        assert!(
            began >= self.durable,
            "it began at {began}, and {} was durable:\n{log_end}",
            self.durable
        );
        self.durable = match self.trial.app {
            // Each block is durable before the application commits it, and the next one is stored, and
            // seen, as soon as it has: that one may be lost.
            App::OwnProcess => max(began, life.reached - 1),
            App::BuiltIn if life.is_whole => life.reached,
            App::BuiltIn if life.reached >= began + FIRST_WAIT => began + 1,
            App::BuiltIn => began,
        };
    }

    /// Asserts that what a whole sync leaves, after the crash at its end, is the server's chain.
    pub(crate) fn assert_whole(&self) {
        self.trial.chain.assert_held(&self.home);
    }
}

fn is_over(moment: Moment, elapsed: Duration, reached: i64) -> bool {
    match moment {
        Moment::After(time) => elapsed >= time,
        Moment::At(height) => reached >= height,
        Moment::AtTheEnd => false,
    }
}

/// Until the next look, or the moment.
fn pause(moment: Moment, elapsed: Duration) {
    thread::sleep(match moment {
        Moment::After(time) => LOOK.min(time.saturating_sub(elapsed)),
        Moment::At(_) | Moment::AtTheEnd => LOOK,
    });
}

fn kill(node: NodeProcess) {
    node.kill().unwrap();
}

/// The height of the store, as the node tells it in its log behind `from` before it does anything.
fn began_at(log: &Path, from: u64) -> Option<i64> {
    let log = fs::read(log).unwrap();
    let log = String::from_utf8_lossy(&log[usize::try_from(from).unwrap()..]);
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let mut handshakes =
        lines.filter(|line: &Value| line["message"] == "handshake with the application");
    handshakes
        .next()
        .map(|line| line["store"].as_i64().unwrap())
}
