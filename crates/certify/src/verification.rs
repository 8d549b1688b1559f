//! The walk over a commit's places that all ways of verifying share.

use std::collections::BTreeMap;

use perihelion_crypto::KeyType;
use perihelion_types::{
    Address, BlockId, BlockIdFlag, Commit, CommitSig, CommitSignBytes, Height, Validator,
    ValidatorSet,
};

use crate::{
    CommitError, Rules, SignatureCount, TrustLevel,
    tally::{Claim, first_wrong, two_thirds},
};

/// Fewer places than this are verified one by one.
const BATCH_THRESHOLD: usize = 2;

/// One commit and the set that is to have signed it.
#[derive(Debug, Clone, Copy)]
pub struct CommitVerification<'a> {
    /// The chain; part of what was signed.
    pub chain_id: &'a str,
    /// The validators that count.
    pub set: &'a ValidatorSet,
    /// The commit; `validate_basic` is the caller's duty.
    pub commit: &'a Commit,
    /// The release whose rules hold.
    pub rules: Rules,
}

impl<'a> CommitVerification<'a> {
    /// A verification by the rules of v0.38.
    #[must_use]
    pub const fn new(chain_id: &'a str, set: &'a ValidatorSet, commit: &'a Commit) -> Self {
        Self {
            chain_id,
            set,
            commit,
            rules: Rules::V038,
        }
    }

    /// The same by the rules of another release.
    #[must_use]
    pub const fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// See [`verify_commit`](crate::verify_commit).
    ///
    /// # Errors
    /// See [`verify_commit`](crate::verify_commit).
    pub fn full(&self, block_id: BlockId, height: Height) -> Result<SignatureCount, CommitError> {
        self.own(block_id, height, Scope::Full)
    }

    /// See [`verify_commit_light`](crate::verify_commit_light).
    ///
    /// # Errors
    /// See [`verify_commit`](crate::verify_commit).
    pub fn light(&self, block_id: BlockId, height: Height) -> Result<SignatureCount, CommitError> {
        self.own(block_id, height, Scope::Light)
    }

    /// See [`verify_commit_light_all`](crate::verify_commit_light_all).
    ///
    /// # Errors
    /// See [`verify_commit`](crate::verify_commit).
    pub fn light_all(
        &self,
        block_id: BlockId,
        height: Height,
    ) -> Result<SignatureCount, CommitError> {
        self.own(block_id, height, Scope::LightAll)
    }

    /// See [`verify_commit_light_trusting`](crate::verify_commit_light_trusting).
    ///
    /// # Errors
    /// See [`verify_commit_light_trusting`](crate::verify_commit_light_trusting).
    pub fn trusting(&self, trust: TrustLevel) -> Result<SignatureCount, CommitError> {
        self.other(trust, Scope::Light)
    }

    /// See [`verify_commit_light_trusting_all`](crate::verify_commit_light_trusting_all).
    ///
    /// # Errors
    /// See [`verify_commit_light_trusting`](crate::verify_commit_light_trusting).
    pub fn trusting_all(&self, trust: TrustLevel) -> Result<SignatureCount, CommitError> {
        self.other(trust, Scope::LightAll)
    }

