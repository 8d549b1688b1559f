//! The folder of the log, as few operations: so that tests can stand in for a disk that fails, fills
//! up or forgets what was not synced.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// One folder of files, by their names.
pub trait LogFiles: Send {
    /// Where the folder is, for messages.
    fn folder(&self) -> &Path;

    /// Names and lengths of the files.
    ///
    /// # Errors
    /// When the folder cannot be read.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// The content of a file from an offset on.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    fn read(&self, name: &str, from: u64) -> io::Result<Box<dyn Read + Send>>;

    /// Makes an empty file when there is none, for its owner only.
    ///
    /// # Errors
    /// When it cannot be made.
    fn create(&mut self, name: &str) -> io::Result<()>;

    /// Adds bytes at the end of a file. After an error, some of them may be there.
    ///
    /// # Errors
    /// When the file cannot be written.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content of a file durable.
    ///
    /// # Errors
    /// When that fails; it must not be tried again, since a second try may succeed without the
    /// bytes being there.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Cuts a file to a length.
    ///
    /// # Errors
    /// When that fails.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;

    /// Gives a file another name.
    ///
    /// # Errors
    /// When that fails.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When that fails.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Makes the names of the files durable.
    ///
    /// # Errors
    /// As [`Self::sync`].
    fn sync_folder(&mut self) -> io::Result<()>;
}

/// A folder of the system.
#[derive(Debug)]
pub struct SystemFiles {
    folder: PathBuf,
    /// The file that was written last.
    open: Option<(String, File)>,
}

impl SystemFiles {
    /// The folder, which is made when it is not there, for its owner only.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        crate::files::create_folder_io(folder)?;
        Ok(Self::existing(folder))
    }

    /// A folder that is there.
    pub(super) fn existing(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            open: None,
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(self.folder.join(name))?;
            self.open = Some((name.to_owned(), file));
        }
        let (_, file) = self.open.as_mut().expect("opened above");
        Ok(file)
    }
}

impl LogFiles for SystemFiles {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Names that are no UTF-8 are none of ours.
            if let Ok(name) = entry.file_name().into_string() {
                files.push((name, entry.metadata()?.len()));
            }
        }
        Ok(files)
    }

    fn read(&self, name: &str, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = File::open(self.folder.join(name))?;
        file.seek(SeekFrom::Start(from))?;
        Ok(Box::new(io::BufReader::with_capacity(1 << 16, file)))
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.file(name).map(drop)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_all()
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.file(name)?.set_len(length)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.open = None;
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open = None;
        fs::remove_file(self.folder.join(name))
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}
