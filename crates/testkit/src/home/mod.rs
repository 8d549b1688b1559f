//! Whole homes that hold a finished chain: made offline, served and synced by real nodes.
//!
//! Every block is built from the state before it, signed by the validators' keys, certified and
//! applied by the real executor. Equal shapes give equal blocks; only the node's own keys differ.

mod copy;
mod draw;
mod shape;
mod signing;

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use perihelion_abci::{AppConnections, KvStore, KvStoreOptions};
use perihelion_certify::CertifiedBlock;
use perihelion_crypto::PrivateKey;
use perihelion_node::{
    config::{self, Config, Overrides},
    files::{
        SignState, ValidatorKey, create_folder, generate_node_key, genesis_id, genesis_json,
        load_genesis, write_atomically,
    },
};
use perihelion_state::{AppColumn, Executor, ExecutorConfig};
use perihelion_store::{Store, StoreOptions};
use perihelion_types::{
    Block, BlockId, Commit, FetchedBlock, Genesis, GenesisValidator, Hash, Height, Round, Rules,
    State, Time,
};

pub use self::copy::{CopyData, copy_home};
pub use self::shape::{BadShape, ChainShape, MIN_TX_BYTES, validator_key};
use self::{
    draw::{Purpose, drawer, make_transactions},
    signing::{Ballot, Signers},
};

/// When made chains begin: 2024-01-01T00:00:00Z. Their blocks are one second apart.
pub const GENESIS_TIME: Time = Time::new(1_704_067_200, 0);

/// The application of made chains.
pub const APPLICATION: &str = "persistent_kvstore";

/// A chain in a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeChain {
    /// The home.
    pub home: PathBuf,
    /// The chain's id.
    pub chain_id: String,
    /// The first height.
    pub initial_height: Height,
    /// The last height. A node that syncs from this home alone ends one below: the commit for the
    /// last block is not in a block yet.
    pub height: Height,
    /// The last block's id.
    pub last_block_id: BlockId,
    /// The application's hash after the last block.
    pub app_hash: Bytes,
    /// Bytes of all blocks as the wire has them.
    pub block_bytes: u64,
}

/// Makes a home with a finished chain. See [`make_home_reporting`].
///
/// # Errors
/// See there.
pub fn make_home(home: &Path, shape: &ChainShape) -> anyhow::Result<MadeChain> {
    let made = make_home_reporting(home, shape, |_| ControlFlow::Continue(()))?;
    made.context("it was not broken off")
}

/// Makes a home with a finished chain: configuration, genesis, keys of a node that is no
/// validator, and the database. `report` is called with each height that is done; when it breaks,
/// what was made is left as it is, and the result is `None`.
///
/// # Errors
/// When the shape has contradictions, the folder holds a home already, or it cannot be written.
pub fn make_home_reporting(
    home: &Path,
    shape: &ChainShape,
    mut report: impl FnMut(Height) -> ControlFlow<()>,
) -> anyhow::Result<Option<MadeChain>> {
    shape.check()?;
    let config = make_files(home, shape)?;
    let mut maker = Maker::new(&config, shape)?;
    for _ in 0..shape.blocks {
        let height = maker
            .make_next()
            .with_context(|| format!("making height {}", maker.executor.state().next_height()))?;
        if report(height).is_break() {
            return Ok(None);
        }
    }
    maker.finish(home).map(Some)
}

/// Configuration, genesis and keys.
fn make_files(home: &Path, shape: &ChainShape) -> anyhow::Result<Config> {
    ensure!(
        !home.join("config/genesis.json").exists(),
        "{} holds a home already: remove it, or choose another folder",
        home.display()
    );
    create_folder(&home.join("config"))?;
    create_folder(&home.join("data"))?;
    let mut config = Config::new(home);
    config.base.proxy_app = APPLICATION.to_owned();
    config.base.moniker = shape.chain_id.clone();
    write_atomically(&config.file(), config::write(&config).as_bytes(), 0o644)?;
    generate_node_key(&config.node_key_file())?;
    SignState::default().save(&config.priv_validator_state_file())?;
    ValidatorKey::generate().save_new(&config.priv_validator_key_file())?;
    let genesis = genesis_json(&make_genesis(shape));
    write_atomically(&config.genesis_file(), genesis.as_bytes(), 0o644)?;
    // As a node would read it: a key that is not in order shows here.
    let (config, _) = Config::load(home, &Overrides::default())?;
    Ok(config)
}

/// The genesis of a chain: validators with powers from 50 to 150.
#[must_use]
pub fn make_genesis(shape: &ChainShape) -> Genesis {
    let mut params = perihelion_types::ConsensusParams::default_v038();
    params.abci.vote_extensions_enable_height = shape.extensions_height;
    params.block.max_bytes = params.block.max_bytes.max(shape.largest_block());
    let mut draw = drawer(shape.seed, Purpose::Genesis, 0);
    let validators = (0..shape.validators).map(|number| {
        let pub_key = validator_key(shape.seed, number).public_key();
        GenesisValidator {
            address: pub_key.address(),
            pub_key,
            power: draw::power(&mut draw),
            name: format!("validator-{number}"),
        }
    });
    Genesis {
        genesis_time: GENESIS_TIME,
        chain_id: shape.chain_id.clone(),
        initial_height: Height::new(shape.initial_height),
        consensus_params: params,
        validators: validators.collect(),
        app_hash: Bytes::new(),
        app_state: Bytes::new(),
    }
}

