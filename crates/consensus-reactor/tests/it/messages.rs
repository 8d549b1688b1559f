//! Messages for the log.

use bytes::Bytes;
use perihelion_consensus_reactor::wal::{Wal, WalError, WalOptions};
use perihelion_proto::tendermint::{consensus as pb, types};
use perihelion_types::{Height, Time};
use prost_types::Duration;

use crate::disk::Disk;

pub(crate) const NOW: Time = Time::new(1_700_000_000, 123_456_789);

/// A vote; ours when `peer` is empty.
pub(crate) fn vote(peer: &str, height: i64, index: i32) -> pb::WalMessage {
    let vote = types::Vote {
        r#type: 1,
        height,
        round: 0,
        block_id: Some(types::BlockId {
            hash: Bytes::new(),
            part_set_header: Some(types::PartSetHeader::default()),
        }),
        timestamp: Some(NOW.into()),
        validator_address: Bytes::from_static(&[7; 20]),
        validator_index: index,
        signature: Bytes::from_static(&[9; 64]),
        ..Default::default()
    };
    let sum = pb::message::Sum::Vote(pb::Vote { vote: Some(vote) });
    message(peer, sum)
}

/// A block part with `length` bytes; ours when `peer` is empty.
pub(crate) fn part(peer: &str, height: i64, length: usize) -> pb::WalMessage {
    part_of(peer, height, vec![0x5a; length])
}

/// A block part with these bytes.
pub(crate) fn part_of(peer: &str, height: i64, bytes: Vec<u8>) -> pb::WalMessage {
    let part = types::Part {
        index: 0,
        bytes: bytes.into(),
        proof: Some(perihelion_proto::tendermint::crypto::Proof::default()),
    };
    let sum = pb::message::Sum::BlockPart(pb::BlockPart {
        height,
        round: 0,
        part: Some(part),
    });
    message(peer, sum)
}

fn message(peer: &str, sum: pb::message::Sum) -> pb::WalMessage {
    let info = pb::MsgInfo {
        msg: Some(pb::Message { sum: Some(sum) }),
        peer_id: peer.to_owned(),
    };
    pb::WalMessage {
        sum: Some(pb::wal_message::Sum::MsgInfo(info)),
    }
}

pub(crate) fn timeout(height: i64) -> pb::WalMessage {
    let info = pb::TimeoutInfo {
        duration: Some(Duration {
            seconds: 3,
            nanos: 0,
        }),
        height,
        round: 0,
        step: 3,
    };
    pb::WalMessage {
        sum: Some(pb::wal_message::Sum::TimeoutInfo(info)),
    }
}

pub(crate) fn end(height: i64) -> pb::WalMessage {
    pb::WalMessage {
        sum: Some(pb::wal_message::Sum::EndHeight(pb::EndHeight { height })),
    }
}

pub(crate) fn open(disk: &Disk, options: &WalOptions) -> Result<Wal, WalError> {
    Wal::open_in(Box::new(disk.clone()), "wal", options.clone(), NOW).map(|(wal, _)| wal)
}

/// Everything behind the mark of `height`'s end; `None` when there is no mark.
pub(crate) fn behind(wal: &mut Wal, height: i64) -> Result<Option<Vec<pb::WalMessage>>, WalError> {
    match wal.search_end_height(Height::new(height))? {
        None => Ok(None),
        Some(entries) => entries
            .map(|entry| entry.map(|entry| entry.message))
            .collect::<Result<_, _>>()
            .map(Some),
    }
}
