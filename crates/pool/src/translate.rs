//! From the words of certification and decoding to those of the schedule.

use perihelion_certify::{CommitError, CommitFault as Certified, LocalFault, UnfittingFault};
use perihelion_schedule::{BodyFault, CommitFault, Verdict};
use perihelion_types::DecodeError;

/// What a closing block's commit is suspected of.
pub(crate) fn commit_fault(fault: &Certified) -> CommitFault {
    match fault {
        Certified::Missing | Certified::Height { .. } | Certified::BlockId { .. } => {
            CommitFault::DoesNotFit
        }
        Certified::WrongSignature { .. } => CommitFault::WrongSignature,
        Certified::OwnSet(error) => commit_error(error),
    }
}

/// The same for a commit that was verified by itself.
pub(crate) fn commit_error(error: &CommitError) -> CommitFault {
    match error {
        CommitError::NotEnoughPower { .. } => CommitFault::TooLittlePower,
        CommitError::WrongSignature { .. } => CommitFault::WrongSignature,
        CommitError::Height { .. } | CommitError::BlockId { .. } => CommitFault::DoesNotFit,
        _ => CommitFault::Malformed,
    }
}

/// A first block that does not fit a set that nothing has confirmed.
pub(crate) fn unfitting(fault: &UnfittingFault) -> CommitFault {
    match fault {
        UnfittingFault::ValidatorsHash { .. } => CommitFault::DoesNotFit,
        UnfittingFault::Commit(fault) => commit_fault(fault),
    }
}

/// A final header that contradicts our own state.
pub(crate) fn local_fault(fault: &LocalFault) -> Verdict {
    match fault {
        LocalFault::ValidatorsHash {
            height,
            ours,
            header,
            ..
        } => Verdict::LocalFault {
            height: *height,
            ours: *ours,
            theirs: *header,
        },
    }
}

/// Why a block did not decode.
pub(crate) fn body_fault(error: &DecodeError) -> BodyFault {
    match error {
        DecodeError::TooMany { .. } => BodyFault::BeyondBound,
        DecodeError::Protobuf(_)
        | DecodeError::Missing(_)
        | DecodeError::Field { .. }
        | DecodeError::Invalid(_) => BodyFault::Undecodable,
    }
}
