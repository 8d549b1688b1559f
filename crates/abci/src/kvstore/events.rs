use bytes::Bytes;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
    length_delimiter_len,
};

use super::tx::split_pair;
use crate::types::{Event, EventAttribute};

/// What the events of a transaction are told of: key and value, the whole transaction for both where
/// it is not one pair.
fn subjects(tx: &[u8]) -> [(&'static str, &[u8]); 2] {
    let (key, value) = split_pair(tx).unwrap_or((tx, tx));
    [("Cosmoshi Netowoko", key), ("Cosmoshi", value)]
}

/// The events of any transaction, which succeeds: one names its key, one its value.
pub(super) fn of_tx(tx: &Bytes) -> Vec<Event> {
    subjects(tx)
        .map(|(creator, subject)| app_event(creator, tx.slice_ref(subject)))
        .into()
}

/// The events of a whole block, which differ between odd and even heights.
pub(super) fn of_block(height: i64) -> Vec<Event> {
    let begin = |first: &'static str, second: &'static str| Event {
        r#type: "begin_event".to_owned(),
        attributes: vec![
            attribute("foo", first, true),
            attribute("bar", second, true),
        ],
    };
    if height % 2 == 0 {
        vec![begin("100", "200"), begin("200", "300")]
    } else {
        vec![begin("400", "300")]
    }
}

fn app_event(creator: &'static str, key: Bytes) -> Event {
    Event {
        r#type: "app".to_owned(),
        attributes: vec![
            attribute("creator", creator, true),
            attribute("key", key, true),
            attribute("index_key", "index is working", true),
            attribute("noindex_key", "index is working", false),
        ],
    }
}

fn attribute(key: &'static str, value: impl Into<Bytes>, index: bool) -> EventAttribute {
    EventAttribute {
        key: Bytes::from_static(key.as_bytes()),
        value: value.into(),
        index,
    }
}

/// Appends the results of `txs` as the field of a response: success, with the events of [`of_tx`].
///
/// What differs between two of them are the subjects, and with their lengths those of all around
/// them; the rest is encoded once, and lengths once for transactions in a row whose subjects have
/// the same ones.
pub(super) fn encode_tx_results(txs: &[Bytes], to: &mut Vec<u8>) {
    let parts = [0, 1].map(|at| EventParts::of(subjects(&[])[at].0));
    let mut known = None;
    let mut before = [Vec::new(), Vec::new()];
    let constant = 2 * SHORT_HEADERS + parts.iter().map(EventParts::len).sum::<usize>();
    to.reserve(txs.iter().map(|tx| tx.len() + constant).sum());
    for tx in txs {
        let subjects = subjects(tx).map(|(_, subject)| subject);
        let lengths = subjects.map(<[u8]>::len);
        if known != Some(lengths) {
            known = Some(lengths);
            let events: usize = (0..2).map(|at| parts[at].field_len(lengths[at])).sum();
            before = [Vec::new(), Vec::new()];
            put_header(RESULTS_FIELD, events, &mut before[0]);
            for (at, before) in before.iter_mut().enumerate() {
                parts[at].put_before(lengths[at], before);
            }
        }
        for at in [0, 1] {
            to.extend_from_slice(&before[at]);
            to.extend_from_slice(subjects[at]);
            to.extend_from_slice(&parts[at].after);
        }
    }
}

/// The fields' numbers in the schema.
const RESULTS_FIELD: u32 = 2;
const EVENTS_FIELD: u32 = 7;
const ATTRIBUTES_FIELD: u32 = 2;
const VALUE_FIELD: u32 = 2;
/// Bytes of the tags and lengths around a subject that is not long.
const SHORT_HEADERS: usize = 16;

/// An encoded event without the value that names its subject, and without the lengths that this
/// changes.
struct EventParts {
    /// The attributes before that value's own.
    head: Vec<u8>,
    /// Its attribute up to it.
    name: Vec<u8>,
    /// The rest of its attribute, and the attributes behind that.
    after: Vec<u8>,
    /// Bytes of `after` that are of its attribute.
    flag_bytes: usize,
}

impl EventParts {
    /// Joined encodings are the encoding of the fields of all.
    fn of(creator: &'static str) -> Self {
        let mut head = app_event(creator, Bytes::new());
        let tail = Event {
            r#type: String::new(),
            attributes: head.attributes.split_off(2),
        };
        let mut name = head.attributes.pop().unwrap_or_default();
        let flag = EventAttribute {
            index: std::mem::take(&mut name.index),
            ..EventAttribute::default()
        };
        let flag = flag.encode_to_vec();
        Self {
            head: head.encode_to_vec(),
            name: name.encode_to_vec(),
            flag_bytes: flag.len(),
            after: [flag, tail.encode_to_vec()].concat(),
        }
    }

    fn len(&self) -> usize {
        self.head.len() + self.name.len() + self.after.len()
    }

    /// Bytes of the attribute that names a subject of `length` bytes.
    fn attribute_len(&self, length: usize) -> usize {
        let value = if length == 0 { 0 } else { field_len(length) };
        self.name.len() + value + self.flag_bytes
    }

    /// Bytes of the event.
    fn event_len(&self, length: usize) -> usize {
        let tail = self.after.len() - self.flag_bytes;
        self.head.len() + field_len(self.attribute_len(length)) + tail
    }

    /// Bytes of the event as a field.
    fn field_len(&self, length: usize) -> usize {
        field_len(self.event_len(length))
    }

    /// Appends the event as a field, up to its subject.
    fn put_before(&self, length: usize, to: &mut Vec<u8>) {
        put_header(EVENTS_FIELD, self.event_len(length), to);
        to.extend_from_slice(&self.head);
        put_header(ATTRIBUTES_FIELD, self.attribute_len(length), to);
        to.extend_from_slice(&self.name);
        // An empty value is left out.
        if length > 0 {
            put_header(VALUE_FIELD, length, to);
        }
    }
}

/// Tag and length of a field, whose number is below 16.
fn put_header(field: u32, length: usize, to: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, to);
    encode_varint(length as u64, to);
}

/// A field of `length` bytes, with its tag and its length.
fn field_len(length: usize) -> usize {
    1 + length_delimiter_len(length) + length
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::types::{ExecTxResult, ResponseFinalizeBlock};

    /// Transactions without, with one and with more separators; short ones, and some so long that
    /// the lengths around them take more bytes.
    fn tx() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![vec(0..=u8::MAX, 0..8), vec(0..=u8::MAX, 0..20_000)];
        vec(piece, 0..4).prop_map(|pieces| pieces.join(&b'='))
    }

    proptest! {
        #[test]
        fn results_are_encoded_as_the_schema_says(txs in vec(tx(), 0..4)) {
            let txs: Vec<Bytes> = txs.into_iter().map(Bytes::from).collect();
            let result = |tx| ExecTxResult { events: of_tx(tx), ..ExecTxResult::default() };
            let response = ResponseFinalizeBlock {
                tx_results: txs.iter().map(result).collect(),
                ..ResponseFinalizeBlock::default()
            };
            let mut encoded = Vec::new();
            encode_tx_results(&txs, &mut encoded);
            prop_assert!(encoded == response.encode_to_vec());
        }
    }
}
