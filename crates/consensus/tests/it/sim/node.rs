//! A node: the state machine, and a shell with a disk that survives crashes.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use perihelion_certify::CertifiedBlock;
use perihelion_consensus::{
    Answer, Consensus, ConsensusConfig, LastCommit, Now, SignRequest, StartError, Step, Verify,
    WalMessage,
};
use perihelion_crypto::PrivateKey;
use perihelion_types::{Height, NodeId, PartSet, PeerId, Round, SignedMsgType, State, Time};

use crate::{
    chain::{self, CHAIN_ID},
    lone::start,
};

pub(crate) struct Node {
    pub(crate) key: PrivateKey,
    pub(crate) peer: PeerId,
    pub(crate) disk: Disk,
    /// `None` while it is down.
    pub(crate) core: Option<Consensus>,
    /// Counts the restarts.
    pub(crate) life: u32,
}

/// What a crash leaves.
pub(crate) struct Disk {
    pub(crate) wal: Vec<WalMessage>,
    /// How much of the log survives a power cut.
    pub(crate) synced: usize,
    /// The state after the last executed block.
    pub(crate) state: Arc<State>,
    /// From height 1.
    pub(crate) blocks: Vec<Arc<CertifiedBlock>>,
    pub(crate) parts: Vec<PartSet>,
    pub(crate) signed: SignState,
}

/// A signer's memory: it never signs two things in one place.
#[derive(Default)]
pub(crate) struct SignState {
    last: Option<Signed>,
    /// Requests for something else than was signed in the same place.
    pub(crate) conflicts: u32,
}

struct Signed {
    place: (Height, Round, Step),
    /// The bytes without their time.
    bytes: Vec<u8>,
    time: Time,
    signature: Bytes,
}

impl Node {
    pub(crate) fn new(number: usize, key: PrivateKey, genesis: &Arc<State>) -> Self {
        Self {
            key,
            peer: peer_id(number),
            disk: Disk {
                wal: Vec::new(),
                synced: 0,
                state: Arc::clone(genesis),
                blocks: Vec::new(),
                parts: Vec::new(),
                signed: SignState::default(),
            },
            core: None,
            life: 0,
        }
    }

    /// A new state machine at what the disk has, and the records to replay.
    pub(crate) fn boot(
        &mut self,
        now: Now,
        config: &ConsensusConfig,
        verify: Arc<dyn Verify>,
    ) -> Result<Vec<WalMessage>, StartError> {
        let disk = &mut self.disk;
        // A block that was stored and not executed.
        if let Some(last) = disk.blocks.last()
            && last.height() > disk.state.last_block_height
        {
            disk.state = Arc::new(chain::execute(&disk.state, last.fetched()));
        }
        let height = disk.state.last_block_height;
        let extensions = disk.state.consensus_params.vote_extensions_enabled(height);
        let last_commit = match disk.blocks.last() {
            None => LastCommit::None,
            Some(last) if extensions => {
                LastCommit::Extended(last.extended_commit().expect("stored with it").clone())
            }
            Some(last) => LastCommit::Plain(last.commit().expect("stored with it").clone()),
        };
        let app_hash = disk
            .blocks
            .last()
            .map(|last| last.block().header.app_hash.clone());
        let start = start(&disk.state, Some(&self.key), last_commit, app_hash);
        self.core = Some(Consensus::with_verifier(
            now,
            config.clone(),
            start,
            verify,
        )?);
        self.life += 1;
        Ok(disk.records_of(height))
    }

    /// Power is gone: of what was not synced, `kept` records are there.
    pub(crate) fn crash(&mut self, kept: usize) {
        self.core = None;
        let length = (self.disk.synced + kept).min(self.disk.wal.len());
        self.disk.wal.truncate(length);
        self.disk.synced = length;
    }
}

