//! Worker threads: whatever is heavy and needs nothing but its input.
//!
//! The threads take jobs from two bounded queues, certification before decoding, since certified
//! blocks are what the executor waits for. Where many blocks wait to be decoded, a worker takes
//! several jobs of them together, since their parts are hashed quickest side by side. Results go
//! back through one bounded channel; a worker that finds it full waits, which is how a busy pool
//! slows its workers down.

use std::{
    num::NonZero,
    sync::Arc,
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select_biased};
use perihelion_certify::{
    CertifiedBlock, CommitError, CommitVerification, Run, RunVerdict, SignatureCount,
    certify_every, certify_run,
};
use perihelion_schedule::{ProbeRequest, RunId};
use perihelion_types::{
    Block, Commit, DecodeError, FetchedBlock, Hash, Height, Hold, PeerId, Rules, RulesByHeight,
    ValidatorSet,
};
use tokio::sync::mpsc;

use crate::{ConnectionId, VerifyMode};

/// Jobs that may wait in each queue. The pool keeps what does not fit; more would only add delay
/// between its decisions and their execution.
const QUEUE: usize = 64;

/// Results that may wait for the pool. It takes them in batches; fewer would stop workers early.
const RESULTS: usize = 256;

/// Blocks that a worker decodes together: with so many it takes no further job. Sixteen messages are
/// hashed at once; more would hash no quicker, keep what has to be certified waiting and hold back
/// what is decoded.
pub(crate) const DECODE_TOGETHER: usize = 16;

/// Bytes of the jobs that it joins at most: one that is longer is done alone.
pub(crate) const DECODE_TOGETHER_BYTES: usize = 1 << 20;

/// Extended commits in one job at most, and bytes of their blocks: signatures of one batch share the
/// work for each key. More would save little, and delay the first of them.
pub(crate) const EXTENDED_BATCH: usize = 16;
pub(crate) const EXTENDED_BATCH_BYTES: usize = 1 << 20;

/// A final block whose extended commit, which came from a peer, is to be verified.
#[derive(Debug)]
pub(crate) struct WithExtended {
    pub(crate) from: PeerId,
    pub(crate) block: CertifiedBlock,
    pub(crate) set: Arc<ValidatorSet>,
}

/// What came of that.
#[derive(Debug)]
pub(crate) struct ExtendedVerdict {
    pub(crate) height: Height,
    pub(crate) from: PeerId,
    pub(crate) result: Result<CertifiedBlock, CommitError>,
}

/// A block as it came from a peer.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) block: Bytes,
    pub(crate) extended_commit: Option<Bytes>,
    pub(crate) hold: Option<Hold>,
}

impl Encoded {
    /// Bytes of block and extended commit.
    pub(crate) fn len(&self) -> usize {
        self.block.len() + self.extended_commit.as_ref().map_or(0, Bytes::len)
    }
}

/// What a worker can do.
#[derive(Debug)]
pub(crate) enum Job {
    Decode(Vec<Encoded>),
    Certify {
        id: RunId,
        run: Run,
        known: Vec<Arc<ValidatorSet>>,
    },
    Probe {
        request: ProbeRequest,
        chain_id: Arc<str>,
    },
    Extended {
        blocks: Vec<WithExtended>,
        chain_id: Arc<str>,
    },
    Decide {
        id: RunId,
        block: Arc<FetchedBlock>,
        set: Arc<ValidatorSet>,
        chain_id: Arc<str>,
    },
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Done {
    Decoded(Vec<Decoded>),
    Certified {
        id: RunId,
        verdict: RunVerdict,
        signatures: SignatureCount,
    },
    Probed {
        id: RunId,
        verdict: Result<SignatureCount, CommitError>,
        /// The commit, if every signature of it was verified.
        in_full: Option<Box<Commit>>,
    },
    Extended(Vec<ExtendedVerdict>),
    Decided {
        id: RunId,
        signatures: SignatureCount,
        result: Result<CertifiedBlock, CommitError>,
    },
}

/// A block after decoding.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) result: Result<Arc<FetchedBlock>, Refused>,
}

/// A block that did not decode.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The height that its header names, as far as it can be read.
    pub(crate) height: Option<Height>,
    pub(crate) error: DecodeError,
    /// Whether it is refused only for a signature that a later release's rules allow.
    pub(crate) fits_later_rules: bool,
}

