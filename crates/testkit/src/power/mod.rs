//! Power cuts of real processes: what of a process's files is there after one.
//!
//! The kernel reports each `fsync` and `fdatasync` of a process ([`SyncWatch`], by seccomp) before it
//! is done, and [`SyncRecord`] notes what it makes durable: a file's bytes, or a folder's names.
//! Killing the process and then taking away what was not noted leaves what the strictest file system
//! may leave after a power cut. The process is the one that users run: nothing in it knows.
//!
//! # What it does not show
//! A disk that lies about syncs, and sectors that are torn or damaged. Bytes that were changed in
//! place after a sync stay changed, and a file that was cut stays cut: the node appends to its files
//! and replaces them.

mod record;
mod watch;

pub use record::{Lost, SyncRecord};
pub use watch::{RecordedProcess, SyncWatch};

#[cfg(test)]
mod tests;
