//! The progress of a node as one line: live on a terminal, in the log elsewhere, and from
//! `perihelion status`.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use perihelion_consensus::Step;
use tracing_subscriber::fmt::MakeWriter;

/// What a progress line shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProgressLine {
    /// What the node does, as `/sync_status` names it: `block_sync`.
    pub mode: String,
    /// The last applied height.
    pub height: u64,
    /// The height where this sync began.
    pub start_height: u64,
    /// The height to reach; `None` while no peer has told any.
    pub target: Option<u64>,
    /// Blocks applied a second.
    pub blocks_per_second: f64,
    /// Bytes of blocks received a second.
    pub bytes_per_second: f64,
    /// Time left; `None` when it cannot be told.
    pub eta: Option<Duration>,
    /// Peers connected.
    pub peers: usize,
    /// The stage that the others wait for, such as `network`; empty for none.
    pub limiting_stage: String,
    /// Why nothing moves; `None` while something does.
    pub stalled: Option<String>,
    /// In consensus, where its round is: `1235 at round 0, prevote`; else empty.
    pub round: String,
    /// Why this node's validator signs nothing; `None` while it does, or is none.
    pub silent: Option<String>,
}

impl ProgressLine {
    /// How much of the chain is here, 0 to 100: of all heights, rounded down to two digits so that
    /// 100 means level. `None` without a target.
    #[must_use]
    pub fn percent(&self) -> Option<f64> {
        let target = self.target.filter(|target| *target > 0)?;
        let hundredths = u128::from(self.height.min(target)) * 10_000 / u128::from(target);
        u32::try_from(hundredths)
            .ok()
            .map(|hundredths| f64::from(hundredths) / 100.0)
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_level(&self) -> bool {
        self.target.is_some_and(|target| self.height >= target)
    }

    /// In consensus nothing is caught up with.
    fn is_deciding(&self) -> bool {
        self.mode == "consensus"
    }

    fn waits_for_peers(&self) -> bool {
        self.mode == "wait_for_peers"
    }

    /// Whether there is a way to go.
    fn catches_up(&self) -> bool {
        !self.is_deciding() && !self.waits_for_peers()
    }

    /// The line: `syncing blocks 12345/50000 24.69% 812.4 blocks/s 16.1 MB/s ETA 46s 8 peers, limited
    /// by network`, and behind it why nothing moves, and why this validator signs nothing; `waiting
    /// for peers at height 7, 0 peers` before that, `consensus 599, deciding 600 at round 0, propose,
    /// 1.0 blocks/s 3 peers` where blocks are decided.
    #[must_use]
    pub fn format(&self) -> String {
        let (mode, height) = (mode_words(&self.mode), self.height);
        let mut line = match (self.target, self.percent()) {
            _ if self.waits_for_peers() => format!("{mode} at height {height},"),
            _ if self.is_deciding() && self.round.is_empty() => format!("{mode} {height},"),
            _ if self.is_deciding() => format!("{mode} {height}, deciding {},", self.round),
            (Some(target), Some(percent)) => format!("{mode} {height}/{target} {percent:.2}%"),
            _ => format!("{mode} {height}/?"),
        };
        if !self.waits_for_peers() {
            line += &self.format_speed();
        }
        let plural = if self.peers == 1 { "" } else { "s" };
        line += &format!(" {} peer{plural}", self.peers);
        if !self.limiting_stage.is_empty() && self.catches_up() {
            line += &format!(", limited by {}", self.limiting_stage);
        }
        line + &self.format_reasons()
    }

    /// The line, or where there is no room for so many characters and something is wrong, that right behind
    /// the height: what does not fit is cut off, and says what to do.
    #[must_use]
    pub fn format_within(&self, columns: usize) -> String {
        let (line, reasons) = (self.format(), self.format_reasons());
        if reasons.is_empty() || line.chars().count() <= columns {
            return line;
        }
        format!("{} {}{reasons}", mode_words(&self.mode), self.height)
    }

    /// Why nothing moves, and why this validator signs nothing.
    fn format_reasons(&self) -> String {
        let mut text = String::new();
        if let Some(reason) = &self.stalled {
            text += &format!(", stalled: {reason}");
        }
        if let Some(reason) = &self.silent {
            text += &format!(", the validator stays silent: {reason}");
        }
        text
    }

    /// Rates, and the time left where there is a way to go.
    fn format_speed(&self) -> String {
        let mut line = format!(" {:.1} blocks/s", self.blocks_per_second);
        if !self.is_deciding() {
            line += &format!(" {:.1} MB/s", self.bytes_per_second / 1e6);
        }
        if !self.is_level() && self.catches_up() {
            // At nothing, however fast, nobody arrives.
            let eta = self.eta.filter(|_| self.target.is_some());
            line += &format!(" ETA {}", eta.map_or("unknown".to_owned(), format_eta));
        }
        line
    }
}

/// A mode of `/sync_status` in words for people.
#[must_use]
pub fn mode_words(mode: &str) -> &str {
    match mode {
        "wait_for_peers" => "waiting for peers",
        "block_sync" => "syncing blocks",
        other => other,
    }
}

/// Where a round is: `1235 at round 0, prevote`.
#[must_use]
pub fn format_round(height: impl Display, round: impl Display, step: Step) -> String {
    let step = match step {
        Step::NewHeight => "new height",
        Step::NewRound => "new round",
        Step::Propose => "propose",
        Step::Prevote => "prevote",
        Step::PrevoteWait => "prevote wait",
        Step::Precommit => "precommit",
        Step::PrecommitWait => "precommit wait",
        Step::Commit => "commit",
    };
    format!("{height} at round {round}, {step}")
}

/// Time in its two largest units: `3d4h`, `2h5m`, `46s`.
#[must_use]
pub fn format_eta(eta: Duration) -> String {
    let seconds = eta.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{}s", seconds % 60),
        3600..86_400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// What a terminal has that does not tell.
const USUAL_COLUMNS: usize = 80;

/// A line that stays at the foot of a terminal (standard error) while log lines go by above it.
#[derive(Debug, Clone)]
pub struct LiveLine {
    lines: MultiProgress,
    line: ProgressBar,
}

impl LiveLine {
    /// A line, when standard error is a terminal.
    #[must_use]
    pub fn on_terminal() -> Option<Self> {
        io::stderr()
            .is_terminal()
            .then(|| Self::on(ProgressDrawTarget::stderr_with_hz(10)))
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let lines = MultiProgress::with_draw_target(target);
        let style = ProgressStyle::with_template("{wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let line = lines.add(ProgressBar::no_length().with_style(style));
        Self { lines, line }
    }

    /// Shows the line, as far as the terminal has room for it.
    pub fn show(&self, progress: &ProgressLine) {
        let size = Term::stderr().size_checked();
        let columns = size.map_or(USUAL_COLUMNS, |(_, columns)| columns.into());
        self.line.set_message(progress.format_within(columns));
        self.line.tick();
    }

    /// Shows a text in its place.
    pub fn show_text(&self, text: &str) {
        self.line.set_message(text.to_owned());
        self.line.tick();
    }

    /// Takes the line away.
    pub fn finish(&self) {
        self.line.finish_and_clear();
    }

    /// A writer of log lines on standard output that keeps clear of the line.
    #[must_use]
    pub fn log_writer(&self) -> LogWriter {
        LogWriter(Some(self.clone()))
    }
}

/// Writes log lines on standard output, above a live line when there is one.
#[derive(Debug, Clone, Default)]
pub struct LogWriter(Option<LiveLine>);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || io::stdout().write_all(bytes).map(|()| bytes.len());
        match &self.0 {
            Some(line) => line.lines.suspend(write),
            None => write(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

impl<'w> MakeWriter<'w> for LogWriter {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syncing() -> ProgressLine {
        ProgressLine {
            mode: "block_sync".into(),
            height: 12_345,
            start_height: 0,
            target: Some(50_000),
            blocks_per_second: 812.44,
            bytes_per_second: 16_100_000.0,
            eta: Some(Duration::from_secs(46)),
            peers: 8,
            limiting_stage: "network".into(),
            ..ProgressLine::default()
        }
    }

    #[test]
    fn all_is_in_the_line() {
        assert_eq!(
            syncing().format(),
            "syncing blocks 12345/50000 24.69% 812.4 blocks/s 16.1 MB/s ETA 46s 8 peers, limited by network"
        );
    }

    #[test]
    fn in_consensus_the_round_is_told() {
        let mut line = ProgressLine {
            mode: "consensus".into(),
            height: 599,
            round: "600 at round 1, prevote (prevotes 2 of 4)".into(),
            blocks_per_second: 1.0,
            ..syncing()
        };
        assert_eq!(
            line.format(),
            "consensus 599, deciding 600 at round 1, prevote (prevotes 2 of 4), 1.0 blocks/s 8 peers"
        );
        line.round.clear();
        assert_eq!(line.format(), "consensus 599, 1.0 blocks/s 8 peers");
        line.stalled = Some("prevotes of 2 of 4 validators".into());
        line.silent = Some("not signed".into());
        assert_eq!(
            line.format(),
            "consensus 599, 1.0 blocks/s 8 peers, stalled: prevotes of 2 of 4 validators, the validator stays silent: not signed"
        );
    }

    #[test]
    fn nothing_is_known_yet() {
        let line = ProgressLine {
            mode: "wait_for_peers".into(),
            stalled: Some("no peers".into()),
            ..ProgressLine::default()
        };
        assert_eq!(
            line.format(),
            "waiting for peers at height 0, 0 peers, stalled: no peers"
        );
    }

    #[test]
    fn where_there_is_no_room_what_is_wrong_comes_first() {
        let mut line = syncing();
        assert_eq!(line.format_within(20), line.format());
        line.stalled = Some("no peer has height 12346: name others in p2p.persistent_peers".into());
        assert_eq!(line.format_within(1_000), line.format());
        let short = "syncing blocks 12345, stalled: no peer has height 12346: name others in p2p.persistent_peers";
        for columns in [80, line.format().chars().count() - 1] {
            assert_eq!(line.format_within(columns), short);
        }
        line.silent = Some("not signed".into());
        let expected = format!("{short}, the validator stays silent: not signed");
        assert_eq!(line.format_within(80), expected);
        assert!(line.format().ends_with(", stalled: no peer has height 12346: name others in p2p.persistent_peers, the validator stays silent: not signed"));
    }

    #[test]
    fn without_a_target_the_time_left_is_unknown() {
        let line = ProgressLine {
            target: None,
            eta: Some(Duration::ZERO),
            ..syncing()
        };
        assert!(line.format().contains("12345/?"), "{}", line.format());
        assert!(line.format().contains("ETA unknown"), "{}", line.format());
    }

    #[test]
    fn a_hundred_percent_is_level_only() {
        for (height, target, percent) in [
            (99_999, 100_000, 99.99),
            (100_000, 100_000, 100.0),
            (100_001, 100_000, 100.0),
            (0, 1, 0.0),
            (u64::MAX - 1, u64::MAX, 99.99),
        ] {
            let line = ProgressLine {
                height,
                target: Some(target),
                ..syncing()
            };
            assert_eq!(line.percent(), Some(percent), "{height}/{target}");
            assert_eq!(line.format().contains("ETA"), height < target);
        }
        let line = ProgressLine {
            target: Some(0),
            ..syncing()
        };
        assert_eq!(line.percent(), None);
    }

    #[test]
    fn times_left() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m0s"),
            (7_500, "2h5m"),
            (273_600, "3d4h"),
        ] {
            assert_eq!(format_eta(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn the_live_line_shows_what_it_is_given() {
        let target = ProgressDrawTarget::hidden();
        let live = LiveLine::on(target);
        live.show(&syncing());
        assert_eq!(live.line.message(), syncing().format());
        live.finish();
        assert!(live.line.is_finished());
    }
}
