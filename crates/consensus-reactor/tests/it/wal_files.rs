//! The files of a log: rotation, bounds, names, rights, searching.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc};

use bytes::Bytes;
use perihelion_consensus::{Message, WalMessage};
use perihelion_consensus_reactor::{
    wal::{MAX_DATA_BYTES, RecordFault, SYNC_INTERVAL, Wal, WalError, WalOptions, check},
    wire::{MAX_MESSAGE_BYTES, PeerMessage},
};
use perihelion_proto::tendermint::consensus::wal_message::Sum;
use perihelion_state::MAX_OWN_EXTENSION_BYTES;
use perihelion_types::{
    BlockId, Hash, Height, PartSetHeader, Round, SignedMsgType, Time, Vote,
    commit::MAX_VOTE_EXTENSION_BYTES,
};

use crate::{
    disk::Disk,
    messages::{NOW, behind, end, open, part, timeout, vote},
};

fn small(head_bytes: u64, total_bytes: u64) -> WalOptions {
    WalOptions {
        head_bytes,
        total_bytes,
    }
}

/// Heights 1 to `heights`, each with a part of 500 bytes and our own vote.
fn write(wal: &mut Wal, heights: i64) {
    for height in 1..=heights {
        wal.append(NOW, part("peer", height, 500)).unwrap();
        wal.append(NOW, vote("", height, 0)).unwrap();
        wal.append(NOW, end(height)).unwrap();
    }
}

#[test]
fn a_new_log_begins_with_height_zero_and_is_its_owners() {
    let home = tempfile::tempdir().unwrap();
    let head = home.path().join("data/cs.wal/wal");
    let (wal, torn) = Wal::open(&head, WalOptions::default(), NOW).unwrap();
    assert!(torn.is_none() && wal.sync_deadline().is_none());
    drop(wal);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&head), 0o600);
    assert_eq!(mode(head.parent().unwrap()), 0o700);
    // What CometBFT writes at first, but for the time.
    let bytes = fs::read(&head).unwrap();
    assert_eq!(bytes[bytes.len() - 4..], [0x12, 0x02, 0x22, 0x00]);
    let (mut wal, _) = Wal::open(&head, WalOptions::default(), NOW).unwrap();
    assert_eq!(behind(&mut wal, 0).unwrap().unwrap(), []);
    assert_eq!(fs::read(&head).unwrap(), bytes);
}

/// The application is told that its extension is too long before a vote is signed that could neither
/// be logged nor taken by anybody.
#[test]
fn an_own_vote_with_the_longest_extension_can_be_logged_and_sent() {
    let home = tempfile::tempdir().unwrap();
    let now = Time::new(253_402_300_799, 999_999_999);
    let (mut wal, _) = Wal::open(&home.path().join("wal"), WalOptions::default(), now).unwrap();
    let mut vote = Vote {
        vote_type: SignedMsgType::Precommit,
        height: Height::new(i64::MAX),
        round: Round::new(i32::MAX),
        block_id: BlockId {
            hash: Hash::of(b"block"),
            part_set_header: PartSetHeader {
                total: u32::MAX,
                hash: Hash::of(b"parts"),
            },
        },
        timestamp: now,
        validator_address: Bytes::from_static(&[7; 20]),
        validator_index: i32::MAX,
        signature: Bytes::from_static(&[9; 64]),
        extension: vec![1; MAX_OWN_EXTENSION_BYTES].into(),
        extension_signature: Bytes::from_static(&[9; 64]),
    };
    let own = |vote: &Vote| WalMessage::Message {
        peer: None,
        message: Message::Vote(Arc::new(vote.clone())),
    };
    wal.append_message(now, &own(&vote), true).unwrap();
    let bytes = PeerMessage::Vote(Arc::new(vote.clone())).encode().len();
    // Others log it with its sender.
    assert!(bytes + 128 <= MAX_MESSAGE_BYTES, "{bytes}");
    vote.extension = vec![1; MAX_VOTE_EXTENSION_BYTES].into();
    let error = wal.append_message(now, &own(&vote), true).unwrap_err();
    assert!(matches!(error, WalError::TooLarge { .. }), "{error}");
}

