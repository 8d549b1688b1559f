//! The JSON forms of events, as subscribers get them.

use perihelion_abci::types::{ExecTxResult, ResponseFinalizeBlock, ValidatorUpdate};
use perihelion_events::{AppliedBlock, Attributes, EventData, Message, RoundEvent};
use perihelion_types::{
    Block, BlockId, Evidence, Header, Height, PublicKey, Round, Validator, Vote,
    json::{self, Base64, Hex, Text},
};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::forms::{
    BlockEventForm, GoText, Optional, ParamsForm, TxResultForm, UpdateForm, unless_empty,
    unless_zero,
};

/// The members `data` and `events` of a subscription's result.
pub(crate) fn members(message: &Message) -> String {
    let events = json::to_string(&AttributesForm(message.attributes()));
    let events = events.expect("texts can be written");
    format!("\"data\":{},\"events\":{events}", data(message.data()))
}

/// Values by key. Go writes them in any order.
struct AttributesForm<'a>(&'a Attributes);

impl Serialize for AttributesForm<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, values) in self.0.iter() {
            // A key that is no text is one with replacement characters.
            let key = String::from_utf8_lossy(key);
            let values: Vec<_> = values.iter().map(|value| GoText(value)).collect();
            map.serialize_entry(&key, &values)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Typed<T> {
    #[serde(rename = "type")]
    kind: &'static str,
    value: T,
}

fn typed<T: Serialize>(kind: &'static str, value: T) -> String {
    json::to_string(&Typed { kind, value }).expect("an event can be written")
}

fn data(data: &EventData) -> String {
    match data {
        EventData::NewBlock(applied) => typed("tendermint/event/NewBlock", new_block(applied)),
        EventData::NewBlockHeader(applied) => {
            let header = &applied.block.header;
            typed("tendermint/event/NewBlockHeader", HeaderForm { header })
        }
        EventData::NewBlockEvents(applied) => typed(
            "tendermint/event/NewBlockEvents",
            BlockEvents {
                height: applied.block.header.height,
                events: unless_empty(&applied.response.events, BlockEventForm::of),
                num_txs: Text(applied.block.data.iter().count()),
            },
        ),
        EventData::NewEvidence { block, index } => typed(
            "tendermint/event/NewEvidence",
            NewEvidence {
                height: block.block.header.height,
                evidence: block.block.evidence.get(*index),
            },
        ),
        EventData::Tx {
            height,
            index,
            tx,
            result,
        } => typed(
            "tendermint/event/Tx",
            Tx {
                result: Executed {
                    height: unless_zero(height.get()),
                    index: *index,
                    tx: Base64(tx),
                    result: ShortResult::of(result),
                },
            },
        ),
        EventData::ValidatorSetUpdates(applied) => {
            let updates = applied.response.validator_updates.iter();
            let validator_updates = updates.filter_map(validator).collect();
            typed(
                "tendermint/event/ValidatorSetUpdates",
                SetUpdates { validator_updates },
            )
        }
        EventData::Round(event) => round_event(event),
    }
}

#[derive(Serialize)]
struct NewBlock<'a> {
    block: &'a Block,
    block_id: BlockId,
    result_finalize_block: Finalized<'a>,
}

/// The application's answer, without what is empty.
#[derive(Serialize)]
struct Finalized<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<BlockEventForm<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx_results: Option<Vec<TxResultForm<'a>>>,
    validator_updates: Vec<UpdateForm<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consensus_param_updates: Option<ParamsForm<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_hash: Option<Base64<'a>>,
}

impl<'a> Finalized<'a> {
    fn of(response: &'a ResponseFinalizeBlock) -> Self {
        let app_hash = &response.app_hash;
        let params = response.consensus_param_updates.as_ref();
        Self {
            events: unless_empty(&response.events, BlockEventForm::of),
            tx_results: unless_empty(&response.tx_results, TxResultForm::of),
            validator_updates: response
                .validator_updates
                .iter()
                .map(UpdateForm::of)
                .collect(),
            consensus_param_updates: params.map(ParamsForm::of),
            app_hash: (!app_hash.is_empty()).then_some(Base64(app_hash)),
        }
    }
}

fn new_block(applied: &AppliedBlock) -> NewBlock<'_> {
    NewBlock {
        block: &applied.block,
        block_id: applied.block_id,
        result_finalize_block: Finalized::of(&applied.response),
    }
}

#[derive(Serialize)]
struct HeaderForm<'a> {
    header: &'a Header,
}

