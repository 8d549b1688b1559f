//! The log of the vectors: record by record, cut and bent.

use std::collections::BTreeMap;

use perihelion_consensus_reactor::wal::{
    HEADER_BYTES, RecordFault, Wal, WalOptions, decode, encode, end_height, from_proto, to_proto,
};
use perihelion_test_support::{self as vectors, Hex, Moment};
use perihelion_types::{Height, Time};
use serde::Deserialize;

use crate::{disk::Disk, messages::NOW};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "about")]
    _about: String,
    #[serde(rename = "made_by")]
    _made_by: String,
    file_length: u64,
    #[serde(rename = "frame")]
    _frame: String,
    #[serde(default)]
    records: Vec<Record>,
    variants: Vec<Variant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    crc32c: Hex,
    fields: String,
    length: u64,
    offset: u64,
    proto: Hex,
    time: Moment,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    edit: Edit,
    name: String,
    reading: Reading,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    cut_to: Option<usize>,
    xor: Option<u8>,
    xor_at: Option<usize>,
    append: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading {
    end: String,
    end_heights: Vec<i64>,
    records: usize,
    #[serde(rename = "error")]
    _error: Option<String>,
}

fn raw() -> Vec<u8> {
    std::fs::read(vectors::folder().join("wal.bin")).unwrap()
}

/// Records up to the end of the bytes, or to what is none.
fn read(mut bytes: &[u8]) -> (Vec<i64>, usize, Option<RecordFault>) {
    let (mut ends, mut count) = (Vec::new(), 0);
    while !bytes.is_empty() {
        match decode(bytes) {
            Ok((record, length)) => {
                ends.extend(end_height(record.msg.as_ref().unwrap()));
                count += 1;
                bytes = &bytes[length..];
            }
            Err(fault) => return (ends, count, Some(fault)),
        }
    }
    (ends, count, None)
}

fn edited(raw: &[u8], edit: &Edit) -> Vec<u8> {
    let mut bytes = raw.to_vec();
    if let Some(length) = edit.cut_to {
        bytes.truncate(length);
    }
    if let Some(at) = edit.xor_at {
        bytes[at] ^= edit.xor.unwrap();
    }
    match &edit.append {
        None => {}
        Some(text) => match text.split_once(" * ") {
            Some((byte, count)) => {
                let byte = hex::decode(byte).unwrap();
                bytes.extend(byte.repeat(count.parse().unwrap()));
            }
            None => bytes.extend(hex::decode(text).unwrap()),
        },
    }
    bytes
}

/// The variants of v0.38; where v0.40 reads another way, which is what we do, that one.
fn variants() -> Vec<Variant> {
    let base: File = vectors::load("wal.json");
    let newer: File = vectors::load("wal_v0.40.json");
    let mut newer: BTreeMap<String, Variant> = newer
        .variants
        .into_iter()
        .map(|variant| (variant.name.clone(), variant))
        .collect();
    let all = base
        .variants
        .into_iter()
        .map(|variant| newer.remove(&variant.name).unwrap_or(variant))
        .collect();
    assert!(newer.is_empty(), "variants of v0.40 that v0.38 lacks");
    all
}

#[test]
fn vector_records_are_read_and_written_byte_for_byte() {
    let (file, raw): (File, _) = (vectors::load("wal.json"), raw());
    assert_eq!(raw.len() as u64, file.file_length);
    let mut at = 0;
    vectors::each("records", &file.records, |index, record| {
        assert_eq!(at as u64, record.offset, "record {index}");
        let (message, length) = decode(&raw[at..]).unwrap();
        assert_eq!((length - HEADER_BYTES) as u64, record.length);
        assert_eq!(raw[at..at + 4], record.crc32c[..]);
        assert_eq!(raw[at + HEADER_BYTES..at + length], record.proto[..]);
        let time = Time::try_from(message.time).unwrap();
        assert_eq!(time, Time::new(record.time.seconds, record.time.nanos));
        assert_eq!(time.to_string(), record.time.text);
        let fields: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(&record.fields).unwrap();
        let height = fields.get("end_height").map(|end| {
            end.get("height")
                .map_or(0, |height| height.as_str().unwrap().parse().unwrap())
        });
        assert_eq!(end_height(message.msg.as_ref().unwrap()), height);
        assert_eq!(encode(&message).unwrap(), raw[at..at + length]);
        let record = from_proto(message.msg.clone().unwrap()).unwrap();
        assert_eq!(Some(to_proto(&record)), message.msg);
        at += length;
    });
    assert_eq!(at, raw.len());
}

#[test]
fn vector_variants_are_read_as_far() {
    let raw = raw();
    vectors::each("variants", &variants(), |_, variant| {
        let (ends, records, fault) = read(&edited(&raw, &variant.edit));
        assert_eq!(records, variant.reading.records, "{}", variant.name);
        assert_eq!(ends, variant.reading.end_heights, "{}", variant.name);
        let end = if fault.is_none() {
            "EOF"
        } else {
            "data corruption"
        };
        assert_eq!(end, variant.reading.end, "{}: {fault:?}", variant.name);
    });
}

/// A torn end is cut where CometBFT's reader stops; what was durable and is damaged is refused
/// there, and left as it is.
#[test]
fn vector_variants_are_opened_or_refused() {
    let raw = raw();
    let mut refused = 0;
    vectors::each("variants", &variants(), |_, variant| {
        let bytes = edited(&raw, &variant.edit);
        let disk = Disk::with("wal", &bytes);
        let opened = Wal::open_in(Box::new(disk.clone()), "wal", WalOptions::default(), NOW);
        let damaged = variant.edit.xor_at.is_some_and(|at| at + 1 < raw.len());
        assert_eq!(opened.is_err(), damaged, "{}: {opened:?}", variant.name);
        let Ok((mut wal, torn)) = opened else {
            assert_eq!(disk.get("wal").unwrap(), bytes, "{}", variant.name);
            refused += 1;
            return;
        };
        let whole = variant.reading.end == "EOF";
        assert_eq!(torn.is_none(), whole, "{}", variant.name);
        if let Some(torn) = torn {
            let offset = usize::try_from(torn.offset).unwrap();
            assert_eq!(disk.get("wal.torn").unwrap(), bytes[offset..]);
            assert_eq!(read(&bytes[..offset]).1, variant.reading.records);
        }
        for height in &variant.reading.end_heights {
            let found = wal.search_end_height(Height::new(*height)).unwrap();
            for entry in found.unwrap() {
                entry.unwrap().decode().unwrap();
            }
        }
    });
    assert!(refused > 0);
}
