//! A node that syncs is killed, or loses its power, again and again at any moment: it resumes
//! unaided, and ends with the blocks, hashes and results of its server.
//!
//! All are real processes: the node, the one server, and where it has one its application, which
//! ends with the node. A power cut is a kill after which nothing is there that had not been synced:
//! see `perihelion_testkit::power` for how that is known, and what it does not show.
//!
//! `PERIHELION_CRASHES` says how often each test kills (`make test-crash` says 200), and
//! `PERIHELION_CRASH_SEED` what the moments follow from. A few kills are at drawn heights, many at
//! drawn moments of the time that an undisturbed sync takes. The node's binary is the one of the same
//! build, or the one that `PERIHELION` names.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod application;
mod chain;
mod plan;
mod syncing;
mod trial;

use self::trial::{Crash, try_with_each_application};

#[test]
fn a_killed_sync_resumes_where_one_commit_is_verified_for_a_run() {
    try_with_each_application(Crash::Kill, "pinned");
}

#[test]
fn a_killed_sync_resumes_where_every_commit_is_verified() {
    try_with_each_application(Crash::Kill, "every");
}

#[test]
fn a_sync_whose_power_is_cut_resumes_where_one_commit_is_verified_for_a_run() {
    try_with_each_application(Crash::PowerCut, "pinned");
}

#[test]
fn a_sync_whose_power_is_cut_resumes_where_every_commit_is_verified() {
    try_with_each_application(Crash::PowerCut, "every");
}