#[test]
fn a_torn_end_is_cut_on_a_real_disk() {
    let home = tempfile::tempdir().unwrap();
    let head = home.path().join("wal");
    let (mut wal, _) = Wal::open(&head, WalOptions::default(), NOW).unwrap();
    write(&mut wal, 2);
    drop(wal);
    let whole = fs::read(&head).unwrap();
    fs::write(&head, [&whole[..], b"torn"].concat()).unwrap();
    let (mut wal, torn) = Wal::open(&head, WalOptions::default(), NOW).unwrap();
    let torn = torn.unwrap();
    assert_eq!((torn.offset, torn.bytes), (whole.len() as u64, 4));
    assert_eq!(fs::read(&torn.kept).unwrap(), b"torn");
    assert_eq!(fs::read(&head).unwrap(), whole);
    wal.append(NOW, vote("", 3, 0)).unwrap();
    assert_eq!(behind(&mut wal, 2).unwrap().unwrap(), [vote("", 3, 0)]);
}

/// The files of a folder.
fn content(folder: &std::path::Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_check_finds_damage_and_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let head = home.path().join("cs.wal/wal");
    check(&head).unwrap();
    assert!(!head.parent().unwrap().exists());
    let (mut wal, _) = Wal::open(&head, small(2_000, 0), NOW).unwrap();
    write(&mut wal, 20);
    drop(wal);
    // The head has several records.
    let (mut wal, _) = Wal::open(&head, WalOptions::default(), NOW).unwrap();
    write(&mut wal, 1);
    drop(wal);
    let checked = || {
        let before = content(head.parent().unwrap());
        let result = check(&head);
        assert!(content(head.parent().unwrap()) == before);
        result
    };
    checked().unwrap();
    let (older, whole) = (head.with_file_name("wal.001"), fs::read(&head).unwrap());
    // Torn, as after a crash.
    fs::write(&head, [&whole[..], b"torn"].concat()).unwrap();
    checked().unwrap();
    let mut damaged = whole.clone();
    damaged[20] ^= 1;
    fs::write(&head, damaged).unwrap();
    let error = checked().unwrap_err();
    assert!(error.is_damage());
    assert!(
        matches!(&error, WalError::Damaged { path, offset: 0, .. } if *path == head),
        "{error}"
    );
    // Behind the last end of a height nothing is read.
    fs::write(&head, &whole).unwrap();
    let there = fs::read(&older).unwrap();
    fs::write(&older, &there[1..]).unwrap();
    checked().unwrap();
    // Without a height that ends in newer files, all of them count.
    let newer: Vec<_> = content(head.parent().unwrap())
        .into_iter()
        .filter(|(name, _)| *name > *"wal.001")
        .collect();
    for (name, _) in &newer {
        fs::write(head.with_file_name(name), b"").unwrap();
    }
    fs::write(&head, b"").unwrap();
    let error = checked().unwrap_err();
    assert!(
        matches!(&error, WalError::Damaged { path, .. } if *path == older),
        "{error}"
    );
    fs::write(&older, there).unwrap();
    checked().unwrap();
    fs::remove_file(head.with_file_name("wal.002")).unwrap();
    assert!(newer.len() > 1, "{newer:?}");
    let error = checked().unwrap_err();
    assert!(matches!(error, WalError::MissingFile { .. }), "{error}");
    // A head that is not there is made.
    fs::remove_file(&head).unwrap();
    fs::write(head.with_file_name("wal.002"), b"").unwrap();
    checked().unwrap();
}

#[test]
fn only_what_need_not_be_durable_waits_to_be_synced() {
    let mut wal = open(&Disk::default(), &WalOptions::default()).unwrap();
    for message in [vote("peer", 1, 1), timeout(1), part("", 1, 10)] {
        let before = std::time::Instant::now();
        wal.append(NOW, message).unwrap();
        assert!(wal.sync_deadline().unwrap() >= before + SYNC_INTERVAL);
        wal.sync().unwrap();
        assert_eq!(wal.sync_deadline(), None);
    }
    for message in [vote("", 1, 0), end(1)] {
        wal.append(NOW, timeout(1)).unwrap();
        wal.append(NOW, message).unwrap();
        assert_eq!(wal.sync_deadline(), None);
    }
}

