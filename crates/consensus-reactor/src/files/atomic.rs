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

/// Makes a folder and those above it, open to their owner only, when they are not there. After a
/// power cut they still are.
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
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    create_folder_io(&above)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if !path.is_dir() => Err(error),
        _ => File::open(above)?.sync_all(),
    }
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
    fn folders_are_made_below_one_another_and_a_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one/two/three");
        create_folder(&path).unwrap();
        create_folder(&path).unwrap();
        for made in [&path, &folder.path().join("one")] {
            let mode = fs::metadata(made).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
        let file = path.join("file");
        fs::write(&file, b"x").unwrap();
        assert!(create_folder(&file.join("below")).is_err());
        assert!(create_folder(&file).is_err());
    }

    #[test]
    fn what_may_not_be_written_says_what_to_do() {
        for (kind, remedy) in [
            (
                io::ErrorKind::PermissionDenied,
                "let the user who runs the node own it",
            ),
            (
                io::ErrorKind::ReadOnlyFilesystem,
                "mount the file system so that",
            ),
            (io::ErrorKind::StorageFull, "free some space"),
        ] {
            let error = FileError::Write {
                path: "data/priv_validator_state.json".into(),
                source: kind.into(),
            };
            assert!(
                error.to_string().contains(&format!(": {remedy}")),
                "{error}"
            );
        }
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