#[derive(Serialize)]
struct BlockEvents<'a> {
    height: Height,
    events: Option<Vec<BlockEventForm<'a>>>,
    num_txs: Text<usize>,
}

#[derive(Serialize)]
struct NewEvidence<'a> {
    height: Height,
    evidence: Option<&'a Evidence>,
}

#[derive(Serialize)]
struct Tx<'a> {
    #[serde(rename = "TxResult")]
    result: Executed<'a>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_empty(bytes: &Base64<'_>) -> bool {
    bytes.0.is_empty()
}

/// A transaction, without what is zero.
#[derive(Serialize)]
struct Executed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Optional<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    index: u32,
    #[serde(skip_serializing_if = "is_empty")]
    tx: Base64<'a>,
    result: ShortResult<'a>,
}

/// A result, without what is zero.
#[derive(Serialize)]
struct ShortResult<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    code: u32,
    #[serde(skip_serializing_if = "is_empty")]
    data: Base64<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    log: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    info: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gas_wanted: Optional<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gas_used: Optional<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<BlockEventForm<'a>>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    codespace: &'a str,
}

impl<'a> ShortResult<'a> {
    fn of(result: &'a ExecTxResult) -> Self {
        Self {
            code: result.code,
            data: Base64(&result.data),
            log: &result.log,
            info: &result.info,
            gas_wanted: unless_zero(result.gas_wanted),
            gas_used: unless_zero(result.gas_used),
            events: unless_empty(&result.events, BlockEventForm::of),
            codespace: &result.codespace,
        }
    }
}

#[derive(Serialize)]
struct SetUpdates {
    validator_updates: Vec<Validator>,
}

/// What was applied can be read.
fn validator(update: &ValidatorUpdate) -> Option<Validator> {
    let key = PublicKey::try_from(update.pub_key.clone()?).ok()?;
    Some(Validator::new(key, update.power))
}

#[derive(Serialize)]
struct Proposer<'a> {
    address: Hex<'a>,
    index: i32,
}

#[derive(Serialize)]
struct RoundForm<'a> {
    height: Height,
    round: Round,
    step: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposer: Option<Proposer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_id: Option<BlockId>,
}

#[derive(Serialize)]
struct VoteForm<'a> {
    #[serde(rename = "Vote")]
    vote: &'a Vote,
}

