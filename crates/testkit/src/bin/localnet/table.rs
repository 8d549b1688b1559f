//! The nodes side by side.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use perihelion_node::progress::mode_words;

pub(crate) const HEAD: &str = "node              mode               height  round/step        peers  blocks/s  sync                app hash";

/// What is known of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// As `/sync_status` tells it; of a CometBFT what `/status` says.
    pub(crate) mode: String,
    pub(crate) height: i64,
    pub(crate) round: String,
    pub(crate) peers: u64,
    /// Blocks a second over the last seconds.
    pub(crate) rate: f64,
    pub(crate) target: Option<i64>,
    pub(crate) remaining: Option<Duration>,
    pub(crate) app_hash: String,
    /// In consensus, how it came there.
    pub(crate) caught_up: Option<CaughtUp>,
}

/// How a node caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CaughtUp {
    pub(crate) blocks: i64,
    /// From its start till it was in consensus, but for what it took to come up.
    pub(crate) time: Duration,
}

/// `28 blocks in 0.4 s, 70 blocks/s`.
impl fmt::Display for CaughtUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64();
        let rate = self.blocks as f64 / seconds.max(0.001);
        write!(
            f,
            "{} blocks in {seconds:.1} s, {rate:.0} blocks/s",
            self.blocks
        )
    }
}

/// `ROUND/STEP` in words.
pub(crate) fn name_step(text: &str) -> String {
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
    /// A node of which only this is known.
    pub(crate) fn new(name: &str, mode: &str, height: i64) -> Self {
        Self {
            name: name.to_owned(),
            mode: mode.to_owned(),
            height,
            round: "-".to_owned(),
            ..Self::default()
        }
    }

    /// Whether it is in consensus.
    pub(crate) fn is_deciding(&self) -> bool {
        self.mode == "consensus"
    }

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
            target: Some(1_000),
            remaining: Some(Duration::from_secs(3)),
            ..Row::new("node4", "block_sync", 250)
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
