//! Which file a damaged value is in: RocksDB says that a blob's checksum is wrong, but not where.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Bytes before the first record of a blob file, of a record before its key, and after the last
/// record.
pub(crate) const FILE_HEADER: u64 = 30;
const RECORD_HEADER: u64 = 32;
pub(crate) const FOOTER: u64 = 32;
/// Files that are looked through, at most 64 MiB each. More: the error takes longer to come.
const MAX_FILES: usize = 16;

/// Names of the blob files in `folder` that have a record of `key`; empty when none of those
/// looked through has, or they cannot be read.
pub(crate) fn with_key(folder: &Path, key: &[u8]) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    // Keys rise within a file, so those that begin nearest below the key come first.
    let mut files: Vec<(Vec<u8>, PathBuf)> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "blob"))
        .filter_map(|path| Some((Records::open(&path).ok()?.next()?, path)))
        .filter(|(first, _)| first[..] <= *key)
        .collect();
    files.sort();
    files
        .iter()
        .rev()
        .take(MAX_FILES)
        .filter(|(_, path)| {
            Records::open(path).is_ok_and(|mut records| records.any(|record| record == key))
        })
        .filter_map(|(_, path)| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect()
}

/// The keys of a blob file, up to the end or to what makes no sense.
struct Records {
    file: BufReader<File>,
    at: u64,
    end: u64,
}

impl Records {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let end = file.metadata()?.len().saturating_sub(FOOTER);
        let mut file = BufReader::new(file);
        file.seek(SeekFrom::Start(FILE_HEADER))?;
        Ok(Self {
            file,
            at: FILE_HEADER,
            end,
        })
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut header = [0; RECORD_HEADER as usize];
        self.file.read_exact(&mut header)?;
        let number = |at: usize| {
            let bytes = header[at..at + 8].try_into();
            u64::from_le_bytes(bytes.expect("8 bytes of a header of 32"))
        };
        let (key_bytes, value_bytes) = (number(0), number(8));
        let length = key_bytes
            .checked_add(value_bytes)
            .and_then(|length| length.checked_add(RECORD_HEADER));
        let end = length.and_then(|length| self.at.checked_add(length));
        let too_long = || io::Error::from(io::ErrorKind::InvalidData);
        let end = end.filter(|end| *end <= self.end).ok_or_else(too_long)?;
        let mut key = vec![0; usize::try_from(key_bytes).map_err(|_| too_long())?];
        self.file.read_exact(&mut key)?;
        self.file
            .seek_relative(i64::try_from(value_bytes).map_err(|_| too_long())?)?;
        self.at = end;
        Ok(key)
    }
}

impl Iterator for Records {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.at >= self.end {
            return None;
        }
        self.read().ok()
    }
}
