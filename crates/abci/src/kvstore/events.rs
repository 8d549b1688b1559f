use crate::types::{Event, EventAttribute, ExecTxResult};

use super::tx::split_pair;

/// The result of any transaction: success, with two events that name key and value (the whole
/// transaction for both where it is not one pair). Bytes that are no UTF-8 are replaced: the
/// schema's attributes are text, and no hash covers them.
pub(super) fn tx_result(tx: &[u8]) -> ExecTxResult {
    let (key, value) = split_pair(tx).unwrap_or((tx, tx));
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
    let begin = |foo: &str, bar: &str| Event {
        r#type: "begin_event".to_owned(),
        attributes: vec![attribute("foo", foo, true), attribute("bar", bar, true)],
    };
    if height % 2 == 0 {
        vec![begin("100", "200"), begin("200", "300")]
    } else {
        vec![begin("400", "300")]
    }
}

fn app_event(creator: &str, key: &[u8]) -> Event {
    Event {
        r#type: "app".to_owned(),
        attributes: vec![
            attribute("creator", creator, true),
            attribute("key", String::from_utf8_lossy(key), true),
            attribute("index_key", "index is working", true),
            attribute("noindex_key", "index is working", false),
        ],
    }
}

fn attribute(key: &str, value: impl Into<String>, index: bool) -> EventAttribute {
    EventAttribute {
        key: key.to_owned(),
        value: value.into(),
        index,
    }
}
