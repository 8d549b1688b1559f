//! The key-value application: equal to CometBFT's example of the same name in every answer, so
//! that nodes of both kinds can run one chain.

mod events;
mod overlay;
mod tx;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;
use perihelion_crypto::PublicKey;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use self::{overlay::Overlay, tx::ValidatorTx};
use crate::{
    ABCI_VERSION, AppFault, AppStore, AppWrite, Application, Finalized, MemoryAppStore,
    OwnAppStore, Persistence,
    types::{
        self, ExecTxResult, MisbehaviorType, RequestCheckTx, RequestCommit, RequestFinalizeBlock,
        RequestInfo, RequestInitChain, RequestPrepareProposal, RequestProcessProposal,
        RequestQuery, ResponseCheckTx, ResponseCommit, ResponseFinalizeBlock, ResponseInfo,
        ResponseInitChain, ResponsePrepareProposal, ResponseProcessProposal, ResponseQuery,
        ValidatorUpdate, response_process_proposal::ProposalStatus,
    },
};

const APP_VERSION: u64 = 1;
/// The code of a transaction that the application does not take.
const INVALID_TX_FORMAT: u32 = 2;
const STATE_KEY: &[u8] = b"stateKey";
const PAIR_PREFIX: &[u8] = b"kvPairKey:";

/// Settings of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvStoreOptions {
    /// Blocks to retain: from this height on, `Commit` lets the node prune what is older. 0 (the
    /// default) keeps all.
    pub retain_blocks: i64,
    /// Whether blocks have events too. No by default: they are for tests of indexing.
    pub block_events: bool,
}

/// The key-value application. A transaction is `key=value`, or `val=type!key!power` to change a
/// validator; the app hash is the number of transactions so far.
///
/// What it keeps is read through an [`AppStore`]; in memory are the validators and the changes of
/// at most two blocks.
pub struct KvStore {
    options: KvStoreOptions,
    /// Where its changes go.
    keeper: Keeper,
    inner: RwLock<Inner>,
}

/// Who stores the changes.
enum Keeper {
    /// The node, with each block.
    Node,
    /// Nobody for longer than the process.
    Memory(Arc<MemoryAppStore>),
    /// The application, before it answers.
    Own(Arc<dyn OwnAppStore>),
}

struct Inner {
    data: Overlay,
    progress: Progress,
    staged_txs: Vec<Bytes>,
    validator_updates: Vec<ValidatorUpdate>,
    /// Keys of the validators by address, to punish by.
    validators: HashMap<Vec<u8>, types::PublicKey>,
}

/// What is stored under [`STATE_KEY`], as JSON.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Progress {
    /// Transactions executed so far.
    size: i64,
    /// The last block finalized.
    height: i64,
}

impl Progress {
    fn load(store: &dyn AppStore) -> Result<Self, AppFault> {
        let Some(json) = store.get(STATE_KEY)? else {
            return Ok(Self::default());
        };
        serde_json::from_slice(&json).map_err(|error| {
            AppFault::failed(format!("the state of the key-value application: {error}"))
        })
    }

    /// The zig-zag varint of the size, filled up with zeros to eight bytes (ten where eight do not
    /// hold it, which no chain reaches).
    fn hash(self) -> Bytes {
        let mut rest = (self.size << 1 ^ self.size >> 63).cast_unsigned();
        let mut hash = Vec::with_capacity(8);
        while rest >= 0x80 {
            hash.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        hash.push(rest as u8);
        hash.resize(hash.len().max(8), 0);
        hash.into()
    }
}

impl KvStore {
    /// The application that is lost with the process.
    #[must_use]
    pub fn in_memory(options: KvStoreOptions) -> Self {
        let memory = Arc::new(MemoryAppStore::new());
        let data = Overlay::new(Arc::clone(&memory) as Arc<dyn AppStore>);
        Self::with(options, data, Progress::default(), Keeper::Memory(memory))
    }

    /// The application whose changes are stored by the node together with each block, and read
    /// through `store`.
    ///
    /// # Errors
    /// When `store` cannot be read or holds something else.
    pub fn persistent(store: Arc<dyn AppStore>, options: KvStoreOptions) -> Result<Self, AppFault> {
        let progress = Progress::load(&*store)?;
        Ok(Self::with(
            options,
            Overlay::new(store),
            progress,
            Keeper::Node,
        ))
    }

    /// The application that stores its changes itself, before it answers: for one that is served to
    /// nodes in other processes.
    ///
    /// # Errors
    /// When `store` cannot be read or holds something else.
    pub fn standalone(
        store: Arc<dyn OwnAppStore>,
        options: KvStoreOptions,
    ) -> Result<Self, AppFault> {
        let progress = Progress::load(&*store)?;
        let data = Overlay::new(Arc::clone(&store) as Arc<dyn AppStore>);
        Ok(Self::with(options, data, progress, Keeper::Own(store)))
    }

