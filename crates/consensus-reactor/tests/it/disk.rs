//! A disk in memory that forgets what was not synced, and fails when it is told to.

use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use perihelion_consensus_reactor::wal::files::LogFiles;

/// What a loss of power leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PowerCut {
    /// The share (of 255) of bytes written and not synced that are there.
    pub(crate) kept: u8,
    /// Whether the first half of them reads as zeros.
    pub(crate) hole: bool,
    /// Whether names that were not synced are there.
    pub(crate) names: bool,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes that succeed until all fail.
    left: Option<usize>,
    changes: usize,
}

/// The disk; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn with(name: &str, content: &[u8]) -> Self {
        let disk = Self::default();
        disk.put(name, content);
        disk
    }

    /// Sets a file, durably.
    pub(crate) fn put(&self, name: &str, content: &[u8]) {
        let mut state = self.lock();
        let index = state.files.len();
        state.files.push(Content {
            now: content.to_vec(),
            durable: content.to_vec(),
        });
        state.names.insert(name.to_owned(), index);
        state.durable_names = state.names.clone();
    }

    pub(crate) fn get(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        let index = *state.names.get(name)?;
        Some(state.files[index].now.clone())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    pub(crate) fn forget(&self, name: &str) {
        self.lock().names.remove(name);
    }

    /// Changes asked for so far.
    pub(crate) fn changes(&self) -> usize {
        self.lock().changes
    }

    /// All changes after the next `count` fail.
    pub(crate) fn fail_after(&self, count: usize) {
        self.lock().left = Some(count);
    }

    /// The disk after the power came back.
    pub(crate) fn after(&self, cut: PowerCut) -> Self {
        let state = self.lock();
        let names = if cut.names {
            &state.names
        } else {
            &state.durable_names
        };
        let after = Self::default();
        for (name, index) in names {
            let content = &state.files[*index];
            let safe = content.durable.len();
            let mut bytes = content.durable.clone();
            if let Some(behind) = content.now.get(safe..)
                && content.now.starts_with(&content.durable)
            {
                let kept = behind.len() * usize::from(cut.kept) / 255;
                bytes.extend_from_slice(&behind[..kept]);
                if cut.hole {
                    bytes[safe..safe + kept / 2].fill(0);
                }
            }
            after.put(name, &bytes);
        }
        after
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        state.changes += 1;
        match &mut state.left {
            Some(0) => return Err(io::ErrorKind::StorageFull.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(state)
    }
}

fn index(state: &State, name: &str) -> io::Result<usize> {
    let found = state.names.get(name).copied();
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl LogFiles for Disk {
    fn folder(&self) -> &Path {
        Path::new("/disk")
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.lock();
        let length = |index: usize| state.files[index].now.len() as u64;
        Ok(state
            .names
            .iter()
            .map(|(name, index)| (name.clone(), length(*index)))
            .collect())
    }

    fn read(&self, name: &str, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let state = self.lock();
        let mut content = Cursor::new(state.files[index(&state, name)?].now.clone());
        content.set_position(from);
        Ok(Box::new(content))
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.change()?;
        if !state.names.contains_key(name) {
            let index = state.files.len();
            state.files.push(Content::default());
            state.names.insert(name.to_owned(), index);
        }
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let changed = self.change().map(drop);
        let mut state = self.lock();
        let index = index(&state, name)?;
        // A disk that is full takes a part.
        let taken = if changed.is_err() {
            bytes.len() / 2
        } else {
            bytes.len()
        };
        state.files[index].now.extend_from_slice(&bytes[..taken]);
        changed
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.change()?;
        let index = index(&state, name)?;
        state.files[index].durable = state.files[index].now.clone();
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut state = self.change()?;
        let index = index(&state, name)?;
        state.files[index]
            .now
            .truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.change()?;
        let index = index(&state, from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), index);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change()?.names.remove(name);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        let mut state = self.change()?;
        state.durable_names = state.names.clone();
        Ok(())
    }
}
