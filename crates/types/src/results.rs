//! Hash over the results of a block's transactions.

use perihelion_proto::tendermint::abci as pb;
use prost::{Message, bytes::Bytes};

use crate::{
    Hash,
    merkle::{self, Node},
};

/// What all nodes agree on in the result of a transaction; log, info, events and codespace may
/// differ and are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeterministicResult {
    /// 0 when the transaction succeeded.
    pub code: u32,
    /// The application's answer.
    pub data: Bytes,
    /// Gas that the transaction asked for.
    pub gas_wanted: i64,
    /// Gas that it took.
    pub gas_used: i64,
}

impl DeterministicResult {
    /// The bytes that the hash covers: an `ExecTxResult` with these fields alone.
    #[must_use]
    pub fn hashed_bytes(&self) -> Vec<u8> {
        pb::ExecTxResult {
            code: self.code,
            data: self.data.clone(),
            gas_wanted: self.gas_wanted,
            gas_used: self.gas_used,
            ..pb::ExecTxResult::default()
        }
        .encode_to_vec()
    }

    /// Equality that does not look at data of no bytes: its address need not be one, and some
    /// processors take a hundred times as long to compare nothing there.
    fn is(&self, other: &Self) -> bool {
        let numbers = |it: &Self| (it.code, it.gas_wanted, it.gas_used, it.data.len());
        numbers(self) == numbers(other) && (self.data.is_empty() || self.data == other.data)
    }
}

impl From<&pb::ExecTxResult> for DeterministicResult {
    fn from(result: &pb::ExecTxResult) -> Self {
        Self {
            code: result.code,
            data: result.data.clone(),
            gas_wanted: result.gas_wanted,
            gas_used: result.gas_used,
        }
    }
}

/// Merkle root over the results, in the order of the transactions: the next header's
/// `last_results_hash`.
///
/// Most applications tell the same of many transactions, above all where they leave `data` empty
/// and count no gas: what was hashed just before, a result or a pair of nodes, is not hashed again.
#[must_use]
pub fn hash(results: impl IntoIterator<Item = DeterministicResult>) -> Hash {
    let mut last: Option<(DeterministicResult, Node)> = None;
    let mut level: Vec<Node> = Vec::new();
    for result in results {
        let node = match &last {
            Some((same, node)) if same.is(&result) => *node,
            _ => merkle::leaf_hash(&result.hashed_bytes()),
        };
        level.push(node);
        last = Some((result, node));
    }
    merkle::root_of_runs(level)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Any number of results, in rows of equal ones and changing with each.
    fn check(rows: &[(u32, usize)]) -> Result<(), TestCaseError> {
        let result = |code| DeterministicResult {
            code,
            ..DeterministicResult::default()
        };
        let rows = rows
            .iter()
            .flat_map(|(code, times)| vec![result(*code); *times]);
        let results: Vec<_> = rows.collect();
        let leaves: Vec<_> = results
            .iter()
            .map(DeterministicResult::hashed_bytes)
            .collect();
        prop_assert_eq!(hash(results), merkle::root(&leaves));
        Ok(())
    }

    proptest! {
        #[test]
        fn equal_results_are_hashed_like_any(rows in vec((0..3_u32, 1..40_usize), 0..30)) {
            check(&rows)?;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn thousands_of_results_are_hashed_like_any(
            rows in vec((0..3_u32, prop_oneof![1..4_usize, 1000..1030_usize, 0..5000_usize]), 1..9),
        ) {
            check(&rows)?;
        }
    }
}
