//! Reads a configuration from its file, the environment and flags, all problems at once.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use toml_edit::{Document, Item, TableLike};

use super::{
    Config,
    problem::{Place, Problem},
    value::Value,
    visit::{Key, Section, Visitor},
};

/// Prefixes of environment variables; later ones win.
const PREFIXES: [&str; 2] = ["CMT_", "PERIHELION_"];

/// Values that do not stand in the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The environment. Of it, `CMT_` and `PERIHELION_` with a key's path in capitals count, `.`
    /// and `-` written as `_`; the latter wins. Empty variables do not count.
    pub environment: BTreeMap<String, String>,
    /// Flags of the command line by the path of their key; they win over all else.
    pub flags: BTreeMap<String, Flag>,
}

impl Overrides {
    /// Whether a flag or a variable sets the key at `path`.
    #[must_use]
    pub fn sets(&self, path: &str) -> bool {
        self.flags.contains_key(path)
            || ["PERIHELION_", "CMT_"].iter().any(|prefix| {
                let value = self.environment.get(&variable(prefix, path));
                value.is_some_and(|value| !value.is_empty())
            })
    }
}

/// A flag that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// Its name, without dashes.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A configuration as it was read, whatever is wrong with it.
#[derive(Debug, Clone)]
pub struct Reading {
    /// What was understood; defaults elsewhere.
    pub config: Config,
    /// All that is wrong, in the order of the file.
    pub problems: Vec<Problem>,
    /// Where the values came from that are no defaults, by the path of their key.
    pub places: BTreeMap<String, Place>,
}

/// The name of a key's environment variable.
#[must_use]
pub fn variable(prefix: &str, path: &str) -> String {
    let name = path.replace(['.', '-'], "_").to_ascii_uppercase();
    format!("{prefix}{name}")
}

/// Reads `text`, the content of the file at `path`, and applies `overrides`.
#[must_use]
pub fn read(home: &Path, path: &Path, text: &str, overrides: &Overrides) -> Reading {
    let mut config = Config::new(home);
    let (document, syntax) = match Document::parse(text) {
        Ok(document) => (Some(document), None),
        Err(error) => {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            let reason = error.message().replace('\n', ", ");
            let place = Place::File {
                path: path.to_owned(),
                line,
            };
            (None, Some(Problem::Syntax { place, reason }))
        }
    };
    let mut reader = Reader {
        path: path.to_owned(),
        text,
        overrides,
        tables: vec![document.as_ref().map(|d| d.as_table() as &dyn TableLike)],
        names: Vec::new(),
        known: Vec::new(),
        unknown: Vec::new(),
        problems: Vec::new(),
        places: BTreeMap::new(),
    };
    config.visit(&mut reader);
    if let Some(document) = &document {
        reader.collect_unknown(document.as_table(), &[]);
    }
    let mut problems = reader.report_unknown();
    problems.extend(reader.problems);
    let places = reader.places;
    problems.extend(config.broken_rules(&places));
    config.places.0.clone_from(&places);
    problems.extend(syntax);
    problems.sort_by_key(|problem| match problem.place() {
        Place::File { line, .. } => *line,
        _ => usize::MAX,
    });
    Reading {
        config,
        problems,
        places,
    }
}

/// The line of a byte of the text, from 1.
fn line_of(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

struct Reader<'a> {
    path: PathBuf,
    text: &'a str,
    overrides: &'a Overrides,
    /// The tables around the present key; `None` where the file has none.
    tables: Vec<Option<&'a dyn TableLike>>,
    names: Vec<&'static str>,
    /// Paths of all keys and tables seen.
    known: Vec<String>,
    /// Paths in the file that are not among them, with their places.
    unknown: Vec<(String, Place)>,
    problems: Vec<Problem>,
    places: BTreeMap<String, Place>,
}

/// The entry of a key; names of CometBFT's file do not depend on case.
fn entry<'a>(table: &'a dyn TableLike, name: &str) -> Option<(Option<Range<usize>>, &'a Item)> {
    let (exact, item) = table
        .get_key_value(name)
        .map(|(key, item)| (key.span(), item))
        .or_else(|| {
            let (found, item) = table
                .iter()
                .find(|(other, _)| other.eq_ignore_ascii_case(name))?;
            Some((table.key(found).and_then(toml_edit::Key::span), item))
        })?;
    Some((exact, item))
}