/// The threads and the way to them. Dropping it ends the threads once their jobs are done.
pub(crate) struct Workers {
    urgent: Sender<Job>,
    ordinary: Sender<Vec<Encoded>>,
    _threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When the operating system grants no thread.
    pub(crate) fn start(
        count: NonZero<usize>,
        verify: VerifyMode,
        rules: RulesByHeight,
    ) -> std::io::Result<(Self, mpsc::Receiver<Done>)> {
        let (urgent, urgent_jobs) = bounded(QUEUE);
        let (ordinary, ordinary_jobs) = bounded(QUEUE);
        let (results, receiver) = mpsc::channel(RESULTS);
        let rules = Arc::new(rules);
        let threads = (0..count.get())
            .map(|index| {
                let (urgent, ordinary) = (urgent_jobs.clone(), ordinary_jobs.clone());
                let (results, rules) = (results.clone(), Arc::clone(&rules));
                thread::Builder::new()
                    .name(format!("verify-{index}"))
                    .spawn(move || {
                        let jobs = Jobs {
                            urgent,
                            ordinary,
                            workers: count,
                            set_aside: None,
                        };
                        work(jobs, &results, verify, &rules);
                    })
            })
            .collect::<Result<_, _>>()?;
        Ok((
            Self {
                urgent,
                ordinary,
                _threads: threads,
            },
            receiver,
        ))
    }

    /// Hands a job over, or gives it back when its queue is full; a result will follow once there
    /// is room.
    pub(crate) fn try_submit(&self, job: Job) -> Option<Job> {
        match job {
            Job::Decode(blocks) => {
                let error = self.ordinary.try_send(blocks).err()?;
                Some(Job::Decode(error.into_inner()))
            }
            job => self
                .urgent
                .try_send(job)
                .err()
                .map(TrySendError::into_inner),
        }
    }
}

/// Where the workers find their jobs.
struct Jobs {
    urgent: Receiver<Job>,
    ordinary: Receiver<Vec<Encoded>>,
    /// How many share them.
    workers: NonZero<usize>,
    /// A job that was too long to be joined with another.
    set_aside: Option<Vec<Encoded>>,
}

impl Jobs {
    /// The next job, once there is one. `None` when none will come.
    fn next(&mut self) -> Option<Job> {
        let blocks = match self.set_aside.take() {
            None => select_biased! {
                recv(self.urgent) -> job => return job.ok(),
                recv(self.ordinary) -> blocks => blocks.ok()?,
            },
            Some(blocks) => match self.urgent.try_recv() {
                Ok(job) => {
                    self.set_aside = Some(blocks);
                    return Some(job);
                }
                Err(_) => blocks,
            },
        };
        Some(Job::Decode(self.with_waiting(blocks)))
    }

    /// Adds blocks that wait to be decoded: with its own job this worker's share of all, rounded
    /// up, so that the others are not left without work. None while something has to be certified.
    fn with_waiting(&mut self, mut blocks: Vec<Encoded>) -> Vec<Encoded> {
        let share = (self.ordinary.len() + 1).div_ceil(self.workers.get());
        let size = |blocks: &[Encoded]| -> usize { blocks.iter().map(Encoded::len).sum() };
        let mut bytes = size(&blocks);
        for _ in 1..share {
            let is_enough = blocks.len() >= DECODE_TOGETHER || bytes >= DECODE_TOGETHER_BYTES;
            if is_enough || !self.urgent.is_empty() {
                break;
            }
            let Ok(more) = self.ordinary.try_recv() else {
                break;
            };
            bytes += size(&more);
            if bytes > DECODE_TOGETHER_BYTES {
                self.set_aside = Some(more);
                break;
            }
            blocks.extend(more);
        }
        blocks
    }
}

/// The life of one worker: until the pool is gone.
fn work(mut jobs: Jobs, results: &mpsc::Sender<Done>, verify: VerifyMode, rules: &RulesByHeight) {
    while let Some(job) = jobs.next() {
        if results.blocking_send(perform(job, verify, rules)).is_err() {
            return;
        }
    }
}