    /// The signatures that light verification would verify, once the commit's form and the power
    /// are judged: for batches over many commits.
    pub(crate) fn light_claims(
        &self,
        block_id: BlockId,
        height: Height,
    ) -> Result<Vec<Claim<'a>>, CommitError> {
        self.check_form(block_id, height)?;
        let needed = two_thirds(self.set.total_voting_power());
        self.collect(needed, Scope::Light, Lookup::Index)
    }

    /// The signatures that full verification would verify in a batch, once the commit's form and
    /// the power are judged; `None` where it verifies one by one.
    pub(crate) fn full_claims(
        &self,
        block_id: BlockId,
        height: Height,
    ) -> Result<Option<Vec<Claim<'a>>>, CommitError> {
        self.check_form(block_id, height)?;
        if !self.batches()? {
            return Ok(None);
        }
        let needed = two_thirds(self.set.total_voting_power());
        self.collect(needed, Scope::Full, Lookup::Index).map(Some)
    }

    /// The set is that of the commit's height.
    fn own(
        &self,
        block_id: BlockId,
        height: Height,
        scope: Scope,
    ) -> Result<SignatureCount, CommitError> {
        let mut count = SignatureCount::ZERO;
        self.own_counted(block_id, height, scope, &mut count)?;
        Ok(count)
    }

    /// Light verification that says how many signatures it took when it fails, too.
    pub(crate) fn light_counted(
        &self,
        block_id: BlockId,
        height: Height,
        count: &mut SignatureCount,
    ) -> Result<(), CommitError> {
        self.own_counted(block_id, height, Scope::Light, count)
    }

    fn own_counted(
        &self,
        block_id: BlockId,
        height: Height,
        scope: Scope,
        count: &mut SignatureCount,
    ) -> Result<(), CommitError> {
        self.check_form(block_id, height)?;
        let needed = two_thirds(self.set.total_voting_power());
        self.verify(needed, scope, Lookup::Index, count)
    }

    /// The set is one that is trusted.
    fn other(&self, trust: TrustLevel, scope: Scope) -> Result<SignatureCount, CommitError> {
        if trust.denominator() == 0 {
            return Err(CommitError::TrustLevel);
        }
        let overflow = |_| CommitError::TrustLevelOverflow;
        let numerator = i64::try_from(trust.numerator()).map_err(overflow)?;
        let denominator = i64::try_from(trust.denominator()).map_err(overflow)?;
        let needed = self
            .set
            .total_voting_power()
            .checked_mul(numerator)
            .ok_or(CommitError::TrustLevelOverflow)?
            / denominator;
        let mut count = SignatureCount::ZERO;
        self.verify(needed, scope, Lookup::by_address(), &mut count)?;
        Ok(count)
    }

    fn check_form(&self, block_id: BlockId, height: Height) -> Result<(), CommitError> {
        let (expected, got) = (self.set.len(), self.commit.signatures.len());
        if expected != got {
            return Err(CommitError::SetSize { expected, got });
        }
        if self.commit.height != height {
            return Err(CommitError::Height {
                expected: height,
                got: self.commit.height,
            });
        }
        if self.commit.block_id != block_id {
            return Err(CommitError::BlockId {
                expected: Box::new(block_id),
                got: Box::new(self.commit.block_id),
            });
        }
        Ok(())
    }

    fn verify(
        &self,
        needed: i64,
        scope: Scope,
        lookup: Lookup,
        count: &mut SignatureCount,
    ) -> Result<(), CommitError> {
        if self.batches()? {
            self.verify_batch(needed, scope, lookup, count)
        } else {
            self.verify_in_order(needed, scope, lookup, count)
        }
    }

    /// Whether CometBFT would batch: it decides the order of checks.
    pub(crate) fn batches(&self) -> Result<bool, CommitError> {
        if self.commit.signatures.len() < BATCH_THRESHOLD {
            return Ok(false);
        }
        let proposer = self.set.proposer().ok_or(CommitError::EmptySet)?;
        Ok(proposer.pub_key.key_type() == KeyType::Ed25519 && self.set.keys_have_one_type())
    }

    fn verify_batch(
        &self,
        needed: i64,
        scope: Scope,
        lookup: Lookup,
        count: &mut SignatureCount,
    ) -> Result<(), CommitError> {
        let claims = self.collect(needed, scope, lookup)?;
        *count += SignatureCount::of(claims.len());
        match first_wrong(claims) {
            None => Ok(()),
            Some(index) => Err(CommitError::WrongSignature { index }),
        }
    }

    /// Walks the places in order up to the threshold, and judges the power.
    fn collect(
        &self,
        needed: i64,
        scope: Scope,
        mut lookup: Lookup,
    ) -> Result<Vec<Claim<'a>>, CommitError> {
        let template = self.commit.sign_bytes(self.chain_id);
        let mut got = 0_i64;
        let mut claims = Vec::with_capacity(self.commit.signatures.len());
        for (index, sig) in self.commit.signatures.iter().enumerate() {
            if !scope.looks_at(sig) {
                continue;
            }
            let Some(member) = lookup.find(self.set, index, sig)? else {
                continue;
            };
            claims.push(Self::batched_claim(&template, index, sig, member)?);
            if scope.counts(sig) {
                got = got.saturating_add(member.voting_power);
            }
            if scope.stops_early() && got > needed {
                break;
            }
        }
        if got <= needed {
            return Err(CommitError::NotEnoughPower { got, needed });
        }
        Ok(claims)
    }

    fn batched_claim(
        template: &CommitSignBytes,
        index: usize,
        sig: &'a CommitSig,
        member: &'a Validator,
    ) -> Result<Claim<'a>, CommitError> {
        let message = Self::sign_bytes(template, index, sig)?;
        let key_type = member.pub_key.key_type();
        if key_type != KeyType::Ed25519 {
            return Err(CommitError::KeyType { index, key_type });
        }
        if sig.signature.len() != 64 {
            return Err(CommitError::SignatureLength {
                index,
                length: sig.signature.len(),
            });
        }
        Ok(Claim {
            index,
            key: &member.pub_key,
            message,
            signature: &sig.signature,
        })
    }

    fn verify_in_order(
        &self,
        needed: i64,
        scope: Scope,
        mut lookup: Lookup,
        count: &mut SignatureCount,
    ) -> Result<(), CommitError> {
        let template = self.commit.sign_bytes(self.chain_id);
        let mut got = 0_i64;
        for (index, sig) in self.commit.signatures.iter().enumerate() {
            if !scope.looks_at(sig) {
                continue;
            }
            if sig.validate_basic(self.rules).is_err() {
                return Err(CommitError::MalformedPlace { index });
            }
            let Some(member) = lookup.find(self.set, index, sig)? else {
                continue;
            };
            *count += SignatureCount::of(1);
            member
                .pub_key
                .verify(&Self::sign_bytes(&template, index, sig)?, &sig.signature)
                .map_err(|_| CommitError::WrongSignature { index })?;
            if scope.counts(sig) {
                got = got.saturating_add(member.voting_power);
            }
            if scope.stops_early() && got > needed {
                break;
            }
        }
        if got <= needed {
            return Err(CommitError::NotEnoughPower { got, needed });
        }
        Ok(())
    }

    /// What was signed at a place.
    fn sign_bytes(
        template: &CommitSignBytes,
        index: usize,
        sig: &CommitSig,
    ) -> Result<Vec<u8>, CommitError> {
        template.of(sig).ok_or(match sig.block_id_flag {
            BlockIdFlag::Unknown(flag) => CommitError::UnknownFlag { index, flag },
            BlockIdFlag::Absent | BlockIdFlag::Commit | BlockIdFlag::Nil => {
                CommitError::MalformedPlace { index }
            }
        })
    }
}

