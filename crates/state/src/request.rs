//! Between the domain's types and the application's vocabulary.

use bytes::{Bytes, BytesMut};
use perihelion_abci::types::{
    self as abci, BlockIdFlag as WireFlag, MisbehaviorType, RequestExtendVote,
    RequestFinalizeBlock, RequestInfo, RequestInitChain, RequestPrepareProposal,
    RequestProcessProposal, RequestVerifyVoteExtension,
};
use perihelion_types::{
    Address, Block, BlockIdFlag, Evidence, ExtendedCommit, Genesis, Hash, Height, Validator,
    ValidatorSet,
};
use thiserror::Error;

use crate::{BLOCK_PROTOCOL, COMETBFT_VERSION, P2P_PROTOCOL, ProposalFault};

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
        decided_last_commit: Some(commit_info(block, last_validators, initial)?),
        misbehavior: block.evidence.iter().flat_map(misbehavior).collect(),
        hash: hash_bytes(hash),
        height: header.height.get(),
        time: Some(header.time.into()),
        next_validators_hash: hash_bytes(header.next_validators_hash),
        proposer_address: header.proposer_address.clone(),
    })
}

/// The request that has the application judge a proposed `block`.
///
/// # Errors
/// As [`finalize_block`].
pub(crate) fn process_proposal(
    block: &Block,
    hash: Hash,
    last_validators: &ValidatorSet,
    initial: bool,
) -> Result<RequestProcessProposal, LastCommitSize> {
    let header = &block.header;
    Ok(RequestProcessProposal {
        txs: block.data.to_vec(),
        proposed_last_commit: Some(commit_info(block, last_validators, initial)?),
        misbehavior: block.evidence.iter().flat_map(misbehavior).collect(),
        hash: hash_bytes(hash),
        height: header.height.get(),
        time: Some(header.time.into()),
        next_validators_hash: hash_bytes(header.next_validators_hash),
        proposer_address: header.proposer_address.clone(),
    })
}

/// The request for the extension of a precommit for `block`.
///
/// # Errors
/// As [`finalize_block`].
pub(crate) fn extend_vote(
    block: &Block,
    hash: Hash,
    last_validators: &ValidatorSet,
    initial: bool,
) -> Result<RequestExtendVote, LastCommitSize> {
    let header = &block.header;
    Ok(RequestExtendVote {
        hash: hash_bytes(hash),
        height: header.height.get(),
        time: Some(header.time.into()),
        txs: block.data.to_vec(),
        proposed_last_commit: Some(commit_info(block, last_validators, initial)?),
        misbehavior: block.evidence.iter().flat_map(misbehavior).collect(),
        next_validators_hash: hash_bytes(header.next_validators_hash),
        proposer_address: header.proposer_address.clone(),
    })
}

/// The request that has the application judge the extension of a precommit for the block with
/// `hash`.
pub(crate) fn verify_vote_extension(
    hash: Hash,
    height: Height,
    validator_address: Bytes,
    vote_extension: Bytes,
) -> RequestVerifyVoteExtension {
    RequestVerifyVoteExtension {
        hash: hash_bytes(hash),
        validator_address,
        height: height.get(),
        vote_extension,
    }
}

/// The request that has the application arrange `txs` for a block to propose, of which `block` is
/// all the rest.
pub(crate) fn prepare_proposal(
    block: &Block,
    txs: Vec<Bytes>,
    max_tx_bytes: i64,
    local_last_commit: abci::ExtendedCommitInfo,
) -> RequestPrepareProposal {
    let header = &block.header;
    RequestPrepareProposal {
        max_tx_bytes,
        txs,
        local_last_commit: Some(local_last_commit),
        misbehavior: block.evidence.iter().flat_map(misbehavior).collect(),
        height: header.height.get(),
        time: Some(header.time.into()),
        next_validators_hash: hash_bytes(header.next_validators_hash),
        proposer_address: header.proposer_address.clone(),
    }
}

/// The precommits of `set` for the block below, with their extensions where those are `enabled`.
///
/// # Errors
/// When the commit does not fit its validators, or an extension is missing or too much.
pub(crate) fn extended_commit_info(
    commit: &ExtendedCommit,
    set: &ValidatorSet,
    enabled: bool,
) -> Result<abci::ExtendedCommitInfo, ProposalFault> {
    let places = &commit.extended_signatures;
    if places.len() != set.len() {
        return Err(ProposalFault::LastCommit(LastCommitSize {
            expected: set.len(),
            got: places.len(),
        }));
    }
    let mut votes = Vec::with_capacity(places.len());
    for (index, (member, place)) in set.validators().iter().zip(places).enumerate() {
        let sig = &place.commit_sig;
        let is_absent = sig.block_id_flag == BlockIdFlag::Absent;
        if !is_absent && sig.validator_address[..] != member.address.as_bytes()[..] {
            return Err(ProposalFault::Address { index });
        }
        place
            .ensure_extension(enabled)
            .map_err(|error| ProposalFault::Extension { index, error })?;
        votes.push(abci::ExtendedVoteInfo {
            validator: Some(validator(&member.address, member.voting_power)),
            vote_extension: place.extension.clone(),
            extension_signature: place.extension_signature.clone(),
            block_id_flag: flag_number(sig.block_id_flag),
        });
    }
    Ok(abci::ExtendedCommitInfo {
        round: commit.round.get(),
        votes,
    })
}

fn commit_info(
    block: &Block,
    set: &ValidatorSet,
    initial: bool,
) -> Result<abci::CommitInfo, LastCommitSize> {
    if initial {
        return Ok(abci::CommitInfo::default());
    }
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
    let mut addresses = BytesMut::with_capacity(set.len() * Address::LENGTH);
    for member in set.validators() {
        addresses.extend_from_slice(member.address.as_bytes());
    }
    let mut addresses = addresses.freeze();
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
