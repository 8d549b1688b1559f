//! The state, validator sets and parameters, each written when it changes.
//!
//! A state is stored without its validator sets. Their priorities change at every height, but from
//! one set to the next by one rotation, so a set is written when validators change and at every
//! [`RESTORE_INTERVAL`]th height, and those between are rotated from it one by one, as they were
//! when they were first computed.
//!
//! `/validators` shows something else: CometBFT rotates by all heights since the last change in
//! one call, which rounds differently. [`Store::load_validators`] does the same, from sets written
//! where CometBFT writes them.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_proto::tendermint::{state as pb, types as pb_types};
use perihelion_types::{ConsensusParams, DecodeError, Height, State, ValidatorSet};
use prost::Message;

use crate::{
    Store, StoreError,
    columns::{Column, height_key, key_height},
    database::{Batch, Database},
    store::StoredRange,
};

/// CometBFT stores a whole set at every multiple of this, and rotates from it; a different value
/// shows other priorities than CometBFT does.
const CHECKPOINT_INTERVAL: i64 = 100_000;
/// Heights between the sets that a restart rotates from. Larger: a restart computes longer, 0.1 s
/// at 1,000 for 175 validators. Smaller: more is written.
const RESTORE_INTERVAL: i64 = 1_000;
/// Key of the state, and prefix of the sets that restore it, in `state`.
const STATE: &[u8] = b"state";
const SET: &[u8] = b"set";

/// A change that the built-in application makes together with a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppWrite {
    /// The application's own key.
    pub key: Vec<u8>,
    /// The new value; `None` deletes.
    pub value: Option<Bytes>,
}

/// What is saved of a state.
#[derive(Debug, Clone, Copy)]
pub struct StateSave<'a> {
    /// The state to be stored.
    pub state: &'a State,
    /// The state that is stored now. The same as `state` where there is none, as at genesis and
    /// after restoring a snapshot: everything is written then.
    pub previous: &'a State,
    /// What the built-in application changed.
    pub app_writes: &'a [AppWrite],
}

