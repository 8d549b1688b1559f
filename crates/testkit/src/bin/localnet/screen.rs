//! What is shown: a table on a terminal, lines elsewhere.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use crate::table::{Row, cut, table};

/// How often the table is drawn on a terminal, and how often a line is written elsewhere.
const REDRAW: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(2);
/// The same while somebody catches up, which may not take long.
const QUICK_REDRAW: Duration = Duration::from_millis(100);
const QUICK_LINE: Duration = Duration::from_millis(250);

/// Where the nodes are shown.
pub(crate) struct Screen {
    is_terminal: bool,
    /// Lengths of the lines of the table that stand on the terminal.
    drawn: Vec<usize>,
    shown: Option<Instant>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            is_terminal: std::io::stdout().is_terminal(),
            drawn: Vec::new(),
            shown: None,
        }
    }

    /// Says something that stays; the table goes on below it.
    pub(crate) fn say(&mut self, text: &str) {
        println!("{text}");
        self.drawn.clear();
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
        let text = if self.is_terminal {
            self.draw(Size::of_terminal(), rows, foot)
        } else {
            let rows: Vec<_> = rows.iter().map(Row::brief).collect();
            format!("{foot} | {}\n", rows.join(" | "))
        };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// What draws the table over the one that stands there.
    fn draw(&mut self, size: Size, rows: &[Row], foot: &str) -> String {
        // A terminal that has become narrower since has broken the lines that were drawn.
        let stand = self.drawn.iter().map(|length| size.lines(*length)).sum();
        let mut text = match stand {
            0 => String::new(),
            lines => format!("\x1b[{lines}A"),
        };
        // One column stays free: there are terminals that begin a new line behind the last one.
        let width = size.columns.saturating_sub(1);
        let mut lines = table(rows, width);
        // What has gone by above cannot be drawn over: head, foot and the cursor's line have room.
        let room = size.rows.saturating_sub(3).max(1);
        if rows.len() > room {
            lines.truncate(room);
            let more = rows.len() + 1 - room;
            lines.push(cut(&format!("and {more} more"), width));
        }
        lines.push(cut(foot, width));
        for line in &lines {
            text += &format!("{line}\x1b[K\n");
        }
        text += "\x1b[J";
        self.drawn = lines.iter().map(|line| line.chars().count()).collect();
        text
    }
}

/// The terminal's, in characters.
#[derive(Debug, Clone, Copy)]
struct Size {
    columns: usize,
    rows: usize,
}

impl Size {
    /// What a terminal has that does not tell.
    const USUAL: Self = Self {
        columns: 80,
        rows: 24,
    };

    /// As it is now.
    fn of_terminal() -> Self {
        console::Term::stdout()
            .size_checked()
            .filter(|size| size.0 > 0 && size.1 > 0)
            .map_or(Self::USUAL, |(rows, columns)| Self {
                columns: columns.into(),
                rows: rows.into(),
            })
    }

    /// How many lines one of so many characters takes.
    fn lines(self, length: usize) -> usize {
        length.div_ceil(self.columns.max(1)).max(1)
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
                drawn: Vec::new(),
                shown: Some(now),
            };
            let later = |millis| now + Duration::from_millis(millis);
            assert!(!screen.is_due(later(300), false));
            assert!(screen.is_due(later(300), true));
            assert!(screen.is_due(later(2_000), false));
        }
    }

    /// A terminal so wide, with what was written; it breaks lines that are too long.
    struct Terminal {
        columns: usize,
        lines: Vec<String>,
        at: usize,
    }

    impl Terminal {
        fn write(&mut self, text: &str) {
            let mut parts = text.split('\x1b');
            self.print(parts.next().unwrap());
            for part in parts {
                let end = part.find(|c: char| c.is_ascii_uppercase()).unwrap();
                match &part[..=end] {
                    "[K" => {}
                    "[J" => self.lines.truncate(self.at),
                    up => {
                        let up = up.trim_matches(|c: char| !c.is_ascii_digit());
                        self.at -= up.parse::<usize>().unwrap();
                    }
                }
                self.print(&part[end + 1..]);
            }
        }

        fn print(&mut self, text: &str) {
            for line in text.split_inclusive('\n').filter(|line| *line != "\n") {
                let line: Vec<_> = line.trim_end_matches('\n').chars().collect();
                for piece in line.chunks(self.columns) {
                    self.lines.truncate(self.lines.len().max(self.at));
                    let piece = piece.iter().collect();
                    match self.lines.get_mut(self.at) {
                        Some(line) => *line = piece,
                        None => self.lines.push(piece),
                    }
                    self.at += 1;
                }
            }
        }
    }

    #[test]
    fn a_table_is_drawn_over_the_last_one_whatever_the_width() {
        let rows: Vec<_> = (0..5)
            .map(|node| Row::new(&format!("node{node}"), "wait_for_peers", 1_000_000))
            .collect();
        let foot = "123 s, transactions: 123456 sent, 123450 in blocks; 1 late node starts in 1 s";
        for columns in [20, 80, 200] {
            let mut screen = Screen {
                is_terminal: true,
                ..Screen::new()
            };
            let mut terminal = Terminal {
                columns,
                lines: Vec::new(),
                at: 0,
            };
            let size = Size { columns, rows: 24 };
            for _ in 0..3 {
                terminal.write(&screen.draw(size, &rows, foot));
                assert_eq!(terminal.lines.len(), 7, "{:#?}", terminal.lines);
            }
            assert!(terminal.lines[5].starts_with("node4"));
            // Nobody is left in lines that were there for more nodes.
            terminal.write(&screen.draw(size, &rows[..4], foot));
            assert_eq!(terminal.lines.len(), 6, "{:#?}", terminal.lines);
        }
    }

    #[test]
    fn a_terminal_that_became_narrower_has_broken_the_lines() {
        let rows = [Row::new("node0", "consensus", 7)];
        let mut screen = Screen::new();
        let wide = Size {
            columns: 200,
            rows: 24,
        };
        screen.draw(wide, &rows, "foot");
        assert_eq!(screen.drawn[0], 96, "the head");
        let narrow = Size {
            columns: 40,
            ..wide
        };
        let row = screen.drawn[1].div_ceil(40);
        let text = screen.draw(narrow, &rows, "foot");
        let up = format!("\x1b[{}A", 3 + row + 1);
        assert!(text.starts_with(&up), "{text:?}");
    }

    #[test]
    fn more_nodes_than_lines_are_counted() {
        let rows: Vec<_> = (0..100)
            .map(|node| Row::new(&format!("node{node}"), "consensus", 7))
            .collect();
        let mut screen = Screen::new();
        let text = screen.draw(Size::USUAL, &rows, "foot");
        assert_eq!(text.matches('\n').count(), 23, "{text}");
        assert!(text.contains("node19 "), "{text}");
        assert!(text.contains("and 80 more"), "{text}");
    }
}
