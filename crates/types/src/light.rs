//! Headers with their commits and validators, as evidence holds them.

use perihelion_proto::tendermint::types as pb;

use crate::{Commit, DecodeError, Header, InvalidError, Rules, ValidatorSet};

/// A header with the commit that makes it final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHeader {
    /// The header.
    pub header: Header,
    /// The commit for it.
    pub commit: Commit,
}

/// A signed header with its validator set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LightBlock {
    /// The header and its commit.
    pub signed_header: SignedHeader,
    /// The validators of the header's height.
    pub validator_set: ValidatorSet,
}

impl SignedHeader {
    /// The stateless rules: the commit is for this header, of the chain `chain_id`.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self, chain_id: &str, rules: Rules) -> Result<(), InvalidError> {
        let invalid = |reason: String| Err(InvalidError::new("signed header", reason));
        self.header.validate_basic()?;
        self.commit.validate_basic_by(rules)?;
        if self.header.chain_id != chain_id {
            return invalid(format!("of chain {:?}", self.header.chain_id));
        }
        if self.commit.height != self.header.height {
            return invalid(format!(
                "header of height {}, commit of {}",
                self.header.height, self.commit.height
            ));
        }
        let hash = self.header.hash();
        if self.commit.block_id.hash != hash {
            return invalid(format!(
                "header {hash}, commit for {}",
                self.commit.block_id.hash
            ));
        }
        Ok(())
    }
}

impl LightBlock {
    /// The stateless rules: as for the signed header, and the validator set is the header's.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self, chain_id: &str, rules: Rules) -> Result<(), InvalidError> {
        self.signed_header.validate_basic(chain_id, rules)?;
        self.validator_set.validate_basic()?;
        let hash = self.validator_set.hash();
        let expected = self.signed_header.header.validators_hash;
        if hash != expected {
            return Err(InvalidError::new(
                "light block",
                format!("validator set {hash}, the header's is {expected}"),
            ));
        }
        Ok(())
    }

    /// The light block of a message: header, commit and set by their stateless rules, but not how
    /// they belong together.
    ///
    /// # Errors
    /// When CometBFT would refuse it, or header, commit or validator set is missing.
    pub fn from_proto(block: pb::LightBlock, rules: Rules) -> Result<Self, DecodeError> {
        let signed_header = block
            .signed_header
            .ok_or(DecodeError::Missing("signed header"))?;
        let header = signed_header.header.ok_or(DecodeError::Missing("header"))?;
        let commit = signed_header.commit.ok_or(DecodeError::Missing("commit"))?;
        let validator_set = block
            .validator_set
            .ok_or(DecodeError::Missing("validator set"))?;
        Ok(Self {
            signed_header: SignedHeader {
                header: header.try_into()?,
                commit: Commit::from_proto(commit, rules)?,
            },
            validator_set: validator_set.try_into()?,
        })
    }
}

impl TryFrom<pb::LightBlock> for LightBlock {
    type Error = DecodeError;

    fn try_from(block: pb::LightBlock) -> Result<Self, DecodeError> {
        Self::from_proto(block, Rules::V038)
    }
}

impl From<&SignedHeader> for pb::SignedHeader {
    fn from(signed: &SignedHeader) -> Self {
        Self {
            header: Some((&signed.header).into()),
            commit: Some((&signed.commit).into()),
        }
    }
}

impl From<&LightBlock> for pb::LightBlock {
    fn from(block: &LightBlock) -> Self {
        Self {
            signed_header: Some((&block.signed_header).into()),
            validator_set: Some((&block.validator_set).into()),
        }
    }
}
