//! Asks each node again and again, each in a thread of its own, so that one that hangs holds up
//! nobody.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use perihelion_testkit::process::NodeClient;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::table::{CaughtUp, Row, name_step};

/// Between two looks at a node in consensus, and at one that is about to be.
const PAUSE: Duration = Duration::from_millis(200);
const SHORT_PAUSE: Duration = Duration::from_millis(20);
/// How long one request may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// A node that says nothing for so long does not answer. Shorter: a busy one would seem to hang.
const SILENCE: Duration = Duration::from_secs(3);
/// A node that has said nothing for so long since its start waits for something. Shorter: one on a busy
/// machine would seem to.
const OVERDUE: Duration = Duration::from_secs(5);
/// Over which time a rate is measured.
const RATE_TIME: Duration = Duration::from_secs(10);

/// A node that is asked.
pub(crate) struct Watched {
    name: String,
    /// What it said last, and when.
    last: Arc<Mutex<Option<(Instant, Row)>>>,
    since: Instant,
    /// It was told that it says nothing.
    is_told: bool,
}

impl Watched {
    /// Asks it until `stop`, in a thread that ends with the process at the latest.
    pub(crate) fn start(node: &NodeClient, stop: CancellationToken) -> Self {
        let watched = Self {
            name: node.name().to_owned(),
            last: Arc::default(),
            since: Instant::now(),
            is_told: false,
        };
        let (node, last) = (node.clone().patience(PATIENCE), Arc::clone(&watched.last));
        thread::spawn(move || {
            let mut rate = Rate::default();
            while !stop.is_cancelled() {
                let row = ask(&node, &mut rate);
                let is_deciding = row.as_ref().is_some_and(Row::is_deciding);
                if let Some(row) = row {
                    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                    *last = Some((Instant::now(), row));
                }
                thread::sleep(if is_deciding { PAUSE } else { SHORT_PAUSE });
            }
        });
        watched
    }

    /// Whether it should have said something by now, and never has; true once.
    pub(crate) fn is_overdue(&mut self, now: Instant) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_late = now.saturating_duration_since(self.since) >= OVERDUE;
        let is_news = is_late && last.is_none() && !self.is_told;
        self.is_told |= is_news;
        is_news
    }

    /// What is known of it now.
    pub(crate) fn row(&self) -> Row {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        shown(&self.name, last.as_ref(), Instant::now())
    }
}

/// The row of a node that said this last.
fn shown(name: &str, last: Option<&(Instant, Row)>, now: Instant) -> Row {
    match last {
        None => Row::new(name, "starting", 0),
        Some((at, row)) if now.saturating_duration_since(*at) < SILENCE => row.clone(),
        Some((_, row)) => Row::new(name, "no answer", row.height),
    }
}

/// What the node says; `None` without an answer.
fn ask(node: &NodeClient, rate: &mut Rate) -> Option<Row> {
    let status = node.status().ok()?;
    // CometBFT has no such route.
    let sync = node.sync_status().unwrap_or_default();
    let mode = match sync["mode"].as_str() {
        Some(mode) => mode,
        None if status.catching_up => "block_sync",
        None => "consensus",
    };
    let is_deciding = mode == "consensus";
    let mut row = Row::new(node.name(), mode, status.height);
    if is_deciding {
        let state = node.call("/consensus_state").unwrap_or_default();
        let place = state["round_state"]["height/round/step"].as_str();
        if let Some((_, round_and_step)) = place.and_then(|place| place.split_once('/')) {
            row.round = name_step(round_and_step);
        }
    }
    let peers = node.call("/net_info").unwrap_or_default();
    row.peers = number(&peers["n_peers"]).unwrap_or(0).unsigned_abs();
    row.rate = rate.at(Instant::now(), status.height);
    row.target = number(&sync["target_height"]).filter(|_| !is_deciding);
    row.remaining = nanoseconds(&sync["remaining_time"]);
    row.app_hash = status.app_hash;
    row.caught_up = caught_up(&sync).filter(|_| is_deciding);
    Some(row)
}

fn number(value: &Value) -> Option<i64> {
    value.as_str()?.parse().ok()
}

fn nanoseconds(value: &Value) -> Option<Duration> {
    Some(Duration::from_nanos(number(value)?.unsigned_abs()))
}

/// How a node came to be in consensus, by its answer to `/sync_status`.
fn caught_up(sync: &Value) -> Option<CaughtUp> {
    // `caught up at height 28`
    let reason = sync["mode_reason"].as_str()?;
    let height: i64 = reason.strip_prefix("caught up at height ")?.parse().ok()?;
    Some(CaughtUp {
        blocks: height - number(&sync["start_height"])?,
        time: nanoseconds(&sync["total_synced_time"])?,
    })
}

/// Blocks a second over the last seconds.
#[derive(Default)]
struct Rate(VecDeque<(Instant, i64)>);

impl Rate {
    fn at(&mut self, now: Instant, height: i64) -> f64 {
        self.0.push_back((now, height));
        let is_old = |(at, _): &(Instant, i64)| now.saturating_duration_since(*at) > RATE_TIME;
        while self.0.len() > 2 && self.0.front().is_some_and(is_old) {
            self.0.pop_front();
        }
        let Some(&(at, first)) = self.0.front() else {
            return 0.0;
        };
        (height - first) as f64 / (now - at).as_secs_f64().max(0.001)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_that_hangs_keeps_its_height() {
        let now = Instant::now();
        assert_eq!(shown("node2", None, now).brief(), "node2 starting 0");
        let said = (now, Row::new("node2", "consensus", 241));
        let at = |later| shown("node2", Some(&said), now + later).brief();
        assert_eq!(at(Duration::from_secs(1)), "node2 consensus 241");
        assert_eq!(at(SILENCE), "node2 no answer 241");
    }

    #[test]
    fn a_node_that_never_answers_is_told_of_once() {
        let since = Instant::now();
        let mut node = Watched {
            name: "node0".to_owned(),
            last: Arc::default(),
            since,
            is_told: false,
        };
        assert!(!node.is_overdue(since));
        assert!(node.is_overdue(since + OVERDUE));
        assert!(!node.is_overdue(since + 2 * OVERDUE));
        node.is_told = false;
        *node.last.lock().unwrap() = Some((since, Row::new("node0", "consensus", 1)));
        assert!(!node.is_overdue(since + 2 * OVERDUE));
    }

    #[test]
    fn what_was_caught_up_with_is_told_by_the_node() {
        let mut sync = json!({
            "mode_reason": "caught up at height 30", "start_height": "2",
            "total_synced_time": "400000000",
        });
        let caught = caught_up(&sync).unwrap();
        assert_eq!(caught.to_string(), "28 blocks in 0.4 s, 70 blocks/s");
        sync["total_synced_time"] = json!("4000000");
        let caught = caught_up(&sync).unwrap();
        assert_eq!(caught.to_string(), "28 blocks in 4 ms, 7000 blocks/s");
        sync["mode_reason"] = "the node started".into();
        assert!(caught_up(&sync).is_none());
        assert!(caught_up(&Value::Null).is_none());
    }

    #[test]
    fn a_rate_is_of_the_last_seconds() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(rate.at(at(0), 5).abs() < 1e-9);
        assert!((rate.at(at(10), 15) - 1.0).abs() < 1e-9);
        assert!((rate.at(at(20), 35) - 2.0).abs() < 1e-9);
    }
}
