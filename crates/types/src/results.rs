//! Hash over the results of a block's transactions.

use perihelion_proto::tendermint::abci as pb;
use prost::{Message, bytes::Bytes};

use crate::{Hash, merkle};

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
#[must_use]
pub fn hash(results: impl IntoIterator<Item = DeterministicResult>) -> Hash {
    let leaves: Vec<_> = results
        .into_iter()
        .map(|result| result.hashed_bytes())
        .collect();
    merkle::root(&leaves)
}
