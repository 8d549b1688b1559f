//! Between the domain's types and the application's vocabulary.

use bytes::Bytes;
use perihelion_abci::types::{
    self as abci, BlockIdFlag as WireFlag, MisbehaviorType, RequestFinalizeBlock, RequestInfo,
    RequestInitChain,
};
use perihelion_types::{
    Address, Block, BlockIdFlag, Evidence, Genesis, Hash, Validator, ValidatorSet,
};
use thiserror::Error;

use crate::{BLOCK_PROTOCOL, COMETBFT_VERSION, P2P_PROTOCOL};

/// A commit has one place for each validator; this one does not fit its set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("last commit of {got} places for a set of {expected} validators")]
pub struct LastCommitSize {
    /// Validators in the set.
    pub expected: usize,
    /// Places in the commit.
    pub got: usize,
}

pub(crate) fn info() -> RequestInfo {
    RequestInfo {
        version: COMETBFT_VERSION.to_owned(),
        block_version: BLOCK_PROTOCOL,
        p2p_version: P2P_PROTOCOL,
        abci_version: perihelion_abci::ABCI_VERSION.to_owned(),
    }
}

pub(crate) fn init_chain(genesis: &Genesis, validators: &ValidatorSet) -> RequestInitChain {
    RequestInitChain {
        time: Some(genesis.genesis_time.into()),
        chain_id: genesis.chain_id.clone(),
        consensus_params: Some((&genesis.consensus_params).into()),
        validators: validators
            .validators()
            .iter()
            .map(|validator| abci::ValidatorUpdate {
                pub_key: Some((&validator.pub_key).into()),
                power: validator.voting_power,
            })
            .collect(),
        app_state_bytes: genesis.app_state.clone(),
        initial_height: genesis.initial_height.get(),
    }
}

/// The request that executes `block`. `last_validators` are those of the height below; `initial`
/// is whether the block is the chain's first, whose last commit has no votes.
///
/// # Errors
/// When the last commit does not fit its validators.
pub(crate) fn finalize_block(
    block: &Block,
    hash: Hash,
    last_validators: &ValidatorSet,
    initial: bool,
) -> Result<RequestFinalizeBlock, LastCommitSize> {
    let header = &block.header;
    Ok(RequestFinalizeBlock {
        txs: block.data.to_vec(),
        decided_last_commit: Some(if initial {
            abci::CommitInfo::default()
        } else {
            commit_info(block, last_validators)?
        }),
        misbehavior: block.evidence.iter().flat_map(misbehavior).collect(),
        hash: hash_bytes(hash),
        height: header.height.get(),
        time: Some(header.time.into()),
        next_validators_hash: hash_bytes(header.next_validators_hash),
        proposer_address: header.proposer_address.clone(),
    })
}

fn commit_info(block: &Block, set: &ValidatorSet) -> Result<abci::CommitInfo, LastCommitSize> {
    let (round, signatures) = block.last_commit.as_ref().map_or((0, &[][..]), |commit| {
        (commit.round.get(), &commit.signatures[..])
    });
    if signatures.len() != set.len() {
        return Err(LastCommitSize {
            expected: set.len(),
            got: signatures.len(),
        });
    }
    // One piece of memory for all addresses.
    let addresses = set.validators().iter();
    let addresses = addresses
        .flat_map(|member| member.address.as_bytes())
        .copied();
    let mut addresses: Bytes = addresses.collect();
    let votes = set.validators().iter().zip(signatures);
    Ok(abci::CommitInfo {
        round,
        votes: votes
            .map(|(member, sig)| abci::VoteInfo {
                validator: Some(abci::Validator {
                    address: addresses.split_to(member.address.as_bytes().len()),
                    power: member.voting_power,
                }),
                block_id_flag: flag_number(sig.block_id_flag),
            })
            .collect(),
    })
}

/// One entry for each validator that `evidence` accuses.
fn misbehavior(evidence: &Evidence) -> Vec<abci::Misbehavior> {
    match evidence {
        Evidence::DuplicateVote(duplicate) => vec![abci::Misbehavior {
            r#type: MisbehaviorType::DuplicateVote.into(),
            validator: Some(abci::Validator {
                address: duplicate.vote_a.validator_address.clone(),
                power: duplicate.validator_power,
            }),
            height: duplicate.vote_a.height.get(),
            time: Some(duplicate.timestamp.into()),
            total_voting_power: duplicate.total_voting_power,
        }],
        Evidence::LightClientAttack(attack) => attack
            .byzantine_validators
            .iter()
            .map(|culprit| abci::Misbehavior {
                r#type: MisbehaviorType::LightClientAttack.into(),
                validator: Some(key_validator(culprit)),
                height: attack.common_height.get(),
                time: Some(attack.timestamp.into()),
                total_voting_power: attack.total_voting_power,
            })
            .collect(),
    }
}

/// By the address of its key, whatever address it was given.
fn key_validator(of: &Validator) -> abci::Validator {
    validator(&of.pub_key.address(), of.voting_power)
}

fn validator(address: &Address, power: i64) -> abci::Validator {
    abci::Validator {
        address: Bytes::copy_from_slice(address.as_bytes()),
        power,
    }
}

fn flag_number(flag: BlockIdFlag) -> i32 {
    match flag {
        BlockIdFlag::Absent => WireFlag::Absent.into(),
        BlockIdFlag::Commit => WireFlag::Commit.into(),
        BlockIdFlag::Nil => WireFlag::Nil.into(),
        BlockIdFlag::Unknown(number) => number,
    }
}

fn hash_bytes(hash: Hash) -> Bytes {
    Bytes::copy_from_slice(hash.as_bytes())
}
