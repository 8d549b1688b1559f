//! What a node has used.

use std::{fs, io, path::Path};

use anyhow::Context as _;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// CPU time of all its threads, in seconds.
    pub cpu_seconds: f64,
    /// The most memory that was resident at once, in bytes.
    pub peak_rss_bytes: u64,
}

/// CPU time and memory of a process.
///
/// # Errors
/// When there is no such process.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold anything, blanks and brackets too.
    let (_, fields) = stat
        .rsplit_once(") ")
        .context("no name in /proc/PID/stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |index: usize| -> anyhow::Result<u64> {
        Ok(fields
            .get(index)
            .context("/proc/PID/stat is short")?
            .parse()?)
    };
    let (user, system) = (ticks(11)?, ticks(12)?);
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kilobytes| kilobytes.trim().parse::<u64>().ok())
        .context("the process has ended")?;
    Ok(Usage {
        cpu_seconds: (user + system) as f64 / rustix::param::clock_ticks_per_second() as f64,
        peak_rss_bytes: peak * 1024,
    })
}

/// Bytes of all files below a folder, as the disk allots them.
///
/// # Errors
/// When the folder cannot be read.
pub fn disk_bytes(folder: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(total)
}
