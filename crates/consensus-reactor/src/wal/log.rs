//! The log as its writer has it.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use perihelion_consensus::WalMessage;
use perihelion_proto::tendermint::consensus as pb;
use perihelion_types::{Height, Time};

use super::{
    TornTail, WalError, WalReader,
    files::{LogFiles, SystemFiles},
    group::Group,
    message::to_proto,
    reader::{FileReader, Next},
    record,
    recovery::{self, last_end_height, recover},
};

/// How long a record that need not be synced at once may wait to be: CometBFT's interval. Longer: a
/// power cut loses more of what peers said, which they say again.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes that are collected before they are handed to the system. More saves calls, and a process
/// that is killed loses more.
const BUFFER_BYTES: usize = 1 << 16;

/// Bounds of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalOptions {
    /// The head is put aside at this length, in bytes; 0 for never. Default 10 MiB.
    pub head_bytes: u64,
    /// The oldest files are removed when all together have this length, in bytes; 0 for never.
    /// Those of the height at work stay. Default 1 GiB.
    pub total_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            head_bytes: 10 << 20,
            total_bytes: 1 << 30,
        }
    }
}

/// The write-ahead log of consensus, in CometBFT's format. One writer; every call blocks.
///
/// Everything that consensus takes in is written before it takes effect. What we signed, and the
/// end of a height, is synced by the same call ([`is_synced`](super::is_synced)); the rest at
/// [`Self::sync_deadline`]. After a failed write or sync every later one is refused until the log
/// is opened again.
pub struct Wal {
    group: Group,
    options: WalOptions,
    /// Records not handed to the system yet.
    buffer: Vec<u8>,
    /// Since when something is not synced.
    unsynced_since: Option<Instant>,
    /// The file with the last end of a height; it and those behind it are never removed.
    keep_from: Option<u64>,
    failed: Option<String>,
}

impl Wal {
    /// Opens the log whose head is the file `head`, or makes it with the mark of height 0, the
    /// beginning of a chain. What a crash has left torn at its end is cut off, and told.
    ///
    /// # Errors
    /// When the system refuses, or what was durable is damaged ([`WalError::Damaged`]); nothing is
    /// changed then.
    pub fn open(
        head: &Path,
        options: WalOptions,
        now: Time,
    ) -> Result<(Self, Option<TornTail>), WalError> {
        let (folder, name) = split(head)?;
        let refused = |source| refused(head, source);
        let files = SystemFiles::open(folder).map_err(refused)?;
        Self::open_in(Box::new(files), name, options, now)
    }

