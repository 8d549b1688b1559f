//! Who syncs when.

use std::path::Path;

use anyhow::Context as _;

use crate::measure::{self, Feed, Settings, Subject, Sync};

/// What is done in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A subject syncs.
    Sync { run: usize, subject: usize },
    /// What the first subject's sync is held against is measured.
    Beside,
}

/// All steps, in order. Each subject begins once in a row, so that whatever else the machine does hits
/// all alike; for the same reason what stands beside the first one's sync is measured right before it
/// in one turn and right after it in the next.
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

/// Lets each subject sync a chain `runs` times, in turn, and has `beside` measure something else once in
/// each turn, next to the first subject's sync.
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
        let sync = measure::sync(folder, feed, subject, settings).with_context(|| {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
