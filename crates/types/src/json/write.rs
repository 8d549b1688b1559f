//! Writing.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    Block, BlockId, BlockIdFlag, BlockMeta, Commit, CommitSig, ConsensusParams, Data,
    DuplicateVoteEvidence, Evidence, ExtendedCommit, ExtendedCommitSig, Hash, Header, Height,
    LightBlock, LightClientAttackEvidence, Part, PartSetHeader, Proposal, Round, SignedHeader,
    SignedMsgType, Time, Validator, ValidatorSet, Vote, header::Version, merkle::Proof,
};

/// A value as the string of its text: 64-bit integers.
#[derive(Debug, Clone, Copy)]
pub struct Text<T>(pub T);

/// Bytes in upper-case hexadecimal; `""` when empty.
#[derive(Debug, Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

/// Bytes in base64; `null` when empty, as Go writes a slice that was never set.
#[derive(Debug, Clone, Copy)]
pub struct Base64<'a>(pub &'a [u8]);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode_upper(self.0))
    }
}

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() {
            serializer.serialize_none()
        } else {
            serializer.serialize_str(&BASE64_STANDARD.encode(self.0))
        }
    }
}

/// Bytes in base64; `""` when empty.
struct SetBase64<'a>(&'a [u8]);

impl Serialize for SetBase64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Hex(self.as_bytes()).serialize(serializer)
    }
}

impl Serialize for Height {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Round {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(self.get())
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Writes an object; each line is a field.
macro_rules! object {
    ($serializer:ident, $($name:literal: $value:expr),+ $(,)?) => {{
        let mut map = $serializer.serialize_map(None)?;
        $(map.serialize_entry($name, &$value)?;)+
        map.end()
    }};
}

impl Serialize for PartSetHeader {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, "total": self.total, "hash": self.hash)
    }
}

impl Serialize for BlockId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, "hash": self.hash, "parts": self.part_set_header)
    }
}

/// A version of 0 is left out.
impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, version) in [("block", self.block), ("app", self.app)] {
            if version != 0 {
                map.serialize_entry(name, &Text(version))?;
            }
        }
        map.end()
    }
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "version": self.version,
            "chain_id": self.chain_id,
            "height": self.height,
            "time": self.time,
            "last_block_id": self.last_block_id,
            "last_commit_hash": self.last_commit_hash,
            "data_hash": self.data_hash,
            "validators_hash": self.validators_hash,
            "next_validators_hash": self.next_validators_hash,
            "consensus_hash": self.consensus_hash,
            "app_hash": Hex(&self.app_hash),
            "last_results_hash": self.last_results_hash,
            "evidence_hash": self.evidence_hash,
            "proposer_address": Hex(&self.proposer_address),
        )
    }
}

impl Serialize for BlockIdFlag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(match *self {
            Self::Absent => 1,
            Self::Commit => 2,
            Self::Nil => 3,
            Self::Unknown(flag) => flag,
        })
    }
}

impl Serialize for CommitSig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "block_id_flag": self.block_id_flag,
            "validator_address": Hex(&self.validator_address),
            "timestamp": self.timestamp,
            "signature": Base64(&self.signature),
        )
    }
}

impl Serialize for Commit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "height": self.height,
            "round": self.round,
            "block_id": self.block_id,
            "signatures": self.signatures,
        )
    }
}

impl Serialize for ExtendedCommitSig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "CommitSig": self.commit_sig,
            "Extension": Base64(&self.extension),
            "ExtensionSignature": Base64(&self.extension_signature),
        )
    }
}

impl Serialize for ExtendedCommit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "Height": self.height,
            "Round": self.round,
            "BlockID": self.block_id,
            "ExtendedSignatures": self.extended_signatures,
        )
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let txs: Vec<_> = self.iter().map(SetBase64).collect();
        object!(serializer, "txs": txs)
    }
}

/// A block's evidence, in its own object.
struct EvidenceData<'a>(&'a [Evidence]);

impl Serialize for EvidenceData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, "evidence": self.0)
    }
}

impl Serialize for Block {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "header": self.header,
            "data": self.data,
            "evidence": EvidenceData(&self.evidence),
            "last_commit": self.last_commit,
        )
    }
}

impl Serialize for BlockMeta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "block_id": self.block_id,
            "block_size": Text(self.block_size),
            "header": self.header,
            "num_txs": Text(self.num_txs),
        )
    }
}