    /// [`Self::open`] in a folder that need not be one of the system.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_in(
        files: Box<dyn LogFiles>,
        head: &str,
        options: WalOptions,
        now: Time,
    ) -> Result<(Self, Option<TornTail>), WalError> {
        let mut group = Group::open(files, head)?;
        let torn = recover(&mut group)?;
        if let Some(torn) = &torn {
            let what = match torn.offset {
                0 => "no record of the consensus log's head can be read; all of it was put aside",
                _ => "the consensus log had a torn end, as after a crash; it was cut off",
            };
            tracing::warn!(
                file = %torn.path.display(), offset = torn.offset, bytes = torn.bytes,
                kept = %torn.kept.display(), fault = %torn.fault,
                "{what}"
            );
        }
        let keep_from = last_end_height(&group)?;
        let mut wal = Self {
            group,
            options,
            buffer: Vec::new(),
            unsynced_since: None,
            keep_from,
            failed: None,
        };
        if wal.group.is_empty() {
            wal.end_height(now, Height::ZERO)?;
        }
        Ok((wal, torn))
    }

    /// Writes a message, and syncs it and all before it when it is one that must be durable before
    /// it takes effect.
    ///
    /// # Errors
    /// When the message is too large, or the disk fails; with the latter, nothing that hangs on the
    /// message may be done.
    pub fn append(&mut self, now: Time, message: pb::WalMessage) -> Result<(), WalError> {
        let synced = record::is_synced(&message);
        self.write(now, message)?;
        if synced { self.sync() } else { Ok(()) }
    }

    /// Writes a record of the state machine, and syncs it and all before it if `sync` says so, or if
    /// [`Self::append`] would.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_message(
        &mut self,
        now: Time,
        message: &WalMessage,
        sync: bool,
    ) -> Result<(), WalError> {
        self.append(now, to_proto(message))?;
        if sync { self.sync() } else { Ok(()) }
    }

    /// Marks the end of a height, durably: its block and commit must be durable before.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn end_height(&mut self, now: Time, height: Height) -> Result<(), WalError> {
        let end = pb::EndHeight {
            height: height.get(),
        };
        let sum = Some(pb::wal_message::Sum::EndHeight(end));
        self.append(now, pb::WalMessage { sum })
    }

    /// Writes a message without syncing it: for several that one [`Self::sync`] follows.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn write(&mut self, now: Time, message: pb::WalMessage) -> Result<(), WalError> {
        self.check()?;
        let ends_height = record::end_height(&message).is_some();
        let timed = pb::TimedWalMessage {
            time: Some(now.into()),
            msg: Some(message),
        };
        let bytes = record::encode(&timed).map_err(|bytes| WalError::TooLarge {
            bytes,
            max: record::MAX_DATA_BYTES,
        })?;
        if self.options.head_bytes != 0 && self.group.head_bytes >= self.options.head_bytes {
            self.rotate()?;
        }
        self.buffer.extend_from_slice(&bytes);
        self.group.head_bytes += bytes.len() as u64;
        self.unsynced_since.get_or_insert_with(Instant::now);
        if ends_height {
            self.keep_from = Some(self.group.head_index);
        }
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.flush()?;
        if self.unsynced_since.is_some() {
            let head = self.group.head().to_owned();
            let synced = self.group.files.sync(&head);
            self.or_stop("synced", synced)?;
            self.unsynced_since = None;
        }
        Ok(())
    }

    /// When [`Self::sync`] is to be called, unless it is before.
    #[must_use]
    pub fn sync_deadline(&self) -> Option<Instant> {
        self.unsynced_since.map(|since| since + SYNC_INTERVAL)
    }

    /// What follows the mark of `height`'s end; `None` when the log has no such mark.
    ///
    /// # Errors
    /// When what has to be read for that is damaged.
    pub fn search_end_height(&mut self, height: Height) -> Result<Option<WalReader<'_>>, WalError> {
        self.flush()?;
        let mut found = None;
        'files: for index in self.group.newest_first() {
            let name = self.group.name(index);
            let mut reader = FileReader::open(&self.group, &name)?;
            let mut last = None;
            loop {
                let next = reader.next();
                match next.map_err(|source| self.group.file_fault(&name, "read", source))? {
                    Next::Record(record) => {
                        let end = record.msg.as_ref().and_then(record::end_height);
                        last = end.or(last);
                        if end == Some(height.get()) {
                            found = Some((index, reader));
                            // CometBFT marks height 0 again in each head that it finds empty.
                            if height == Height::ZERO {
                                continue 'files;
                            }
                            break 'files;
                        }
                    }
                    Next::End => break,
                    Next::Fault(fault) => {
                        return Err(WalError::Damaged {
                            path: self.group.path(&name),
                            offset: reader.offset,
                            fault,
                        });
                    }
                }
            }
            // Older files hold lower heights.
            if last.is_some_and(|last| last > 0 && last < height.get()) {
                break;
            }
        }
        found
            .map(|(index, reader)| WalReader::behind(&self.group, index, reader))
            .transpose()
    }

    /// The highest height whose end the log marks; `None` where it marks none.
    ///
    /// # Errors
    /// When what has to be read for that is damaged.
    pub fn last_end_height(&mut self) -> Result<Option<Height>, WalError> {
        self.flush()?;
        for index in self.group.newest_first() {
            let name = self.group.name(index);
            let reader = FileReader::open(&self.group, &name)?;
            let mut last = None;
            for entry in WalReader::of_one(&self.group, index, reader) {
                last = record::end_height(&entry?.message).max(last);
            }
            if last.is_some() {
                return Ok(last.map(Height::new));
            }
        }
        Ok(None)
    }

    fn rotate(&mut self) -> Result<(), WalError> {
        self.sync()?;
        let rotated = self.group.rotate();
        self.stop_on(rotated)?;
        if self.options.total_bytes != 0 {
            let keep = self.keep_from.unwrap_or(0);
            let shrunk = self.group.shrink(self.options.total_bytes, keep);
            if !self.stop_on(shrunk)? {
                tracing::warn!(
                    bound = self.options.total_bytes,
                    "the consensus log of the height at work is above its bound; it is kept"
                );
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WalError> {
        self.check()?;
        if !self.buffer.is_empty() {
            let head = self.group.head().to_owned();
            let written = self.group.files.append(&head, &self.buffer);
            self.or_stop("written", written)?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn check(&self) -> Result<(), WalError> {
        match &self.failed {
            None => Ok(()),
            Some(reason) => Err(WalError::Stopped {
                path: self.group.path(self.group.head()),
                reason: reason.clone(),
            }),
        }
    }

    fn or_stop(&mut self, verb: &'static str, done: io::Result<()>) -> Result<(), WalError> {
        let done = done.map_err(|source| self.group.fault(verb, source));
        self.stop_on(done)
    }

    fn stop_on<T>(&mut self, done: Result<T, WalError>) -> Result<T, WalError> {
        if let Err(error) = &done {
            self.failed = Some(error.to_string());
        }
        done
    }
}

/// Whether the log whose head is the file `head` can be opened and replayed, as far as the end of the
/// last height that it marks; one that is not there can be made. Changes nothing, and reads what
/// [`Wal::open`] reads: the head (10 MiB, unless one message is larger), and where no height ends
/// there the older files back to one in which a height ends.
///
/// # Errors
/// When a file cannot be read, or what was durable is damaged or gone ([`WalError::is_damage`]).
pub fn check(head: &Path) -> Result<(), WalError> {
    let (folder, name) = split(head)?;
    if !folder
        .try_exists()
        .map_err(|source| refused(head, source))?
    {
        return Ok(());
    }
    let files = SystemFiles::existing(folder);
    let (group, has_head) = Group::list(Box::new(files), name)?;
    recovery::check(&group, has_head)
}

/// The folder and the name of a head.
fn split(head: &Path) -> Result<(&Path, &str), WalError> {
    let folder = match head.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = head.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| refused(head, io::ErrorKind::InvalidFilename.into()))?;
    Ok((folder, name))
}

fn refused(head: &Path, source: io::Error) -> WalError {
    WalError::File {
        path: head.to_owned(),
        verb: "opened",
        source,
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        if self.failed.is_none()
            && let Err(error) = self.sync()
        {
            tracing::warn!(%error, "the last messages of peers are not in the consensus log");
        }
    }
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("head", &self.group.path(self.group.head()))
            .field("head_bytes", &self.group.head_bytes)
            .finish_non_exhaustive()
    }
}
