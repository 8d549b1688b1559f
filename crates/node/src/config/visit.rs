//! One description of all keys, for reading, writing and checking alike.

use super::value::Value;

/// A key of the file.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name within its table.
    pub name: &'static str,
    /// What it means, for the comment above it in a new file.
    pub doc: &'static str,
    /// Whether a new file holds it even when it has its default.
    pub written: bool,
}

impl Key {
    /// A key that a new file holds.
    #[must_use]
    pub const fn new(name: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            doc,
            written: true,
        }
    }

    /// A key that CometBFT v0.40 added, or that few need: accepted, and written only when it has
    /// another value than its default.
    #[must_use]
    pub const fn quiet(name: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            doc,
            written: false,
        }
    }
}

/// A table of the file.
pub trait Section {
    /// Shows every key and then every table within, in the order of the file.
    fn visit(&mut self, visitor: &mut dyn Visitor);
}

/// Sees all keys of a section.
pub trait Visitor {
    /// A key and its value.
    fn key(&mut self, key: Key, value: &mut dyn Value);

    /// A table within the present one; the visitor visits it as it needs.
    fn table(&mut self, name: &'static str, doc: &'static str, section: &mut dyn Section);
}