    fn with(options: KvStoreOptions, data: Overlay, progress: Progress, keeper: Keeper) -> Self {
        Self {
            options,
            keeper,
            inner: RwLock::new(Inner {
                data,
                progress,
                staged_txs: Vec::new(),
                validator_updates: Vec::new(),
                validators: HashMap::new(),
            }),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Executes a block. The results' events are left out of the answer.
    fn execute(&self, request: &RequestFinalizeBlock) -> Result<ResponseFinalizeBlock, AppFault> {
        let mut inner = self.write();
        inner.validator_updates.clear();
        inner.staged_txs.clear();
        inner.punish(request)?;
        for tx in &request.txs {
            if tx::is_validator_tx(tx) {
                let update = ValidatorTx::parse(tx).and_then(ValidatorTx::into_update);
                inner
                    .validator_updates
                    .push(update.map_err(AppFault::Failed)?);
            } else {
                inner.staged_txs.push(tx.clone());
            }
            inner.progress.size += 1;
        }
        inner.progress.height = request.height;
        Ok(ResponseFinalizeBlock {
            events: if self.options.block_events {
                events::of_block(request.height)
            } else {
                Vec::new()
            },
            tx_results: request
                .txs
                .iter()
                .map(|_| ExecTxResult::default())
                .collect(),
            validator_updates: inner.validator_updates.clone(),
            consensus_param_updates: None,
            app_hash: inner.progress.hash(),
        })
    }

    /// Stores the changes, unless the node does.
    fn settle(&self, inner: &mut Inner) -> Result<(), AppFault> {
        match &self.keeper {
            Keeper::Node => {}
            Keeper::Memory(memory) => memory.write(inner.data.drain()),
            Keeper::Own(store) => store.keep(inner.data.drain().collect())?,
        }
        Ok(())
    }
}

impl Inner {
    fn load_validators(&mut self) -> Result<(), AppFault> {
        for (_, value) in self.data.scan_prefix(tx::VALIDATOR_PREFIX)? {
            let update = ValidatorUpdate::decode_length_delimited(&value[..])
                .map_err(|error| AppFault::failed(format!("a stored validator: {error}")))?;
            let (wire, key) = public_key(&update)?;
            self.validators
                .insert(key.address().as_bytes().to_vec(), wire);
        }
        Ok(())
    }

    /// Adds, changes or removes a validator.
    fn update_validator(&mut self, update: &ValidatorUpdate) -> Result<(), AppFault> {
        let (wire, key) = public_key(update)?;
        let address = key.address().as_bytes().to_vec();
        let name = [tx::VALIDATOR_PREFIX, key.as_bytes()].concat();
        if update.power == 0 {
            self.data.delete(name);
            self.validators.remove(&address);
        } else {
            self.data
                .set(name, update.encode_length_delimited_to_vec().into());
            self.validators.insert(address, wire);
        }
        Ok(())
    }

    /// Takes one power from each validator that voted twice.
    fn punish(&mut self, request: &RequestFinalizeBlock) -> Result<(), AppFault> {
        for misbehavior in &request.misbehavior {
            if misbehavior.r#type() != MisbehaviorType::DuplicateVote {
                continue;
            }
            let culprit = misbehavior.validator.clone().unwrap_or_default();
            let key = self.validators.get(&culprit.address[..]).ok_or_else(|| {
                AppFault::failed(format!(
                    "validator {:X} is to be punished and is not known",
                    culprit.address
                ))
            })?;
            self.validator_updates.push(ValidatorUpdate {
                pub_key: Some(key.clone()),
                power: culprit.power.wrapping_sub(1),
            });
        }
        Ok(())
    }
}

impl Application for KvStore {
    fn info(&self, _request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        let mut inner = self.write();
        if inner.validators.is_empty() && inner.progress.height > 0 {
            inner.load_validators()?;
        }
        Ok(ResponseInfo {
            data: format!("{{\"size\":{}}}", inner.progress.size),
            version: ABCI_VERSION.to_owned(),
            app_version: APP_VERSION,
            last_block_height: inner.progress.height,
            last_block_app_hash: inner.progress.hash(),
        })
    }

    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        let mut inner = self.write();
        for validator in &request.validators {
            inner.update_validator(validator)?;
        }
        self.settle(&mut inner)?;
        Ok(ResponseInitChain {
            app_hash: inner.progress.hash(),
            ..ResponseInitChain::default()
        })
    }

    fn check_tx(&self, request: &RequestCheckTx) -> Result<ResponseCheckTx, AppFault> {
        Ok(if tx::is_valid(&request.tx) {
            ResponseCheckTx {
                gas_wanted: 1,
                ..ResponseCheckTx::default()
            }
        } else {
            ResponseCheckTx {
                code: INVALID_TX_FORMAT,
                ..ResponseCheckTx::default()
            }
        })
    }

