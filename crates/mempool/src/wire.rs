//! The message of channel 0x30: `tendermint.mempool.Message` with `Txs`.
//!
//! What arrives is judged on its bytes before anything is made of it: an empty transaction would
//! cost two bytes on the wire and far more here.

use bytes::{Bytes, BytesMut};
use prost::encoding::{WireType, decode_key, decode_varint, encode_varint};
use thiserror::Error;

/// The channel.
pub const CHANNEL: u8 = 0x30;

/// Field 1 with a length, both of `Message` and of `Txs`.
const TAG: u8 = 0x0a;

/// What CometBFT disconnects a peer for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// The bytes are no message.
    #[error("a malformed message")]
    Malformed,
    /// There is no transaction in it.
    #[error("mempool message contains no transactions")]
    NoTransactions,
    /// One of its transactions has no bytes.
    #[error("mempool batch contains an empty transaction")]
    EmptyTransaction,
}

/// The message with one transaction, and the transaction as a part of it.
#[must_use]
pub fn encode(tx: &Bytes) -> (Bytes, Bytes) {
    let inner = 1 + prost::length_delimiter_len(tx.len()) + tx.len();
    let mut message = BytesMut::with_capacity(inner + 11);
    for length in [inner, tx.len()] {
        message.extend_from_slice(&[TAG]);
        encode_varint(length as u64, &mut message);
    }
    message.extend_from_slice(tx);
    let message = message.freeze();
    let tx = message.slice(message.len() - tx.len()..);
    (message, tx)
}

/// The largest message that holds one transaction of `tx_bytes`.
#[must_use]
pub fn message_bytes(tx_bytes: usize) -> usize {
    let inner = 1 + prost::length_delimiter_len(tx_bytes) + tx_bytes;
    1 + prost::length_delimiter_len(inner) + inner
}

/// The transactions of a message, as parts of it.
///
/// # Errors
/// When CometBFT would disconnect the sender.
pub fn decode(message: &Bytes) -> Result<impl Iterator<Item = Bytes> + use<>, WireError> {
    let mut count = 0_usize;
    for tx in Transactions::new(message.clone()) {
        if tx?.is_empty() {
            return Err(WireError::EmptyTransaction);
        }
        count += 1;
    }
    if count == 0 {
        return Err(WireError::NoTransactions);
    }
    // Seen to hold, to the end.
    Ok(Transactions::new(message.clone()).map_while(Result::ok))
}

/// The transactions in the bytes of a message, up to the first mistake.
struct Transactions {
    message: Bytes,
    /// The rest of the `Txs` at work.
    txs: Bytes,
    failed: bool,
}

impl Transactions {
    fn new(message: Bytes) -> Self {
        Self {
            message,
            txs: Bytes::new(),
            failed: false,
        }
    }

    fn step(&mut self) -> Result<Option<Bytes>, WireError> {
        loop {
            if let Some(tx) = first_field(&mut self.txs)? {
                return Ok(Some(tx));
            }
            match first_field(&mut self.message)? {
                Some(txs) => self.txs = txs,
                None => return Ok(None),
            }
        }
    }
}

impl Iterator for Transactions {
    type Item = Result<Bytes, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step();
        self.failed = step.is_err();
        step.transpose()
    }
}

/// Takes the fields of a message off, up to the next with number 1 and a length; its content.
fn first_field(bytes: &mut Bytes) -> Result<Option<Bytes>, WireError> {
    while !bytes.is_empty() {
        let (number, kind) = decode_key(bytes).map_err(|_| WireError::Malformed)?;
        let length = match kind {
            WireType::LengthDelimited => varint(bytes)?,
            WireType::Varint => {
                varint(bytes)?;
                0
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::StartGroup | WireType::EndGroup => return Err(WireError::Malformed),
        };
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= bytes.len())
            .ok_or(WireError::Malformed)?;
        let content = bytes.split_to(length);
        if (number, kind) == (1, WireType::LengthDelimited) {
            return Ok(Some(content));
        }
    }
    Ok(None)
}

fn varint(bytes: &mut Bytes) -> Result<u64, WireError> {
    decode_varint(bytes).map_err(|_| WireError::Malformed)
}
