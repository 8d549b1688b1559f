//! Where in a block a value of an attribute stands.
//!
//! ```text
//! 1, hash, index, event                      in one place
//! 2, count, count times (index, event)       in several
//! ```
//! Numbers are varints (as protobuf has them); an index is told by what it is above the one before
//! it. One place has its transaction's hash with it, so that values of which each is met once cost a
//! search nothing more; several look it up among the block's hashes, once a posting.

use bytes::{Buf as _, BufMut as _};
use perihelion_types::Hash;
use prost::encoding::{decode_varint, encode_varint};

const ONE: u8 = 1;
const SEVERAL: u8 = 2;
const HASH_BYTES: usize = 32;

/// Index of a transaction in its block, and the event, from 1, of that transaction.
pub(super) type Place = (u32, u32);

/// Places in order, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Posting {
    first: Place,
    more: Vec<Place>,
}

impl Posting {
    pub(super) fn new(first: Place) -> Self {
        Self {
            first,
            more: Vec::new(),
        }
    }

    /// Adds a place behind all others.
    pub(super) fn push(&mut self, place: Place) {
        self.more.push(place);
    }

    /// `hashes` are those of the block's transactions, 32 bytes each, this posting's among them.
    pub(super) fn encode(&self, hashes: &[u8]) -> Vec<u8> {
        let (first, event) = self.first;
        let mut out = Vec::with_capacity(1 + HASH_BYTES + 4 + 4 * self.more.len());
        if self.more.is_empty() {
            out.put_u8(ONE);
            let from = first as usize * HASH_BYTES;
            out.extend_from_slice(&hashes[from..from + HASH_BYTES]);
            encode_varint(first.into(), &mut out);
            encode_varint(event.into(), &mut out);
            return out;
        }
        out.put_u8(SEVERAL);
        encode_varint(1 + self.more.len() as u64, &mut out);
        let mut before = 0;
        for (index, event) in std::iter::once(&self.first).chain(&self.more) {
            encode_varint(u64::from(index - before), &mut out);
            encode_varint(u64::from(*event), &mut out);
            before = *index;
        }
        out
    }

    /// What [`Self::encode`] has written at the front of `bytes`, with the hash where it has one, and
    /// what stands behind it; `None` where that is no posting.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<(Vec<Place>, Option<Hash>, &[u8])> {
        match bytes.try_get_u8().ok()? {
            ONE => {
                let (hash, rest) = bytes.split_at_checked(HASH_BYTES)?;
                bytes = rest;
                let place = (take(&mut bytes)?, take(&mut bytes)?);
                Some((vec![place], Some(Hash::try_from(hash).ok()?), bytes))
            }
            SEVERAL => {
                let count = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                // A place takes two bytes at least.
                if count > bytes.len() / 2 {
                    return None;
                }
                let (mut places, mut index) = (Vec::with_capacity(count), 0_u32);
                for _ in 0..count {
                    index = index.checked_add(take(&mut bytes)?)?;
                    places.push((index, take(&mut bytes)?));
                }
                Some((places, None, bytes))
            }
            _ => None,
        }
    }
}

fn take(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(decode_varint(bytes).ok()?).ok()
}

/// The hash of the transaction at `index` among those of its block.
pub(super) fn hash_at(hashes: &[u8], index: u32) -> Option<Hash> {
    let from = usize::try_from(index).ok()?.checked_mul(HASH_BYTES)?;
    let hash = hashes.get(from..from.checked_add(HASH_BYTES)?)?;
    Hash::try_from(hash).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_and_what_stands_behind_them() {
        let hashes: Vec<u8> = (0..=9_u8).flat_map(|tx| [tx; HASH_BYTES]).collect();
        let several: [&[Place]; 4] = [
            &[(7, 1)],
            &[(0, 1), (0, 2)],
            &[(3, 1), (9, 300)],
            &[(0, 1), (1, 1), (4, 2), (4, 3)],
        ];
        for places in several {
            let mut posting = Posting::new(places[0]);
            places[1..].iter().for_each(|place| posting.push(*place));
            let mut bytes = posting.encode(&hashes);
            let length = bytes.len();
            bytes.extend(b"behind");
            let (found, hash, rest) = Posting::decode(&bytes).unwrap();
            assert_eq!(found, places);
            assert_eq!(rest, b"behind");
            let only = hash_at(&hashes, places[0].0).filter(|_| places.len() == 1);
            assert_eq!(hash, only);
            for end in 0..length {
                let cut = Posting::decode(&bytes[..end]);
                assert_eq!(cut, None, "{places:?} cut at {end}");
            }
        }
    }

    #[test]
    fn what_is_no_posting_is_refused() {
        for bytes in [
            &b""[..],
            &[0],
            &[3, 1, 1, 1],
            // More places than there are bytes for.
            &[2, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 1],
            // An index above 32 bits.
            &[2, 1, 0xff, 0xff, 0xff, 0xff, 0x7f, 1],
            &[2, 2, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1, 1],
        ] {
            assert_eq!(Posting::decode(bytes), None, "{bytes:?}");
        }
        assert_eq!(hash_at(&[1; 40], 1), None);
    }
}