/// The chain while it grows.
struct Maker<'a> {
    shape: &'a ChainShape,
    store: Arc<Store>,
    executor: Executor,
    signers: Signers,
    /// The commit for the last block.
    last_commit: Commit,
    /// Validators that joined and have not left, oldest first.
    joined: VecDeque<PrivateKey>,
    next_key: u32,
    block_bytes: u64,
}

impl<'a> Maker<'a> {
    fn new(config: &Config, shape: &'a ChainShape) -> anyhow::Result<Self> {
        let (genesis, _) = load_genesis(&config.genesis_file())?;
        let store = Arc::new(Store::open(&config.data_dir(), &StoreOptions::default())?);
        store.save_genesis_hash(Hash::new(genesis_id(&genesis)))?;
        let column = Arc::new(AppColumn::new(Arc::clone(&store)));
        let app = KvStore::persistent(column, KvStoreOptions::default())
            .context("the application cannot be started")?;
        let app = AppConnections::in_process(Arc::new(app));
        let executor = Executor::start(
            Arc::clone(&store),
            &genesis,
            app.consensus,
            &app.query,
            ExecutorConfig::default(),
        )?;
        let keys = (0..shape.validators).map(|number| validator_key(shape.seed, number));
        Ok(Self {
            shape,
            store,
            executor,
            signers: Signers::new(&shape.chain_id, keys),
            last_commit: Commit {
                height: Height::ZERO,
                round: Round::ZERO,
                block_id: BlockId::NIL,
                signatures: Vec::new(),
            },
            joined: VecDeque::new(),
            next_key: shape.validators,
            block_bytes: 0,
        })
    }

    /// Makes, certifies and applies the next block.
    fn make_next(&mut self) -> anyhow::Result<Height> {
        let state = self.executor.state_arc();
        let height = state.next_height();
        let ballot = Ballot::draw(self.shape, height, &state.validators);
        let raw = self.build(&state, height, ballot.round())?.encode();
        self.block_bytes += raw.len() as u64;
        let plain = FetchedBlock::decode(raw.clone(), None)?;
        let extended = state.consensus_params.vote_extensions_enabled(height);
        let signed = self.signers.sign(
            &ballot,
            &state.validators,
            plain.block_id(),
            height,
            extended,
        )?;
        let commit = signed.to_commit();
        let certified = if extended {
            let fetched = FetchedBlock::decode(raw, Some(signed.encode()))?;
            CertifiedBlock::decided_extended(
                Arc::new(fetched),
                &state.validators,
                &self.shape.chain_id,
            )?
        } else {
            CertifiedBlock::decided(
                Arc::new(plain),
                commit.clone(),
                &state.validators,
                &self.shape.chain_id,
            )?
        };
        self.executor.apply(&certified)?;
        self.last_commit = commit;
        Ok(height)
    }

    /// The block that follows from the state, decided in `round`.
    fn build(&mut self, state: &State, height: Height, round: i32) -> anyhow::Result<Block> {
        let mut txs = make_transactions(self.shape, height);
        txs.extend(self.change_of_validators(state, height));
        let mut turn = state.validators.as_ref().clone();
        if round > 0 {
            turn.increment_proposer_priority(round)?;
        }
        let proposer = turn.proposer().context("a set has a proposer")?.address;
        let last_commit = self.last_commit.clone();
        Ok(state.make_block(txs, last_commit, Vec::new(), proposer, Rules::V040)?)
    }

    /// Every `churn` blocks a validator's power changes, one joins and one leaves, in turn, so that
    /// the set keeps its size.
    fn change_of_validators(&mut self, state: &State, height: Height) -> Option<Bytes> {
        let interval = self.shape.churn;
        if interval == 0 || height.get() % interval != 0 {
            return None;
        }
        let mut draw = drawer(self.shape.seed, Purpose::Churn, height.get());
        let power = draw::power(&mut draw);
        let (key, power) = match (height.get() / interval) % 3 {
            0 => {
                let members = state.next_validators.validators();
                let chosen = draw::below(&mut draw, members.len() as u64);
                let chosen = usize::try_from(chosen).expect("below a length");
                (members[chosen].pub_key.clone(), power)
            }
            1 => {
                let key = validator_key(self.shape.seed, self.next_key);
                self.next_key += 1;
                self.signers.add(key.clone());
                let public = key.public_key();
                self.joined.push_back(key);
                (public, power)
            }
            _ => (self.joined.pop_front()?.public_key(), 0),
        };
        let key = BASE64_STANDARD.encode(key.as_bytes());
        Some(Bytes::from(format!("val=ed25519!{key}!{power}")))
    }

    fn finish(mut self, home: &Path) -> anyhow::Result<MadeChain> {
        self.executor.flush()?;
        self.store.flush()?;
        let state = self.executor.state();
        Ok(MadeChain {
            home: home.to_owned(),
            chain_id: state.chain_id.clone(),
            initial_height: state.initial_height,
            height: state.last_block_height,
            last_block_id: state.last_block_id,
            app_hash: state.app_hash.clone(),
            block_bytes: self.block_bytes,
        })
    }
}

#[cfg(test)]
mod tests;