fn round_event(event: &RoundEvent) -> String {
    let (kind, height, round, step, proposer, block_id) = match event {
        RoundEvent::Vote(vote) => return typed("tendermint/event/Vote", VoteForm { vote }),
        RoundEvent::NewRound {
            height,
            round,
            step,
            proposer,
            index,
        } => {
            let proposer = Proposer {
                address: Hex(proposer.as_bytes()),
                index: *index,
            };
            let kind = "tendermint/event/NewRound";
            (kind, height, round, step, Some(proposer), None)
        }
        RoundEvent::CompleteProposal {
            height,
            round,
            step,
            block_id,
        } => {
            let kind = "tendermint/event/CompleteProposal";
            (kind, height, round, step, None, Some(*block_id))
        }
        RoundEvent::NewRoundStep {
            height,
            round,
            step,
        }
        | RoundEvent::ValidBlock {
            height,
            round,
            step,
        }
        | RoundEvent::Polka {
            height,
            round,
            step,
        }
        | RoundEvent::Lock {
            height,
            round,
            step,
        }
        | RoundEvent::Relock {
            height,
            round,
            step,
        }
        | RoundEvent::Unlock {
            height,
            round,
            step,
        }
        | RoundEvent::TimeoutPropose {
            height,
            round,
            step,
        }
        | RoundEvent::TimeoutWait {
            height,
            round,
            step,
        } => {
            let kind = "tendermint/event/RoundState";
            (kind, height, round, step, None, None)
        }
    };
    typed(
        kind,
        RoundForm {
            height: *height,
            round: *round,
            step,
            proposer,
            block_id,
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::Arc;

    use perihelion_abci::types::{Event, EventAttribute};
    use perihelion_proto::tendermint::crypto::{self, public_key::Sum};
    use perihelion_test_support::{Hex as HexBytes, load_lines};
    use perihelion_types::FetchedBlock;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Line {
        block: HexBytes,
    }

    fn applied(response: ResponseFinalizeBlock) -> Arc<AppliedBlock> {
        let lines: Vec<Line> = load_lines("chain_basic/blocks.jsonl");
        let raw = lines.into_iter().next().unwrap().block.0;
        let block = FetchedBlock::decode(raw.into(), None).unwrap();
        Arc::new(AppliedBlock::new(&block, response))
    }

    fn event() -> Event {
        Event {
            r#type: "a<b".to_owned(),
            attributes: vec![EventAttribute {
                key: "k".into(),
                value: b"\xff"[..].into(),
                index: false,
            }],
        }
    }

    const EVENT: &str =
        r#"{"type":"a\u003cb","attributes":[{"key":"k","value":"\ufffd","index":false}]}"#;

    /// The forms that no vector shows, as CometBFT's encoder writes them.
    #[test]
    fn results_are_short_in_events_of_transactions_and_whole_in_those_of_blocks() {
        let result = ExecTxResult {
            code: 5,
            data: "d".into(),
            log: "l".to_owned(),
            gas_wanted: 7,
            events: vec![event()],
            ..Default::default()
        };
        let tx = EventData::Tx {
            height: Height::new(1),
            index: 2,
            tx: "t".into(),
            result: result.clone(),
        };
        let expected = format!(
            "{{\"type\":\"tendermint/event/Tx\",\"value\":{{\"TxResult\":{{\"height\":\"1\",\"index\":2,\
             \"tx\":\"dA==\",\"result\":{{\"code\":5,\"data\":\"ZA==\",\"log\":\"l\",\"gas_wanted\":\"7\",\
             \"events\":[{EVENT}]}}}}}}}}"
        );
        assert_eq!(data(&tx), expected);
        let empty = EventData::Tx {
            height: Height::new(1),
            index: 0,
            tx: "".into(),
            result: ExecTxResult::default(),
        };
        let expected =
            r#"{"type":"tendermint/event/Tx","value":{"TxResult":{"height":"1","result":{}}}}"#;
        assert_eq!(data(&empty), expected);
        let block = applied(ResponseFinalizeBlock {
            events: vec![event()],
            tx_results: vec![result],
            ..Default::default()
        });
        let expected = format!(
            "\"result_finalize_block\":{{\"events\":[{EVENT}],\"tx_results\":[{{\"code\":5,\
             \"data\":\"ZA==\",\"log\":\"l\",\"info\":\"\",\"gas_wanted\":\"7\",\"gas_used\":\"0\",\
             \"events\":[{EVENT}],\"codespace\":\"\"}}],\"validator_updates\":[]}}}}}}"
        );
        let text = data(&EventData::NewBlock(Arc::clone(&block)));
        assert!(text.ends_with(&expected), "{text}");
        let text = data(&EventData::NewBlockEvents(Arc::clone(&block)));
        let count = block.block.data.iter().count();
        let expected = format!("\"events\":[{EVENT}],\"num_txs\":\"{count}\"}}}}");
        assert!(text.ends_with(&expected), "{text}");
    }

    #[test]
    fn updates_of_validators_are_validators() {
        let key = crypto::PublicKey {
            sum: Some(Sum::Ed25519(vec![7; 32].into())),
        };
        let block = applied(ResponseFinalizeBlock {
            validator_updates: vec![ValidatorUpdate {
                pub_key: Some(key),
                power: 3,
            }],
            ..Default::default()
        });
        let text = data(&EventData::ValidatorSetUpdates(block));
        let key = Base64(&[7; 32]);
        let key = json::to_string(&key).unwrap();
        let expected = format!(
            "\"pub_key\":{{\"type\":\"tendermint/PubKeyEd25519\",\"value\":{key}}},\
             \"voting_power\":\"3\",\"proposer_priority\":\"0\"}}]}}}}"
        );
        assert!(text.ends_with(&expected), "{text}");
        let front = "{\"type\":\"tendermint/event/ValidatorSetUpdates\",\"value\":\
                     {\"validator_updates\":[{\"address\":\"";
        assert!(text.starts_with(front), "{text}");
    }

    #[test]
    fn attributes_that_are_no_text_become_json() {
        let mut attributes = Attributes::default();
        attributes.add("a.b", "1");
        attributes.add("a.b", &b"\xfe2"[..]);
        attributes.add(b"\xfe.c".to_vec(), "<");
        let text = json::to_string(&AttributesForm(&attributes)).unwrap();
        assert_eq!(
            text,
            "{\"a.b\":[\"1\",\"\\ufffd2\"],\"\u{fffd}.c\":[\"\\u003c\"]}"
        );
    }
}
