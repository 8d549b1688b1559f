//! Reading records one after another.

use std::{io::Read, path::PathBuf};

use perihelion_consensus::WalMessage;
use perihelion_proto::tendermint::consensus as pb;
use perihelion_types::Time;

use super::{
    WalError,
    group::Group,
    message::from_proto,
    record::{self, HEADER_BYTES, RecordFault},
};

/// One record of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct WalEntry {
    /// The file it stands in.
    pub path: PathBuf,
    /// Where it begins there, in bytes.
    pub offset: u64,
    /// When it was written; zero where the log has no time that can be represented.
    pub time: Time,
    /// What was written; its `sum` is set.
    pub message: pb::WalMessage,
}

impl WalEntry {
    /// The record as the state machine takes it.
    ///
    /// # Errors
    /// When it is none that the state machine ever wrote.
    pub fn decode(self) -> Result<WalMessage, WalError> {
        from_proto(self.message).map_err(|error| WalError::Damaged {
            path: self.path,
            offset: self.offset,
            fault: RecordFault::NoMessage(error.to_string()),
        })
    }
}

/// What comes next in a file.
pub(super) enum Next {
    /// A record.
    Record(Box<pb::TimedWalMessage>),
    /// The file ends behind a record.
    End,
    /// Something that is no record, at [`FileReader::offset`].
    Fault(RecordFault),
}

/// The records of one file.
pub(super) struct FileReader {
    source: Box<dyn Read + Send>,
    /// Where the next record begins.
    pub(super) offset: u64,
}

impl FileReader {
    pub(super) fn open(group: &Group, name: &str) -> Result<Self, WalError> {
        let source = group
            .files
            .read(name, 0)
            .map_err(|source| group.file_fault(name, "read", source))?;
        Ok(Self { source, offset: 0 })
    }

    /// The next record. Nothing more is to be read behind anything but a record.
    pub(super) fn next(&mut self) -> std::io::Result<Next> {
        let mut bytes = Vec::with_capacity(256);
        self.read_up_to(HEADER_BYTES, &mut bytes)?;
        if bytes.is_empty() {
            return Ok(Next::End);
        }
        if let Some(header) = bytes.first_chunk() {
            match record::record_bytes(*header) {
                Ok(length) => self.read_up_to(length - HEADER_BYTES, &mut bytes)?,
                Err(fault) => return Ok(Next::Fault(fault)),
            }
        }
        match record::decode(&bytes) {
            Ok((message, length)) => {
                self.offset += length as u64;
                Ok(Next::Record(Box::new(message)))
            }
            Err(fault) => Ok(Next::Fault(fault)),
        }
    }

    fn read_up_to(&mut self, count: usize, bytes: &mut Vec<u8>) -> std::io::Result<()> {
        self.source
            .by_ref()
            .take(count as u64)
            .read_to_end(bytes)
            .map(drop)
    }
}

/// The records behind a mark, through all newer files, oldest first. Ends after the first error.
pub struct WalReader<'a> {
    group: &'a Group,
    /// Indexes of the files to come.
    files: std::vec::IntoIter<u64>,
    current: Option<(String, FileReader)>,
}

impl<'a> WalReader<'a> {
    /// Behind what `reader` has read of the file with the index `index`.
    pub(super) fn behind(
        group: &'a Group,
        index: u64,
        reader: FileReader,
    ) -> Result<Self, WalError> {
        let mut files = group.from(index)?.into_iter();
        files.next();
        Ok(Self {
            group,
            files,
            current: Some((group.name(index), reader)),
        })
    }

    /// The rest of one file.
    pub(super) fn of_one(group: &'a Group, index: u64, reader: FileReader) -> Self {
        Self {
            group,
            files: Vec::new().into_iter(),
            current: Some((group.name(index), reader)),
        }
    }

    fn step(&mut self) -> Result<Option<WalEntry>, WalError> {
        loop {
            let Some((name, reader)) = &mut self.current else {
                return Ok(None);
            };
            let offset = reader.offset;
            let path = self.group.path(name);
            match reader.next() {
                Ok(Next::Record(record)) => {
                    return Ok(Some(WalEntry {
                        path,
                        offset,
                        time: Time::try_from(record.time).unwrap_or(Time::ZERO),
                        message: record.msg.unwrap_or_default(),
                    }));
                }
                Ok(Next::End) => {
                    self.current = match self.files.next() {
                        None => None,
                        Some(index) => {
                            let name = self.group.name(index);
                            let reader = FileReader::open(self.group, &name)?;
                            Some((name, reader))
                        }
                    };
                }
                Ok(Next::Fault(fault)) => {
                    return Err(WalError::Damaged {
                        path,
                        offset,
                        fault,
                    });
                }
                Err(source) => return Err(self.group.file_fault(name, "read", source)),
            }
        }
    }
}

impl Iterator for WalReader<'_> {
    type Item = Result<WalEntry, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.current = None;
        }
        step.transpose()
    }
}

impl std::fmt::Debug for WalReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self
            .current
            .as_ref()
            .map(|(name, file)| (name, file.offset));
        f.debug_struct("WalReader").field("at", &place).finish()
    }
}
