//! The messages of a block, as far as decoding has to know them.

use crate::Rules;

/// A message.
pub(super) struct Message {
    /// Its fields by their numbers from 1 on; no number is left out.
    fields: &'static [Kind],
    /// Whether at most one of the fields is there: the last that was given.
    pub(super) is_oneof: bool,
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A varint of 64 bits.
    Number,
    /// A varint of 32 bits with a sign, or an enum.
    Signed32,
    /// A varint of 32 bits without.
    Unsigned32,
    /// Bytes or a text.
    Bytes,
    /// Bytes, any number of times.
    ManyBytes,
    /// A message, which several occurrences make together.
    One(&'static Message),
    /// A message, any number of times.
    Many(&'static Message),
    /// A `google.protobuf.Timestamp`, each occurrence a whole one.
    Time,
}

use Kind::{Bytes, Many, ManyBytes, Number, One, Signed32, Time, Unsigned32};

impl Message {
    /// The kind of a field; `None` for one that is skipped.
    pub(super) fn kind(&self, number: u32) -> Option<Kind> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.fields.get(index).copied()
    }

    /// The fields in the order of their numbers.
    pub(super) fn fields(&self) -> impl Iterator<Item = (u32, Kind)> {
        (1..).zip(self.fields.iter().copied())
    }
}

const fn message(fields: &'static [Kind]) -> Message {
    Message {
        fields,
        is_oneof: false,
    }
}

const fn oneof(fields: &'static [Kind]) -> Message {
    Message {
        fields,
        is_oneof: true,
    }
}

/// The block of a release: v0.38 skips the kinds of keys that came with v0.40.
pub(super) fn block(rules: Rules) -> &'static Message {
    if rules == Rules::V038 {
        &BLOCK_V038
    } else {
        &BLOCK_V040
    }
}

/// Of a block.
pub(super) static HEADER: Message = message(&[
    One(&VERSION),
    Bytes,
    Number,
    Time,
    One(&BLOCK_ID),
    Bytes,
    Bytes,
    Bytes,
    Bytes,
    Bytes,
    Bytes,
    Bytes,
    Bytes,
    Bytes,
]);
pub(super) static DATA: Message = message(&[ManyBytes]);
pub(super) static COMMIT: Message = message(&[Number, Signed32, One(&BLOCK_ID), Many(&COMMIT_SIG)]);
pub(super) static TIME: Message = message(&[Number, Signed32]);

static VERSION: Message = message(&[Number, Number]);
static BLOCK_ID: Message = message(&[Bytes, One(&PART_SET_HEADER)]);
static PART_SET_HEADER: Message = message(&[Unsigned32, Bytes]);
static COMMIT_SIG: Message = message(&[Signed32, Bytes, Time, Bytes]);
static SIGNED_HEADER: Message = message(&[One(&HEADER), One(&COMMIT)]);
static DUPLICATE_VOTES: Message = message(&[One(&VOTE), One(&VOTE), Number, Number, Time]);
static VOTE: Message = message(&[
    Signed32,
    Number,
    Signed32,
    One(&BLOCK_ID),
    Time,
    Bytes,
    Signed32,
    Bytes,
    Bytes,
    Bytes,
]);

static BLOCK_V038: Message = message(&[
    One(&HEADER),
    One(&DATA),
    One(&EVIDENCE_LIST_V038),
    One(&COMMIT),
]);
static EVIDENCE_LIST_V038: Message = message(&[Many(&EVIDENCE_V038)]);
static EVIDENCE_V038: Message = oneof(&[One(&DUPLICATE_VOTES), One(&ATTACK_V038)]);
static ATTACK_V038: Message = message(&[
    One(&LIGHT_BLOCK_V038),
    Number,
    Many(&VALIDATOR_V038),
    Number,
    Time,
]);
static LIGHT_BLOCK_V038: Message = message(&[One(&SIGNED_HEADER), One(&VALIDATOR_SET_V038)]);
static VALIDATOR_SET_V038: Message =
    message(&[Many(&VALIDATOR_V038), One(&VALIDATOR_V038), Number]);
static VALIDATOR_V038: Message = message(&[Bytes, One(&PUBLIC_KEY_V038), Number, Number]);
static PUBLIC_KEY_V038: Message = oneof(&[Bytes, Bytes]);

static BLOCK_V040: Message = message(&[
    One(&HEADER),
    One(&DATA),
    One(&EVIDENCE_LIST_V040),
    One(&COMMIT),
]);
static EVIDENCE_LIST_V040: Message = message(&[Many(&EVIDENCE_V040)]);
static EVIDENCE_V040: Message = oneof(&[One(&DUPLICATE_VOTES), One(&ATTACK_V040)]);
static ATTACK_V040: Message = message(&[
    One(&LIGHT_BLOCK_V040),
    Number,
    Many(&VALIDATOR_V040),
    Number,
    Time,
]);
static LIGHT_BLOCK_V040: Message = message(&[One(&SIGNED_HEADER), One(&VALIDATOR_SET_V040)]);
static VALIDATOR_SET_V040: Message =
    message(&[Many(&VALIDATOR_V040), One(&VALIDATOR_V040), Number]);
static VALIDATOR_V040: Message = message(&[Bytes, One(&PUBLIC_KEY_V040), Number, Number]);
static PUBLIC_KEY_V040: Message = oneof(&[Bytes, Bytes, Bytes, Bytes, Bytes]);
