//! Signing with a key in a file.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use perihelion_crypto::{Address, PublicKey};
use perihelion_types::{Proposal, SignedMsgType, Time, Vote};
use thiserror::Error;

use super::{
    HeightRoundStep, SignState, SigningLease, Step, ValidatorKey,
    sign_state::{decode_proposal, decode_vote},
};
use crate::files::FileError;

/// Something is not signed.
#[derive(Debug, Error)]
pub enum SignError {
    /// Something later was signed already.
    #[error("not signed: {asked} is before {last}, which was signed already")]
    Regression {
        /// What was signed last.
        last: HeightRoundStep,
        /// What was to be signed.
        asked: HeightRoundStep,
    },
    /// Something else was signed at this place. To sign this too is what validators are punished
    /// for.
    #[error(
        "not signed: other content was signed already at {last}, and {asked} was asked for again"
    )]
    Conflict {
        /// What was signed last.
        last: HeightRoundStep,
        /// What was to be signed: the same place.
        asked: HeightRoundStep,
    },
    /// This place counts as signed, and it is not known what was.
    #[error(
        "not signed: {asked} counts as signed ({last} in the state file), and what was signed is \
         not known"
    )]
    Unknown {
        /// What was signed last.
        last: HeightRoundStep,
        /// What was to be signed: the same place.
        asked: HeightRoundStep,
    },
    /// A vote that is no precommit for a block has an extension.
    #[error("not signed: a vote extension at {at}, which is no precommit for a block")]
    Extension {
        /// What was to be signed.
        at: HeightRoundStep,
    },
    /// A vote that is neither prevote nor precommit.
    #[error("not signed: a vote of type {0}")]
    VoteType(i32),
    /// What would be signed could not be recorded. The signature was not given away.
    #[error("not signed, since it cannot be recorded: {0}")]
    Record(#[from] FileError),
}

/// The validator's signer: a key and, in a file, what it signed last.
///
/// A signature leaves only when the file names it durably. The file is CometBFT's, so a validator
/// can move between both, as long as the file moves along. While the signer lives nobody else can
/// open it: the lock is a file beside it, since the file itself is replaced with each signature.
#[derive(Debug)]
pub struct FilePrivval {
    key: ValidatorKey,
    public_key: PublicKey,
    state: SignState,
    path: PathBuf,
    _lock: File,
}

/// What to take over into the message.
struct Signed {
    signature: Bytes,
    /// The time that was signed, when it is another.
    timestamp: Option<Time>,
}

/// Where a sign state is, under whichever of its names: what is locked, read and written.
fn real_path(state: &Path) -> Result<PathBuf, FileError> {
    fs::canonicalize(state).map_err(|source| FileError::Read {
        what: "sign state",
        path: state.to_owned(),
        source,
    })
}

