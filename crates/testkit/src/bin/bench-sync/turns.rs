//! Who syncs when, and short syncs added up.

use std::{path::Path, time::Duration};

use anyhow::Context as _;

use crate::measure::{self, Feed, Settings, Subject, Sync};

/// Syncs of one subject in one turn at most. Fewer, and those that take half a second are measured
/// for little; more, and runs with short chains take long.
const MOST_SYNCS: usize = 4;

/// What is done in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A subject syncs.
    Sync { run: usize, subject: usize },
    /// What the first subject's sync is held against is measured.
    Beside,
}

/// All steps, in order. Each subject begins once in a row, so that whatever else the machine does
/// hits all alike; for the same reason what stands beside the first one's sync is measured right
/// before it in one turn and right after it in the next.
fn steps(runs: usize, subjects: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    for run in 0..runs {
        for place in 0..subjects {
            let subject = (run + place) % subjects;
            let sync = Step::Sync { run, subject };
            match (subject, run % 2) {
                (0, 0) => steps.extend([Step::Beside, sync]),
                (0, _) => steps.extend([sync, Step::Beside]),
                _ => steps.push(sync),
            }
        }
    }
    steps
}

/// Lets each subject sync a chain `runs` times, in turn, and has `beside` measure something else
/// once in each turn, next to the first subject's sync.
pub(crate) fn take(
    folder: &Path,
    feed: &Feed<'_>,
    subjects: &[Subject],
    settings: &Settings,
    runs: usize,
    mut beside: impl FnMut() -> anyhow::Result<()>,
    mut tell: impl FnMut(&Subject, &Sync),
) -> anyhow::Result<Vec<Sync>> {
    let mut syncs = Vec::new();
    for step in steps(runs, subjects.len()) {
        let Step::Sync {
            run,
            subject: index,
        } = step
        else {
            beside()?;
            continue;
        };
        let subject = &subjects[index];
        let sync = || measure::sync(folder, feed, subject, settings);
        let sync = repeat(settings.at_least, sync).with_context(|| {
            let chain = &feed.chain.name;
            format!("chain {chain}, run {}, {}", run + 1, subject.name)
        })?;
        let sync = Sync {
            subject: index,
            run,
            ..sync
        };
        tell(subject, &sync);
        syncs.push(sync);
    }
    Ok(syncs)
}

/// Syncs until that was measured for so long, [`MOST_SYNCS`] times at most or until a sync is cut
/// off, and adds all up.
fn repeat(
    at_least: Duration,
    mut sync: impl FnMut() -> anyhow::Result<Sync>,
) -> anyhow::Result<Sync> {
    let mut sum = sync()?;
    while sum.seconds < at_least.as_secs_f64() && sum.syncs < MOST_SYNCS && !sum.is_cut {
        sum = sum.plus(&sync()?);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sync;

    #[test]
    fn each_begins_once_and_what_stands_beside_the_first_is_next_to_it() {
        let sync = |run, subject| Step::Sync { run, subject };
        let beside = Step::Beside;
        let all = [
            [beside, sync(0, 0), sync(0, 1), sync(0, 2)],
            [sync(1, 1), sync(1, 2), sync(1, 0), beside],
            [sync(2, 2), beside, sync(2, 0), sync(2, 1)],
        ];
        assert_eq!(steps(3, 3), all.concat());
        let alone = [beside, sync(0, 0), sync(1, 0), beside];
        assert_eq!(steps(2, 1), alone);
    }

    /// What comes of so many seconds of each sync, and how many there were.
    fn repeated(at_least: u64, seconds: f64, is_cut: bool) -> Sync {
        let mut syncs = 0;
        let one = || {
            syncs += 1;
            let sync = sync(0, 0, 1_000.0);
            Ok(Sync {
                seconds,
                is_cut,
                ..sync
            })
        };
        let sum = repeat(Duration::from_secs(at_least), one).unwrap();
        assert_eq!(sum.syncs, syncs);
        sum
    }

    #[test]
    fn short_syncs_are_repeated_until_enough_was_measured() {
        for (seconds, syncs) in [(2.5, 1), (2.0, 1), (1.5, 2), (0.75, 3), (0.5, 4), (0.25, 4)] {
            let sum = repeated(2, seconds, false);
            assert_eq!(sum.syncs, syncs, "of {seconds} s");
            assert_eq!(sum.seconds, seconds * syncs as f64);
            assert_eq!(
                repeated(0, seconds, false).syncs,
                1,
                "nobody asked for more"
            );
        }
        assert_eq!(repeated(2, 0.5, true).syncs, 1, "it is to take no longer");
        let fails = repeat(Duration::from_secs(2), || anyhow::bail!("it is stuck"));
        assert!(fails.is_err());
    }
}
