//! The nodes side by side.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    time::{Duration, Instant},
};

use perihelion_node::progress::mode_words;
use perihelion_testkit::process::NodeProcess;
use serde_json::Value;

/// Over which time a rate is measured.
const RATE_TIME: Duration = Duration::from_secs(10);

pub(crate) const HEAD: &str = "node              mode               height  round/step        peers  blocks/s  sync                app hash";

/// What is known of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// As `/sync_status` tells it; of a CometBFT what `/status` says.
    pub(crate) mode: String,
    pub(crate) height: i64,
    round: String,
    peers: u64,
    /// Blocks a second over the last seconds.
    rate: f64,
    target: Option<i64>,
    remaining: Option<Duration>,
    app_hash: String,
}

/// Looks at one node again and again.
pub(crate) struct Look {
    heights: VecDeque<(Instant, i64)>,
}

impl Look {
    pub(crate) fn new() -> Self {
        Self {
            heights: VecDeque::new(),
        }
    }

    /// What the node says now; one that does not answer is starting or busy.
    pub(crate) fn at(&mut self, node: &NodeProcess) -> Row {
        let name = node.name().to_owned();
        let Ok(status) = node.status() else {
            return Row {
                name,
                mode: "starting".to_owned(),
                ..Row::default()
            };
        };
        // CometBFT has no such route.
        let sync = node.sync_status().unwrap_or_default();
        let mode = match sync["mode"].as_str() {
            Some(mode) => mode,
            None if status.catching_up => "block_sync",
            None => "consensus",
        };
        let round = node.call("/consensus_state").unwrap_or_default();
        let round = round["round_state"]["height/round/step"].as_str();
        let round = round.and_then(|text| text.split_once('/'));
        let peers = node.call("/net_info").unwrap_or_default();
        let text = |value: &Value| value.as_str().and_then(|text| text.parse::<i64>().ok());
        let is_consensus = mode == "consensus";
        Row {
            round: match round {
                Some((_, round_and_step)) if is_consensus => name_step(round_and_step),
                _ => "-".to_owned(),
            },
            mode: mode.to_owned(),
            peers: text(&peers["n_peers"]).unwrap_or(0).unsigned_abs(),
            rate: self.rate(status.height),
            height: status.height,
            target: text(&sync["target_height"]).filter(|_| !is_consensus),
            remaining: text(&sync["remaining_time"])
                .map(|nanos| Duration::from_nanos(nanos.unsigned_abs())),
            app_hash: status.app_hash,
            name,
        }
    }

    fn rate(&mut self, height: i64) -> f64 {
        let now = Instant::now();
        self.heights.push_back((now, height));
        while self.heights.len() > 2
            && self
                .heights
                .front()
                .is_some_and(|(at, _)| now - *at > RATE_TIME)
        {
            self.heights.pop_front();
        }
        let Some(&(at, first)) = self.heights.front() else {
            return 0.0;
        };
        (height - first) as f64 / (now - at).as_secs_f64().max(0.001)
    }
}

/// `ROUND/STEP` in words.
fn name_step(text: &str) -> String {
    let (round, step) = text.split_once('/').unwrap_or((text, ""));
    // CometBFT's numbers of the steps.
    let step = match step {
        "1" => "new height",
        "2" => "new round",
        "3" => "propose",
        "4" => "prevote",
        "5" => "prevote wait",
        "6" => "precommit",
        "7" => "precommit wait",
        "8" => "commit",
        other => other,
    };
    format!("{round} {step}")
}

impl Row {
    /// How far a sync is; `-` in consensus.
    fn sync(&self) -> String {
        let Some(target) = self.target.filter(|target| *target > 0) else {
            return "-".to_owned();
        };
        let percent = 100.0 * self.height as f64 / target as f64;
        let eta = self.remaining.map_or(String::new(), |left| {
            format!(" ETA {:.0} s", left.as_secs_f64())
        });
        format!("{percent:.1} %{eta}")
    }

    /// The row of the table.
    pub(crate) fn write(&self, text: &mut String) {
        let hash = self.app_hash.get(..16).unwrap_or(&self.app_hash);
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "{:<17} {:<17} {:>7}  {:<16} {:>6}  {:>8.2}  {:<18}  {hash}",
            self.name,
            mode_words(&self.mode),
            self.height,
            self.round,
            self.peers,
            self.rate,
            self.sync(),
        );
    }

    /// The same within a line.
    pub(crate) fn brief(&self) -> String {
        let mut text = format!("{} {} {}", self.name, mode_words(&self.mode), self.height);
        if self.target.is_some() {
            let _ = write!(text, " ({})", self.sync());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_shown_with_its_share_and_time_left() {
        let row = Row {
            name: "node4".to_owned(),
            mode: "block_sync".to_owned(),
            height: 250,
            target: Some(1_000),
            remaining: Some(Duration::from_secs(3)),
            ..Row::default()
        };
        assert_eq!(row.brief(), "node4 syncing blocks 250 (25.0 % ETA 3 s)");
        let row = Row {
            target: None,
            ..row
        };
        assert_eq!(row.sync(), "-");
    }

    #[test]
    fn steps_are_named_as_cometbft_numbers_them() {
        assert_eq!(name_step("0/3"), "0 propose");
        assert_eq!(name_step("12/8"), "12 commit");
    }
}
