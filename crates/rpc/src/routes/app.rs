//! What the application says.

use bytes::Bytes;
use perihelion_abci::types::{RequestInfo, RequestQuery};
use perihelion_p2p::node_info::{BLOCK_PROTOCOL, P2P_PROTOCOL};

use super::{Answer, forms, write};
use crate::{COMETBFT_VERSION, arguments::Arguments, context::Backend};

pub(super) fn info(backend: &Backend, _: &Arguments) -> Answer {
    let response = backend.context.query.info(&RequestInfo {
        version: COMETBFT_VERSION.to_owned(),
        block_version: BLOCK_PROTOCOL,
        p2p_version: P2P_PROTOCOL,
        abci_version: perihelion_abci::ABCI_VERSION.to_owned(),
    })?;
    write(&forms::InResponse {
        response: forms::info(&response),
    })
}

pub(super) fn query(backend: &Backend, arguments: &Arguments) -> Answer {
    let data = arguments.bytes(1);
    let response = backend.context.query.query(&RequestQuery {
        path: arguments.text(0).to_owned(),
        data: data.cloned().unwrap_or_default(),
        height: arguments.integer(2).unwrap_or_default(),
        prove: arguments.flag(3),
    })?;
    // An empty key is `""` when it was asked for by an empty one, and `null` else.
    let empty_key = data.is_some_and(Bytes::is_empty);
    write(&forms::InResponse {
        response: forms::query(&response, empty_key),
    })
}
