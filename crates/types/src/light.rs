use crate::{Commit, Header, ValidatorSet};

/// A header with the commit that makes it final.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SignedHeader {
    pub header: Header,
    pub commit: Commit,
}

/// A signed header with its validator set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LightBlock {
    pub signed_header: SignedHeader,
    pub validator_set: ValidatorSet,
}
