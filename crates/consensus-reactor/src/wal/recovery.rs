//! What a crash leaves at the end of the head.
//!
//! Bytes that were synced are there after a crash; of the others any part may be missing, cut or
//! zero. So what a crash can have spoilt is what stands behind the last record that was synced
//! before it took effect ([`record::is_synced`]): messages of peers and timeouts, of which nothing
//! of ours hangs. That is cut off. Where such a record stands *behind* a damaged place, what is
//! damaged had been durable: then nothing is touched. There is one exception. The very last record
//! may be one whose sync was cut short by a loss of power, so that it took no effect, and the system
//! may have written it and not what is before it: that place then reads as zeros.
//!
//! Block parts are logged with the transactions in them, and anybody can send one that holds a
//! record. So nothing is looked for within a spoilt record whose length the data confirm.

use std::{io::Read as _, path::PathBuf};

use super::{
    WalError,
    group::Group,
    reader::{FileReader, Next},
    record::{self, RecordFault},
};

/// Zeros in a row that stand for lost bytes. Fewer: messages hold so many themselves; more: a short
/// loss, up to the next page of the file, would pass for damage.
const HOLE_BYTES: usize = 16;

/// What was cut off the end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub path: PathBuf,
    /// Its length now.
    pub offset: u64,
    /// Bytes cut off.
    pub bytes: u64,
    /// Where they are kept, until the next tail is cut.
    pub kept: PathBuf,
    /// What was wrong with the first of them.
    pub fault: RecordFault,
}

/// Reads the head through, and cuts what a crash has left at its end.
pub(super) fn recover(group: &mut Group) -> Result<Option<TornTail>, WalError> {
    let head = group.head().to_owned();
    let mut reader = FileReader::open(group, &head)?;
    let fault = loop {
        match reader
            .next()
            .map_err(|source| group.fault("read", source))?
        {
            Next::Record(_) => {}
            Next::End => return Ok(None),
            Next::Fault(fault) => break fault,
        }
    };
    let offset = reader.offset;
    let tail = read_from(group, &head, offset)?;
    if was_durable(&tail) {
        return Err(WalError::Damaged {
            path: group.path(&head),
            offset,
            fault,
        });
    }
    let kept = keep(group, &tail)?;
    group
        .files
        .truncate(&head, offset)
        .and_then(|()| group.files.sync(&head))
        .map_err(|source| group.fault("cut", source))?;
    group.head_bytes = offset;
    Ok(Some(TornTail {
        path: group.path(&head),
        offset,
        bytes: tail.len() as u64,
        kept,
        fault,
    }))
}

/// Reads the files back to the last end of a height: see [`super::check`].
pub(super) fn check(group: &Group, has_head: bool) -> Result<(), WalError> {
    for index in group.newest_first() {
        let is_head = index == group.head_index;
        if is_head && !has_head {
            continue;
        }
        let name = group.name(index);
        let mut reader = FileReader::open(group, &name)?;
        let mut ends_height = false;
        loop {
            let next = reader.next();
            match next.map_err(|source| group.file_fault(&name, "read", source))? {
                Next::Record(record) => {
                    ends_height |= record.msg.as_ref().and_then(record::end_height).is_some();
                }
                Next::End => break,
                // Of the older files every byte was synced before the next one was begun.
                Next::Fault(_)
                    if is_head && !was_durable(&read_from(group, &name, reader.offset)?) =>
                {
                    break;
                }
                Next::Fault(fault) => {
                    return Err(WalError::Damaged {
                        path: group.path(&name),
                        offset: reader.offset,
                        fault,
                    });
                }
            }
        }
        if ends_height {
            return group.from(index).map(drop);
        }
    }
    Ok(())
}

fn read_from(group: &Group, name: &str, offset: u64) -> Result<Vec<u8>, WalError> {
    let mut bytes = Vec::new();
    group
        .files
        .read(name, offset)
        .and_then(|mut source| source.read_to_end(&mut bytes))
        .map_err(|source| group.file_fault(name, "read", source))?;
    Ok(bytes)
}

/// Whether what a tail begins with, which is no record, had been synced: see the module.
fn was_durable(tail: &[u8]) -> bool {
    let mut rest = tail;
    let mut hole = false;
    // Where this is not known, no header is believed, which may stand in a transaction.
    let mut begins_record = true;
    loop {
        let behind = if begins_record {
            behind_spoilt(rest)
        } else {
            0
        };
        let Some((at, message, length)) = record::find(&rest[behind..]) else {
            return false;
        };
        begins_record &= at == 0;
        hole |= has_hole(&rest[..behind + at]);
        rest = &rest[behind + at + length..];
        if message.msg.as_ref().is_some_and(record::is_synced) && !(rest.is_empty() && hole) {
            return true;
        }
    }
}

/// Where the spoilt records end with which `bytes` begin, as far as their lengths are confirmed.
fn behind_spoilt(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(length) = record::spoilt_bytes(&bytes[at..]) {
        at = bytes.len().min(at + length);
    }
    at
}

/// Whether zeros stand where something was lost.
fn has_hole(damaged: &[u8]) -> bool {
    damaged
        .windows(HOLE_BYTES)
        .any(|window| window == [0; HOLE_BYTES])
}

/// Writes the tail into a file beside the log, in place of the one before.
fn keep(group: &mut Group, tail: &[u8]) -> Result<PathBuf, WalError> {
    let name = format!("{}.torn", group.head());
    let files = &mut group.files;
    files
        .create(&name)
        .and_then(|()| files.truncate(&name, 0))
        .and_then(|()| files.append(&name, tail))
        .and_then(|()| files.sync(&name))
        .map_err(|source| group.file_fault(&name, "written", source))?;
    Ok(group.path(&name))
}

/// The index of the newest file that marks the end of a height; `None` where damage hides it.
pub(super) fn last_end_height(group: &Group) -> Result<Option<u64>, WalError> {
    for index in group.newest_first() {
        let name = group.name(index);
        let mut reader = FileReader::open(group, &name)?;
        let mut found = false;
        loop {
            let next = reader.next();
            match next.map_err(|source| group.file_fault(&name, "read", source))? {
                Next::Record(record) => {
                    found |= record.msg.as_ref().and_then(record::end_height).is_some();
                }
                Next::End => break,
                Next::Fault(_) => return Ok(found.then_some(index)),
            }
        }
        if found {
            return Ok(Some(index));
        }
    }
    Ok(None)
}
