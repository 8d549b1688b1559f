use bytes::Bytes;

use crate::types::{Event, EventAttribute, ExecTxResult};

use super::tx::split_pair;

/// The result of any transaction: success, with two events that name key and value (the whole
/// transaction for both where it is not one pair).
pub(super) fn tx_result(tx: &Bytes) -> ExecTxResult {
    let (key, value) = match split_pair(tx) {
        Some((key, value)) => (tx.slice_ref(key), tx.slice_ref(value)),
        None => (tx.clone(), tx.clone()),
    };
    ExecTxResult {
        events: vec![
            app_event("Cosmoshi Netowoko", key),
            app_event("Cosmoshi", value),
        ],
        ..ExecTxResult::default()
    }
}

/// The events of a whole block, which differ between odd and even heights.
pub(super) fn block_events(height: i64) -> Vec<Event> {
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
