//! The pool as its users have it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use perihelion_certify::{EvidenceError, History, evidence::is_expired, verify_evidence};
use perihelion_proto::tendermint::types as pb;
use perihelion_state::StoreHistory;
use perihelion_store::{PendingEvidence, Store, StoreError};
use perihelion_types::{Evidence, Hash, Height, Rules, RulesByHeight, State, Vote};
use prost::Message as _;
use tokio::sync::watch;

use crate::{
    AddError,
    copies::is_changed,
    reported::{MAX_REPORTED, MAX_REPORTED_OF_ONE_VOTER, Pair},
    wire,
};

/// Pieces of evidence that wait at most. Each was verified, so each took a validator's misbehaviour;
/// more are dropped, and come again with a later block's gossip.
pub const MAX_PENDING: usize = 4_096;
/// Bytes of them at most.
pub const MAX_PENDING_BYTES: usize = 32 << 20;
/// Pairs of votes by one validator that wait at most: it can sign as many as it likes, and is not to
/// keep out what others did.
pub const MAX_PENDING_OF_ONE_VOTER: usize = 8;

/// Evidence that waits for a block. Shared as `Arc<EvidencePool>`; every call blocks, for as long
/// as reading the chain and checking signatures takes.
pub struct EvidencePool {
    store: Arc<Store>,
    rules: RulesByHeight,
    inner: Mutex<Inner>,
    added: watch::Sender<u64>,
}

/// In a block and in the store, evidence is known by this.
type Key = (Height, Hash);

struct Inner {
    /// After the last block.
    state: Arc<State>,
    pending: BTreeMap<Key, Arc<Pending>>,
    bytes: usize,
    /// Votes that wait for their block, or for room.
    reported: Vec<Pair>,
}

/// A piece of evidence that waits.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) evidence: Evidence,
    pub(crate) hash: Hash,
    /// The message that passes it on, which is also the list of evidence with it alone.
    pub(crate) message: Bytes,
    /// The height that a peer must work on to have all that it needs to verify this.
    pub(crate) peers_from: Height,
}

/// What became of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It waits for a block now.
    New,
    /// It waited already.
    Known,
    /// A block has it.
    Committed,
    /// It is valid, and too much waits.
    NoRoom,
    /// It is valid, and a changed copy of two votes: with another index than their validator's, or
    /// an extension that it did not sign. It is passed over: of one double vote there would be any
    /// number of them.
    Changed,
}

/// What a block changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Updated {
    /// Pieces made of votes that consensus had reported.
    pub made: usize,
    /// Pieces that a block has now.
    pub committed: usize,
    /// Pieces that are too old now.
    pub expired: usize,
}

