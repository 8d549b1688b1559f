//! The application of the vectors' chains `chain_params`: it changes consensus parameters at fixed
//! heights, gives transactions all kinds of results, and has app hashes of odd lengths.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use perihelion_abci::{
    AppFault, Application,
    types::{
        ConsensusParams, Event, EventAttribute, ExecTxResult, RequestCommit, RequestFinalizeBlock,
        RequestInfo, RequestInitChain, ResponseCommit, ResponseFinalizeBlock, ResponseInfo,
        ResponseInitChain,
    },
};
use perihelion_proto::tendermint::types as pb;

/// The application. It keeps its own state; what it has committed survives as long as it does,
/// and a block that was not committed is forgotten when the next one is executed.
#[derive(Debug, Default)]
pub struct ParamsApp {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    committed: Progress,
    executed: Progress,
}

#[derive(Debug, Default, Clone)]
struct Progress {
    height: i64,
    app_hash: Bytes,
}

impl ParamsApp {
    /// The application before its first block.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Application for ParamsApp {
    fn info(&self, _: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        let committed = self.inner().committed.clone();
        Ok(ResponseInfo {
            data: "params".to_owned(),
            version: "1".to_owned(),
            app_version: 3,
            last_block_height: committed.height,
            last_block_app_hash: committed.app_hash,
        })
    }

    /// Turns the first three validators round, and sets the application's version.
    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        let mut validators = request.validators.clone();
        if validators.len() < 4 {
            return Err(AppFault::failed("the chain begins with four validators"));
        }
        validators.truncate(4);
        validators.swap(0, 2);
        let app_hash = Bytes::from_static(b"start");
        self.inner().committed.app_hash = app_hash.clone();
        Ok(ResponseInitChain {
            consensus_params: Some(ConsensusParams {
                version: Some(pb::VersionParams { app: 4 }),
                ..ConsensusParams::default()
            }),
            validators,
            app_hash,
        })
    }

    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        let mut inner = self.inner();
        let app_hash = next_app_hash(&inner.committed.app_hash, request);
        inner.executed = Progress {
            height: request.height,
            app_hash: app_hash.clone(),
        };
        let misbehavior = request.misbehavior.len().to_string();
        Ok(ResponseFinalizeBlock {
            events: vec![
                event(
                    "block",
                    vec![
                        attribute("height", request.height.to_string(), true),
                        attribute("hidden", "not indexed".to_owned(), false),
                    ],
                ),
                event("misbehavior", vec![attribute("count", misbehavior, true)]),
            ],
            tx_results: request.txs.iter().enumerate().map(tx_result).collect(),
            validator_updates: Vec::new(),
            consensus_param_updates: params_update(request.height),
            app_hash,
        })
    }

    fn commit(&self, _: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        let mut inner = self.inner();
        inner.committed = inner.executed.clone();
        Ok(ResponseCommit::default())
    }
}

/// Codes 0, 1, 2 in turn; every second one has more fields.
fn tx_result((index, tx): (usize, &Bytes)) -> ExecTxResult {
    let number = i64::try_from(index).unwrap_or(i64::MAX);
    let mut result = ExecTxResult {
        code: (index % 3) as u32,
        data: tx.clone(),
        log: "log of a transaction".to_owned(),
        gas_wanted: 10 * number,
        gas_used: 9 * number,
        ..ExecTxResult::default()
    };
    if index % 2 == 1 {
        result.codespace = "params".to_owned();
        result.info = "odd".to_owned();
        result.events = vec![event(
            "odd",
            vec![attribute("index", index.to_string(), true)],
        )];
    }
    result
}

/// SHA-256 over the last one, the height and the transactions; cut at height 6, doubled at 8.
fn next_app_hash(last: &[u8], request: &RequestFinalizeBlock) -> Bytes {
    let mut bytes = last.to_vec();
    bytes.extend_from_slice(&request.height.to_be_bytes());
    for tx in &request.txs {
        bytes.extend_from_slice(tx);
    }
    let hash = perihelion_crypto::sha256(&bytes);
    match request.height {
        6 => Bytes::copy_from_slice(&hash[..5]),
        8 => [hash, hash].concat().into(),
        _ => Bytes::copy_from_slice(&hash),
    }
}

/// What the application changes at a height.
fn params_update(height: i64) -> Option<ConsensusParams> {
    let mut update = ConsensusParams::default();
    match height {
        2 => {}
        3 => {
            update.block = Some(pb::BlockParams {
                max_bytes: 2_000_000,
                max_gas: 1_000_000,
            });
        }
        4 => {
            update.evidence = Some(pb::EvidenceParams {
                max_age_num_blocks: 50,
                max_age_duration: Some(prost_duration(3600)),
                max_bytes: 100_000,
            });
        }
        6 => update.version = Some(pb::VersionParams { app: 9 }),
        8 => {
            update.validator = Some(pb::ValidatorParams {
                pub_key_types: vec!["ed25519".to_owned(), "secp256k1".to_owned()],
            });
        }
        9 => {
            update.block = Some(pb::BlockParams {
                max_bytes: -1,
                max_gas: -1,
            });
        }
        10 => {
            update.abci = Some(pb::AbciParams {
                vote_extensions_enable_height: 13,
            });
        }
        _ => return None,
    }
    Some(update)
}

fn prost_duration(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn event(kind: &str, attributes: Vec<EventAttribute>) -> Event {
    Event {
        r#type: kind.to_owned(),
        attributes,
    }
}

fn attribute(key: &str, value: String, index: bool) -> EventAttribute {
    EventAttribute {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
        index,
    }
}
