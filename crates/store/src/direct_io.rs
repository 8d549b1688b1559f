//! Whether files can be written past the system's cache.

use std::path::Path;

/// Tries it with a file that is there, without writing to it; some file systems refuse.
#[cfg(target_os = "linux")]
pub(crate) fn works_with(file: &Path) -> bool {
    use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _};

    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
    OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(file)
        .is_ok()
}

/// Only known of Linux.
#[cfg(not(target_os = "linux"))]
pub(crate) fn works_with(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_tells_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!works_with(&folder.path().join("FORMAT")));
    }
}
