//! Losses of power, full disks and damage.

use perihelion_consensus_reactor::wal::{Wal, WalError, WalOptions, decode, is_synced};
use perihelion_proto::tendermint::consensus as pb;
use proptest::prelude::*;

use crate::{
    disk::{Disk, PowerCut},
    messages::{NOW, behind, end, open, part, part_of, timeout, vote},
};

fn some_messages() -> Vec<pb::WalMessage> {
    vec![
        vote("peer", 1, 1),
        vote("", 1, 0),
        end(1),
        timeout(2),
        part("peer", 2, 700),
        vote("", 2, 0),
        vote("peer", 2, 1),
        end(2),
        timeout(3),
        vote("peer", 3, 1),
        part("", 3, 300),
        vote("peer", 3, 2),
    ]
}

/// The log of some messages, and where its records begin.
fn written(messages: &[pb::WalMessage]) -> (Vec<u8>, Vec<usize>) {
    let disk = Disk::default();
    let mut wal = open(&disk, &WalOptions::default()).unwrap();
    for message in messages {
        wal.append(NOW, message.clone()).unwrap();
    }
    drop(wal);
    let bytes = disk.get("wal").unwrap();
    let (mut at, mut begins) = (0, Vec::new());
    while at < bytes.len() {
        begins.push(at);
        at += decode(&bytes[at..]).unwrap().1;
    }
    (bytes, begins)
}

/// The head cut at each byte: what stands whole before the cut is there, and writing goes on.
#[test]
fn a_log_cut_at_any_byte_opens_with_every_whole_record() {
    let messages = some_messages();
    let (bytes, begins) = written(&messages);
    for length in 0..=bytes.len() {
        let disk = Disk::with("wal", &bytes[..length]);
        let (mut wal, torn) =
            Wal::open_in(Box::new(disk.clone()), "wal", WalOptions::default(), NOW).unwrap();
        let whole = begins
            .iter()
            .copied()
            .chain([bytes.len()])
            .filter(|end| *end <= length && *end > 0)
            .count();
        let end_of_whole = begins.get(whole).copied().unwrap_or(bytes.len());
        assert_eq!(torn.is_some(), length != end_of_whole, "cut to {length}");
        if let Some(torn) = torn {
            assert_eq!(torn.offset, end_of_whole as u64);
            assert_eq!(torn.bytes, (length - end_of_whole) as u64);
            assert_eq!(disk.get("wal.torn").unwrap(), bytes[end_of_whole..length]);
        }
        wal.append(NOW, vote("", 9, 9)).unwrap();
        let mut expected = messages[..whole.saturating_sub(1)].to_vec();
        expected.push(vote("", 9, 9));
        assert_eq!(behind(&mut wal, 0).unwrap().unwrap(), expected);
    }
}

/// Any byte changed before a record that was synced: refused with the place, nothing touched.
#[test]
fn damage_in_what_was_durable_is_refused_with_its_place() {
    let (bytes, begins) = written(&some_messages());
    let last_synced = begins
        .iter()
        .rposition(|at| is_synced(&decode(&bytes[*at..]).unwrap().0.msg.unwrap()))
        .unwrap();
    for at in 0..begins[last_synced] {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        let disk = Disk::with("wal", &bad);
        let error = open(&disk, &WalOptions::default()).unwrap_err();
        let text = error.to_string();
        let WalError::Damaged { path, offset, .. } = error else {
            panic!("byte {at}: {text}");
        };
        let record = begins.iter().rfind(|begin| **begin <= at).unwrap();
        assert_eq!(offset, *record as u64, "byte {at}");
        assert!(path.ends_with("wal"));
        for part in [
            "/disk/wal",
            &offset.to_string(),
            "priv_validator_state.json",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(disk.get("wal").unwrap(), bad);
        assert_eq!(disk.names(), ["wal"]);
    }
}

/// Damage behind what was synced costs messages of peers only, so it is cut off.
#[test]
fn damage_behind_what_was_durable_is_cut_off() {
    let messages = some_messages();
    let (bytes, begins) = written(&messages);
    for at in begins[9]..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        let disk = Disk::with("wal", &bad);
        let mut wal = open(&disk, &WalOptions::default()).unwrap();
        let record = begins.iter().rposition(|begin| *begin <= at).unwrap();
        let rest = behind(&mut wal, 2).unwrap().unwrap();
        assert_eq!(rest, messages[8..record - 1]);
    }
}

