//! The nodes side by side.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use perihelion_node::progress::mode_words;

/// The columns, from the left: what stands above, and so many characters at least, numbers to the
/// right.
const COLUMNS: [(&str, usize, bool); 8] = [
    ("node", 5, false),
    ("mode", 17, false),
    ("height", 7, true),
    ("round/step", 16, false),
    ("peers", 5, true),
    ("blocks/s", 8, true),
    ("sync", 16, false),
    ("app hash", 16, false),
];
/// Between two columns.
const GAP: &str = "  ";
/// The columns that a narrow terminal does without, the least needed first.
const DISPENSABLE: [usize; 5] = [7, 4, 3, 5, 6];

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

/// `28 blocks in 0.4 s, 70 blocks/s`; the time in milliseconds where it is short.
impl fmt::Display for CaughtUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64();
        let rate = self.blocks as f64 / seconds.max(0.001);
        let time = match self.time.as_millis() {
            millis @ ..100 => format!("{millis} ms"),
            _ => format!("{seconds:.1} s"),
        };
        write!(f, "{} blocks in {time}, {rate:.0} blocks/s", self.blocks)
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

    /// What stands in each column.
    fn cells(&self) -> [String; COLUMNS.len()] {
        let hash = self.app_hash.get(..16).unwrap_or(&self.app_hash);
        [
            self.name.clone(),
            mode_words(&self.mode).to_owned(),
            self.height.to_string(),
            self.round.clone(),
            self.peers.to_string(),
            format!("{:.2}", self.rate),
            self.sync(),
            hash.to_owned(),
        ]
    }

    /// What is the most important of it, within a line.
    pub(crate) fn brief(&self) -> String {
        let mut text = format!("{} {} {}", self.name, mode_words(&self.mode), self.height);
        if self.target.is_some() {
            let _ = write!(text, " ({})", self.sync());
        }
        text
    }
}

/// The table, head first, no line of more than `width` characters: columns that have no room are left
/// out.
pub(crate) fn table(rows: &[Row], width: usize) -> Vec<String> {
    let cells: Vec<_> = rows.iter().map(Row::cells).collect();
    let widest = |column: usize| {
        let (_, least, _) = COLUMNS[column];
        let lengths = cells.iter().map(|cells| cells[column].chars().count());
        lengths.fold(least, usize::max)
    };
    let mut shown: Vec<_> = (0..COLUMNS.len()).map(|at| (at, widest(at))).collect();
    for column in DISPENSABLE {
        let gaps = GAP.len() * (shown.len() - 1);
        if shown.iter().map(|(_, wide)| wide).sum::<usize>() + gaps <= width {
            break;
        }
        shown.retain(|(at, _)| *at != column);
    }
    let line = |cell: &dyn Fn(usize) -> String| {
        let padded = shown.iter().map(|&(at, wide)| {
            if COLUMNS[at].2 {
                format!("{:>wide$}", cell(at))
            } else {
                format!("{:<wide$}", cell(at))
            }
        });
        let line = padded.collect::<Vec<_>>().join(GAP);
        cut(line.trim_end(), width)
    };
    let head = line(&|at| COLUMNS[at].0.to_owned());
    let rows = cells.iter().map(|cells| line(&|at| cells[at].clone()));
    std::iter::once(head).chain(rows).collect()
}

/// So many of a text's characters at most.
pub(crate) fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
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

    /// Rows with all that may be long.
    fn rows() -> Vec<Row> {
        let row = Row {
            round: "12 precommit wait".to_owned(),
            app_hash: "B8".repeat(32),
            target: Some(1_234_567),
            remaining: Some(Duration::from_secs(123_456)),
            ..Row::new("node100", "wait_for_peers", 1_234_566)
        };
        vec![Row::new("node0", "consensus", 1), row]
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 0..200 {
            let lines = table(&rows(), width);
            assert_eq!(lines.len(), 3, "head and rows");
            for line in lines {
                assert!(line.chars().count() <= width, "{width}: {line:?}");
            }
        }
    }

    #[test]
    fn a_narrow_terminal_does_without_the_least_needed_columns() {
        let heads = |rows: &[Row], width| {
            let head = table(rows, width).remove(0);
            let titles = COLUMNS.iter().map(|(title, ..)| *title);
            titles
                .filter(|title| head.contains(title))
                .collect::<Vec<_>>()
        };
        let all = COLUMNS.map(|(title, ..)| title);
        assert_eq!(heads(&rows(), 200), all);
        let usual = [Row::new("node0", "consensus", 19)];
        assert_eq!(heads(&usual, 104), all);
        assert_eq!(heads(&usual, 103), all[..7]);
        let narrow = ["node", "mode", "height", "round/step", "blocks/s"];
        assert_eq!(heads(&usual, 79)[..3], narrow[..3]);
        assert_eq!(heads(&usual, 35), narrow[..3]);
        // Columns stand below their titles.
        let lines = table(&rows(), 200);
        let at = lines[0].find("app hash").unwrap();
        assert!(lines[2][at..].starts_with("B8B8"), "{lines:?}");
    }

    #[test]
    fn steps_are_named_as_cometbft_numbers_them() {
        assert_eq!(name_step("0/3"), "0 propose");
        assert_eq!(name_step("12/8"), "12 commit");
    }
}
