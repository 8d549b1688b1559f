use perihelion_certify::EvidenceError;
use perihelion_store::StoreError;
use perihelion_types::{Evidence, Height, InvalidError};
use thiserror::Error;

/// Evidence was not taken.
#[derive(Debug, Error)]
pub enum AddError {
    /// It breaks a stateless rule.
    #[error(transparent)]
    Malformed(#[from] InvalidError),
    /// It proves nothing, or nothing that counts, as far as our chain shows.
    #[error(transparent)]
    Invalid(#[from] EvidenceError),
    /// It could not be kept: a local fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether whoever sent evidence that is refused has lied, our chain being at `height`: not where it
/// is about what we do not have, or counts no more, or where it was judged without the chain's own
/// header at the height of an attack.
#[must_use]
pub fn is_senders_fault(error: &EvidenceError, evidence: &Evidence, height: Height) -> bool {
    if let Evidence::LightClientAttack(attack) = evidence {
        let conflicting = attack.conflicting_block.signed_header.header.height;
        // The commit for our last block is not in the chain yet.
        if conflicting >= height {
            return false;
        }
    }
    match error {
        // Ours.
        EvidenceError::History(_) => false,
        // We are behind, have pruned, or the sender is behind.
        EvidenceError::NoHeader(_)
        | EvidenceError::NoCommit(_)
        | EvidenceError::NoValidators(_)
        | EvidenceError::Expired { .. }
        | EvidenceError::AlreadyCommitted => false,
        EvidenceError::Time { .. }
        | EvidenceError::Duplicate { .. }
        | EvidenceError::NotAValidator { .. }
        | EvidenceError::VotesDiffer { .. }
        | EvidenceError::VotersDiffer
        | EvidenceError::SameBlock(_)
        | EvidenceError::KeyAddress(_)
        | EvidenceError::ValidatorPower { .. }
        | EvidenceError::TotalPower { .. }
        | EvidenceError::WrongVoteSignature(_)
        | EvidenceError::CommonSet(_)
        | EvidenceError::ConflictingCommit(_)
        | EvidenceError::NotDerived
        | EvidenceError::SameHeader
        | EvidenceError::TimeNotViolated { .. }
        | EvidenceError::NobodyByzantine
        | EvidenceError::ByzantineCount { .. }
        | EvidenceError::ByzantineAddress { .. }
        | EvidenceError::ByzantinePower { .. } => true,
    }
}