/// Which places are looked at and which of them count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All but absent ones are verified, those for the block count.
    Full,
    /// Those for the block, as far as they are needed.
    Light,
    /// Those for the block, to the end.
    LightAll,
}

impl Scope {
    fn looks_at(self, sig: &CommitSig) -> bool {
        match self {
            Self::Full => sig.block_id_flag != BlockIdFlag::Absent,
            Self::Light | Self::LightAll => sig.block_id_flag == BlockIdFlag::Commit,
        }
    }

    fn counts(self, sig: &CommitSig) -> bool {
        self != Self::Full || sig.block_id_flag == BlockIdFlag::Commit
    }

    const fn stops_early(self) -> bool {
        matches!(self, Self::Light)
    }
}

/// How the validator of a place is found.
enum Lookup {
    /// The set is the commit's own: by index, and the address must agree.
    Index,
    /// The set may be another: by address, and nobody twice.
    Address { seen: BTreeMap<Address, usize> },
}

impl Lookup {
    const fn by_address() -> Self {
        Self::Address {
            seen: BTreeMap::new(),
        }
    }

    /// The validator of a place; `None` where the place is nobody's of the set.
    fn find<'a>(
        &mut self,
        set: &'a ValidatorSet,
        index: usize,
        sig: &CommitSig,
    ) -> Result<Option<&'a Validator>, CommitError> {
        match self {
            Self::Index => {
                let member = set.get(index).ok_or(CommitError::SetSize {
                    expected: set.len(),
                    got: index.saturating_add(1),
                })?;
                if member.address.as_bytes()[..] != sig.validator_address[..] {
                    return Err(CommitError::AddressMismatch {
                        index,
                        expected: member.address,
                        got: sig.validator_address.clone(),
                    });
                }
                Ok(Some(member))
            }
            Self::Address { seen } => {
                let Ok(address) = Address::try_from(&sig.validator_address[..]) else {
                    return Ok(None);
                };
                let Some((_, member)) = set.by_address(&address) else {
                    return Ok(None);
                };
                match seen.insert(address, index) {
                    Some(first) => Err(CommitError::DoubleVote {
                        address,
                        first,
                        second: index,
                    }),
                    None => Ok(Some(member)),
                }
            }
        }
    }
}
