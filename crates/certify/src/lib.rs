//! What makes a block final: commit verification, pins, evidence.
//!
//! A commit is more than 2/3 of a validator set's precommits for one block. [`commit`] checks one
//! against the set of its height, as CometBFT does. [`pin`] certifies a whole linked run of blocks
//! by one commit, with few signatures for many blocks; the security argument stands in
//! `docs/pinning.md`. [`every`] checks each commit of a run as well, in batches that coalesce by
//! key. [`evidence`] judges proofs of misbehaviour against the chain's history.
//!
//! Only this crate can make a [`CertifiedBlock`], and only a `CertifiedBlock` can be applied.
//! Everything here is pure: no clock, file, socket or randomness.

pub mod certified;
pub mod commit;
pub mod commit_error;
pub mod every;
pub mod evidence;
pub mod evidence_error;
pub mod extended;
pub mod pin;
pub mod run;
mod tally;
pub mod trust;
pub mod verification;

pub use certified::CertifiedBlock;
pub use commit::{
    verify_commit, verify_commit_light, verify_commit_light_all, verify_commit_light_trusting,
    verify_commit_light_trusting_all,
};
pub use commit_error::CommitError;
pub use every::certify_every;
pub use evidence::{History, verify_evidence, verify_evidence_list};
pub use evidence_error::{EvidenceError, HistoryError};
pub use extended::{ExtendedCheck, verify_extended_commit, verify_extended_commits};
pub use perihelion_types::Rules;
pub use pin::certify_run;
pub use run::{
    Anchor, Blame, CommitFault, LastBlock, LinkFault, LocalFault, Run, RunVerdict, Standing,
    UnfittingFault,
};
pub use tally::SignatureCount;
pub use trust::TrustLevel;
pub use verification::CommitVerification;
