//! Memory for large answers, from the call until their reader has them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::RpcConfig;

/// What all large answers may take together. Those that find no space wait for it, and are made
/// once it is there, so that what waits takes no memory.
pub(crate) struct Budget {
    space: Arc<Semaphore>,
    total: usize,
    batch: usize,
    small: usize,
    patience: Duration,
}

/// What one request has taken of it.
pub(crate) struct Share {
    space: Option<OwnedSemaphorePermit>,
    used: usize,
    /// Bytes that the answers may come to; of a batch, once it has space.
    most: usize,
    is_batch: bool,
}

/// Whether there is space for an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may be kept.
    Fits,
    /// Not before so many bytes are free: it is to be dropped, and made again after
    /// [`Budget::wait`].
    Later(usize),
    /// The batch has come to its bound.
    Beyond,
}

/// No space became free in time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Crowded;

impl Budget {
    pub(crate) fn new(config: &RpcConfig) -> Self {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let total = config.max_answer_bytes.clamp(1, most);
        Self {
            space: Arc::new(Semaphore::new(total)),
            total,
            batch: config.max_batch_answer_bytes,
            small: config.small_answer_bytes,
            patience: config.write_timeout,
        }
    }

    /// The share of a request that has not been answered yet.
    pub(crate) fn share(&self, is_batch: bool) -> Share {
        Share {
            space: None,
            used: 0,
            most: usize::MAX,
            is_batch,
        }
    }

    /// The most that the answers of one batch may come to.
    pub(crate) const fn batch(&self) -> usize {
        self.batch
    }

    /// Counts an answer of so many bytes, unless there is no space for it. A batch takes its whole
    /// bound with its first large answer: none waits while it holds something.
    pub(crate) fn admit(&self, share: &mut Share, bytes: usize) -> Admission {
        let need = share.used.saturating_add(bytes);
        if need > self.small && share.space.is_none() {
            let wanted = if share.is_batch {
                need.max(self.batch)
            } else {
                need
            };
            let permits = self.permits(wanted);
            let Ok(space) = Arc::clone(&self.space).try_acquire_many_owned(permits) else {
                return Admission::Later(wanted);
            };
            share.take(space, wanted);
        }
        if need > share.most {
            return Admission::Beyond;
        }
        share.used = need;
        Admission::Fits
    }

    /// Waits for so many bytes, one larger answer waiting for all.
    ///
    /// # Errors
    /// When that takes longer than an answer may stand still.
    pub(crate) async fn wait(&self, share: &mut Share, bytes: usize) -> Result<(), Crowded> {
        let waiting = Arc::clone(&self.space).acquire_many_owned(self.permits(bytes));
        match tokio::time::timeout(self.patience, waiting).await {
            Ok(Ok(space)) => {
                share.take(space, bytes);
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(Crowded),
        }
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.total)).unwrap_or(u32::MAX)
    }
}

impl Share {
    fn take(&mut self, space: OwnedSemaphorePermit, bytes: usize) {
        self.space = Some(space);
        if self.is_batch {
            self.most = bytes;
        }
    }

    /// The answer as it is sent: its space is free again with its memory.
    pub(crate) fn finish(self, mut text: String) -> Bytes {
        let Some(mut space) = self.space else {
            return text.into();
        };
        text.shrink_to_fit();
        drop(space.split(space.num_permits().saturating_sub(text.len())));
        Bytes::from_owner(Large {
            text,
            _space: space,
        })
    }
}

/// A large answer and its space.
struct Large {
    text: String,
    _space: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget::new(&RpcConfig {
            max_answer_bytes: 1000,
            max_batch_answer_bytes: 400,
            small_answer_bytes: 10,
            ..RpcConfig::default()
        })
    }

    #[test]
    fn a_large_answer_holds_its_space_as_long_as_its_memory() {
        let budget = budget();
        let mut share = budget.share(false);
        assert_eq!(budget.admit(&mut share, 900), Admission::Fits);
        let sent = share.finish("x".repeat(900));
        let mut part = sent.slice(100..200);
        drop(sent);
        let mut other = budget.share(false);
        assert_eq!(budget.admit(&mut other, 200), Admission::Later(200));
        assert_eq!(
            budget.admit(&mut budget.share(false), 10),
            Admission::Fits,
            "small"
        );
        part.clear();
        drop(part);
        assert_eq!(budget.admit(&mut other, 200), Admission::Fits);
    }

    #[test]
    fn an_answer_above_the_whole_budget_goes_alone() {
        let budget = budget();
        let mut share = budget.share(false);
        assert_eq!(budget.admit(&mut share, 5000), Admission::Fits);
        assert_eq!(
            budget.admit(&mut budget.share(false), 11),
            Admission::Later(11)
        );
        drop(share.finish("x".repeat(5000)));
        assert_eq!(budget.admit(&mut budget.share(false), 11), Admission::Fits);
    }

    #[test]
    fn a_batch_ends_at_its_bound_and_gives_back_what_it_does_not_need() {
        let budget = budget();
        let mut share = budget.share(true);
        assert_eq!(budget.admit(&mut share, 5), Admission::Fits);
        assert_eq!(budget.space.available_permits(), 1000);
        assert_eq!(budget.admit(&mut share, 300), Admission::Fits);
        assert_eq!(budget.space.available_permits(), 600);
        assert_eq!(budget.admit(&mut share, 100), Admission::Beyond);
        assert_eq!(budget.admit(&mut share, 95), Admission::Fits);
        let sent = share.finish("x".repeat(400));
        assert_eq!(budget.space.available_permits(), 600);
        drop(sent);
        let mut share = budget.share(true);
        assert_eq!(budget.admit(&mut share, 20), Admission::Fits);
        let sent = share.finish("x".repeat(20));
        assert_eq!(budget.space.available_permits(), 980);
        drop(sent);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_space_or_is_told_in_time() {
        let budget = budget();
        let mut first = budget.share(false);
        assert_eq!(budget.admit(&mut first, 1000), Admission::Fits);
        let mut second = budget.share(false);
        assert_eq!(budget.wait(&mut second, 50).await, Err(Crowded));
        drop(first);
        assert_eq!(budget.wait(&mut second, 50).await, Ok(()));
        assert_eq!(budget.admit(&mut second, 60), Admission::Fits, "it grew");
    }
}
