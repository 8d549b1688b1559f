//! The pool's scheduler: which height from whom, and what is known about each.
//!
//! Pure: no clock, no socket, no task. [`Schedule`] is owned by one task, which feeds it by
//! `handle_*` with the time that it is, drains [`Schedule::poll_effect`], and sleeps until
//! [`Schedule::poll_deadline`] or the next input.
//!
//! A height goes `Wanted → Asked → Here → Linked → Certifying → Certified → Applying`, and is gone
//! once applied. It remembers who sent which copy, so that the day it is final the blame is exact:
//! those whose copy was another one lied, nobody else did.

mod abreast;
mod anchors;
mod config;
mod effect;
mod meter;
mod peer;
mod progress;
mod schedule;
mod slot;
mod timer;

pub use config::Config;
pub use effect::Reception;
pub use effect::{
    BodyFault, CommitFault, Effect, Fault, ProbeRequest, RunAnchor, RunId, RunRequest, StallReason,
    Verdict,
};
pub use peer::PeerProgress;
pub use progress::{Limit, Mode, ModeReason, Progress, TargetSource, WindowProgress};
pub use schedule::{Applied, Decided, Schedule, Start};