    /// Drops what is invalid and turns the first `:` of each transaction into `=`.
    fn prepare_proposal(
        &self,
        request: &RequestPrepareProposal,
    ) -> Result<ResponsePrepareProposal, AppFault> {
        let format = |tx: &Bytes| match tx.iter().position(|byte| *byte == b':') {
            None => tx.clone(),
            Some(colon) => {
                let mut formatted = tx.to_vec();
                formatted[colon] = b'=';
                formatted.into()
            }
        };
        let valid = request.txs.iter().filter(|tx| tx::is_valid(tx));
        Ok(ResponsePrepareProposal {
            txs: valid.map(format).collect(),
        })
    }

    fn process_proposal(
        &self,
        request: &RequestProcessProposal,
    ) -> Result<ResponseProcessProposal, AppFault> {
        let status = if request.txs.iter().all(|tx| tx::is_valid(tx)) {
            ProposalStatus::Accept
        } else {
            ProposalStatus::Reject
        };
        Ok(ResponseProcessProposal {
            status: status.into(),
        })
    }

    /// A transaction that `check_tx` refuses ends the call with those before it counted: the
    /// block cannot be committed, and the node stops.
    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        let mut response = self.execute(request)?;
        for (result, tx) in response.tx_results.iter_mut().zip(&request.txs) {
            result.events = events::of_tx(tx);
        }
        Ok(response)
    }

    fn finalize_block_encoded(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<Finalized, AppFault> {
        let mut response = self.execute(request)?;
        let results = std::mem::take(&mut response.tx_results);
        // Fields are encoded in their order: the block's events, the results, all others.
        let events = ResponseFinalizeBlock {
            events: std::mem::take(&mut response.events),
            ..ResponseFinalizeBlock::default()
        };
        let mut encoded = events.encode_to_vec();
        events::encode_tx_results(&request.txs, &mut encoded);
        encoded.extend_from_slice(&response.encode_to_vec());
        response.events = events.events;
        response.tx_results = results;
        Ok(Finalized::without_events(response, encoded))
    }

    fn commit(&self, _request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        let mut guard = self.write();
        let inner = &mut *guard;
        for update in std::mem::take(&mut inner.validator_updates) {
            inner.update_validator(&update)?;
        }
        let txs = std::mem::take(&mut inner.staged_txs);
        let pairs = txs.iter().map(|tx| {
            tx::split_pair(tx).ok_or_else(|| {
                AppFault::failed(format!("transaction {tx:?} is no pair of key and value"))
            })
        });
        let pairs: Vec<_> = pairs.collect::<Result<_, _>>()?;
        match &self.keeper {
            Keeper::Memory(memory) => memory.set_all(PAIR_PREFIX, &pairs),
            Keeper::Node | Keeper::Own(_) => {
                for (tx, (key, value)) in txs.iter().zip(&pairs) {
                    let key = [PAIR_PREFIX, key].concat();
                    inner.data.set(key, tx.slice_ref(value));
                }
            }
        }
        let progress = serde_json::to_vec(&inner.progress)
            .map_err(|error| AppFault::failed(format!("state as JSON: {error}")))?;
        inner.data.set(STATE_KEY.to_vec(), progress.into());
        self.settle(inner)?;
        let (height, retain) = (inner.progress.height, self.options.retain_blocks);
        Ok(ResponseCommit {
            retain_height: if retain > 0 && height >= retain {
                height - retain + 1
            } else {
                0
            },
        })
    }

    /// The value of a key, or, under the path `/val`, of a validator's key. There are no proofs.
    fn query(&self, request: &RequestQuery) -> Result<ResponseQuery, AppFault> {
        let inner = self.read();
        if request.path == "/val" {
            let name = [tx::VALIDATOR_PREFIX, &request.data].concat();
            return Ok(ResponseQuery {
                key: request.data.clone(),
                value: inner.data.get(&name)?.unwrap_or_default().into(),
                ..ResponseQuery::default()
            });
        }
        let value = inner.data.get(&[PAIR_PREFIX, &request.data].concat())?;
        Ok(ResponseQuery {
            log: if value.is_some() {
                "exists"
            } else {
                "does not exist"
            }
            .to_owned(),
            index: if request.prove { -1 } else { 0 },
            key: request.data.clone(),
            value: value.unwrap_or_default().into(),
            height: inner.progress.height,
            ..ResponseQuery::default()
        })
    }

    fn persistence(&self) -> Persistence {
        match self.keeper {
            Keeper::Node => Persistence::InBlock,
            Keeper::Memory(_) => Persistence::Volatile,
            Keeper::Own(_) => Persistence::Own,
        }
    }

    fn take_writes(&self) -> Option<Vec<AppWrite>> {
        match self.keeper {
            Keeper::Node => Some(self.write().data.take()),
            Keeper::Memory(_) | Keeper::Own(_) => None,
        }
    }
}

/// A validator's key, as the schema has it and decoded.
fn public_key(update: &ValidatorUpdate) -> Result<(types::PublicKey, PublicKey), AppFault> {
    let wire = update.pub_key.clone().unwrap_or_default();
    let key = PublicKey::try_from(wire.clone())
        .map_err(|error| AppFault::failed(format!("a validator's key: {error}")))?;
    Ok((wire, key))
}
