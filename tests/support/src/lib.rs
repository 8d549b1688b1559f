//! Reads the golden vectors: bytes, hashes and verdicts made by running a real CometBFT.
//!
//! The folder is the one that `PERIHELION_VECTORS` names, else the copy in `tests/vectors`. Tests
//! iterate over what they find. A file that is missing or has a field that the test does not know,
//! and a list that is empty, fail the test: a vector that is not read must not look like one that
//! passed.
#![allow(clippy::missing_panics_doc, reason = "every function is an assertion")]

pub mod block_validation;
pub mod files;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};

/// The folder of the vectors: the one that `PERIHELION_VECTORS` names, a relative one below the
/// workspace's root, or the workspace's own when the variable is unset or empty.
#[must_use]
pub fn folder() -> PathBuf {
    folder_named(std::env::var_os("PERIHELION_VECTORS"))
}

fn folder_named(name: Option<OsString>) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match name.filter(|name| !name.is_empty()) {
        Some(name) => root.join(name),
        None => root.join("tests/vectors"),
    }
}

/// Copies what is in a folder by now, as a crash leaves it: what its owner still has in memory is not
/// in the copy. As files come and go meanwhile, as when a database compacts, it copies as often as it
/// takes for all of them to be of one moment; what is at `to` is removed first.
pub fn copy_folder(from: &Path, to: &Path) {
    let mut before = files_of(from);
    loop {
        match fs::remove_dir_all(to) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                panic!("{}: {error}", to.display())
            }
            _ => copy_files(from, to),
        }
        let after = files_of(from);
        if after == before {
            return;
        }
        before = after;
    }
}

/// Copies the files that are in a folder. One that goes meanwhile is left out.
fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    for path in entries(from) {
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy_files(&path, &target);
        } else if let Err(error) = fs::copy(&path, target) {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{}", path.display());
        }
    }
}

/// The files of a folder, how long each is and when it was changed.
fn files_of(folder: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut files = BTreeMap::new();
    for path in entries(folder) {
        if path.is_dir() {
            files.extend(files_of(&path));
        } else if let Ok(found) = fs::metadata(&path) {
            let changed = found.modified().expect("the system tells it");
            files.insert(path, (found.len(), changed));
        }
    }
    files
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let found =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    found.map(|entry| entry.expect("an entry").path())
}

/// The text of a file of the folder.
#[must_use]
pub fn read(file: &str) -> String {
    files::assert_listed(file);
    let path = folder().join(file);
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("vectors {}: {error}", path.display()));
    assert!(
        !text.trim().is_empty(),
        "vectors {} are empty",
        path.display()
    );
    text
}

/// A JSON file of the folder. Use types with `#[serde(deny_unknown_fields)]`.
#[must_use]
pub fn load<T: DeserializeOwned>(file: &str) -> T {
    serde_json::from_str(&read(file)).unwrap_or_else(|error| panic!("vectors {file}: {error}"))
}

/// A file with one JSON object a line.
#[must_use]
pub fn load_lines<T: DeserializeOwned>(file: &str) -> Vec<T> {
    read(file)
        .lines()
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("vectors {file}, line {}: {error}", index + 1))
        })
        .collect()
}

/// Runs `check` on every case; an empty list fails.
pub fn each<T>(list: &str, cases: &[T], mut check: impl FnMut(usize, &T)) {
    assert!(
        !cases.is_empty(),
        "the list {list:?} of the vectors is empty"
    );
    for (index, case) in cases.iter().enumerate() {
        check(index, case);
    }
}

/// Bytes, as lower-case hexadecimal in the file.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Hex(pub Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(&text).map(Self).map_err(D::Error::custom)
    }
}

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl std::ops::Deref for Hex {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A moment: Unix seconds, nanoseconds and RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// Whole seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds of the second.
    pub nanos: i32,
    /// The same as RFC 3339.
    pub text: String,
}

/// What CometBFT said. Texts and `class` are for a reader; `ok` decides.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// It was accepted.
    pub ok: bool,
    /// The error's text.
    #[serde(default)]
    pub error: Option<String>,
    /// The text of the panic, where it panicked.
    #[serde(default)]
    pub panic: Option<String>,
    /// The kind of error.
    #[serde(default)]
    pub class: Option<String>,
}

impl Verdict {
    /// Fails unless `result` is accepted exactly when CometBFT accepted.
    pub fn assert_agrees<T, E: std::fmt::Debug>(&self, what: &str, result: &Result<T, E>) {
        assert_eq!(
            result.is_ok(),
            self.ok,
            "{what}: CometBFT said {self:?}, we say {:?}",
            result.as_ref().err()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_found_from_the_workspaces_root() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (name, folder) in [
            (None, root.join("tests/vectors")),
            (Some(""), root.join("tests/vectors")),
            (Some("other/set"), root.join("other/set")),
            (Some("/sets/a"), PathBuf::from("/sets/a")),
        ] {
            assert_eq!(folder_named(name.map(OsString::from)), folder);
        }
    }
}