#[test]
fn the_head_is_put_aside_under_the_next_number() {
    let disk = Disk::default();
    let mut wal = open(&disk, &small(2_000, 0)).unwrap();
    write(&mut wal, 10);
    let names = disk.names();
    assert!(names.len() > 3, "{names:?}");
    assert_eq!(names[..3], ["wal", "wal.000", "wal.001"]);
    drop(wal);
    for name in &disk.names()[1..] {
        assert!(disk.get(name).unwrap().len() >= 2_000, "{name}");
    }
    // Every height is found, through all files, and what is not there is not.
    let mut wal = open(&disk, &small(2_000, 0)).unwrap();
    for height in 0..=10_i64 {
        let rest = behind(&mut wal, height).unwrap().unwrap();
        assert_eq!(rest.len(), 3 * usize::try_from(10 - height).unwrap());
    }
    assert!(behind(&mut wal, 11).unwrap().is_none());
    // The numbering goes on behind what is there.
    write(&mut wal, 10);
    assert!(disk.names().len() > names.len());
}

#[test]
fn numbers_above_999_have_more_digits() {
    let disk = Disk::with("wal.999", b"");
    disk.put("wal", b"");
    let mut wal = open(&disk, &small(1, 0)).unwrap();
    wal.append(NOW, end(1)).unwrap();
    wal.append(NOW, end(2)).unwrap();
    assert_eq!(disk.names(), ["wal", "wal.1000", "wal.999"]);
    drop(wal);
    let mut wal = open(&disk, &small(1, 0)).unwrap();
    assert_eq!(behind(&mut wal, 1).unwrap().unwrap(), [end(2)]);
}

#[test]
fn the_oldest_files_go_when_all_are_too_large_but_none_of_the_height_at_work() {
    let disk = Disk::default();
    let mut wal = open(&disk, &small(1_000, 5_000)).unwrap();
    write(&mut wal, 50);
    let total: usize = disk
        .names()
        .iter()
        .map(|name| disk.get(name).unwrap().len())
        .sum();
    assert!(total < 6_500, "{total}");
    assert!(behind(&mut wal, 0).unwrap().is_none());
    assert_eq!(behind(&mut wal, 50).unwrap().unwrap(), []);
    // One height alone is above the bound: all of it stays, so that it can be replayed.
    for _ in 0..30 {
        wal.append(NOW, part("peer", 51, 500)).unwrap();
    }
    assert_eq!(behind(&mut wal, 50).unwrap().unwrap().len(), 30);
    drop(wal);
    // Also when the log is opened anew, with the mark in an older file.
    let mut wal = open(&disk, &small(1_000, 5_000)).unwrap();
    for _ in 0..30 {
        wal.append(NOW, part("peer", 51, 500)).unwrap();
    }
    assert_eq!(behind(&mut wal, 50).unwrap().unwrap().len(), 60);
    // With the next height it goes.
    wal.append(NOW, end(51)).unwrap();
    for _ in 0..4 {
        wal.append(NOW, part("peer", 52, 500)).unwrap();
    }
    assert!(behind(&mut wal, 50).unwrap().is_none());
}

#[test]
fn other_files_are_left_alone() {
    let disk = Disk::default();
    for name in [
        "wal.CORRUPTED",
        "wal.12",
        "wal.0x1",
        "walx.000",
        "wal.torn",
        "other",
    ] {
        disk.put(name, b"other");
    }
    let mut wal = open(&disk, &small(500, 600)).unwrap();
    write(&mut wal, 5);
    for name in [
        "wal.CORRUPTED",
        "wal.12",
        "wal.0x1",
        "walx.000",
        "wal.torn",
        "other",
    ] {
        assert_eq!(disk.get(name).unwrap(), b"other");
    }
}

