//! Processor time.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::BenchError;

/// What this thread has used.
pub(crate) fn thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// What all threads of this process have used.
pub(crate) fn process() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Repeats something that tells what it used, for a quarter of a second of that and three times at
/// least; the median.
pub(crate) fn repeat(
    mut once: impl FnMut() -> Result<Duration, BenchError>,
) -> Result<Duration, BenchError> {
    const ENOUGH: Duration = Duration::from_millis(250);
    let (mut all, mut total) = (Vec::new(), Duration::ZERO);
    while all.len() < 3 || (total < ENOUGH && all.len() < 1_000) {
        let used = once()?;
        total += used;
        all.push(used);
    }
    all.sort();
    Ok(all[all.len() / 2])
}

/// The processor time of this thread for something.
pub(crate) fn used(work: impl FnOnce() -> Result<(), BenchError>) -> Result<Duration, BenchError> {
    let begun = thread();
    work()?;
    Ok(thread().saturating_sub(begun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_told_and_the_first_error() {
        let mut times = [5, 900, 200].into_iter().map(Duration::from_millis);
        assert_eq!(
            repeat(|| Ok(times.next().unwrap())).unwrap(),
            Duration::from_millis(200)
        );
        assert!(matches!(
            repeat(|| Err(BenchError::Stopped)),
            Err(BenchError::Stopped)
        ));
    }

    #[test]
    fn work_takes_time_of_its_thread_and_of_the_process() {
        let (mine, all) = (thread(), process());
        let used = used(|| {
            // Until the clock has moved.
            while thread() == mine {}
            Ok(())
        });
        assert!(used.unwrap() > Duration::ZERO);
        assert!(process() > all);
    }
}