fn perform(job: Job, verify: VerifyMode, rules: &RulesByHeight) -> Done {
    match job {
        Job::Decode(blocks) => Done::Decoded(decode(blocks, rules)),
        Job::Certify { id, run, known } => {
            let (verdict, signatures) = match verify {
                VerifyMode::Pinned => certify_run(&run),
                VerifyMode::Every => certify_every(&run, &|hash: Hash| {
                    known.iter().find(|set| set.hash() == hash).cloned()
                }),
            };
            Done::Certified {
                id,
                verdict,
                signatures,
            }
        }
        Job::Probe { request, chain_id } => {
            let verdict = probe(&request, &chain_id);
            let commit = request.closing.block().last_commit.as_ref();
            let kept = commit.filter(|_| request.in_full && verdict.is_ok());
            Done::Probed {
                id: request.id,
                in_full: kept.cloned().map(Box::new),
                verdict,
            }
        }
        Job::Extended { blocks, chain_id } => Done::Extended(verify_extended(blocks, &chain_id)),
        Job::Decide {
            id,
            block,
            set,
            chain_id,
        } => Done::Decided {
            id,
            signatures: SignatureCount::of(2 * set.len()),
            result: CertifiedBlock::decided_extended(block, &set, &chain_id),
        },
    }
}

fn decode(blocks: Vec<Encoded>, rules: &RulesByHeight) -> Vec<Decoded> {
    let height_of = |encoded: &Encoded| Block::peek_height(&encoded.block);
    let heights: Vec<_> = blocks.iter().map(height_of).collect();
    let rules_at = |height: &Option<Height>| rules.at(height.unwrap_or(Height::ZERO));
    let encoded = blocks.iter().zip(&heights).map(|(it, height)| {
        let (block, extended_commit) = (it.block.clone(), it.extended_commit.clone());
        (block, extended_commit, rules_at(height))
    });
    let results = FetchedBlock::decode_each(encoded);
    let each = blocks.into_iter().zip(heights).zip(results);
    each.map(|((encoded, height), result)| conclude(encoded, height, rules_at(&height), result))
        .collect()
}

/// What came of decoding a block by the rules of its height.
fn conclude(
    encoded: Encoded,
    height: Option<Height>,
    rules: Rules,
    result: Result<FetchedBlock, DecodeError>,
) -> Decoded {
    let Encoded {
        peer,
        connection,
        block,
        extended_commit,
        hold,
    } = encoded;
    // A bad extended commit says nothing of the block: it is left out, and asked for elsewhere.
    let decoded = result.or_else(|error| {
        if extended_commit.is_some() {
            FetchedBlock::decode_by(block.clone(), None, rules)
        } else {
            Err(error)
        }
    });
    let result = match decoded {
        Ok(fetched) => Ok(Arc::new(match hold {
            Some(hold) => fetched.with_hold(hold),
            None => fetched,
        })),
        Err(error) => {
            let is_signature =
                matches!(&error, DecodeError::Invalid(rule) if rule.what == "commit signature");
            let decode_later = || FetchedBlock::decode_by(block.clone(), None, Rules::STORED);
            Err(Refused {
                height,
                fits_later_rules: is_signature && decode_later().is_ok(),
                error,
            })
        }
    };
    Decoded {
        peer,
        connection,
        result,
    }
}

fn verify_extended(mut blocks: Vec<WithExtended>, chain_id: &str) -> Vec<ExtendedVerdict> {
    let mut checks: Vec<_> = blocks
        .iter_mut()
        .map(|it| (&mut it.block, &*it.set))
        .collect();
    let results = CertifiedBlock::verify_extended_commits(chain_id, &mut checks);
    let verdict = |(it, result): (WithExtended, Result<(), CommitError>)| ExtendedVerdict {
        height: it.block.height(),
        from: it.from,
        result: result.map(|()| it.block),
    };
    blocks.into_iter().zip(results).map(verdict).collect()
}

/// Verifies the last commit of a block for the block id that it names itself.
fn probe(request: &ProbeRequest, chain_id: &str) -> Result<SignatureCount, CommitError> {
    let block = request.closing.block();
    let commit = block.last_commit.as_ref().ok_or(CommitError::NoCommit)?;
    let check = CommitVerification::new(chain_id, &request.set, commit);
    let height = block.header.height.prev();
    if request.in_full {
        check.full(commit.block_id, height)
    } else {
        check.light(commit.block_id, height)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