impl EvidencePool {
    /// The pool after the last block of `state`, with what the store kept.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn open(
        store: Arc<Store>,
        state: Arc<State>,
        rules: RulesByHeight,
    ) -> Result<Self, StoreError> {
        let mut inner = Inner {
            state,
            pending: BTreeMap::new(),
            bytes: 0,
            reported: Vec::new(),
        };
        let mut unreadable = Vec::new();
        for kept in store.load_pending_evidence(MAX_PENDING)? {
            // It was judged when it was kept.
            let decoded = pb::Evidence::decode(kept.bytes)
                .map_err(Into::into)
                .and_then(|evidence| Evidence::from_proto(evidence, Rules::STORED));
            match decoded {
                Ok(evidence) => inner.insert(Pending::new(evidence, inner.state.last_block_height)),
                Err(error) => {
                    tracing::warn!(height = kept.height.get(), %error, "evidence dropped");
                    unreadable.push((kept.height, kept.hash));
                }
            }
        }
        if !unreadable.is_empty() {
            store.remove_pending_evidence(&unreadable)?;
        }
        let pool = Self {
            store,
            rules,
            inner: Mutex::new(inner),
            added: watch::Sender::new(0),
        };
        pool.remove_settled(&mut pool.lock(), None)?;
        Ok(pool)
    }

    /// Verifies evidence and keeps it for a block.
    ///
    /// # Errors
    /// When it is not valid, or cannot be kept.
    pub fn add(&self, evidence: Evidence) -> Result<Added, AddError> {
        let state = self.state();
        evidence.validate_basic_by(self.wire_rules())?;
        let key = (evidence.height(), evidence.hash());
        if self.lock().pending.contains_key(&key) {
            return Ok(Added::Known);
        }
        let history = self.history(&state);
        if history
            .is_committed(&evidence)
            .map_err(EvidenceError::from)?
        {
            return Ok(Added::Committed);
        }
        verify_evidence(&evidence, &state, &history)?;
        if changed(&evidence, &state, &history)? {
            return Ok(Added::Changed);
        }
        Ok(self.keep(evidence)?)
    }

    /// Keeps evidence that was verified.
    fn keep(&self, evidence: Evidence) -> Result<Added, StoreError> {
        let mut inner = self.lock();
        let pending = Pending::new(evidence, inner.state.last_block_height);
        let (height, hash) = pending.key();
        if inner.pending.contains_key(&(height, hash)) {
            return Ok(Added::Known);
        }
        // A block may have come while it was verified.
        if self.store.is_evidence_committed(height, &hash)? {
            return Ok(Added::Committed);
        }
        if !inner.has_room(pending.voter(), pending.message.len()) {
            return Ok(Added::NoRoom);
        }
        let bytes = pb::Evidence::from(&pending.evidence).encode_to_vec().into();
        self.store.save_pending_evidence(&PendingEvidence {
            height,
            hash,
            bytes,
        })?;
        tracing::info!(height = height.get(), %hash, "evidence of misbehaviour");
        inner.insert(pending);
        drop(inner);
        self.added.send_modify(|count| *count += 1);
        Ok(Added::New)
    }

    /// Two votes of one validator, height, round and type that consensus has verified. The evidence
    /// is made when their block is decided, which its time is taken from.
    pub fn report_conflicting_votes(&self, first: Arc<Vote>, second: Arc<Vote>) {
        let pair = Pair::new(first, second);
        let mut inner = self.lock();
        if inner.reported.iter().any(|other| other.is_same(&pair)) {
            return;
        }
        let same = inner.reported.iter();
        let of_voter = same.filter(|other| other.voter() == pair.voter()).count();
        if inner.reported.len() >= MAX_REPORTED || of_voter >= MAX_REPORTED_OF_ONE_VOTER {
            tracing::warn!(
                height = pair.height().get(),
                "too many contradicting votes wait; two are dropped"
            );
            return;
        }
        inner.reported.push(pair);
    }

    /// Takes in a block that was applied: `state` is the one after it, `committed` its evidence.
    /// More than one block may have been applied since the last call.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn update(&self, state: Arc<State>, committed: &[Evidence]) -> Result<Updated, StoreError> {
        let (height, last) = (state.last_block_height, self.lock().state.last_block_height);
        if height <= last {
            tracing::warn!(
                height = height.get(),
                last = last.get(),
                "evidence is ahead"
            );
            return Ok(Updated::default());
        }
        let one_block = last.next() == height;
        self.advance(state, one_block.then_some(committed))
    }

    /// Takes in all blocks up to that of `state`, which others applied; nothing happens where it
    /// has them already.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn catch_up(&self, state: Arc<State>) -> Result<Updated, StoreError> {
        if state.last_block_height <= self.lock().state.last_block_height {
            return Ok(Updated::default());
        }
        self.advance(state, None)
    }

    /// Moves to a later state. `committed` is the evidence in the blocks since, where it is known;
    /// else the store tells.
    fn advance(
        &self,
        state: Arc<State>,
        committed: Option<&[Evidence]>,
    ) -> Result<Updated, StoreError> {
        let height = state.last_block_height;
        let mut inner = self.lock();
        inner.state = Arc::clone(&state);
        let (due, left) = std::mem::take(&mut inner.reported)
            .into_iter()
            .partition(|pair| pair.height() <= height);
        inner.reported = left;
        let gone = self.remove_settled(&mut inner, committed)?;
        drop(inner);
        Ok(Updated {
            made: self.make(&state, due)?,
            ..gone
        })
    }

    /// Makes evidence of votes whose block is decided; how many pieces. Those for which there is no
    /// room wait for a later block.
    fn make(&self, state: &State, pairs: Vec<Pair>) -> Result<usize, StoreError> {
        let history = self.history(state);
        let mut made = 0;
        let mut waiting = Vec::new();
        for pair in pairs {
            // Judged once, when there is room.
            if !self.lock().has_room(Some(pair.voter()), pair.most_bytes()) {
                waiting.push(pair);
                continue;
            }
            let verified = pair.evidence(&history).and_then(|evidence| {
                verify_evidence(&evidence, state, &history)?;
                Ok(evidence)
            });
            match verified {
                Ok(evidence) => match self.keep(evidence)? {
                    Added::New => made += 1,
                    Added::NoRoom => waiting.push(pair),
                    Added::Known | Added::Committed | Added::Changed => {}
                },
                Err(error) => {
                    let height = pair.height().get();
                    tracing::warn!(height, %error, "contradicting votes make no evidence");
                }
            }
        }
        // Nobody else may have them.
        self.lock().reported.append(&mut waiting);
        Ok(made)
    }

    /// Removes what a block has (those of `committed`, or any) and what is too old.
    fn remove_settled(
        &self,
        inner: &mut Inner,
        committed: Option<&[Evidence]>,
    ) -> Result<Updated, StoreError> {
        let mut updated = Updated::default();
        let mut gone: Vec<Key> = Vec::new();
        let listed: Option<Vec<Key>> =
            committed.map(|list| list.iter().map(|it| (it.height(), it.hash())).collect());
        for (key, pending) in &inner.pending {
            let is_committed = match &listed {
                Some(listed) => listed.contains(key),
                None => self.store.is_evidence_committed(key.0, &key.1)?,
            };
            let (state, time) = (&inner.state, pending.evidence.time());
            let params = &state.consensus_params.evidence;
            if is_committed {
                updated.committed += 1;
            } else if is_expired(state, key.0, time, params) {
                updated.expired += 1;
            } else {
                continue;
            }
            gone.push(*key);
        }
        if !gone.is_empty() {
            self.store.remove_pending_evidence(&gone)?;
        }
        for key in &gone {
            inner.remove(key);
        }
        Ok(updated)
    }

    /// Evidence for a block, the lowest heights first, as much as takes `max_bytes` (negative: any)
    /// of the encoded list; and the bytes that it takes. A piece that does not fit keeps out no
    /// other.
    #[must_use]
    pub fn pending_evidence(&self, max_bytes: i64) -> (Vec<Evidence>, i64) {
        let inner = self.lock();
        let max = u64::try_from(max_bytes).unwrap_or(u64::MAX);
        let (mut list, mut bytes) = (Vec::new(), 0_u64);
        for pending in inner.pending.values() {
            let with = bytes + pending.message.len() as u64;
            if with > max {
                continue;
            }
            bytes = with;
            list.push(pending.evidence.clone());
        }
        (list, i64::try_from(bytes).unwrap_or(i64::MAX))
    }

    /// Judges the evidence of a proposed block: what waits here was judged already, but for attacks,
    /// of which another one may have the same hash. What is new is kept, unless it is a changed copy
    /// ([`Added::Changed`]), which a block may have.
    ///
    /// # Errors
    /// Names the first rule that is broken. [`EvidenceError::History`] is a local fault.
    pub fn check_evidence(&self, list: &[Evidence]) -> Result<(), EvidenceError> {
        let state = self.state();
        let history = self.history(&state);
        let mut seen = BTreeMap::new();
        for (index, evidence) in list.iter().enumerate() {
            let key = (evidence.height(), evidence.hash());
            let is_attack = matches!(evidence, Evidence::LightClientAttack(_));
            if is_attack || !self.lock().pending.contains_key(&key) {
                if history.is_committed(evidence)? {
                    return Err(EvidenceError::AlreadyCommitted);
                }
                verify_evidence(evidence, &state, &history)?;
                if !changed(evidence, &state, &history)?
                    && let Err(error) = self.keep(evidence.clone())
                {
                    // The block is valid all the same.
                    tracing::error!(%error, "evidence of a block cannot be kept");
                }
            }
            if let Some(first) = seen.insert(key, index) {
                let second = index;
                return Err(EvidenceError::Duplicate { first, second });
            }
        }
        Ok(())
    }

    /// Pieces of evidence that wait.
    #[must_use]
    pub fn size(&self) -> usize {
        self.lock().pending.len()
    }

    /// The state by which evidence is judged.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.lock().state)
    }

    /// The rules by which a message of a peer is decoded.
    pub(crate) fn wire_rules(&self) -> Rules {
        self.rules.at(self.lock().state.last_block_height.next())
    }

    /// All that waits.
    pub(crate) fn snapshot(&self) -> Vec<Arc<Pending>> {
        self.lock().pending.values().cloned().collect()
    }

    /// Counts pieces that were added.
    pub(crate) fn subscribe_added(&self) -> watch::Receiver<u64> {
        self.added.subscribe()
    }

    fn history(&self, state: &State) -> StoreHistory<'_> {
        StoreHistory::new(&self.store, state.last_block_height)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether evidence, which holds, is a changed copy.
