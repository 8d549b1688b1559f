//! The genesis document.

use base64::prelude::{BASE64_STANDARD, Engine};
use perihelion_types::json::Text;
use serde::Serialize;

use super::{Answer, CallError, write};
use crate::{arguments::Arguments, context::Backend};

/// Bytes of the document in one chunk. Clients ask for chunks by number, so that it is part of the
/// protocol.
const CHUNK_BYTES: usize = 16 << 20;

pub(super) fn genesis(backend: &Backend, _: &Arguments) -> Answer {
    let document = &backend.genesis_json;
    if document.len() > CHUNK_BYTES {
        return Err(CallError::LargeGenesis);
    }
    Ok(format!("{{\"genesis\":{document}}}"))
}

#[derive(Serialize)]
struct Chunk {
    chunk: Text<u64>,
    total: Text<usize>,
    data: String,
}

pub(super) fn chunked(backend: &Backend, arguments: &Arguments) -> Answer {
    let chunk = arguments.unsigned(0);
    let document = backend.genesis_json.as_bytes();
    let total = document.len().div_ceil(CHUNK_BYTES);
    let found = usize::try_from(chunk)
        .ok()
        .and_then(|index| document.chunks(CHUNK_BYTES).nth(index));
    let Some(bytes) = found else {
        let last = total.saturating_sub(1);
        return Err(CallError::Chunk { last, chunk });
    };
    write(&Chunk {
        chunk: Text(chunk),
        total: Text(total),
        data: BASE64_STANDARD.encode(bytes),
    })
}
