//! A chain with a small deterministic application, without a shell.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_crypto::PrivateKey;
use perihelion_types::{
    Address, Block, BlockId, Commit, ConsensusParams, FetchedBlock, Genesis, GenesisValidator,
    Hash, Height, PartSet, Proposal, Round, Rules, SignedMsgType, State, Time, Validator,
    ValidatorSet, Vote,
};

pub(crate) const CHAIN_ID: &str = "simulated";

/// Every transaction but these; the application rejects a block with one.
pub(crate) const REJECTED_TX: &[u8] = b"reject";

/// The key of validator `number`.
pub(crate) fn key(number: usize) -> PrivateKey {
    PrivateKey::ed25519_from_secret(format!("validator {number}").as_bytes())
}

/// Validators with these powers, and the keys in the set's order.
pub(crate) struct Validators {
    pub(crate) keys: Vec<PrivateKey>,
    pub(crate) genesis: Arc<State>,
}

impl Validators {
    /// `extensions`: the height from which precommits carry them, 0 for never.
    pub(crate) fn new(powers: &[i64], extensions: i64) -> Self {
        let mut params = ConsensusParams::default_v038();
        params.abci.vote_extensions_enable_height = extensions;
        let genesis = Genesis {
            genesis_time: Time::new(1_700_000_000, 0),
            chain_id: CHAIN_ID.to_owned(),
            initial_height: Height::new(1),
            consensus_params: params,
            validators: (0..)
                .zip(powers)
                .map(|(number, power)| GenesisValidator {
                    address: key(number).public_key().address(),
                    pub_key: key(number).public_key(),
                    power: *power,
                    name: String::new(),
                })
                .collect(),
            app_hash: Bytes::new(),
            app_state: Bytes::new(),
        };
        let state = State::from_genesis(&genesis, "0").unwrap();
        let all: Vec<PrivateKey> = (0..powers.len()).map(key).collect();
        let keys = state
            .validators
            .validators()
            .iter()
            .map(|validator| {
                let mut all = all.iter();
                all.find(|key| key.public_key() == validator.pub_key)
                    .unwrap()
                    .clone()
            })
            .collect();
        Self {
            keys,
            genesis: Arc::new(state),
        }
    }
}

/// The set as it is in `round` of its height.
pub(crate) fn rotated(set: &ValidatorSet, round: i32) -> ValidatorSet {
    let mut set = set.clone();
    if round > 0 {
        set.increment_proposer_priority(round).unwrap();
    }
    set
}

/// Who proposes in `round`.
pub(crate) fn proposer(set: &ValidatorSet, round: i32) -> Address {
    rotated(set, round).proposer().unwrap().address
}

/// A block as it crosses the network.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) fetched: Arc<FetchedBlock>,
    pub(crate) parts: Arc<PartSet>,
}

impl Built {
    pub(crate) fn of(block: &Block) -> Self {
        let parts = PartSet::from_data(block.encode());
        Self {
            fetched: Arc::new(FetchedBlock::from_parts(&parts, Rules::V038).unwrap()),
            parts: Arc::new(parts),
        }
    }

    pub(crate) fn id(&self) -> BlockId {
        self.fetched.block_id()
    }
}

/// The block after `state` with these transactions.
pub(crate) fn block(state: &State, last_commit: Commit, txs: &[&[u8]], proposer: Address) -> Built {
    Built::of(&raw_block(state, last_commit, txs, proposer))
}

pub(crate) fn raw_block(
    state: &State,
    last_commit: Commit,
    txs: &[&[u8]],
    proposer: Address,
) -> Block {
    let made = state.make_block(txs, last_commit, Vec::new(), proposer, Rules::V038);
    made.unwrap()
}

pub(crate) fn no_commit() -> Commit {
    Commit {
        height: Height::ZERO,
        round: Round::ZERO,
        block_id: BlockId::NIL,
        signatures: Vec::new(),
    }
}

