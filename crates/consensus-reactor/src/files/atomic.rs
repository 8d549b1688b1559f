//! Writing files so that a crash leaves the old one or the new one, never a part.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::FileError;

/// Writes a file with the given mode: into a new file beside it, synced, renamed over it, the
/// folder synced.
///
/// # Errors
/// When any of it fails; the old file is then still there.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let folder = parent(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{:016x}.tmp", rand::random::<u64>()));
    let written = write_new(&temporary, content, mode)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(&folder)?.sync_all());
    written.map_err(|source| {
        // What is left is of no use; that it could not be removed adds nothing to the error.
        drop(fs::remove_file(&temporary));
        FileError::Write {
            path: path.to_owned(),
            source,
        }
    })
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes a folder and those above it, open to their owner only, when they are not there.
///
/// # Errors
/// When it cannot be made.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    create_folder_io(path).map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn create_folder_io(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn replaces_the_whole_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_atomically(&path, b"a longer first content", 0o600).unwrap();
        write_atomically(&path, b"second", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        // A folder that is not empty cannot be replaced by a file.
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"x").unwrap();
        let error = write_atomically(&path, b"y", 0o600).unwrap_err();
        assert!(
            error.to_string().contains("taken cannot be written"),
            "{error}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