/// The power goes during the sync of our own vote: the system has written it, and not the
/// messages before it.
#[test]
fn a_vote_whose_sync_was_cut_short_may_stand_behind_a_hole() {
    let (bytes, begins) = written(&[
        end(1),
        vote("peer", 2, 1),
        vote("peer", 2, 2),
        vote("", 2, 0),
    ]);
    let mut hole = bytes.clone();
    hole[begins[2] + 40..begins[4] - 11].fill(0);
    let disk = Disk::with("wal", &hole);
    let mut wal = open(&disk, &WalOptions::default()).unwrap();
    assert_eq!(behind(&mut wal, 1).unwrap().unwrap(), []);
    // Once anything stands behind it, its sync had returned.
    let more = written(&[
        end(1),
        vote("peer", 2, 1),
        vote("peer", 2, 2),
        vote("", 2, 0),
        timeout(2),
    ]);
    let mut hole = more.0;
    hole[begins[2] + 40..begins[4] - 11].fill(0);
    let refused = open(&Disk::with("wal", &hole), &WalOptions::default());
    assert!(
        matches!(refused, Err(WalError::Damaged { .. })),
        "{refused:?}"
    );
}

/// The same last vote behind bytes that were changed, and not lost: no power cut does that.
#[test]
fn a_vote_behind_damage_that_is_no_hole_is_kept() {
    let messages = [end(1), vote("peer", 2, 1), vote("", 2, 0)];
    let (bytes, begins) = written(&messages);
    for at in begins[2]..begins[3] {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        let refused = open(&Disk::with("wal", &bad), &WalOptions::default());
        let Err(WalError::Damaged { offset, .. }) = refused else {
            panic!("byte {at}: {refused:?}");
        };
        assert_eq!(offset, begins[2] as u64);
    }
}

/// A part of a block whose transactions hold records of a log: a timeout, the beginning of a record
/// of 1 MB, and the end of a height.
fn part_with_records() -> pb::WalMessage {
    let (records, begins) = written(&[timeout(7), part("peer", 7, 1_000_000), end(7)]);
    let cut = &records[begins[1]..begins[2] + 100];
    let bytes = [&[0x5a; 200], cut, &records[begins[3]..], &[0x5a; 200]].concat();
    part_of("peer", 2, bytes)
}

/// Whoever sends a transaction cannot make the node refuse what a crash has left.
#[test]
fn a_record_within_a_torn_record_is_not_taken_for_one_that_was_durable() {
    let torn = part_with_records();
    let messages = [
        vote("", 1, 0),
        end(1),
        timeout(2),
        torn.clone(),
        torn,
        timeout(2),
    ];
    let (bytes, begins) = written(&messages);
    let opened = |head: &[u8], case: &str| {
        let disk = Disk::with("wal", head);
        let files = Box::new(disk.clone());
        let opened = Wal::open_in(files, "wal", WalOptions::default(), NOW);
        let (_, torn) = opened.unwrap_or_else(|error| panic!("{case}: {error}"));
        torn.map(|torn| torn.offset)
    };
    for length in begins[4] + 1..begins[5] {
        let cut = opened(&bytes[..length], &format!("cut to {length}"));
        assert_eq!(cut, Some(begins[4] as u64));
    }
    // A page was not written, of the first, or of both.
    for holes in [&[4][..], &[4, 5]] {
        let mut bad = bytes.clone();
        for record in holes {
            bad[begins[*record] + 100..][..40].fill(0);
        }
        let cut = opened(&bad, &format!("holes in {holes:?}"));
        assert_eq!(cut, Some(begins[4] as u64));
    }
}

/// Nor can they make it pass over damage in what was durable.
#[test]
fn records_within_a_damaged_record_hide_nothing_behind_it() {
    let messages = [end(1), part_with_records(), vote("", 2, 0)];
    let (bytes, begins) = written(&messages);
    for at in begins[2]..begins[3] {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            let refused = open(&Disk::with("wal", &bad), &WalOptions::default());
            let Err(WalError::Damaged { offset, .. }) = refused else {
                panic!("byte {at}, bit {bit}: {refused:?}");
            };
            assert_eq!(offset, begins[2] as u64);
        }
    }
}