impl Store {
    pub(crate) fn add_state<'a>(
        &self,
        batch: &mut Batch<'a>,
        range: &mut StoredRange,
        save: &StateSave<'a>,
    ) -> Result<(), StoreError> {
        let state = save.state;
        let has_blocks = range.height != Height::ZERO;
        if has_blocks && state.last_block_height > range.height {
            return Err(StoreError::StateAhead {
                state: state.last_block_height,
                last: range.height,
            });
        }
        if follows(state, save.previous) && range.state == save.previous.last_block_height {
            add_changes(batch, state, save.previous);
        } else {
            add_everything(batch, state);
        }
        batch.put(
            Column::State,
            STATE,
            state.to_proto_without_sets().encode_to_vec(),
        );
        for write in save.app_writes {
            match &write.value {
                Some(value) => batch.put_large(Column::App, &write.key[..], value),
                None => batch.delete(Column::App, &write.key[..]),
            }
        }
        range.state = state.last_block_height;
        Ok(())
    }

    /// The state that was saved last, equal to it in every byte of its encoding.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn load_state(&self) -> Result<Option<State>, StoreError> {
        let Some(raw) = self.db.get(Column::State, STATE)? else {
            return Ok(None);
        };
        let corrupt = |error: DecodeError| self.db.corrupt(Column::State, STATE, error);
        let mut message = pb::State::decode(&raw[..]).map_err(|error| corrupt(error.into()))?;
        let height = Height::new(message.last_block_height);
        let next = if height == Height::ZERO {
            Height::new(message.initial_height)
        } else {
            height.next()
        };
        let mut sets = SetWalk::new(self);
        if height.is_positive() {
            let last = sets.walk_to(height)?;
            message.last_validators = Some((&*last).into());
        }
        let validators = sets.walk_to(next)?;
        let next_validators = sets.walk_to(next.next())?;
        message.validators = Some((&*validators).into());
        message.next_validators = Some((&*next_validators).into());
        State::try_from(message).map(Some).map_err(corrupt)
    }

    /// The validator set of `height`, with the priorities that CometBFT shows for it: the last
    /// stored set at or below, rotated to `height` in one call. Known up to two heights above the
    /// state's, and as far down as the light base.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn load_validators(&self, height: Height) -> Result<Option<ValidatorSet>, StoreError> {
        let Some((key, stored, mut set)) = self.stored_set(height)? else {
            return Ok(None);
        };
        if let Ok(times @ 1..) = i32::try_from(height.since(stored)) {
            set.increment_proposer_priority(times)
                .map_err(|error| self.db.corrupt(Column::Validators, &key, error))?;
        }
        Ok(Some(set))
    }

    /// [`Self::load_validators`] whose priorities are those of some height at or below: for who asks
    /// for members and their power, at a fraction of the time.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn load_members(&self, height: Height) -> Result<Option<ValidatorSet>, StoreError> {
        Ok(self.stored_set(height)?.map(|(_, _, set)| set))
    }

    /// The last stored set at or below `height`, where that is known, with its key and height.
    fn stored_set(
        &self,
        height: Height,
    ) -> Result<Option<(Vec<u8>, Height, ValidatorSet)>, StoreError> {
        if !self.has_sets_at(height, 2)? {
            return Ok(None);
        }
        let found = self
            .db
            .last_at_or_below(Column::Validators, &height_key(height))?;
        let Some((key, value)) = found else {
            return Ok(None);
        };
        let (stored, set) = self.decode_set(Column::Validators, &key, &value)?;
        Ok(Some((key, stored, set)))
    }

    /// The consensus parameters of the block at `height`; known up to one height above the
    /// state's.
    ///
    /// # Errors
    /// When they cannot be read or decoded.
    pub fn load_consensus_params(
        &self,
        height: Height,
    ) -> Result<Option<ConsensusParams>, StoreError> {
        if !self.has_sets_at(height, 1)? {
            return Ok(None);
        }
        let found = self
            .db
            .last_at_or_below(Column::Params, &height_key(height))?;
        let Some((key, value)) = found else {
            return Ok(None);
        };
        pb_types::ConsensusParams::decode(&value[..])
            .map_err(DecodeError::from)
            .and_then(ConsensusParams::try_from)
            .map(Some)
            .map_err(|error| self.db.corrupt(Column::Params, &key, error))
    }

    /// Whether sets or parameters, which are known `ahead` of the state, are known for `height`.
    fn has_sets_at(&self, height: Height, ahead: i64) -> Result<bool, StoreError> {
        let range = self.range();
        if !height.is_positive() || height < range.light_base {
            return Ok(false);
        }
        if range.state.is_positive() {
            return Ok(height <= range.state.plus(ahead));
        }
        // Before the first block the initial height stands for the next one.
        let Some(raw) = self.db.get(Column::State, STATE)? else {
            return Ok(false);
        };
        let state = pb::State::decode(&raw[..])
            .map_err(|error| self.db.corrupt(Column::State, STATE, error))?;
        Ok(height <= Height::new(state.initial_height).plus(ahead - 1))
    }

    fn decode_set(
        &self,
        column: Column,
        key: &[u8],
        value: &[u8],
    ) -> Result<(Height, ValidatorSet), StoreError> {
        let bytes = key.strip_prefix(SET).unwrap_or(key);
        let height =
            key_height(bytes).ok_or_else(|| self.db.corrupt(column, key, "not a height"))?;
        pb_types::ValidatorSet::decode(value)
            .map_err(DecodeError::from)
            .and_then(ValidatorSet::try_from)
            .map(|set| (height, set))
            .map_err(|error| self.db.corrupt(column, key, error))
    }
}

/// Restores sets of rising heights, each from the one before or from a stored one.
struct SetWalk<'a> {
    store: &'a Store,
    at: Option<(Height, Arc<ValidatorSet>)>,
}

