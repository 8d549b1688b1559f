//! Writes a configuration as a file with a comment at every key.

use super::{
    Config,
    value::Value,
    visit::{Key, Section, Visitor},
};

const HEAD: &str = "\
# Configuration of a node, in TOML. CometBFT v0.38 to v0.40 and Perihelion read the same file.
#
# Paths are relative to the home, or absolute. Durations are written as \"1m30s\", \"1.5s\", \"100ms\".
# Every key can be set by a variable of the environment too, capitals, with _ for . and -:
# CMT_P2P_LADDR or PERIHELION_P2P_LADDR. A flag wins over the environment, the environment over this
# file. `perihelion config check` says what is wrong with it.
";

/// The whole file.
#[must_use]
pub fn write(config: &Config) -> String {
    let mut writer = Writer {
        text: HEAD.to_owned(),
        names: Vec::new(),
        head: None,
        defaults: defaults(),
    };
    config.clone().visit(&mut writer);
    writer.text
}

/// Every key's path with the TOML of its default.
fn defaults() -> Vec<(String, String)> {
    let mut defaults = Defaults {
        names: Vec::new(),
        list: Vec::new(),
    };
    Config::new(std::path::Path::new("")).visit(&mut defaults);
    defaults.list
}

/// Every key's path, tables first, with the TOML of its default.
#[must_use]
pub fn all_keys() -> Vec<(String, String)> {
    defaults()
}

struct Defaults {
    names: Vec<&'static str>,
    list: Vec<(String, String)>,
}

impl Visitor for Defaults {
    fn key(&mut self, key: Key, value: &mut dyn Value) {
        let path = [self.names.as_slice(), &[key.name]].concat().join(".");
        self.list.push((path, value.to_toml()));
    }

    fn table(&mut self, name: &'static str, _doc: &'static str, section: &mut dyn Section) {
        self.names.push(name);
        section.visit(self);
        self.names.pop();
    }
}

struct Writer {
    text: String,
    names: Vec<&'static str>,
    /// The head of the present table, until its first key is written.
    head: Option<String>,
    defaults: Vec<(String, String)>,
}

impl Writer {
    fn is_default(&self, path: &str, value: &str) -> bool {
        self.defaults
            .iter()
            .any(|(other, default)| other == path && default == value)
    }
}

impl Visitor for Writer {
    fn key(&mut self, key: Key, value: &mut dyn Value) {
        let toml = value.to_toml();
        let path = [self.names.as_slice(), &[key.name]].concat().join(".");
        if !key.written && self.is_default(&path, &toml) {
            return;
        }
        if let Some(head) = self.head.take() {
            self.text.push_str(&head);
        }
        // A key without words of its own belongs to the one above it.
        if !key.doc.is_empty() {
            self.text.push('\n');
        }
        for line in key.doc.lines() {
            self.text.push_str(&format!("# {line}\n"));
        }
        self.text.push_str(&format!("{} = {toml}\n", key.name));
    }

    fn table(&mut self, name: &'static str, doc: &'static str, section: &mut dyn Section) {
        self.names.push(name);
        let path = self.names.join(".");
        let rule = "#".repeat(60);
        self.head = Some(format!("\n{rule}\n# {doc}\n{rule}\n[{path}]\n"));
        section.visit(self);
        self.head = None;
        self.names.pop();
    }
}