/// Whether `block` is the one that follows `state`: made again, it is the same. The signatures of
/// its last commit are verified where `verify` says so.
pub(crate) fn validate(
    state: &State,
    block: &Block,
    verify: impl FnOnce(&Commit) -> bool,
) -> Result<(), String> {
    let commit = block.last_commit.clone().ok_or("no last commit")?;
    let proposer = Address::try_from(&block.header.proposer_address[..]).map_err(|_| "address")?;
    if state.validators.by_address(&proposer).is_none() {
        return Err("the proposer is no validator".to_owned());
    }
    let is_first = block.header.height == state.initial_height;
    if is_first != commit.signatures.is_empty() {
        return Err("last commit of the initial height".to_owned());
    }
    if !is_first && (commit.block_id != state.last_block_id || !verify(&commit)) {
        return Err("the last commit does not hold".to_owned());
    }
    let again = state
        .make_block(
            block.data.iter(),
            commit,
            block.evidence.clone(),
            proposer,
            Rules::V038,
        )
        .map_err(|error| error.to_string())?;
    if again == *block {
        Ok(())
    } else {
        Err("header does not follow from the state".to_owned())
    }
}

/// Whether the application accepts it.
pub(crate) fn accepts(block: &Block) -> bool {
    block.data.iter().all(|tx| tx != REJECTED_TX)
}

/// Executes a block: transactions change the application's hash; `power:N:P` gives validator N the
/// power P.
pub(crate) fn execute(state: &State, fetched: &FetchedBlock) -> State {
    let block = fetched.block();
    let mut app_hash = state.app_hash.clone();
    let mut next = (*state.next_validators).clone();
    for tx in block.data.iter() {
        let text = [&app_hash[..], tx].concat();
        app_hash = Hash::of(&text).to_bytes();
        if let Some((number, power)) = power_change(tx) {
            let _ = next.update(vec![Validator::new(key(number).public_key(), power)]);
        }
    }
    next.increment_proposer_priority(1).unwrap();
    State {
        last_block_height: block.header.height,
        last_block_id: fetched.block_id(),
        last_block_time: block.header.time,
        next_validators: Arc::new(next),
        validators: Arc::clone(&state.next_validators),
        last_validators: Arc::clone(&state.validators),
        app_hash,
        ..state.clone()
    }
}

fn power_change(tx: &[u8]) -> Option<(usize, i64)> {
    let text = std::str::from_utf8(tx).ok()?;
    let (number, power) = text.strip_prefix("power:")?.split_once(':')?;
    Some((number.parse().ok()?, power.parse().ok()?))
}

/// A signed vote of the validator at `index` of `set`.
pub(crate) fn vote(
    key: &PrivateKey,
    set: &ValidatorSet,
    vote_type: SignedMsgType,
    (height, round): (Height, i32),
    block_id: BlockId,
    time: Time,
) -> Vote {
    let address = key.public_key().address();
    let (index, _) = set.by_address(&address).unwrap();
    let mut vote = Vote {
        vote_type,
        height,
        round: Round::new(round),
        block_id,
        timestamp: time,
        validator_address: Bytes::copy_from_slice(address.as_bytes()),
        validator_index: i32::try_from(index).unwrap(),
        signature: Bytes::new(),
        extension: Bytes::new(),
        extension_signature: Bytes::new(),
    };
    vote.signature = key.sign(&vote.sign_bytes(CHAIN_ID));
    vote
}

/// The same vote with a signed extension.
pub(crate) fn extended(key: &PrivateKey, mut vote: Vote, extension: &[u8]) -> Vote {
    vote.extension = Bytes::copy_from_slice(extension);
    vote.extension_signature = key.sign(&vote.extension_sign_bytes(CHAIN_ID));
    vote
}

/// A signed proposal.
pub(crate) fn proposal(
    key: &PrivateKey,
    (height, round): (Height, i32),
    pol_round: i32,
    block_id: BlockId,
    time: Time,
) -> Proposal {
    let mut proposal = Proposal {
        proposal_type: SignedMsgType::Proposal,
        height,
        round: Round::new(round),
        pol_round: Round::new(pol_round),
        block_id,
        timestamp: time,
        signature: Bytes::new(),
    };
    proposal.signature = key.sign(&proposal.sign_bytes(CHAIN_ID));
    proposal
}