/// CometBFT marks height 0 in every head that it finds empty, the chain's height whatever it is.
#[test]
fn a_mark_of_height_zero_in_between_hides_nothing() {
    let disk = Disk::default();
    let mut wal = open(&disk, &WalOptions::default()).unwrap();
    wal.append(NOW, vote("", 1, 0)).unwrap();
    drop(wal);
    let first = disk.get("wal").unwrap();
    disk.put("wal.000", &first);
    disk.put("wal", b"");
    let mut wal = open(&disk, &WalOptions::default()).unwrap();
    wal.append(NOW, end(0)).unwrap();
    wal.append(NOW, end(1)).unwrap();
    let all = [vote("", 1, 0), end(0), end(1)];
    assert_eq!(behind(&mut wal, 0).unwrap().unwrap(), all);
}

/// A record that is whole and none of the state machine's: told with its place when it is used.
#[test]
fn a_record_that_nobody_wrote_is_named() {
    let mut wal = open(&Disk::default(), &WalOptions::default()).unwrap();
    let mut strange = timeout(1);
    if let Some(Sum::TimeoutInfo(info)) = &mut strange.sum {
        info.step = 99;
    }
    wal.append(NOW, strange).unwrap();
    let mut entries = wal.search_end_height(Height::ZERO).unwrap().unwrap();
    let entry = entries.next().unwrap().unwrap();
    let offset = entry.offset;
    let error = entry.decode().unwrap_err();
    assert!(offset > 0);
    let place = format!("/disk/wal is damaged at offset {offset}");
    assert!(error.to_string().contains(&place), "{error}");
}

#[test]
fn damage_in_an_older_file_is_refused_when_it_is_read() {
    let disk = Disk::default();
    let mut wal = open(&disk, &small(2_000, 0)).unwrap();
    write(&mut wal, 10);
    drop(wal);
    let mut bytes = disk.get("wal.001").unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    disk.put("wal.001", &bytes);
    let mut wal = open(&disk, &small(2_000, 0)).unwrap();
    let error = behind(&mut wal, 1).unwrap_err();
    let WalError::Damaged { path, fault, .. } = &error else {
        panic!("{error}");
    };
    assert!(path.ends_with("wal.001"));
    assert!(matches!(fault, RecordFault::Checksum { .. }));
    // What comes later can still be replayed.
    assert_eq!(behind(&mut wal, 10).unwrap().unwrap(), []);
}

#[test]
fn a_file_that_is_missing_in_between_is_named() {
    let disk = Disk::default();
    let mut wal = open(&disk, &small(2_000, 0)).unwrap();
    write(&mut wal, 10);
    drop(wal);
    disk.forget("wal.001");
    let mut wal = open(&disk, &small(2_000, 0)).unwrap();
    let error = behind(&mut wal, 1).unwrap_err().to_string();
    assert!(error.contains("lacks /disk/wal.001"), "{error}");
    assert_eq!(behind(&mut wal, 10).unwrap().unwrap(), []);
}

#[test]
fn messages_up_to_the_bound_are_logged_and_no_larger_ones() {
    let disk = Disk::default();
    let mut wal = open(&disk, &WalOptions::default()).unwrap();
    let largest = MAX_DATA_BYTES - 60;
    wal.append(NOW, part("peer", 1, largest)).unwrap();
    let before = disk.changes();
    let error = wal
        .append(NOW, part("peer", 1, MAX_DATA_BYTES))
        .unwrap_err();
    assert!(matches!(error, WalError::TooLarge { .. }), "{error}");
    assert_eq!(disk.changes(), before);
    // Nothing is wrong with the log.
    wal.append(NOW, end(1)).unwrap();
    drop(wal);
    let mut wal = open(&disk, &WalOptions::default()).unwrap();
    let all = [part("peer", 1, largest), end(1)];
    assert_eq!(behind(&mut wal, 0).unwrap().unwrap(), all);
    assert!(wal.search_end_height(Height::new(2)).unwrap().is_none());
}
