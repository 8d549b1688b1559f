//! The JSON forms of ABCI messages in answers. Where a message has CometBFT's protobuf JSON, all
//! fields are there; where it does not, empty ones are left out.

use base64::prelude::{BASE64_STANDARD, Engine};
use perihelion_abci::types::{
    Event, EventAttribute, ExecTxResult, ResponseCheckTx, ResponseFinalizeBlock, ResponseInfo,
    ResponseQuery, ValidatorUpdate,
};
use perihelion_proto::tendermint::{
    crypto::{self, public_key::Sum},
    types as pb,
};
use perihelion_types::{
    Height,
    json::{self, Base64, Text},
};
use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;

#[derive(Serialize)]
pub(super) struct InResponse<T> {
    pub(super) response: T,
}

/// A 64-bit integer that is left out when 0.
pub(super) type Optional<T> = Option<Text<T>>;

pub(super) fn unless_zero<T: Default + PartialEq>(value: T) -> Optional<T> {
    (value != T::default()).then_some(Text(value))
}

#[derive(Serialize)]
pub(super) struct InfoForm<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    data: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_version: Optional<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_block_height: Optional<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_block_app_hash: Option<Base64<'a>>,
}

pub(super) fn info(response: &ResponseInfo) -> InfoForm<'_> {
    let hash = &response.last_block_app_hash;
    InfoForm {
        data: &response.data,
        version: &response.version,
        app_version: unless_zero(response.app_version),
        last_block_height: unless_zero(response.last_block_height),
        last_block_app_hash: (!hash.is_empty()).then_some(Base64(hash)),
    }
}

#[derive(Serialize)]
struct ProofOp<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    key: Base64<'a>,
    data: Base64<'a>,
}

#[derive(Serialize)]
struct ProofOps<'a> {
    ops: Vec<ProofOp<'a>>,
}

#[derive(Serialize)]
pub(super) struct QueryForm<'a> {
    code: u32,
    log: &'a str,
    info: &'a str,
    index: Text<i64>,
    key: Option<String>,
    value: Base64<'a>,
    #[serde(rename = "proofOps")]
    proof_ops: Option<ProofOps<'a>>,
    height: Text<i64>,
    codespace: &'a str,
}

/// `empty_key`: whether a key without bytes is written as `""` and not as `null`.
pub(super) fn query(response: &ResponseQuery, empty_key: bool) -> QueryForm<'_> {
    QueryForm {
        code: response.code,
        log: &response.log,
        info: &response.info,
        index: Text(response.index),
        key: (empty_key || !response.key.is_empty()).then(|| BASE64_STANDARD.encode(&response.key)),
        value: Base64(&response.value),
        proof_ops: response.proof_ops.as_ref().map(|ops| ProofOps {
            ops: ops.ops.iter().map(ProofOp::of).collect(),
        }),
        height: Text(response.height),
        codespace: &response.codespace,
    }
}

impl<'a> ProofOp<'a> {
    fn of(op: &'a crypto::ProofOp) -> Self {
        Self {
            kind: &op.r#type,
            key: Base64(&op.key),
            data: Base64(&op.data),
        }
    }
}

/// Bytes that CometBFT takes for text. Go writes a byte that is no UTF-8 as the escape `\ufffd`,
/// and U+FFFD itself as it is.
pub(super) struct GoText<'a>(pub(super) &'a [u8]);

impl Serialize for GoText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(self.0) {
            return serializer.serialize_str(text);
        }
        let mut text = String::from("\"");
        for chunk in self.0.utf8_chunks() {
            let valid = json::to_string(chunk.valid()).map_err(S::Error::custom)?;
            text.push_str(&valid[1..valid.len() - 1]);
            for _ in chunk.invalid() {
                text.push_str("\\ufffd");
            }
        }
        text.push('"');
        RawValue::from_string(text)
            .map_err(S::Error::custom)?
            .serialize(serializer)
    }
}

#[derive(Serialize)]
struct AttributeForm<'a> {
    key: GoText<'a>,
    value: GoText<'a>,
    index: bool,
}

impl<'a> AttributeForm<'a> {
    fn of(attribute: &'a EventAttribute) -> Self {
        Self {
            key: GoText(&attribute.key),
            value: GoText(&attribute.value),
            index: attribute.index,
        }
    }
}

