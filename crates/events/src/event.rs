//! What happens, and what is told of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use perihelion_proto::tendermint::abci::{Event, ExecTxResult, ResponseFinalizeBlock};
use perihelion_types::{Address, Block, BlockId, FetchedBlock, Hash, Height, Round, Vote};
use prost::Message as _;

use crate::{EVENT_KEY, TX_HASH_KEY, TX_HEIGHT_KEY};

/// A block that was applied and stored.
#[derive(Debug, Clone)]
pub struct AppliedBlock {
    /// The block.
    pub block: Block,
    /// The id under which it was decided.
    pub block_id: BlockId,
    /// The application's answer to it.
    pub response: ResponseFinalizeBlock,
    /// Bytes that it holds, about.
    size: usize,
}

impl AppliedBlock {
    /// What is told of `block`. What the block holds beside its bytes, such as its share of a
    /// budget, is not held by this: subscribers may keep it for long.
    #[must_use]
    pub fn new(block: &FetchedBlock, response: ResponseFinalizeBlock) -> Self {
        Self {
            block: block.block().clone(),
            block_id: block.block_id(),
            size: block.memory().saturating_add(response.encoded_len()),
            response,
        }
    }

    pub(crate) const fn size(&self) -> usize {
        self.size
    }
}

/// A step of consensus. `step` is CometBFT's name of the step (`RoundStepPropose`).
#[derive(Debug, Clone)]
pub enum RoundEvent {
    /// Another height, round or step has begun.
    NewRoundStep {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The step.
        step: &'static str,
    },
    /// Another round has begun.
    NewRound {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The step.
        step: &'static str,
        /// Who proposes.
        proposer: Address,
        /// Its place in the validator set.
        index: i32,
    },
    /// The proposed block is complete.
    CompleteProposal {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The step.
        step: &'static str,
        /// The block.
        block_id: BlockId,
    },
    /// A block could be decided: more than 2/3 have prevoted it.
    ValidBlock {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The step.
        step: &'static str,
    },
    /// More than 2/3 have prevoted one block, or nil.
    Polka {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The step.
        step: &'static str,
    },
    /// Locked on a block.
    Lock {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The step.
        step: &'static str,
    },
    /// Locked on the same block in a later round.
    Relock {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The step.
        step: &'static str,
    },
    /// No longer locked.
    Unlock {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The step.
        step: &'static str,
    },
    /// No proposal came in time.
    TimeoutPropose {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The step.
        step: &'static str,
    },
    /// No more votes came in time.
    TimeoutWait {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The step.
        step: &'static str,
    },
    /// A vote was added.
    Vote(Arc<Vote>),
}

impl RoundEvent {
    /// The names of all of them.
    pub(crate) const NAMES: [&'static str; 11] = [
        "NewRoundStep",
        "NewRound",
        "CompleteProposal",
        "ValidBlock",
        "Polka",
        "Lock",
        "Relock",
        "Unlock",
        "TimeoutPropose",
        "TimeoutWait",
        "Vote",
    ];

    /// CometBFT's name of the event.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NewRoundStep { .. } => "NewRoundStep",
            Self::NewRound { .. } => "NewRound",
            Self::CompleteProposal { .. } => "CompleteProposal",
            Self::ValidBlock { .. } => "ValidBlock",
            Self::Polka { .. } => "Polka",
            Self::Lock { .. } => "Lock",
            Self::Relock { .. } => "Relock",
            Self::Unlock { .. } => "Unlock",
            Self::TimeoutPropose { .. } => "TimeoutPropose",
            Self::TimeoutWait { .. } => "TimeoutWait",
            Self::Vote(_) => "Vote",
        }
    }
}

/// The values of an event's attributes by `type.key`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(BTreeMap<Vec<u8>, Vec<Bytes>>);