impl Disk {
    /// What the log has behind the end of `height`.
    fn records_of(&mut self, height: Height) -> Vec<WalMessage> {
        if height == Height::ZERO {
            return self.wal.clone();
        }
        let end = WalMessage::EndHeight(height);
        match self.wal.iter().rposition(|record| *record == end) {
            Some(at) => self.wal[at + 1..].to_vec(),
            // The crash came between storing the block and this record.
            None => {
                self.wal.push(end);
                self.synced = self.wal.len();
                Vec::new()
            }
        }
    }
}

impl SignState {
    /// The round of what was signed last, if that was at this height.
    pub(crate) fn last_round(&self, height: Height) -> Option<Round> {
        let (at, round, _) = self.last.as_ref()?.place;
        (at == height).then_some(round)
    }

    pub(crate) fn sign(&mut self, key: &PrivateKey, request: SignRequest) -> Answer {
        match request {
            SignRequest::Vote {
                mut vote,
                extension,
            } => {
                let step = if vote.vote_type == SignedMsgType::Prevote {
                    Step::Prevote
                } else {
                    Step::Precommit
                };
                let place = (vote.height, vote.round, step);
                let mut timeless = vote.clone();
                timeless.timestamp = Time::ZERO;
                let bytes = timeless.sign_bytes(CHAIN_ID);
                let message = vote.sign_bytes(CHAIN_ID);
                let Some((time, signature)) =
                    self.decide(key, place, bytes, vote.timestamp, &message)
                else {
                    return Answer::NotSigned;
                };
                vote.timestamp = time;
                vote.signature = signature;
                if extension {
                    vote.extension_signature = key.sign(&vote.extension_sign_bytes(CHAIN_ID));
                }
                Answer::SignedVote(vote)
            }
            SignRequest::Proposal(mut proposal) => {
                let place = (proposal.height, proposal.round, Step::Propose);
                let mut timeless = proposal.clone();
                timeless.timestamp = Time::ZERO;
                let bytes = timeless.sign_bytes(CHAIN_ID);
                let message = proposal.sign_bytes(CHAIN_ID);
                let time = proposal.timestamp;
                let Some((time, signature)) = self.decide(key, place, bytes, time, &message) else {
                    return Answer::NotSigned;
                };
                proposal.timestamp = time;
                proposal.signature = signature;
                Answer::SignedProposal(proposal)
            }
        }
    }

    fn decide(
        &mut self,
        key: &PrivateKey,
        place: (Height, Round, Step),
        bytes: Vec<u8>,
        time: Time,
        message: &[u8],
    ) -> Option<(Time, Bytes)> {
        if let Some(last) = &self.last {
            if place < last.place {
                return None;
            }
            if place == last.place {
                if bytes == last.bytes {
                    return Some((last.time, last.signature.clone()));
                }
                // Blocks are not made the same twice; votes must be.
                if place.2 != Step::Propose {
                    self.conflicts += 1;
                }
                return None;
            }
        }
        let signature = key.sign(message);
        self.last = Some(Signed {
            place,
            bytes,
            time,
            signature: signature.clone(),
        });
        Some((time, signature))
    }
}

/// The peer id of node `number`.
pub(crate) fn peer_id(number: usize) -> PeerId {
    NodeId::new([u8::try_from(number).unwrap(); 20])
}

/// What honest nodes have signed: one thing in each place.
#[derive(Default)]
pub(crate) struct Ledger(BTreeMap<(usize, Height, Round, i32), Vec<u8>>);

impl Ledger {
    /// Whether `answer` is no second thing in its place.
    pub(crate) fn admits(&mut self, node: usize, answer: &Answer) -> bool {
        let (place, bytes) = match answer {
            Answer::SignedVote(vote) => (
                (node, vote.height, vote.round, vote.vote_type.to_i32()),
                vote.sign_bytes(CHAIN_ID),
            ),
            Answer::SignedProposal(proposal) => (
                (node, proposal.height, proposal.round, 32),
                proposal.sign_bytes(CHAIN_ID),
            ),
            _ => return true,
        };
        *self.0.entry(place).or_insert_with(|| bytes.clone()) == bytes
    }
}