#[derive(Serialize)]
struct EventForm<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    attributes: Vec<AttributeForm<'a>>,
}

impl<'a> EventForm<'a> {
    fn of(event: &'a Event) -> Self {
        Self {
            kind: &event.r#type,
            attributes: event.attributes.iter().map(AttributeForm::of).collect(),
        }
    }
}

/// An event of the block itself.
#[derive(Serialize)]
pub(super) struct BlockEventForm<'a> {
    #[serde(rename = "type", skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<AttributeForm<'a>>,
}

impl<'a> BlockEventForm<'a> {
    pub(super) fn of(event: &'a Event) -> Self {
        Self {
            kind: &event.r#type,
            attributes: event.attributes.iter().map(AttributeForm::of).collect(),
        }
    }
}

/// What became of a transaction.
#[derive(Serialize)]
pub(super) struct TxResultForm<'a> {
    code: u32,
    data: Base64<'a>,
    log: &'a str,
    info: &'a str,
    gas_wanted: Text<i64>,
    gas_used: Text<i64>,
    events: Vec<EventForm<'a>>,
    codespace: &'a str,
}

impl<'a> TxResultForm<'a> {
    pub(super) fn of(result: &'a ExecTxResult) -> Self {
        Self {
            code: result.code,
            data: Base64(&result.data),
            log: &result.log,
            info: &result.info,
            gas_wanted: Text(result.gas_wanted),
            gas_used: Text(result.gas_used),
            events: result.events.iter().map(EventForm::of).collect(),
            codespace: &result.codespace,
        }
    }
}

/// What the application says of a transaction: written as its result is.
pub(super) fn check_tx(response: &ResponseCheckTx) -> TxResultForm<'_> {
    TxResultForm {
        code: response.code,
        data: Base64(&response.data),
        log: &response.log,
        info: &response.info,
        gas_wanted: Text(response.gas_wanted),
        gas_used: Text(response.gas_used),
        events: response.events.iter().map(EventForm::of).collect(),
        codespace: &response.codespace,
    }
}

/// One kind of key, by Go's name of its type.
#[derive(Serialize)]
struct KeySum<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    value: KeyValue<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum KeyValue<'a> {
    Ed25519(Base64<'a>),
    Secp256k1(Base64<'a>),
    Bls12381(Base64<'a>),
    Mldsa65(Base64<'a>),
    Secp256k1eth(Base64<'a>),
}

#[derive(Serialize)]
struct KeyForm<'a> {
    #[serde(rename = "Sum")]
    sum: Option<KeySum<'a>>,
}

impl<'a> KeyForm<'a> {
    fn of(key: Option<&'a crypto::PublicKey>) -> Self {
        let sum = key.and_then(|key| key.sum.as_ref()).map(|sum| {
            let (kind, value) = match sum {
                Sum::Ed25519(key) => (
                    "tendermint.crypto.PublicKey_Ed25519",
                    KeyValue::Ed25519(Base64(key)),
                ),
                Sum::Secp256k1(key) => (
                    "tendermint.crypto.PublicKey_Secp256K1",
                    KeyValue::Secp256k1(Base64(key)),
                ),
                Sum::Bls12381(key) => (
                    "tendermint.crypto.PublicKey_Bls12381",
                    KeyValue::Bls12381(Base64(key)),
                ),
                Sum::Mldsa65(key) => (
                    "tendermint.crypto.PublicKey_Mldsa65",
                    KeyValue::Mldsa65(Base64(key)),
                ),
                Sum::Secp256k1eth(key) => (
                    "tendermint.crypto.PublicKey_Secp256K1Eth",
                    KeyValue::Secp256k1eth(Base64(key)),
                ),
            };
            KeySum { kind, value }
        });
        Self { sum }
    }
}

#[derive(Serialize)]
pub(super) struct UpdateForm<'a> {
    pub_key: KeyForm<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    power: Optional<i64>,
}

impl<'a> UpdateForm<'a> {
    pub(super) fn of(update: &'a ValidatorUpdate) -> Self {
        Self {
            pub_key: KeyForm::of(update.pub_key.as_ref()),
            power: unless_zero(update.power),
        }
    }
}

#[derive(Serialize)]
struct BlockParams {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Optional<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_gas: Optional<i64>,
}

#[derive(Serialize)]
struct EvidenceParams {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age_num_blocks: Optional<i64>,
    max_age_duration: Text<i128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Optional<i64>,
}

#[derive(Serialize)]
struct ValidatorParams<'a> {
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub_key_types: &'a [String],
}

#[derive(Serialize)]
struct VersionParams {
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Optional<u64>,
}

#[derive(Serialize)]
struct AbciParams {
    #[serde(skip_serializing_if = "Option::is_none")]
    vote_extensions_enable_height: Optional<i64>,
}

#[derive(Serialize)]
struct AuthorityParams<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    authority: &'a str,
}

