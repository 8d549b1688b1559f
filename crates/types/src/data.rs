//! A block's transactions.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{decode_varint, encode_varint};

use crate::{DecodeError, Hash, gogo::Fields, merkle, tx};

/// Tag of a transaction in the message: field 1, length-delimited.
const TX: u8 = 1 << 3 | 2;

/// A block's transactions, in order.
///
/// They stay the one piece that they are in `tendermint.types.Data`: what they take in memory is
/// what they take on the wire, however many of them a peer packs into a block.
///
/// Invariant: `encoded` is the canonical encoding of `count` transactions.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Data {
    encoded: Bytes,
    count: usize,
}

impl Data {
    /// These transactions.
    #[must_use]
    pub fn new<T: AsRef<[u8]>>(txs: impl IntoIterator<Item = T>) -> Self {
        let (mut encoded, mut count) = (BytesMut::new(), 0);
        for tx in txs {
            put(&mut encoded, tx.as_ref());
            count += 1;
        }
        Self {
            encoded: encoded.freeze(),
            count,
        }
    }

    /// Decodes a `tendermint.types.Data` without a length prefix, sharing its memory unless it is
    /// encoded in another way than the canonical one.
    ///
    /// # Errors
    /// When the bytes are no such message.
    pub fn decode(raw: Bytes) -> Result<Self, DecodeError> {
        let (mut count, mut length) = (0, 0);
        for field in Fields(&raw) {
            match field? {
                (1, Some(tx)) => {
                    count += 1;
                    length += framed_len(tx);
                }
                (1, _) => return Err(DecodeError::Protobuf("malformed transactions".into())),
                _ => {}
            }
        }
        // Every other encoding is longer.
        if length == raw.len() {
            return Ok(Self {
                encoded: raw,
                count,
            });
        }
        let mut encoded = BytesMut::with_capacity(length);
        for field in Fields(&raw) {
            if let (1, Some(tx)) = field? {
                put(&mut encoded, tx);
            }
        }
        Ok(Self {
            encoded: encoded.freeze(),
            count,
        })
    }

    /// The canonical encoding, without a length prefix.
    #[must_use]
    pub const fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.encoded[..];
        std::iter::from_fn(move || {
            rest = rest.get(1..)?;
            let length = decode_varint(&mut rest).ok()?;
            let (tx, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            rest = behind;
            Some(tx)
        })
    }

    /// All of them, each sharing the memory of all.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Bytes> {
        let mut txs = Vec::with_capacity(self.count);
        txs.extend(self.iter().map(|tx| self.encoded.slice_ref(tx)));
        txs
    }

    /// Merkle root over the transactions' hashes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let mut txs = self.iter();
        let mut group = Vec::with_capacity(merkle::GROUP.min(self.count));
        merkle::root_of_groups(std::iter::from_fn(|| {
            group.clear();
            group.extend(txs.by_ref().take(merkle::GROUP));
            if group.is_empty() {
                return None;
            }
            let hashes = tx::hashes(&group);
            let leaves: Vec<_> = hashes.iter().map(|hash| &hash[..]).collect();
            Some(merkle::leaf_hashes(&leaves))
        }))
    }

    /// Bytes of the encoded transactions with their framing, which count against a block's size.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.encoded.len()
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} of {} bytes)", self.count, self.encoded.len())
    }
}

/// Bytes of a transaction with its framing.
fn framed_len(tx: &[u8]) -> usize {
    1 + prost::length_delimiter_len(tx.len()) + tx.len()
}

fn put(encoded: &mut BytesMut, tx: &[u8]) {
    encoded.reserve(framed_len(tx));
    encoded.put_u8(TX);
    encode_varint(tx.len() as u64, encoded);
    encoded.put_slice(tx);
}

#[cfg(test)]
mod tests {
    use perihelion_proto::tendermint::types as pb;
    use prost::Message as _;

    use super::*;

    #[test]
    fn what_peers_encode_is_what_prost_reads() {
        let long = vec![7; 300];
        let txs: Vec<&[u8]> = vec![b"", b"a", &long, b"", b"b"];
        let message = pb::Data {
            txs: txs.iter().map(|tx| Bytes::copy_from_slice(tx)).collect(),
        };
        let raw = Bytes::from(message.encode_to_vec());
        let data = Data::decode(raw.clone()).unwrap();
        assert_eq!(data, Data::new(&txs));
        assert_eq!(data.encoded().as_ptr(), raw.as_ptr());
        assert_eq!((data.len(), data.encoded_len()), (5, raw.len()));
        assert_eq!(data.iter().collect::<Vec<_>>(), txs);
        assert_eq!(data.to_vec(), message.txs);
    }

    #[test]
    fn other_encodings_are_made_canonical() {
        // An unknown field, and a length in two bytes.
        let raw = Bytes::from_static(b"\x0a\x01a\x12\x01x\x0a\x81\x00b");
        let data = Data::decode(raw).unwrap();
        assert_eq!(data, Data::new([b"a", b"b"]));
    }

    #[test]
    fn what_is_no_list_of_transactions_is_refused() {
        for raw in [&b"\x0a\x02a"[..], b"\x08\x01", b"\x02\x01a", b"\x0a"] {
            assert!(Data::decode(Bytes::from_static(raw)).is_err(), "{raw:?}");
        }
    }
}
