//! What is shown: a table on a terminal, lines elsewhere.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use crate::table::{HEAD, Row};

/// How often the table is drawn on a terminal, and how often a line is written elsewhere.
const REDRAW: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(2);
/// The same while somebody catches up, which may not take long.
const QUICK_REDRAW: Duration = Duration::from_millis(100);
const QUICK_LINE: Duration = Duration::from_millis(250);

/// Where the nodes are shown.
pub(crate) struct Screen {
    is_terminal: bool,
    /// Lines of the table that stand on the terminal.
    drawn: usize,
    shown: Option<Instant>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            is_terminal: std::io::stdout().is_terminal(),
            drawn: 0,
            shown: None,
        }
    }

    /// Says something that stays; the table goes on below it.
    pub(crate) fn say(&mut self, text: &str) {
        println!("{text}");
        self.drawn = 0;
    }

    /// Whether it is time to show something; `is_quick` while somebody catches up.
    pub(crate) fn is_due(&self, now: Instant, is_quick: bool) -> bool {
        let pause = match (self.is_terminal, is_quick) {
            (true, false) => REDRAW,
            (true, true) => QUICK_REDRAW,
            (false, false) => LINE,
            (false, true) => QUICK_LINE,
        };
        self.shown.is_none_or(|shown| now >= shown + pause)
    }

    pub(crate) fn show(&mut self, now: Instant, rows: &[Row], foot: &str) -> anyhow::Result<()> {
        self.shown = Some(now);
        let mut text = String::new();
        if self.is_terminal {
            if self.drawn > 0 {
                text += &format!("\x1b[{}A", self.drawn);
            }
            text += &format!("\x1b[K{HEAD}\n");
            for row in rows {
                text.push_str("\x1b[K");
                row.write(&mut text);
                text.push('\n');
            }
            text += &format!("\x1b[K{foot}\n");
            self.drawn = rows.len() + 2;
        } else {
            let rows: Vec<_> = rows.iter().map(Row::brief).collect();
            text = format!("{foot} | {}\n", rows.join(" | "));
        }
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_who_catches_up_is_shown_more_often() {
        let now = Instant::now();
        for is_terminal in [true, false] {
            let screen = Screen {
                is_terminal,
                drawn: 0,
                shown: Some(now),
            };
            let later = |millis| now + Duration::from_millis(millis);
            assert!(!screen.is_due(later(300), false));
            assert!(screen.is_due(later(300), true));
            assert!(screen.is_due(later(2_000), false));
        }
    }
}
