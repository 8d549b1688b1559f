//! What was synced, and the folder that is left when nothing else is.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, linkat};

/// A file or folder, whatever its names.
type Inode = u64;

/// What the names in a folder stand for.
type Names = BTreeMap<OsString, Named>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Named {
    inode: Inode,
    is_folder: bool,
}

/// A folder that is known.
#[derive(Debug)]
struct Folder {
    /// Its names when it was last synced.
    names: Names,
    /// Open, so that no other folder gets its inode.
    _open: File,
}

/// What was synced of a folder's tree. Everything that is there when it begins counts as synced.
///
/// A second name is made for each file, in a folder of its own beside the tree, so that what is
/// removed or replaced without a sync can come back.
#[derive(Debug)]
pub struct SyncRecord {
    root: PathBuf,
    root_inode: Inode,
    kept: PathBuf,
    device: u64,
    folders: HashMap<Inode, Folder>,
    /// Bytes of each file when it was last synced.
    files: BTreeMap<Inode, u64>,
}

/// What a power cut took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Bytes at the ends of files.
    pub bytes: u64,
    /// Files that lost some of them.
    pub files: u64,
    /// Names that are not what they were.
    pub names: u64,
}

impl SyncRecord {
    /// Begins with all that is below `root` now. `kept` is made, on the same file system.
    ///
    /// # Errors
    /// When `kept` is there already, or a file cannot be given another name in it.
    pub fn begin(root: &Path, kept: &Path) -> io::Result<Self> {
        fs::create_dir(kept)?;
        let metadata = fs::metadata(root)?;
        let mut record = Self {
            root: root.to_owned(),
            root_inode: metadata.ino(),
            kept: kept.to_owned(),
            device: metadata.dev(),
            folders: HashMap::new(),
            files: BTreeMap::new(),
        };
        record.begin_with(root, metadata.ino())?;
        Ok(record)
    }

    fn begin_with(&mut self, path: &Path, inode: Inode) -> io::Result<()> {
        let names = self.read_names(path)?;
        for (name, named) in &names {
            let path = path.join(name);
            if named.is_folder {
                self.begin_with(&path, named.inode)?;
            } else {
                self.files.insert(named.inode, fs::metadata(path)?.len());
            }
        }
        let folder = Folder {
            names,
            _open: File::open(path)?,
        };
        self.folders.insert(inode, folder);
        Ok(())
    }