fn changed(
    evidence: &Evidence,
    state: &State,
    history: &impl History,
) -> Result<bool, EvidenceError> {
    let Evidence::DuplicateVote(votes) = evidence else {
        return Ok(false);
    };
    let set = history.validators(evidence.height())?;
    Ok(set.is_none_or(|set| is_changed(votes, &state.chain_id, &set)))
}

impl std::fmt::Debug for EvidencePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvidencePool")
            .field("pending", &self.size())
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// Whether one more piece of so many bytes, about one voter if it is a pair, may wait.
    fn has_room(&self, voter: Option<&Bytes>, bytes: usize) -> bool {
        let is_about = |it: &&Arc<Pending>| it.voter() == voter;
        let of_voter = || self.pending.values().filter(is_about).count();
        self.pending.len() < MAX_PENDING
            && self.bytes + bytes <= MAX_PENDING_BYTES
            && (voter.is_none() || of_voter() < MAX_PENDING_OF_ONE_VOTER)
    }

    fn insert(&mut self, new: Pending) {
        self.bytes += new.message.len();
        if let Some(old) = self.pending.insert(new.key(), Arc::new(new)) {
            self.bytes -= old.message.len();
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(gone) = self.pending.remove(key) {
            self.bytes -= gone.message.len();
        }
    }
}

impl Pending {
    /// Evidence that was verified by the chain up to `last`.
    pub(crate) fn new(evidence: Evidence, last: Height) -> Self {
        let peers_from = match &evidence {
            Evidence::DuplicateVote(votes) => votes.vote_a.height.next(),
            // The commits for both headers must be in the peer's chain; for an attack ahead of the
            // chain, its latest block must be as late as ours.
            Evidence::LightClientAttack(attack) => {
                let conflicting = attack.conflicting_block.signed_header.header.height;
                let trusted = conflicting.min(last);
                attack.common_height.max(trusted).plus(2)
            }
        };
        Self {
            hash: evidence.hash(),
            message: wire::encode(&evidence),
            peers_from,
            evidence,
        }
    }

    fn key(&self) -> Key {
        (self.evidence.height(), self.hash)
    }

    fn voter(&self) -> Option<&Bytes> {
        match &self.evidence {
            Evidence::DuplicateVote(votes) => Some(&votes.vote_a.validator_address),
            Evidence::LightClientAttack(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