impl Serialize for Evidence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::DuplicateVote(evidence) => object!(serializer,
                "type": "tendermint/DuplicateVoteEvidence",
                "value": evidence,
            ),
            Self::LightClientAttack(evidence) => object!(serializer,
                "type": "tendermint/LightClientAttackEvidence",
                "value": evidence,
            ),
        }
    }
}

impl Serialize for DuplicateVoteEvidence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "vote_a": self.vote_a,
            "vote_b": self.vote_b,
            "TotalVotingPower": Text(self.total_voting_power),
            "ValidatorPower": Text(self.validator_power),
            "Timestamp": self.timestamp,
        )
    }
}

impl Serialize for LightClientAttackEvidence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "ConflictingBlock": self.conflicting_block,
            "CommonHeight": self.common_height,
            "ByzantineValidators": self.byzantine_validators,
            "TotalVotingPower": Text(self.total_voting_power),
            "Timestamp": self.timestamp,
        )
    }
}

impl Serialize for SignedHeader {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, "header": self.header, "commit": self.commit)
    }
}

impl Serialize for LightBlock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "signed_header": self.signed_header,
            "validator_set": self.validator_set,
        )
    }
}

impl Serialize for SignedMsgType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(match *self {
            Self::Unknown(number) => number,
            Self::Prevote => 1,
            Self::Precommit => 2,
            Self::Proposal => 32,
        })
    }
}

impl Serialize for Vote {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "type": self.vote_type,
            "height": self.height,
            "round": self.round,
            "block_id": self.block_id,
            "timestamp": self.timestamp,
            "validator_address": Hex(&self.validator_address),
            "validator_index": self.validator_index,
            "signature": Base64(&self.signature),
            "extension": Base64(&self.extension),
            "extension_signature": Base64(&self.extension_signature),
        )
    }
}

impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "Type": self.proposal_type,
            "height": self.height,
            "round": self.round,
            "pol_round": self.pol_round,
            "block_id": self.block_id,
            "timestamp": self.timestamp,
            "signature": Base64(&self.signature),
        )
    }
}

impl Serialize for Proof {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let aunts: Vec<_> = self.aunts.iter().map(|aunt| SetBase64(aunt)).collect();
        object!(serializer,
            "total": Text(self.total),
            "index": Text(self.index),
            "leaf_hash": Base64(&self.leaf_hash),
            "aunts": aunts,
        )
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "index": self.index,
            "bytes": Hex(&self.bytes),
            "proof": self.proof,
        )
    }
}

impl Serialize for Validator {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "address": Hex(self.address.as_bytes()),
            "pub_key": self.pub_key,
            "voting_power": Text(self.voting_power),
            "proposer_priority": Text(self.proposer_priority),
        )
    }
}

impl Serialize for ValidatorSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer,
            "validators": self.validators(),
            "proposer": self.proposer(),
        )
    }
}

/// An object of integers, written as strings.
struct Integers<'a, T>(&'a [(&'static str, T)]);

impl<T: fmt::Display> Serialize for Integers<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, &Text(value))?;
        }
        map.end()
    }
}

impl Serialize for ConsensusParams {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let block = [
            ("max_bytes", self.block.max_bytes),
            ("max_gas", self.block.max_gas),
        ];
        let evidence = [
            ("max_age_num_blocks", self.evidence.max_age_num_blocks),
            ("max_age_duration", self.evidence.max_age_duration),
            ("max_bytes", self.evidence.max_bytes),
        ];
        let height = self.abci.vote_extensions_enable_height;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("block", &Integers(&block))?;
        map.serialize_entry("evidence", &Integers(&evidence))?;
        map.serialize_entry("validator", &KeyTypes(&self.validator.pub_key_types))?;
        map.serialize_entry("version", &Integers(&[("app", self.version.app)]))?;
        map.serialize_entry(
            "abci",
            &Integers(&[("vote_extensions_enable_height", height)]),
        )?;
        if let Some(authority) = &self.authority {
            map.serialize_entry("authority", &Authority(authority))?;
        }
        map.end()
    }
}

struct KeyTypes<'a>(&'a [String]);

impl Serialize for KeyTypes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, "pub_key_types": self.0)
    }
}

struct Authority<'a>(&'a str);

impl Serialize for Authority<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, "authority": self.0)
    }
}