/// Locks the sign state at its real path for the life of what is returned.
fn lock(path: &Path) -> Result<File, FileError> {
    let mut name = path.to_owned().into_os_string();
    name.push(".lock");
    let failed = |source| FileError::Write {
        path: PathBuf::from(&name),
        source,
    };
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    let file = options.open(&name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(FileError::Locked {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

impl FilePrivval {
    /// A signer with `key`, and what it signed last in the file `state`; where that is a link, in
    /// the file that it leads to now.
    ///
    /// # Errors
    /// When the file is missing, damaged or of another key; when another signer has it.
    pub fn open(key: ValidatorKey, state: &Path) -> Result<Self, FileError> {
        SignState::load(state)?;
        let path = real_path(state)?;
        let lock = lock(&path)?;
        // Again: who had the lock may have signed till then.
        let state = SignState::load(&path)?;
        let public_key = key.public_key();
        state.check_key(&path, &public_key)?;
        Ok(Self {
            key,
            public_key,
            state,
            path,
            _lock: lock,
        })
    }

    /// The address of the validator.
    #[must_use]
    pub fn address(&self) -> Address {
        self.public_key.address()
    }

    /// The public key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What was signed last.
    #[must_use]
    pub fn state(&self) -> &SignState {
        &self.state
    }

    /// Where that is recorded.
    #[must_use]
    pub fn state_file(&self) -> &Path {
        &self.path
    }

    /// Signs a vote: sets its signature and, in a precommit for a block, that of its extension, an
    /// empty one included (where extensions are not enabled, the caller takes it out again).
    /// What was signed before for the same block gets the old signature and time; its extension is
    /// signed anew.
    ///
    /// # Errors
    /// When something else or later was signed, or it cannot be recorded. The vote is as it was.
    pub fn sign_vote(
        &mut self,
        _lease: &SigningLease,
        chain_id: &str,
        vote: &mut Vote,
    ) -> Result<(), SignError> {
        let at = HeightRoundStep {
            height: vote.height.get(),
            round: vote.round.get(),
            step: match vote.vote_type {
                SignedMsgType::Prevote => Step::Prevote,
                SignedMsgType::Precommit => Step::Precommit,
                other => return Err(SignError::VoteType(other.to_i32())),
            },
        };
        let extensible = at.step == Step::Precommit && !vote.block_id.is_nil();
        if !extensible && !vote.extension.is_empty() {
            return Err(SignError::Extension { at });
        }
        let signed = self.sign(at, vote.sign_bytes(chain_id), vote_time)?;
        vote.signature = signed.signature;
        vote.timestamp = signed.timestamp.unwrap_or(vote.timestamp);
        vote.extension_signature = if extensible {
            self.key.key.sign(&vote.extension_sign_bytes(chain_id))
        } else {
            Bytes::new()
        };
        Ok(())
    }

    /// Signs a proposal: sets its signature, and the old time with the old signature where it was
    /// signed before.
    ///
    /// # Errors
    /// As [`Self::sign_vote`].
    pub fn sign_proposal(
        &mut self,
        _lease: &SigningLease,
        chain_id: &str,
        proposal: &mut Proposal,
    ) -> Result<(), SignError> {
        let at = HeightRoundStep {
            height: proposal.height.get(),
            round: proposal.round.get(),
            step: Step::Propose,
        };
        let signed = self.sign(at, proposal.sign_bytes(chain_id), proposal_time)?;
        proposal.signature = signed.signature;
        proposal.timestamp = signed.timestamp.unwrap_or(proposal.timestamp);
        Ok(())
    }

    /// Signs `bytes`, or finds the signature of bytes that differ in the time only, as
    /// `same_but_time` says of the old and the new.
    fn sign(
        &mut self,
        asked: HeightRoundStep,
        bytes: Vec<u8>,
        same_but_time: fn(&[u8], &[u8]) -> Option<Time>,
    ) -> Result<Signed, SignError> {
        let last = self.state.at();
        if asked < last {
            return Err(SignError::Regression { last, asked });
        }
        if asked == last {
            if self.state.signbytes.is_empty() {
                return Err(SignError::Unknown { last, asked });
            }
            let signature = self.state.signature.clone();
            if self.state.signbytes == bytes {
                return Ok(Signed {
                    signature,
                    timestamp: None,
                });
            }
            let timestamp = same_but_time(&self.state.signbytes, &bytes)
                .ok_or(SignError::Conflict { last, asked })?;
            return Ok(Signed {
                signature,
                timestamp: Some(timestamp),
            });
        }
        let signature = self.key.key.sign(&bytes);
        let state = SignState {
            height: asked.height,
            round: asked.round,
            step: match asked.step {
                Step::None => 0,
                Step::Propose => 1,
                Step::Prevote => 2,
                Step::Precommit => 3,
            },
            signature: signature.clone(),
            signbytes: bytes.into(),
        };
        // Where this fails, the file may name the signature or not: nobody has it.
        state.save(&self.path)?;
        self.state = state;
        Ok(Signed {
            signature,
            timestamp: None,
        })
    }
}

/// The time of the old vote, when the new one differs in nothing else.
fn vote_time(old: &[u8], new: &[u8]) -> Option<Time> {
    let (mut old, mut new) = (decode_vote(old)?, decode_vote(new)?);
    let time = old.timestamp.take();
    new.timestamp = None;
    (old == new).then(|| Time::try_from(time).ok()).flatten()
}

/// The time of the old proposal, when the new one differs in nothing else.
fn proposal_time(old: &[u8], new: &[u8]) -> Option<Time> {
    let (mut old, mut new) = (decode_proposal(old)?, decode_proposal(new)?);
    let time = old.timestamp.take();
    new.timestamp = None;
    (old == new).then(|| Time::try_from(time).ok()).flatten()
}
