//! Worker threads: whatever is heavy and needs nothing but its input.
//!
//! The threads take jobs from two bounded queues, certification before decoding, since certified
//! blocks are what the executor waits for. Results go back through one bounded channel; a worker
//! that finds it full waits, which is how a busy pool slows its workers down.

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

/// Bytes of blocks in one decoding job at most: small blocks are handed over in batches, so that a
/// hand-over costs less than the work.
pub(crate) const DECODE_BATCH_BYTES: usize = 64 << 10;

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
    ordinary: Sender<Job>,
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
                    .spawn(move || work(&urgent, &ordinary, &results, verify, &rules))
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
        let queue = if matches!(job, Job::Decode(_)) {
            &self.ordinary
        } else {
            &self.urgent
        };
        queue.try_send(job).err().map(TrySendError::into_inner)
    }
}

/// The life of one worker: until the pool is gone.
fn work(
    urgent: &Receiver<Job>,
    ordinary: &Receiver<Job>,
    results: &mpsc::Sender<Done>,
    verify: VerifyMode,
    rules: &RulesByHeight,
) {
    loop {
        let job = select_biased! {
            recv(urgent) -> job => job,
            recv(ordinary) -> job => job,
        };
        let Ok(job) = job else { return };
        if results.blocking_send(perform(job, verify, rules)).is_err() {
            return;
        }
    }
}

fn perform(job: Job, verify: VerifyMode, rules: &RulesByHeight) -> Done {
    match job {
        Job::Decode(blocks) => {
            let decoded = blocks.into_iter().map(|block| decode(block, rules));
            Done::Decoded(decoded.collect())
        }
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

fn decode(encoded: Encoded, rules: &RulesByHeight) -> Decoded {
    let Encoded {
        peer,
        connection,
        block,
        extended_commit,
        hold,
    } = encoded;
    let height = Block::peek_height(&block);
    let rules = rules.at(height.unwrap_or(Height::ZERO));
    let decode = |extended_commit| FetchedBlock::decode_by(block.clone(), extended_commit, rules);
    // A bad extended commit says nothing of the block: it is left out, and asked for elsewhere.
    let decoded = decode(extended_commit.clone()).or_else(|error| {
        if extended_commit.is_some() {
            decode(None)
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
mod tests {
    use perihelion_test_support::{Hex, load_lines};
    use perihelion_types::{ConsensusParams, Genesis, GenesisDefaults, Time};
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Line {
        block: Hex,
    }

    /// Makes a signature of the last commit so long, and has the header name that commit.
    fn lengthen(block: &mut Block, length: usize) {
        let commit = block.last_commit.as_mut().unwrap();
        let mut places = commit.signatures.iter_mut();
        let signed = places.find(|place| !place.signature.is_empty()).unwrap();
        signed.signature = vec![7; length].into();
        block.header.last_commit_hash = commit.hash();
    }

    fn encoded(block: Bytes) -> Encoded {
        Encoded {
            peer: PeerId::new([1; 20]),
            connection: ConnectionId(1),
            block,
            extended_commit: None,
            hold: None,
        }
    }

    #[test]
    fn a_block_is_decoded_by_the_rules_of_its_height() {
        let lines: Vec<Line> = load_lines("chain_basic/blocks.jsonl");
        let blocks: Vec<_> = lines[5..8]
            .iter()
            .map(|line| {
                let mut block = Block::decode(line.block.0.clone().into()).unwrap();
                lengthen(&mut block, 65);
                (block.header.height, block.encode())
            })
            .collect();
        let upgrade = blocks[1].0;
        let rules = RulesByHeight::new(vec![(upgrade, Rules::V040)]).unwrap();
        for (height, block) in blocks {
            let decoded = decode(encoded(block), &rules);
            assert_eq!(decoded.result.is_ok(), height >= upgrade, "{height}");
            let refused = decoded.result.err();
            assert!(refused.is_none_or(|it| it.fits_later_rules), "{height}");
        }
    }

    /// Only where the rules of the height are what is wrong is that said.
    #[test]
    fn no_later_rules_are_named_for_what_no_release_takes() {
        let lines: Vec<Line> = load_lines("chain_basic/blocks.jsonl");
        let block = Block::decode(lines[5].block.0.clone().into()).unwrap();
        let (mut of_another, mut too_long) = (block.clone(), block);
        let named = of_another.header.last_commit_hash;
        lengthen(&mut of_another, 65);
        of_another.header.last_commit_hash = named;
        lengthen(&mut too_long, Rules::STORED.max_signature_bytes() + 1);
        let blocks = [of_another.encode(), too_long.encode()];
        for block in blocks.into_iter().chain([Bytes::from_static(b"\xff")]) {
            let decoded = decode(encoded(block), &RulesByHeight::default());
            let refused = decoded.result.unwrap_err();
            assert!(!refused.fits_later_rules, "{}", refused.error);
        }
    }

    #[derive(Deserialize)]
    struct ExtendedLine {
        block: Hex,
        extended_commit: Option<Hex>,
    }

    /// A wrong one among those that are verified together is found, and costs no other anything.
    #[test]
    fn each_extended_commit_of_a_job_gets_its_own_verdict() {
        let genesis = perihelion_test_support::read("chain_extensions/genesis.json");
        let defaults = GenesisDefaults {
            time: Time::ZERO,
            consensus_params: ConsensusParams::default_v038(),
        };
        let genesis = Genesis::from_json(genesis.as_bytes(), &defaults).unwrap();
        let set = Arc::new(genesis.validator_set().unwrap());
        let lines: Vec<ExtendedLine> = load_lines("chain_extensions/blocks.jsonl");
        let mut blocks = Vec::new();
        let mut expected = Vec::new();
        for line in lines {
            let Some(extended) = line.extended_commit else {
                continue;
            };
            let block = line.block.0.into();
            let fetched = FetchedBlock::decode(block, Some(extended.0.into())).unwrap();
            if fetched.block().header.validators_hash != set.hash() {
                continue;
            }
            let good = expected.len().is_multiple_of(2);
            let mut copy = fetched.clone();
            if !good {
                let mut bent = fetched.extended_commit().unwrap().clone();
                bent.extended_signatures[0].extension = Bytes::from_static(b"other");
                copy = copy.with_extended_commit(bent);
            }
            let from = PeerId::new([expected.len() as u8; 20]);
            expected.push((fetched.height(), from, good));
            let chain_id = &genesis.chain_id;
            let block = CertifiedBlock::decided_extended(Arc::new(fetched), &set, chain_id);
            let block = block.unwrap().with_extended_commit_of(Arc::new(copy));
            blocks.push(WithExtended {
                from,
                block: block.unwrap(),
                set: Arc::clone(&set),
            });
        }
        assert!(blocks.len() > 2, "there are wrong ones and right ones");
        let verdicts: Vec<_> = verify_extended(blocks, &genesis.chain_id)
            .into_iter()
            .map(|it| {
                let verified = it.result.map(|block| block.extended_commit().is_some());
                (it.height, it.from, verified == Ok(true))
            })
            .collect();
        assert_eq!(verdicts, expected);
    }
}
