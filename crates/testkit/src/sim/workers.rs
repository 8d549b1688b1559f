//! Virtual verification workers: the real verdicts, at virtual times.

use std::{sync::Arc, time::Duration};

use perihelion_certify::{
    Anchor, CommitError, CommitFault as Certified, CommitVerification, Run, RunVerdict,
    UnfittingFault, certify_run, verify_extended_commit,
};
use perihelion_schedule::{CommitFault, ProbeRequest, RunRequest, Verdict};
use perihelion_types::{FetchedBlock, ValidatorSet};

/// Time of one signature.
const SIGNATURE: Duration = Duration::from_micros(60);

/// Certifies a run: the verdict, signatures verified, and how long it takes.
pub(super) fn certify(chain_id: &Arc<str>, request: &RunRequest) -> (Verdict, u64, Duration) {
    let run = Run {
        chain_id: Arc::clone(chain_id),
        anchor: Anchor {
            height: request.anchor.height,
            set: Arc::clone(&request.anchor.set),
            next: request.anchor.next.clone(),
            confirmed: request.anchor.confirmed,
        },
        previous: request.blocks[0].block().header.last_block_id,
        blocks: request.blocks.clone(),
        closing: Arc::clone(&request.closing),
    };
    let (verdict, count) = certify_run(&run);
    let count = count.get();
    let verdict = match verdict {
        RunVerdict::Certified { blocks, .. } => Verdict::Pinned {
            to: blocks
                .last()
                .map_or(request.closing.height(), |block| block.height()),
        },
        RunVerdict::Drifted => Verdict::Drifted,
        RunVerdict::Suspect { fault, .. } => Verdict::Suspect {
            fault: translate(&fault),
        },
        RunVerdict::Unfitting { fault } => Verdict::Suspect {
            fault: match fault {
                UnfittingFault::Commit(fault) => translate(&fault),
                UnfittingFault::ValidatorsHash { .. } => CommitFault::DoesNotFit,
            },
        },
        RunVerdict::Broken { fault } => panic!("the schedule sent a run that is none: {fault}"),
        RunVerdict::LocalFault { fault } => panic!("a local fault in a simulation: {fault}"),
        RunVerdict::InvalidFinalCommit { height, error } => panic!("at {height}: {error}"),
    };
    (verdict, count, time(count, request.blocks.len()))
}

/// Verifies a single commit for the id that it names.
pub(super) fn probe(chain_id: &str, request: &ProbeRequest) -> (Verdict, u64, Duration) {
    let block = request.closing.block();
    let below = block.header.height.prev();
    let verdict = match &block.last_commit {
        None => Err(CommitFault::DoesNotFit),
        Some(commit) if commit.height != below || commit.block_id != block.header.last_block_id => {
            Err(CommitFault::DoesNotFit)
        }
        Some(commit) => {
            let check = CommitVerification::new(chain_id, &request.set, commit);
            let result = if request.in_full {
                check.full(commit.block_id, below)
            } else {
                check.light(commit.block_id, below)
            };
            result.map_err(|error| translate_error(&error))
        }
    };
    match verdict {
        Ok(count) => (Verdict::Vouched, count.get(), time(count.get(), 1)),
        Err(fault) => (Verdict::Suspect { fault }, 1, time(1, 1)),
    }
}

/// Verifies the extended commit of a certified block in full.
pub(super) fn extended(chain_id: &str, set: &ValidatorSet, block: &FetchedBlock) -> bool {
    block.extended_commit().is_some_and(|extended| {
        verify_extended_commit(chain_id, set, block.block_id(), block.height(), extended).is_ok()
    })
}

/// How long the verification of an extended commit takes: two signatures of each validator.
pub(super) fn extended_time(set: &ValidatorSet) -> Duration {
    time(2 * set.len() as u64, 1)
}

fn time(signatures: u64, blocks: usize) -> Duration {
    SIGNATURE * u32::try_from(signatures).unwrap_or(u32::MAX)
        + Duration::from_micros(5) * u32::try_from(blocks).unwrap_or(u32::MAX)
}

fn translate(fault: &Certified) -> CommitFault {
    match fault {
        Certified::Missing | Certified::Height { .. } | Certified::BlockId { .. } => {
            CommitFault::DoesNotFit
        }
        Certified::WrongSignature { .. } => CommitFault::WrongSignature,
        Certified::OwnSet(error) => translate_error(error),
    }
}

fn translate_error(error: &CommitError) -> CommitFault {
    match error {
        CommitError::NotEnoughPower { .. } => CommitFault::TooLittlePower,
        CommitError::WrongSignature { .. } => CommitFault::WrongSignature,
        _ => CommitFault::Malformed,
    }
}