#[derive(Serialize)]
pub(super) struct ParamsForm<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<BlockParams>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<EvidenceParams>,
    #[serde(skip_serializing_if = "Option::is_none")]
    validator: Option<ValidatorParams<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<VersionParams>,
    #[serde(skip_serializing_if = "Option::is_none")]
    abci: Option<AbciParams>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<AuthorityParams<'a>>,
}

impl<'a> ParamsForm<'a> {
    pub(super) fn of(params: &'a pb::ConsensusParams) -> Self {
        Self {
            block: params.block.as_ref().map(|block| BlockParams {
                max_bytes: unless_zero(block.max_bytes),
                max_gas: unless_zero(block.max_gas),
            }),
            evidence: params.evidence.as_ref().map(|evidence| {
                let age = evidence.max_age_duration.as_ref();
                let nanos = age.map_or(0, |age| {
                    i128::from(age.seconds) * 1_000_000_000 + i128::from(age.nanos)
                });
                EvidenceParams {
                    max_age_num_blocks: unless_zero(evidence.max_age_num_blocks),
                    max_age_duration: Text(nanos),
                    max_bytes: unless_zero(evidence.max_bytes),
                }
            }),
            validator: params.validator.as_ref().map(|validator| ValidatorParams {
                pub_key_types: &validator.pub_key_types,
            }),
            version: params.version.as_ref().map(|version| VersionParams {
                app: unless_zero(version.app),
            }),
            abci: params.abci.as_ref().map(|abci| AbciParams {
                vote_extensions_enable_height: unless_zero(abci.vote_extensions_enable_height),
            }),
            authority: params.authority.as_ref().map(|authority| AuthorityParams {
                authority: &authority.authority,
            }),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ResultsForm<'a> {
    height: Height,
    txs_results: Option<Vec<TxResultForm<'a>>>,
    finalize_block_events: Option<Vec<BlockEventForm<'a>>>,
    validator_updates: Option<Vec<UpdateForm<'a>>>,
    consensus_param_updates: Option<ParamsForm<'a>>,
    app_hash: Base64<'a>,
}

/// A list; `null` when empty.
pub(super) fn unless_empty<'a, T, F>(items: &'a [T], form: impl Fn(&'a T) -> F) -> Option<Vec<F>> {
    (!items.is_empty()).then(|| items.iter().map(form).collect())
}

pub(super) fn results(height: Height, response: &ResponseFinalizeBlock) -> ResultsForm<'_> {
    ResultsForm {
        height,
        txs_results: unless_empty(&response.tx_results, TxResultForm::of),
        finalize_block_events: unless_empty(&response.events, BlockEventForm::of),
        validator_updates: unless_empty(&response.validator_updates, UpdateForm::of),
        consensus_param_updates: response
            .consensus_param_updates
            .as_ref()
            .map(ParamsForm::of),
        app_hash: Base64(&response.app_hash),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_escaped_one_by_one() {
        let written = |bytes: &[u8]| json::to_string(&GoText(bytes)).unwrap();
        assert_eq!(written(b"a\xe2\x82x<"), "\"a\\ufffd\\ufffdx\\u003c\"");
        assert_eq!(written("\u{fffd}".as_bytes()), "\"\u{fffd}\"");
    }

    proptest! {
        #[test]
        fn any_bytes_become_json(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let text = json::to_string(&GoText(&bytes)).unwrap();
            let value: String = serde_json::from_str(&text).unwrap();
            prop_assert!(std::str::from_utf8(&bytes).map_or(true, |text| text == value));
        }
    }
}
