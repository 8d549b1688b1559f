//! Whether the files that the database is made of are there: RocksDB looks at a few tables and at no
//! blob file when it opens, and finds the rest missing when a value in it is read.

use std::{fs, io, path::Path};

use rocksdb::DB;

use crate::{
    StoreError,
    blob_files::{FILE_HEADER, FOOTER},
    columns::Column,
};

/// How RocksDB begins the line of a blob file, and names its bytes without header and footer.
const BLOB_NUMBER: &str = "blob_file_number:";
const BLOB_BYTES: &str = "total_blob_bytes:";

/// A file that the database names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LiveFile {
    /// Its name in the folder.
    name: String,
    column: String,
    bytes: u64,
}

/// Checks that every table and blob file that the database in `folder` names is there, with the
/// bytes that were written. Two looks at the folder's files, and no reading of them.
///
/// # Errors
/// [`StoreError::LostFile`] for the first one that is not.
pub(crate) fn check(db: &DB, folder: &Path) -> Result<(), StoreError> {
    let mut lost = Vec::new();
    for file in live_files(db, folder)? {
        let found = length(&folder.join(&file.name))?;
        if found != Some(file.bytes) {
            lost.push((file, found));
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    // What compaction has replaced since is removed, and is named no more.
    let named = live_files(db, folder)?;
    match lost.into_iter().find(|(file, _)| named.contains(file)) {
        None => Ok(()),
        Some((file, found)) => Err(StoreError::LostFile {
            path: folder.join(file.name),
            column: file.column,
            found,
            expected: file.bytes,
        }),
    }
}

/// The bytes of a file; `None` where there is none.
fn length(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(file) => Ok(Some(file.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

fn live_files(db: &DB, folder: &Path) -> Result<Vec<LiveFile>, StoreError> {
    let failed = |error: rocksdb::Error| StoreError::Open {
        path: folder.to_owned(),
        reason: error.into_string(),
    };
    let tables = db.live_files().map_err(failed)?;
    let mut files: Vec<LiveFile> = tables
        .into_iter()
        .map(|table| LiveFile {
            name: table.name.trim_start_matches('/').to_owned(),
            column: table.column_family_name,
            bytes: table.size as u64,
        })
        .collect();
    for column in Column::ALL {
        let handle = db
            .cf_handle(column.name())
            .expect("the database was opened with every column family");
        // The only place where blob files are told. It is text for people: a test removes a file of
        // each kind, so that another form of it is found out.
        let text = db
            .property_value_cf(handle, "rocksdb.sstables")
            .map_err(failed)?;
        let lines = text.iter().flat_map(|text| text.lines());
        files.extend(lines.filter_map(|line| blob_file(line, column)));
    }
    Ok(files)
}

/// `blob_file_number: 62 total_blob_count: 9 total_blob_bytes: 8123 checksum_method: …`
fn blob_file(line: &str, column: Column) -> Option<LiveFile> {
    let mut words = line.strip_prefix(BLOB_NUMBER)?.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    words.find(|word| *word == BLOB_BYTES)?;
    let bytes: u64 = words.next()?.parse().ok()?;
    Some(LiveFile {
        name: format!("{number:06}.blob"),
        column: column.name().to_owned(),
        bytes: bytes.saturating_add(FILE_HEADER + FOOTER),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_file_is_read_from_its_line() {
        let line = "blob_file_number: 62 total_blob_count: 9 total_blob_bytes: 8123 \
                    checksum_method:  checksum_value:  linked_ssts: { 61 } \
                    garbage_blob_count: 0 garbage_blob_bytes: 0";
        let file = blob_file(line, Column::Blocks).unwrap();
        assert_eq!(file.name, "000062.blob");
        assert_eq!(file.column, "blocks");
        assert_eq!(file.bytes, 8123 + 62);
        for other in [
            "--- blob files --- version# 7 ---",
            " 61:1234[1 .. 9]['00' seq:1, type:1 .. '01' seq:9, type:1] blob_file:62(0)",
            "",
        ] {
            assert_eq!(blob_file(other, Column::Blocks), None, "{other}");
        }
    }
}