impl Reader<'_> {
    fn path_of(&self, name: &str) -> String {
        let mut path = self.names.join(".");
        if !path.is_empty() {
            path.push('.');
        }
        path + name
    }

    fn place(&self, span: Option<Range<usize>>) -> Place {
        Place::File {
            path: self.path.clone(),
            line: span.map_or(1, |span| line_of(self.text, span.start)),
        }
    }

    fn take_item(&mut self, path: &str, name: &str, value: &mut dyn Value) {
        let Some((span, item)) = self
            .tables
            .last()
            .copied()
            .flatten()
            .and_then(|table| entry(table, name))
        else {
            return;
        };
        let span = item.span().or(span);
        let place = self.place(span.clone());
        match value.set_item(item) {
            Ok(()) => {
                self.places.insert(path.to_owned(), place);
            }
            Err(refused) => {
                let place = refused.span.map_or(place, |span| self.place(Some(span)));
                let found = span
                    .and_then(|span| self.text.get(span))
                    .unwrap_or_default();
                self.refuse(place, path, found, refused.expected);
            }
        }
    }

    fn take_text(&mut self, place: Place, path: &str, text: &str, value: &mut dyn Value) {
        match value.set_text(text) {
            Ok(()) => {
                self.places.insert(path.to_owned(), place);
            }
            Err(refused) => self.refuse(place, path, &format!("{text:?}"), refused.expected),
        }
    }

    fn refuse(&mut self, place: Place, path: &str, found: &str, expected: String) {
        let mut found: String = found.chars().take(60).collect();
        if let Some(end) = found.find('\n') {
            found.truncate(end);
        }
        self.problems.push(Problem::Value {
            place,
            key: path.to_owned(),
            found,
            expected,
        });
    }

    fn collect_unknown(&mut self, table: &dyn TableLike, names: &[String]) {
        for (name, item) in table.iter() {
            let mut names = names.to_vec();
            names.push(name.to_owned());
            let path = names.join(".");
            let known = |known: &String| known.eq_ignore_ascii_case(&path);
            if !self.known.iter().any(known) {
                let span = table.key(name).and_then(toml_edit::Key::span);
                let place = self.place(span.or_else(|| item.span()));
                self.unknown.push((path, place));
            } else if let Some(inner) = item.as_table_like()
                && !self.places.contains_key(&path)
            {
                self.collect_unknown(inner, &names);
            }
        }
    }

    fn report_unknown(&self) -> Vec<Problem> {
        let problem = |(key, place): &(String, Place)| Problem::UnknownKey {
            place: place.clone(),
            nearest: nearest(key, &self.known).unwrap_or_default(),
            key: key.clone(),
        };
        self.unknown.iter().map(problem).collect()
    }
}

/// From which likeness on, 0 to 1, a key may be meant by another name.
const ALIKE: f64 = 0.5;

/// The path among `known` that is most like `key`: by its last name first, since a key is as often
/// put in the wrong table as misspelt.
fn nearest(key: &str, known: &[String]) -> Option<String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_lowercase();
    let score = |path: &String| {
        let names = strsim::normalized_damerau_levenshtein(&last(key), &last(path));
        let paths = strsim::normalized_damerau_levenshtein(&key.to_lowercase(), path);
        names.mul_add(0.6, paths * 0.4)
    };
    known
        .iter()
        .max_by(|a, b| score(a).total_cmp(&score(b)))
        .filter(|path| score(path) > ALIKE)
        .cloned()
}

impl Visitor for Reader<'_> {
    fn key(&mut self, key: Key, value: &mut dyn Value) {
        let path = self.path_of(key.name);
        self.known.push(path.clone());
        self.take_item(&path, key.name, value);
        for prefix in PREFIXES {
            let name = variable(prefix, &path);
            if let Some(text) = self.overrides.environment.get(&name)
                && !text.is_empty()
            {
                self.take_text(Place::Environment(name), &path, text, value);
            }
        }
        if let Some(flag) = self.overrides.flags.get(&path) {
            self.take_text(Place::Flag(flag.name.clone()), &path, &flag.value, value);
        }
    }

    fn table(&mut self, name: &'static str, _doc: &'static str, section: &mut dyn Section) {
        let path = self.path_of(name);
        self.known.push(path.clone());
        let found = self
            .tables
            .last()
            .copied()
            .flatten()
            .and_then(|table| entry(table, name));
        let table = found.as_ref().and_then(|(_, item)| item.as_table_like());
        if let (Some((span, item)), None) = (found, table) {
            let place = self.place(span.or_else(|| item.span()));
            self.problems.push(Problem::NotATable { place, key: path });
        }
        self.tables.push(table);
        self.names.push(name);
        section.visit(self);
        self.names.pop();
        self.tables.pop();
    }
}