#[derive(Debug, Clone)]
enum Action {
    Ours,
    Peers(usize),
    Timeout,
    EndHeight,
    Sync,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        2 => Just(Action::Ours),
        6 => (0_usize..3_000).prop_map(Action::Peers),
        2 => Just(Action::Timeout),
        2 => Just(Action::EndHeight),
        1 => Just(Action::Sync),
    ];
    prop::collection::vec(action, 1..60)
}

/// Writes until the disk fails; what was written, and how much of it was acknowledged as durable.
fn run(disk: &Disk, options: &WalOptions, actions: &[Action]) -> (Vec<pb::WalMessage>, usize) {
    let (mut written, mut durable, mut height) = (Vec::new(), 0, 1);
    let Ok(mut wal) = open(disk, options) else {
        return (written, durable);
    };
    for action in actions {
        let message = match action {
            Action::Ours => vote("", height, 0),
            Action::Peers(length) => part("peer", height, *length),
            Action::Timeout => timeout(height),
            Action::EndHeight => end(height),
            Action::Sync => {
                if wal.sync().is_err() {
                    break;
                }
                durable = written.len();
                continue;
            }
        };
        height += i64::from(matches!(action, Action::EndHeight));
        written.push(message.clone());
        let synced = is_synced(&message);
        if wal.append(NOW, message).is_err() {
            let again = wal.append(NOW, timeout(height)).unwrap_err();
            assert!(matches!(again, WalError::Stopped { .. }), "{again}");
            break;
        }
        if synced {
            durable = written.len();
        }
    }
    // A process that is killed closes nothing.
    std::mem::forget(wal);
    (written, durable)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whenever the power goes, and however a full disk stopped the log before: it opens again with
    /// what was durable and a part of what followed, in order.
    #[test]
    fn what_was_synced_outlives_a_power_cut(
        actions in actions(),
        head_bytes in prop_oneof![Just(0_u64), 200_u64..20_000],
        fail_after in prop::option::of(0_usize..60),
        kept in any::<u8>(),
        hole in any::<bool>(),
        names in any::<bool>(),
    ) {
        let options = WalOptions { head_bytes, total_bytes: 0 };
        let disk = Disk::default();
        if let Some(count) = fail_after {
            disk.fail_after(count);
        }
        let (written, durable) = run(&disk, &options, &actions);
        let after = disk.after(PowerCut { kept, hole, names });
        let mut wal = open(&after, &options).unwrap();
        let found = behind(&mut wal, 0).unwrap().unwrap();
        prop_assert!(found.len() >= durable, "{} of {durable}", found.len());
        prop_assert!(found.len() <= written.len());
        prop_assert_eq!(&found[..], &written[..found.len()]);
        // It goes on from there, and loses nothing by being opened once more.
        wal.append(NOW, vote("", 99, 1)).unwrap();
        drop(wal);
        let mut again = open(&after, &options).unwrap();
        let mut all = found;
        all.push(vote("", 99, 1));
        prop_assert_eq!(behind(&mut again, 0).unwrap().unwrap(), all);
    }
}

/// Shows that the model above loses anything at all.
#[test]
fn what_was_not_synced_can_be_lost() {
    let disk = Disk::default();
    let (written, durable) = run(
        &disk,
        &WalOptions::default(),
        &[Action::Ours, Action::Timeout, Action::Peers(70_000)],
    );
    assert_eq!((written.len(), durable), (3, 1));
    let lost = PowerCut {
        kept: 0,
        hole: false,
        names: true,
    };
    let mut wal = open(&disk.after(lost), &WalOptions::default()).unwrap();
    assert_eq!(behind(&mut wal, 0).unwrap().unwrap(), written[..1]);
    let kept = PowerCut {
        kept: 255,
        hole: false,
        names: true,
    };
    let mut wal = open(&disk.after(kept), &WalOptions::default()).unwrap();
    assert_eq!(behind(&mut wal, 0).unwrap().unwrap(), written);
}