    /// Notes that what `open` leads to is synced: a file or folder of the tree, or something else,
    /// which is passed by. `open` may be a link such as `/proc/PID/fd/N`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn synced(&mut self, open: &Path) -> io::Result<()> {
        let metadata = fs::metadata(open)?;
        if metadata.dev() != self.device {
            return Ok(());
        }
        let inode = metadata.ino();
        if metadata.is_dir() {
            let names = self.read_names(open)?;
            let folder = Folder {
                names,
                _open: File::open(open)?,
            };
            self.folders.insert(inode, folder);
        } else if metadata.is_file() && self.keep(open, inode)? {
            self.files.insert(inode, metadata.len());
        }
        Ok(())
    }

    /// The names in a folder. Files that are not known are kept, with nothing synced of them.
    fn read_names(&mut self, folder: &Path) -> io::Result<Names> {
        let mut names = Names::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (path, kind) = (folder.join(entry.file_name()), entry.file_type()?);
            let inode = entry.ino();
            // What goes meanwhile was not synced.
            let is_there = if kind.is_dir() {
                self.know(&path, inode)?
            } else {
                kind.is_file() && self.keep(&path, inode)?
            };
            if is_there {
                let named = Named {
                    inode,
                    is_folder: kind.is_dir(),
                };
                names.insert(entry.file_name(), named);
            }
        }
        Ok(names)
    }

    /// Has a folder known, with no synced names unless it was known.
    fn know(&mut self, path: &Path, inode: Inode) -> io::Result<bool> {
        if self.folders.contains_key(&inode) {
            return Ok(true);
        }
        match unless_gone(File::open(path))? {
            Some(open) if open.metadata()?.ino() == inode => {
                let names = Names::new();
                self.folders.insert(inode, Folder { names, _open: open });
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Keeps a file under another name; `false` when it is gone, or another one has its name.
    fn keep(&mut self, path: &Path, inode: Inode) -> io::Result<bool> {
        if self.files.contains_key(&inode) {
            return Ok(true);
        }
        let kept = self.kept_name(inode);
        let linked = linkat(CWD, path, CWD, &kept, AtFlags::SYMLINK_FOLLOW);
        if unless_gone(linked.map_err(io::Error::from))?.is_none() {
            return Ok(false);
        }
        if fs::metadata(&kept)?.ino() != inode {
            fs::remove_file(&kept)?;
            return Ok(false);
        }
        self.files.insert(inode, 0);
        Ok(true)
    }

    fn kept_name(&self, inode: Inode) -> PathBuf {
        self.kept.join(inode.to_string())
    }

    /// Cuts the power: the process that wrote must have ended. Of what each file got after it was
    /// last synced, `share(bytes)` bytes from the front stay. With `keeps_names` all names are what
    /// they are; else each folder's are those of when it was last synced.
    ///
    /// # Errors
    /// When a file cannot be changed.
    pub fn cut(mut self, keeps_names: bool, mut share: impl FnMut(u64) -> u64) -> io::Result<Lost> {
        let mut lost = Lost::default();
        let now = self.walk(&self.root.clone(), self.root_inode)?;
        for (inode, synced) in &self.files {
            let path = self.kept_name(*inode);
            let length = fs::metadata(&path)?.len();
            let more = length.saturating_sub(*synced);
            let dropped = more - share(more).min(more);
            if dropped > 0 {
                let file = OpenOptions::new().write(true).open(&path)?;
                file.set_len(length - dropped)?;
                lost.bytes += dropped;
                lost.files += 1;
            }
        }
        let left = self.root.with_extension("left");
        self.build(&left, self.root_inode, keeps_names.then_some(&now))?;
        if !keeps_names {
            lost.names = self.changed_names(&now);
        }
        fs::remove_dir_all(&self.root)?;
        fs::rename(&left, &self.root)?;
        fs::remove_dir_all(&self.kept)?;
        Ok(lost)
    }

    /// The names in all folders as they are.
    fn walk(&mut self, path: &Path, inode: Inode) -> io::Result<HashMap<Inode, Names>> {
        let names = self.read_names(path)?;
        let mut all = HashMap::new();
        for (name, named) in &names {
            if named.is_folder {
                all.extend(self.walk(&path.join(name), named.inode)?);
            }
        }
        all.insert(inode, names);
        Ok(all)
    }

    /// Makes a folder anew, of the kept files.
    fn build(
        &self,
        to: &Path,
        inode: Inode,
        now: Option<&HashMap<Inode, Names>>,
    ) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(to)?;
        let names = match now {
            Some(now) => now.get(&inode),
            None => self.folders.get(&inode).map(|folder| &folder.names),
        };
        for (name, named) in names.into_iter().flatten() {
            let to = to.join(name);
            if named.is_folder {
                self.build(&to, named.inode, now)?;
            } else {
                fs::hard_link(self.kept_name(named.inode), to)?;
            }
        }
        Ok(())
    }

    /// Names that are not, or not the same, in what was synced.
    fn changed_names(&self, now: &HashMap<Inode, Names>) -> u64 {
        let mut changed = 0;
        for (inode, names) in now {
            let synced = self.folders.get(inode).map(|folder| &folder.names);
            let is_same = |(name, named)| synced.and_then(|names| names.get(name)) == Some(named);
            changed += names.iter().filter(|entry| !is_same(*entry)).count() as u64;
        }
        changed
    }

    /// Forgets what was noted; the tree stays as it is.
    ///
    /// # Errors
    /// When the kept files cannot be removed.
    pub fn forget(self) -> io::Result<()> {
        fs::remove_dir_all(&self.kept)
    }
}

/// `None` where a file has gone meanwhile.
fn unless_gone<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
