//! CometBFT's messages as prost structs, by protocol package: [`tendermint::types`],
//! [`tendermint::blocksync`], [`tendermint::abci`] and so on.
//!
//! Field numbers, types and nullability are those of CometBFT v0.38; messages that v0.40 extends
//! (public keys, consensus parameters) carry its fields too. `bytes` fields are
//! [`bytes::Bytes`] and share the buffer that they were decoded from.
//!
//! A sub-message that CometBFT marks as not nullable is always present on its wire, even when
//! empty. The structs here hold it as an `Option`, so whoever encodes one must set it to `Some`.
#![allow(
    missing_docs,
    clippy::doc_markdown,
    clippy::large_enum_variant,
    clippy::allow_attributes_without_reason,
    reason = "the code is generated"
)]

include!(concat!(env!("OUT_DIR"), "/protocol.rs"));
