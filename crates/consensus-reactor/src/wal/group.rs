//! The files of a log: a head that is written to, and older files behind it, `head.000`,
//! `head.001` and so on. The head's index is one above the last of them.

use std::{collections::BTreeMap, path::PathBuf};

use super::{WalError, files::LogFiles};

/// What is known of the files.
pub(super) struct Group {
    pub(super) files: Box<dyn LogFiles>,
    head: String,
    /// Lengths of the older files, by index.
    older: BTreeMap<u64, u64>,
    /// Length of the head.
    pub(super) head_bytes: u64,
    /// Index of the head.
    pub(super) head_index: u64,
}

impl Group {
    /// Reads which files are there, and makes the head when there is none.
    pub(super) fn open(files: Box<dyn LogFiles>, head: &str) -> Result<Self, WalError> {
        let (mut group, has_head) = Self::list(files, head)?;
        if !has_head {
            group.make_head()?;
        }
        Ok(group)
    }

    /// Reads which files are there, and whether one of them is the head.
    pub(super) fn list(files: Box<dyn LogFiles>, head: &str) -> Result<(Self, bool), WalError> {
        let mut group = Self {
            files,
            head: head.to_owned(),
            older: BTreeMap::new(),
            head_bytes: 0,
            head_index: 0,
        };
        let listed = group
            .files
            .list()
            .map_err(|source| group.fault("read", source))?;
        let mut has_head = false;
        for (name, bytes) in listed {
            if name == group.head {
                has_head = true;
                group.head_bytes = bytes;
            } else if let Some(index) = group.index_of(&name) {
                group.older.insert(index, bytes);
            }
        }
        if let Some((last, _)) = group.older.last_key_value() {
            group.head_index = last.saturating_add(1);
        }
        Ok((group, has_head))
    }

    /// The index in the name of an older file: at least three digits.
    fn index_of(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(&self.head)?.strip_prefix('.')?;
        let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        // An index that the head's would overflow behind is no file of a log.
        (digits.len() >= 3 && all_digits)
            .then(|| digits.parse().ok())
            .flatten()
            .filter(|index| *index < u64::MAX)
    }

    /// The name of the file with this index.
    pub(super) fn name(&self, index: u64) -> String {
        if index == self.head_index {
            self.head.clone()
        } else {
            format!("{}.{index:03}", self.head)
        }
    }

    pub(super) fn head(&self) -> &str {
        &self.head
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.files.folder().join(name)
    }

    /// Indexes from the newest, the head's, to the oldest.
    pub(super) fn newest_first(&self) -> Vec<u64> {
        let older = self.older.keys().rev().copied();
        std::iter::once(self.head_index).chain(older).collect()
    }

    /// Indexes from `first` to the head's.
    pub(super) fn from(&self, first: u64) -> Result<Vec<u64>, WalError> {
        let there: Vec<u64> = self
            .older
            .range(first..)
            .map(|(index, _)| *index)
            .chain([self.head_index])
            .collect();
        let gap = there
            .iter()
            .zip(first..)
            .find(|(index, due)| **index != *due);
        match gap {
            None => Ok(there),
            Some((_, due)) => Err(WalError::MissingFile {
                path: self.path(&self.name(due)),
            }),
        }
    }

    /// Whether nothing was ever written.
    pub(super) fn is_empty(&self) -> bool {
        self.head_bytes == 0 && self.older.is_empty()
    }

    fn make_head(&mut self) -> Result<(), WalError> {
        let head = self.head.clone();
        self.files
            .create(&head)
            .and_then(|()| self.files.sync_folder())
            .map_err(|source| self.fault("made", source))?;
        self.head_bytes = 0;
        Ok(())
    }

    /// Gives the head, which must be synced, its index as a name, and makes a new one.
    pub(super) fn rotate(&mut self) -> Result<(), WalError> {
        let (head, index) = (self.head.clone(), self.head_index);
        let name = format!("{head}.{index:03}");
        self.files
            .rename(&head, &name)
            .map_err(|source| self.fault("renamed", source))?;
        self.older.insert(index, self.head_bytes);
        self.head_index = index.saturating_add(1);
        self.make_head()
    }

    /// Removes the oldest files until all together are below `limit` bytes, but none from the index
    /// `keep` on. Whether they are below it then.
    pub(super) fn shrink(&mut self, limit: u64, keep: u64) -> Result<bool, WalError> {
        let sum: u64 = self.older.values().sum();
        let mut total = sum.saturating_add(self.head_bytes);
        while total >= limit {
            let Some((&index, &bytes)) = self.older.first_key_value() else {
                return Ok(false);
            };
            if index >= keep {
                return Ok(false);
            }
            let name = self.name(index);
            self.files
                .remove(&name)
                .map_err(|source| self.file_fault(&name, "removed", source))?;
            self.older.remove(&index);
            total = total.saturating_sub(bytes);
        }
        Ok(true)
    }

    /// The system refuses something about the head or the folder.
    pub(super) fn fault(&self, verb: &'static str, source: std::io::Error) -> WalError {
        self.file_fault(&self.head, verb, source)
    }

    pub(super) fn file_fault(
        &self,
        name: &str,
        verb: &'static str,
        source: std::io::Error,
    ) -> WalError {
        WalError::File {
            path: self.path(name),
            verb,
            source,
        }
    }
}
