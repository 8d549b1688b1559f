//! What the schedule cannot know of why nothing moves: where applying blocks is at, and why
//! configured peers are away.

use std::time::Duration;

use perihelion_schedule::{Limit, Progress, StallReason};
use perihelion_state::StageTimes;
use perihelion_types::Height;

/// How long a call of the application may take before it is named.
const SLOW_CALL: Duration = Duration::from_secs(5);

/// The share of a new block in the mean of where the time goes.
const NEWEST: f64 = 1.0 / 16.0;

/// Where the time of applying blocks goes, the last dozens of them counting most.
#[derive(Debug, Default)]
pub(crate) struct ApplyTimes {
    app: f64,
    store: f64,
}

impl ApplyTimes {
    pub(crate) fn add(&mut self, times: StageTimes) {
        let app = (times.validate + times.execute).as_secs_f64();
        self.app += (app - self.app) * NEWEST;
        self.store += (times.store.as_secs_f64() - self.store) * NEWEST;
    }

    fn are_the_disks(&self) -> bool {
        self.store > self.app
    }
}

/// Names the disk where it is what limits, and completes the reason of a stall before the block
/// `next`.
pub(crate) fn explain(
    mut progress: Progress,
    next: Height,
    times: &ApplyTimes,
    busy: Option<(String, Duration)>,
    absence: impl FnOnce() -> Option<String>,
) -> Progress {
    let hangs = busy.as_ref().is_some_and(|(_, since)| *since >= SLOW_CALL);
    if progress.limit == Limit::Execution && !hangs && times.are_the_disks() {
        progress.limit = Limit::Storage;
    }
    progress.stalled = reason(progress.stalled, next, busy, absence);
    progress
}

/// The reason of a stall, with what is known of the application's call and of peers that are away.
pub(crate) fn reason(
    stalled: Option<StallReason>,
    next: Height,
    busy: Option<(String, Duration)>,
    absence: impl FnOnce() -> Option<String>,
) -> Option<StallReason> {
    match (stalled, busy) {
        (None | Some(StallReason::Executing { .. }), Some((call, since))) if since >= SLOW_CALL => {
            Some(StallReason::Application {
                height: next,
                call,
                seconds: since.as_secs(),
            })
        }
        (Some(StallReason::Executing { height }), None) => Some(StallReason::Storing { height }),
        (Some(StallReason::NoPeers { .. }), _) => Some(StallReason::NoPeers { failure: absence() }),
        (stalled, _) => stalled,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn call(seconds: u64) -> Option<(String, Duration)> {
        Some(("FinalizeBlock".to_owned(), Duration::from_secs(seconds)))
    }

    fn told(stalled: Option<StallReason>, busy: Option<(String, Duration)>) -> Option<String> {
        let mut progress = Progress::new(Height::new(6));
        progress.stalled = stalled;
        let away = || Some("A@h:1: refused".to_owned());
        let next = Height::new(7);
        let explained = explain(progress, next, &ApplyTimes::default(), busy, away);
        explained.stalled.map(|reason| reason.to_string())
    }

    #[test]
    fn a_slow_call_is_named_and_else_the_disk() {
        let executing = || {
            Some(StallReason::Executing {
                height: Height::new(7),
            })
        };
        let slow = "the application is busy with FinalizeBlock of block 7 for 12 s";
        assert_eq!(told(None, call(12)).unwrap(), slow);
        assert_eq!(told(executing(), call(12)).unwrap(), slow);
        assert_eq!(told(None, call(4)), None);
        let disk = told(executing(), None).unwrap();
        assert!(disk.starts_with("the disk is busy with block 7"), "{disk}");
    }

    #[test]
    fn without_peers_the_dial_that_failed_is_told() {
        let none = Some(StallReason::NoPeers { failure: None });
        assert_eq!(told(none, None).unwrap(), "no peers; A@h:1: refused");
    }

    #[test]
    fn the_disk_limits_where_most_of_the_time_goes_into_it() {
        let limit = |limit, app: u64, store: u64, busy| {
            let mut times = ApplyTimes::default();
            for _ in 0..8 {
                times.add(StageTimes {
                    validate: Duration::ZERO,
                    execute: Duration::from_millis(app),
                    store: Duration::from_millis(store),
                });
            }
            let mut progress = Progress::new(Height::ZERO);
            progress.limit = limit;
            explain(progress, Height::new(1), &times, busy, || None).limit
        };
        assert_eq!(limit(Limit::Execution, 1, 9, None), Limit::Storage);
        assert_eq!(limit(Limit::Execution, 9, 1, None), Limit::Execution);
        assert_eq!(limit(Limit::Execution, 1, 9, call(1)), Limit::Storage);
        assert_eq!(limit(Limit::Execution, 1, 9, call(12)), Limit::Execution);
        assert_eq!(limit(Limit::Network, 1, 9, None), Limit::Network);
    }
}