impl<'a> SetWalk<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, at: None }
    }

    fn walk_to(&mut self, height: Height) -> Result<Arc<ValidatorSet>, StoreError> {
        let (mut at, mut set) = self.nearest(height)?;
        while at < height {
            let mut next = ValidatorSet::clone(&set);
            next.increment_proposer_priority(1).map_err(|error| {
                let key = height_key(at);
                self.store.db.corrupt(Column::Validators, &key, error)
            })?;
            set = Arc::new(next);
            at = at.next();
        }
        self.at = Some((at, Arc::clone(&set)));
        Ok(set)
    }

    /// The last known set at or below `height`.
    fn nearest(&self, height: Height) -> Result<(Height, Arc<ValidatorSet>), StoreError> {
        let db = &self.store.db;
        let mut nearest = self.at.clone();
        for (column, key) in [
            (Column::State, set_key(height)),
            (Column::Validators, height_key(height).to_vec()),
        ] {
            let Some((key, value)) = db.last_at_or_below(column, &key)? else {
                continue;
            };
            // Below the sets in `state` there are only other records.
            if column == Column::State && !key.starts_with(SET) {
                continue;
            }
            let stored = key_height(key.strip_prefix(SET).unwrap_or(&key));
            if stored > nearest.as_ref().map(|(at, _)| *at) {
                let (at, set) = self.store.decode_set(column, &key, &value)?;
                nearest = Some((at, Arc::new(set)));
            }
        }
        nearest
            .ok_or_else(|| db.corrupt(Column::Validators, &height_key(height), "no validator set"))
    }
}

/// Whether `state` comes from `previous` by one block.
fn follows(state: &State, previous: &State) -> bool {
    state.last_block_height == previous.next_height()
        && same(&state.validators, &previous.next_validators)
        && same(&state.last_validators, &previous.validators)
}

fn same(a: &Arc<ValidatorSet>, b: &Arc<ValidatorSet>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// Writes what changed with one block.
fn add_changes(batch: &mut Batch<'_>, state: &State, previous: &State) {
    let next = state.next_height();
    let known = next.next();
    let is_changed =
        state.last_height_validators_changed != previous.last_height_validators_changed;
    if is_changed || known.get() % CHECKPOINT_INTERVAL == 0 {
        batch.put(
            Column::Validators,
            height_key(known),
            encode_set(&state.next_validators),
        );
    } else if known.get() % RESTORE_INTERVAL == 0 {
        batch.put(
            Column::State,
            set_key(known),
            encode_set(&state.next_validators),
        );
        // The last validators of a later state are two heights below: one interval is not enough.
        let old = Height::new(known.get().saturating_sub(2 * RESTORE_INTERVAL));
        if old.is_positive() {
            batch.delete_range(Column::State, set_key(Height::ZERO), set_key(old.next()));
        }
    }
    if state.last_height_consensus_params_changed != previous.last_height_consensus_params_changed
        || state.consensus_params != previous.consensus_params
    {
        add_params(batch, state);
    }
}

/// Writes a state that does not follow the stored one: all three sets, and the parameters.
fn add_everything(batch: &mut Batch<'_>, state: &State) {
    let next = state.next_height();
    batch.delete_range(Column::State, set_key(Height::ZERO), set_key(Height::MAX));
    if state.last_block_height.is_positive() {
        // Restored from a snapshot: CometBFT stores all three.
        add_set(batch, state.last_block_height, &state.last_validators);
        batch.put(
            Column::Validators,
            height_key(next.next()),
            encode_set(&state.next_validators),
        );
    } else if next.next().get() % CHECKPOINT_INTERVAL == 0 {
        batch.put(
            Column::Validators,
            height_key(next.next()),
            encode_set(&state.next_validators),
        );
    }
    batch.put(
        Column::Validators,
        height_key(next),
        encode_set(&state.validators),
    );
    batch.put(
        Column::State,
        set_key(next.next()),
        encode_set(&state.next_validators),
    );
    add_params(batch, state);
}

fn add_set(batch: &mut Batch<'_>, height: Height, set: &ValidatorSet) {
    batch.put(Column::Validators, height_key(height), encode_set(set));
}

fn add_params(batch: &mut Batch<'_>, state: &State) {
    let params = pb_types::ConsensusParams::from(&state.consensus_params);
    batch.put(
        Column::Params,
        height_key(state.next_height()),
        params.encode_to_vec(),
    );
}

fn encode_set(set: &ValidatorSet) -> Vec<u8> {
    pb_types::ValidatorSet::from(set).encode_to_vec()
}

fn set_key(height: Height) -> Vec<u8> {
    [SET, &height_key(height)].concat()
}

/// The height of the stored state.
pub(crate) fn load_height(db: &Database) -> Result<Option<Height>, StoreError> {
    db.get(Column::State, STATE)?
        .map(|raw| {
            pb::State::decode(&raw[..])
                .map(|state| Height::new(state.last_block_height))
                .map_err(|error| db.corrupt(Column::State, STATE, error))
        })
        .transpose()
}
