//! Reads commits in the one encoding that all nodes write, in one pass over their bytes.
//!
//! A block carries a place a validator, so this is most of what there is to decode of a block. The
//! general decoder would make a message of each place first, and takes several times as long.

use bytes::Bytes;
use perihelion_proto::tendermint::types as pb;
use prost::Message;

use super::{Commit, CommitSig, ExtendedCommit, ExtendedCommitSig};
use crate::{BlockId, Height, Round, Time};

/// Tags of the fields, in the order of their numbers.
const HEIGHT: u8 = 1 << 3;
const ROUND: u8 = 2 << 3;
const BLOCK_ID: u8 = 3 << 3 | 2;
const PLACE: u8 = 4 << 3 | 2;
const FLAG: u8 = 1 << 3;
const ADDRESS: u8 = 2 << 3 | 2;
const TIME: u8 = 3 << 3 | 2;
const SIGNATURE: u8 = 4 << 3 | 2;
const EXTENSION: u8 = 5 << 3 | 2;
const EXTENSION_SIGNATURE: u8 = 6 << 3 | 2;
const SECONDS: u8 = 1 << 3;
const NANOS: u8 = 2 << 3;

impl Commit {
    /// Decodes a `tendermint.types.Commit` whose fields stand once each and in order, sharing
    /// `raw`'s memory; without the stateless rules. `None` for any other bytes, of which the
    /// general decoder is to say what they are.
    pub(crate) fn decode_usual(raw: &Bytes) -> Option<Self> {
        let (height, round, block_id, signatures) = decode(raw, CommitSig::read)?;
        Some(Self {
            height,
            round,
            block_id,
            signatures,
        })
    }
}

impl ExtendedCommit {
    /// The same for a `tendermint.types.ExtendedCommit`.
    pub(super) fn decode_usual(raw: &Bytes) -> Option<Self> {
        let read = |raw: &Bytes, place: &mut Reader<'_>| {
            Some(ExtendedCommitSig {
                commit_sig: CommitSig::read(raw, place)?,
                extension: shared(raw, place.bytes_if(EXTENSION)?),
                extension_signature: shared(raw, place.bytes_if(EXTENSION_SIGNATURE)?),
            })
        };
        let (height, round, block_id, extended_signatures) = decode(raw, read)?;
        Some(Self {
            height,
            round,
            block_id,
            extended_signatures,
        })
    }
}