impl Attributes {
    /// Those that the application gave its events, indexed or not. What has no type or no key is
    /// passed over.
    #[must_use]
    pub fn of(events: &[Event]) -> Self {
        let mut attributes = Self::default();
        for event in events.iter().filter(|event| !event.r#type.is_empty()) {
            for attribute in event.attributes.iter().filter(|it| !it.key.is_empty()) {
                let key = [event.r#type.as_bytes(), b".", &attribute.key].concat();
                attributes.add(key, attribute.value.clone());
            }
        }
        attributes
    }

    /// Adds a value behind those that the key has.
    pub fn add(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) {
        self.0.entry(key.into()).or_default().push(value.into());
    }

    /// The values of a key, in the order in which they were given.
    #[must_use]
    pub fn values(&self, key: &[u8]) -> &[Bytes] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether there is an event of this type: what stands before the last dot of a key.
    #[must_use]
    pub fn has_type(&self, kind: &[u8]) -> bool {
        let prefix = [kind, b"."].concat();
        self.0
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .any(|(key, _)| !key[prefix.len()..].contains(&b'.'))
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[Bytes])> {
        self.0.iter().map(|(key, values)| (&key[..], &values[..]))
    }

    fn named(mut self, name: &'static str) -> Self {
        self.add(EVENT_KEY, Bytes::from_static(name.as_bytes()));
        self
    }

    pub(crate) fn of_name(name: &'static str) -> Self {
        Self::default().named(name)
    }

    pub(crate) fn of_events(events: &[Event], name: &'static str) -> Self {
        Self::of(events).named(name)
    }

    pub(crate) fn of_tx(height: Height, tx: &[u8], events: &[Event]) -> Self {
        let mut attributes = Self::of_events(events, "Tx");
        attributes.add(TX_HASH_KEY, Hash::of(tx).to_string());
        attributes.add(TX_HEIGHT_KEY, height.to_string());
        attributes
    }
}

/// What happened, for who asked for it.
#[derive(Debug, Clone)]
pub enum EventData {
    /// A block was applied.
    NewBlock(Arc<AppliedBlock>),
    /// The same; only its header is told.
    NewBlockHeader(Arc<AppliedBlock>),
    /// The same; only its events are told.
    NewBlockEvents(Arc<AppliedBlock>),
    /// A piece of evidence was committed.
    NewEvidence {
        /// The block that has it.
        block: Arc<AppliedBlock>,
        /// Its place in the block.
        index: usize,
    },
    /// A transaction was executed.
    Tx {
        /// The block's height.
        height: Height,
        /// The place in the block, from 0.
        index: u32,
        /// The transaction; a copy, so that it does not keep its block in memory.
        tx: Bytes,
        /// Its result; a copy too.
        result: ExecTxResult,
    },
    /// The application has changed validators.
    ValidatorSetUpdates(Arc<AppliedBlock>),
    /// A step of consensus.
    Round(RoundEvent),
}

impl EventData {
    /// A transaction's event, which shares no memory with its block.
    pub(crate) fn of_tx(height: Height, index: u32, tx: &[u8], result: &ExecTxResult) -> Self {
        let copied = ExecTxResult::decode(Bytes::from(result.encode_to_vec()));
        Self::Tx {
            height,
            index,
            tx: Bytes::copy_from_slice(tx),
            // What was encoded can be decoded.
            result: copied.unwrap_or_else(|_| result.clone()),
        }
    }

    /// Bytes that it keeps in memory, about.
    fn size(&self) -> usize {
        match self {
            Self::NewBlock(block)
            | Self::NewBlockHeader(block)
            | Self::NewBlockEvents(block)
            | Self::NewEvidence { block, .. }
            | Self::ValidatorSetUpdates(block) => block.size(),
            Self::Tx { tx, result, .. } => tx.len() + result.encoded_len(),
            Self::Round(_) => 0,
        }
    }
}

/// One event as all its subscribers share it.
#[derive(Debug)]
pub struct Message {
    data: EventData,
    attributes: Attributes,
    size: usize,
    text: OnceLock<String>,
}

/// Bytes that a message takes beside its content, about.
const OVERHEAD: usize = 512;

impl Message {
    pub(crate) fn new(data: EventData, attributes: Attributes) -> Self {
        let size = data.size().saturating_add(OVERHEAD);
        Self {
            data,
            attributes,
            size,
            text: OnceLock::new(),
        }
    }

    /// What happened.
    #[must_use]
    pub const fn data(&self) -> &EventData {
        &self.data
    }

    /// What queries were compared with.
    #[must_use]
    pub const fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Bytes that it keeps in memory, about, without its text.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The message as text, written by the first who asks for it.
    pub fn text(&self, write: impl FnOnce(&Self) -> String) -> &str {
        self.text.get_or_init(|| write(self))
    }
}