/// What commits and extended commits have in common, and their places by `read`.
fn decode<P>(
    raw: &Bytes,
    read: impl Fn(&Bytes, &mut Reader<'_>) -> Option<P>,
) -> Option<(Height, Round, BlockId, Vec<P>)> {
    let mut rest = Reader(raw);
    let height = rest.number(HEIGHT)?.cast_signed();
    let round = i32::try_from(rest.number(ROUND)?).ok()?;
    let block_id = pb::BlockId::decode(rest.bytes(BLOCK_ID)?).ok()?;
    let (mut counted, mut count) = (Reader(rest.0), 0);
    while !counted.0.is_empty() {
        counted.bytes(PLACE)?;
        count += 1;
    }
    let mut places = Vec::with_capacity(count);
    while !rest.0.is_empty() {
        let mut place = Reader(rest.bytes(PLACE)?);
        places.push(read(raw, &mut place)?);
        if !place.0.is_empty() {
            return None;
        }
    }
    let block_id = block_id.try_into().ok()?;
    Some((Height::new(height), Round::new(round), block_id, places))
}

impl CommitSig {
    /// Reads the fields of a place, which stands in `raw`.
    fn read(raw: &Bytes, place: &mut Reader<'_>) -> Option<Self> {
        let flag = i32::try_from(place.number(FLAG)?).ok()?;
        let address = place.bytes_if(ADDRESS)?;
        let mut time = Reader(place.bytes(TIME)?);
        let signature = place.bytes_if(SIGNATURE)?;
        let timestamp = prost_types::Timestamp {
            seconds: time.number(SECONDS)?.cast_signed(),
            nanos: i32::try_from(time.number(NANOS)?).ok()?,
        };
        time.0.is_empty().then_some(Self {
            block_id_flag: flag.into(),
            validator_address: shared(raw, address),
            timestamp: Time::try_from(timestamp).ok()?,
            signature: shared(raw, signature),
        })
    }
}

fn shared(raw: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() {
        return Bytes::new();
    }
    raw.slice_ref(part)
}

/// What is left of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Whether the field with this tag is next, which is taken then.
    fn has(&mut self, tag: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == tag => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// The field with this tag, which is left out when it is zero.
    fn number(&mut self, tag: u8) -> Option<u64> {
        if self.has(tag) {
            self.varint()
        } else {
            Some(0)
        }
    }

    /// The field with this tag, which must be next.
    fn bytes(&mut self, tag: u8) -> Option<&'a [u8]> {
        if !self.has(tag) {
            return None;
        }
        let length = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// The field with this tag, which is left out when it is empty.
    fn bytes_if(&mut self, tag: u8) -> Option<&'a [u8]> {
        match self.0.first() {
            Some(first) if *first == tag => self.bytes(tag),
            _ => Some(&[]),
        }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (index, &byte) in self.0.iter().enumerate().take(10) {
            if index == 9 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::DecodeError;

    fn place() -> impl Strategy<Value = pb::CommitSig> {
        let time = option::weighted(
            0.9,
            (-70_000_000_000..300_000_000_000_i64, -1..1_000_000_001),
        );
        let bytes = || prop_oneof![Just(0), 0..200_usize].prop_flat_map(|n| vec(any::<u8>(), n));
        (-1..5, bytes(), time, bytes()).prop_map(|(flag, address, time, signature)| pb::CommitSig {
            block_id_flag: flag,
            validator_address: address.into(),
            timestamp: time.map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }),
            signature: signature.into(),
        })
    }

    fn commit() -> impl Strategy<Value = pb::Commit> {
        let length = || prop_oneof![Just(0), Just(32), Just(31)];
        let hash = || length().prop_flat_map(|length| vec(any::<u8>(), length));
        let block_id = (hash(), 0..3_u32, hash()).prop_map(|(hash, total, parts)| pb::BlockId {
            hash: hash.into(),
            part_set_header: Some(pb::PartSetHeader {
                total,
                hash: parts.into(),
            }),
        });
        let block_id = option::weighted(0.9, block_id);
        (-1..3_i64, -1..3, block_id, vec(place(), 0..5)).prop_map(
            |(height, round, block_id, signatures)| pb::Commit {
                height,
                round,
                block_id,
                signatures,
            },
        )
    }

    fn generally(raw: &Bytes) -> Result<Commit, DecodeError> {
        Commit::from_proto_unchecked(pb::Commit::decode(raw.clone())?)
    }

    fn extended() -> impl Strategy<Value = pb::ExtendedCommit> {
        (
            commit(),
            vec((vec(any::<u8>(), 0..9), vec(any::<u8>(), 0..9)), 5),
        )
            .prop_map(|(commit, extensions)| {
                let places = commit.signatures.into_iter().zip(extensions);
                pb::ExtendedCommit {
                    height: commit.height,
                    round: commit.round,
                    block_id: commit.block_id,
                    extended_signatures: places
                        .map(|(place, (extension, signature))| pb::ExtendedCommitSig {
                            block_id_flag: place.block_id_flag,
                            validator_address: place.validator_address,
                            timestamp: place.timestamp,
                            signature: place.signature,
                            extension: extension.into(),
                            extension_signature: signature.into(),
                        })
                        .collect(),
                }
            })
    }

    type Bend = (prop::sample::Index, u8, u8);

    fn bent(mut raw: Vec<u8>, bends: Vec<Bend>) -> Bytes {
        for (at, byte, how) in bends {
            let at = at.index(raw.len() + 1);
            match how {
                0 => raw.insert(at, byte),
                1 if at < raw.len() => raw[at] = byte,
                _ => raw.truncate(at),
            }
        }
        raw.into()
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_the_general_decoder_reads(
            commit in commit(),
            extended in extended(),
            bends in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..3),
        ) {
            let raw = bent(commit.encode_to_vec(), bends.clone());
            if let Some(commit) = Commit::decode_usual(&raw) {
                prop_assert_eq!(Ok(commit), generally(&raw));
            }
            let raw = bent(extended.encode_to_vec(), bends);
            if let Some(commit) = ExtendedCommit::decode_usual(&raw) {
                let message = pb::ExtendedCommit::decode(raw).unwrap();
                prop_assert_eq!(pb::ExtendedCommit::from(&commit).height, message.height);
                prop_assert_eq!(commit.round.get(), message.round);
                let block_id = message.block_id.clone().unwrap_or_default();
                prop_assert_eq!(Some(commit.block_id), BlockId::try_from(block_id).ok());
                let times = |it: &pb::ExtendedCommitSig| it.timestamp.unwrap_or_default();
                let places = pb::ExtendedCommit::from(&commit).extended_signatures;
                for (read, place) in places.iter().zip(&message.extended_signatures) {
                    prop_assert_eq!(times(read), times(place));
                    let read = pb::ExtendedCommitSig { timestamp: None, ..read.clone() };
                    let place = pb::ExtendedCommitSig { timestamp: None, ..place.clone() };
                    prop_assert_eq!(read, place);
                }
                prop_assert_eq!(places.len(), message.extended_signatures.len());
            }
        }
    }

    #[test]
    fn what_nodes_write_is_usual() {
        let signed = |flag, seconds| CommitSig {
            block_id_flag: flag,
            validator_address: Bytes::from_static(&[3; 20]),
            timestamp: Time::new(seconds, 5),
            signature: Bytes::from_static(&[4; 64]),
        };
        let commit = Commit {
            height: Height::new(7),
            round: Round::new(1),
            block_id: crate::BlockId {
                hash: crate::Hash::new([1; 32]),
                part_set_header: crate::PartSetHeader {
                    total: 1,
                    hash: crate::Hash::new([2; 32]),
                },
            },
            signatures: vec![
                signed(super::super::BlockIdFlag::Commit, 1_700_000_000),
                CommitSig::absent(),
                signed(super::super::BlockIdFlag::Nil, 0),
            ],
        };
        let raw = Bytes::from(pb::Commit::from(&commit).encode_to_vec());
        assert_eq!(Commit::decode_usual(&raw), Some(commit));
        // The first block's last commit.
        let empty = Bytes::from_static(&[0x1a, 2, 0x12, 0]);
        let read = Commit::decode_usual(&empty);
        assert_eq!(read, generally(&empty).ok());
        assert!(read.is_some_and(|commit| commit.signatures.is_empty()));
    }
}
