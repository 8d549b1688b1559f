//! What enters, what leaves, and what is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use perihelion_mempool::{
    CheckTxError, Checked, Fate, Mempool, MempoolConfig, MempoolKind, TxLimits, Updated,
};
use perihelion_proto::tendermint::types as pb;
use perihelion_types::{Height, tx::hash};
use proptest::prelude::*;
use prost::Message as _;

use crate::apps::{Picky, Remote, connect, kvstore, picky, tx, waiting};

fn fate(checked: Result<Checked, CheckTxError>) -> Fate {
    checked.unwrap().fate
}

fn update(mempool: &Mempool, height: i64, txs: &[Bytes], codes: &[u32]) -> Updated {
    let mut lock = mempool.lock();
    lock.update(Height::new(height), txs, codes, TxLimits::NONE)
        .unwrap()
}

#[test]
fn transactions_wait_in_the_order_in_which_they_came() {
    let mempool = Mempool::new(
        MempoolConfig::default(),
        kvstore(),
        Height::new(1),
        TxLimits::NONE,
    );
    let txs: Vec<Bytes> = (0..50).map(|at| tx(&format!("k{at}=v"))).collect();
    for tx in &txs {
        assert_eq!(fate(mempool.check_tx(tx, None)), Fate::Added);
    }
    let refused = mempool.check_tx(&tx("no pair"), None).unwrap();
    assert_eq!((refused.fate, refused.response.code), (Fate::Refused, 2));
    assert_eq!(waiting(&mempool), txs);
    assert_eq!(mempool.reap_max_txs(Some(7)), txs[..7]);
    let bytes: usize = txs.iter().map(Bytes::len).sum();
    assert_eq!((mempool.size(), mempool.size_bytes()), (50, bytes as u64));
    // A block with some of them and a stranger.
    let block = [txs[3].clone(), tx("z=1"), txs[0].clone()];
    let updated = update(&mempool, 2, &block, &[0, 0, 0]);
    assert_eq!(
        (updated.removed, updated.rechecked, updated.evicted),
        (2, 48, 0)
    );
    let mut left = txs.clone();
    left.remove(3);
    left.remove(0);
    assert_eq!(waiting(&mempool), left);
    // What was in a block is remembered.
    for tx in &block {
        assert_eq!(mempool.check_tx(tx, None), Err(CheckTxError::InCache));
    }
    mempool.flush();
    assert_eq!((mempool.size(), mempool.size_bytes()), (0, 0));
    assert_eq!(fate(mempool.check_tx(&block[0], None)), Fate::Added);
}

#[test]
fn nothing_is_checked_twice_while_it_is_remembered() {
    let config = MempoolConfig {
        cache_size: 2,
        ..MempoolConfig::default()
    };
    let (app, mempool) = picky(config);
    for text in ["a", "b"] {
        mempool.check_tx(&tx(text), None).unwrap();
        assert_eq!(
            mempool.check_tx(&tx(text), None),
            Err(CheckTxError::InCache)
        );
    }
    // The third makes the first forgotten: it is checked again, and found to wait already.
    mempool.check_tx(&tx("c"), None).unwrap();
    assert_eq!(fate(mempool.check_tx(&tx("a"), None)), Fate::Known);
    assert_eq!(waiting(&mempool), ["a", "b", "c"].map(tx));
    assert_eq!(app.take_asked().len(), 4);
}

#[test]
fn without_a_cache_all_is_checked() {
    let config = MempoolConfig {
        cache_size: 0,
        ..MempoolConfig::default()
    };
    let (_, mempool) = picky(config);
    assert_eq!(fate(mempool.check_tx(&tx("a"), None)), Fate::Added);
    assert_eq!(fate(mempool.check_tx(&tx("a"), None)), Fate::Known);
    update(&mempool, 2, &[tx("a")], &[0]);
    assert_eq!(fate(mempool.check_tx(&tx("a"), None)), Fate::Added);
}

#[test]
fn refused_ones_are_forgotten_unless_configured_otherwise() {
    for keep in [false, true] {
        let (app, mempool) = picky(MempoolConfig {
            keep_invalid_txs_in_cache: keep,
            ..MempoolConfig::default()
        });
        app.refuse(b"x");
        assert_eq!(fate(mempool.check_tx(&tx("x"), None)), Fate::Refused);
        let again = mempool.check_tx(&tx("x"), None);
        assert_eq!(again == Err(CheckTxError::InCache), keep, "{again:?}");
        // Likewise those that failed in a block,
        mempool.check_tx(&tx("a"), None).unwrap();
        update(&mempool, 2, &[tx("a")], &[5]);
        assert_eq!(mempool.size(), 0);
        let again = mempool.check_tx(&tx("a"), None);
        assert_eq!(again == Err(CheckTxError::InCache), keep, "{again:?}");
        // and those that became invalid while they waited.
        mempool.check_tx(&tx("b"), None).unwrap();
        app.refuse(b"b");
        assert!(update(&mempool, 3, &[], &[]).evicted > 0);
        app.refuse(b"");
        let again = mempool.check_tx(&tx("b"), None);
        assert_eq!(again == Err(CheckTxError::InCache), keep, "{again:?}");
    }
}

#[test]
fn what_is_left_is_checked_again_in_order() {
    let (app, mempool) = picky(MempoolConfig::default());
    for text in ["a", "b", "c", "d"] {
        mempool.check_tx(&tx(text), None).unwrap();
    }
    app.take_asked();
    app.refuse(b"bd");
    let updated = update(&mempool, 2, &[tx("a")], &[0]);
    let expected = Updated {
        removed: 1,
        rechecked: 3,
        evicted: 2,
        unchecked: 0,
    };
    assert_eq!(updated, expected);
    let asked: Vec<_> = ["b", "c", "d"].map(|text| (tx(text), true)).into();
    assert_eq!(app.take_asked(), asked);
    assert_eq!(waiting(&mempool), [tx("c")]);
    assert_eq!(mempool.size_bytes(), 1);
    let stats = mempool.stats();
    assert_eq!((stats.added, stats.evicted, stats.rechecked), (4, 2, 3));
}

/// One after the other, 5,000 would take longer than there is time for.
#[test]
fn many_are_checked_again_at_once_and_so_many_at_most() {
    let app = Arc::<Remote>::default();
    let config = MempoolConfig {
        // A slow machine would leave some unchecked.
        recheck_timeout: Duration::from_secs(600),
        ..MempoolConfig::default()
    };
    let mempool = Mempool::new(config, connect(app.clone()), Height::new(1), TxLimits::NONE);
    let txs: Vec<Bytes> = (0..5_000).map(|at| tx(&format!("t{at}"))).collect();
    for tx in &txs {
        mempool.check_tx(tx, None).unwrap();
    }
    app.take_figures();
    let expected = Updated {
        removed: 0,
        rechecked: 5_000,
        evicted: 500,
        unchecked: 0,
    };
    assert_eq!(update(&mempool, 2, &[], &[]), expected);
    let (round_trips, most_under_way) = app.take_figures();
    assert!(round_trips <= 50, "{round_trips} round trips");
    assert!(most_under_way <= 200, "{most_under_way} under way");
    let mut left = txs;
    left.retain(|tx| !tx.ends_with(b"7"));
    assert_eq!(waiting(&mempool), left);
}

#[test]
fn without_recheck_nothing_is_asked() {
    let (app, mempool) = picky(MempoolConfig {
        recheck: false,
        ..MempoolConfig::default()
    });
    mempool.check_tx(&tx("a"), None).unwrap();
    app.take_asked();
    app.refuse(b"a");
    assert_eq!(update(&mempool, 2, &[], &[]), Updated::default());
    assert!(app.take_asked().is_empty());
    assert_eq!(mempool.size(), 1);
}

#[test]
fn an_application_that_takes_too_long_leaves_the_rest_unchecked() {
    let (app, mempool) = picky(MempoolConfig {
        recheck_timeout: Duration::ZERO,
        ..MempoolConfig::default()
    });
    app.slow.store(true, Ordering::Relaxed);
    for text in ["a", "b", "c"] {
        mempool.check_tx(&tx(text), None).unwrap();
    }
    let updated = update(&mempool, 2, &[], &[]);
    assert_eq!((updated.rechecked, updated.unchecked), (1, 2));
    assert_eq!(mempool.size(), 3);
}

#[test]
fn what_was_not_checked_again_is_not_proposed_nor_passed_by() {
    let (app, mempool) = picky(MempoolConfig {
        recheck_timeout: Duration::ZERO,
        ..MempoolConfig::default()
    });
    let check = |text: &str| assert_eq!(fate(mempool.check_tx(&tx(text), None)), Fate::Added);
    let proposed = || mempool.reap_max_bytes_max_gas(-1, -1);
    for text in ["a", "b", "c"] {
        check(text);
    }
    assert_eq!(proposed(), ["a", "b", "c"].map(tx));
    // Behind this block two of them are invalid, one of which there is no time to find.
    app.refuse(b"bc");
    assert_eq!(update(&mempool, 2, &[tx("b")], &[0]).unchecked, 1);
    check("d");
    assert_eq!(proposed(), [tx("a")]);
    assert_eq!(waiting(&mempool), ["a", "c", "d"].map(tx));
    // The next block makes room in front of it. Nothing may be proposed then, so what is left is
    // checked without another one.
    let mut told = mempool.txs_available();
    told.mark_unchanged();
    let updated = update(&mempool, 3, &[tx("a")], &[0]);
    assert_eq!((updated.evicted, updated.unchecked), (1, 1));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(told.changed()).unwrap();
    assert_eq!(proposed(), [tx("d")]);
    assert_eq!(update(&mempool, 4, &[], &[]).unchecked, 0);
    check("e");
    assert_eq!(proposed(), ["d", "e"].map(tx));
    // What is removed holds up nothing.
    check("f");
    assert_eq!(update(&mempool, 5, &[], &[]).unchecked, 2);
    check("g");
    assert_eq!(proposed(), [tx("d")]);
    for text in [b"e", b"f"] {
        assert!(mempool.remove_tx(&hash(text)));
    }
    assert_eq!(proposed(), ["d", "g"].map(tx));
}

#[test]
fn nothing_is_told_of_that_may_not_be_proposed() {
    let (app, mempool) = picky(MempoolConfig {
        recheck_timeout: Duration::ZERO,
        ..MempoolConfig::default()
    });
    for text in ["a", "b", "c"] {
        mempool.check_tx(&tx(text), None).unwrap();
    }
    let mut told = mempool.txs_available();
    told.mark_unchanged();
    app.refuse(b"abc");
    let updated = update(&mempool, 2, &[], &[]);
    assert_eq!((updated.evicted, updated.unchecked), (1, 2));
    while mempool.size() > 0 {
        assert!(!told.has_changed().unwrap(), "all are invalid");
        std::thread::yield_now();
    }
    assert!(!told.has_changed().unwrap());
    // What comes then is told of.
    mempool.check_tx(&tx("d"), None).unwrap();
    assert!(told.has_changed().unwrap());
}

#[test]
fn what_comes_after_a_flush_is_told_of() {
    let (_, mempool) = picky(MempoolConfig::default());
    let mut told = mempool.txs_available();
    for text in ["a", "b"] {
        mempool.check_tx(&tx(text), None).unwrap();
        assert!(told.has_changed().unwrap(), "{text}");
        told.mark_unchanged();
        mempool.flush();
    }
}

#[test]
fn there_are_never_more_transactions_or_bytes_than_configured() {
    let (_, mempool) = picky(MempoolConfig {
        size: 3,
        max_txs_bytes: 10,
        max_tx_bytes: 8,
        ..MempoolConfig::default()
    });
    let error = mempool.check_tx(&tx("123456789"), None).unwrap_err();
    assert_eq!(error.to_string(), "Tx too large. Max size is 8, but got 9");
    assert_eq!(fate(mempool.check_tx(&tx("12345678"), None)), Fate::Added);
    let error = mempool.check_tx(&tx("abc"), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "mempool is full: number of txs 1 (max: 3), total txs bytes 8 (max: 10)"
    );
    // It was not asked about, so it may come again when there is room.
    assert_eq!(fate(mempool.check_tx(&tx("ab"), None)), Fate::Added);
    update(&mempool, 2, &[tx("12345678")], &[0]);
    assert_eq!(fate(mempool.check_tx(&tx("abc"), None)), Fate::Added);
    assert_eq!(fate(mempool.check_tx(&tx("d"), None)), Fate::Added);
    assert!(matches!(
        mempool.check_tx(&tx("e"), None),
        Err(CheckTxError::Full(_))
    ));
    assert_eq!((mempool.size(), mempool.stats().no_room), (3, 2));
    assert!(mempool.remove_tx(&hash(b"d")) && !mempool.remove_tx(&hash(b"d")));
    assert_eq!(mempool.check_tx(&tx("d"), None), Err(CheckTxError::InCache));
}

#[test]
fn what_no_block_has_room_for_does_not_enter() {
    let limits = TxLimits {
        max_data_bytes: 6,
        max_gas: 100,
    };
    let app = Arc::<Picky>::default();
    let mempool = Mempool::new(
        MempoolConfig::default(),
        connect(app.clone()),
        Height::new(1),
        limits,
    );
    // Four bytes are six in a block's data.
    assert_eq!(fate(mempool.check_tx(&tx("a\x011\x31"), None)), Fate::Added);
    let error = mempool.check_tx(&tx("12345"), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tx pre check: tx size is too big: 7, max: 6"
    );
    for (gas, expected) in [(99, Fate::Added), (100, Fate::Added), (101, Fate::Refused)] {
        let checked = mempool.check_tx(&Bytes::from(vec![b'b', gas]), None);
        assert_eq!(fate(checked), expected, "{gas}");
    }
    // A block that lowers the bound evicts.
    let lower = TxLimits {
        max_gas: 99,
        ..limits
    };
    let updated = mempool
        .lock()
        .update(Height::new(2), &[], &[], lower)
        .unwrap();
    assert_eq!(updated.evicted, 1);
}

#[test]
fn transactions_are_told_of_once_a_height() {
    let (_, mempool) = picky(MempoolConfig::default());
    let mut told = mempool.txs_available();
    let mut is_told = || {
        let changed = told.has_changed().unwrap();
        told.mark_unchanged();
        changed
    };
    assert!(!is_told());
    mempool.check_tx(&tx("a"), None).unwrap();
    assert!(is_told());
    mempool.check_tx(&tx("b"), None).unwrap();
    assert!(!is_told());
    // Some are left behind the block,
    update(&mempool, 2, &[tx("a")], &[0]);
    assert!(is_told());
    mempool.check_tx(&tx("c"), None).unwrap();
    assert!(!is_told());
    // or none.
    update(&mempool, 3, &[tx("b"), tx("c")], &[0, 0]);
    assert!(!is_told());
    mempool.check_tx(&tx("d"), None).unwrap();
    assert!(is_told());
}

#[test]
fn an_application_that_panics_is_not_asked_again() {
    let (app, mempool) = picky(MempoolConfig::default());
    let error = mempool.check_tx(&tx("panic"), None).unwrap_err();
    assert!(matches!(error, CheckTxError::App(_)), "{error}");
    assert_eq!(mempool.check_tx(&tx("a"), None), Err(error));
    assert!(app.take_asked().is_empty());
}

#[test]
fn nothing_is_kept_in_the_nop_mempool() {
    let (app, mempool) = picky(MempoolConfig {
        kind: MempoolKind::Nop,
        ..MempoolConfig::default()
    });
    let error = mempool.check_tx(&tx("a"), None).unwrap_err();
    assert_eq!(error.to_string(), "not allowed with `nop` mempool");
    assert_eq!(update(&mempool, 2, &[tx("a")], &[0]), Updated::default());
    assert!(app.take_asked().is_empty() && waiting(&mempool).is_empty());
    assert!(perihelion_mempool::channels(mempool.config()).is_empty());
}

/// While a block is committed nothing is checked, and what came meanwhile is checked after it.
#[test]
fn nothing_is_checked_while_a_block_is_committed() {
    let (app, mempool) = picky(MempoolConfig::default());
    let mut lock = mempool.lock();
    std::thread::scope(|scope| {
        let checked = scope.spawn(|| mempool.check_tx(&tx("a"), None));
        // Reading goes on meanwhile.
        assert_eq!(mempool.size(), 0);
        lock.update(Height::new(2), &[], &[], TxLimits::NONE)
            .unwrap();
        assert!(app.take_asked().is_empty());
        drop(lock);
        assert_eq!(fate(checked.join().unwrap()), Fate::Added);
    });
    assert_eq!(app.take_asked().len(), 1);
}

proptest! {
    /// Reaping takes as many as a block's data has room for, by the encoding itself, and not one
    /// more or less; likewise by gas.
    #[test]
    fn reaping_fills_a_block_and_no_more(
        lengths in prop::collection::vec(2_usize..400, 1..40),
        max_bytes in -1_i64..6_000,
        max_gas in -1_i64..2_000,
    ) {
        let (_, mempool) = picky(MempoolConfig::default());
        let txs: Vec<Bytes> = lengths
            .iter()
            .enumerate()
            .map(|(at, length)| {
                let mut tx = vec![b'a'; *length];
                tx.extend_from_slice(&at.to_be_bytes());
                tx[1] = u8::try_from(length % 200).unwrap();
                tx.into()
            })
            .collect();
        for tx in &txs {
            prop_assert_eq!(fate(mempool.check_tx(tx, None)), Fate::Added);
        }
        let fits = |count: usize| {
            let data = pb::Data { txs: txs[..count].to_vec() };
            let gas: i64 = txs[..count].iter().map(|tx| i64::from(tx[1])).sum();
            let size = i64::try_from(data.encoded_len()).unwrap();
            (max_bytes < 0 || size <= max_bytes) && (max_gas < 0 || gas <= max_gas)
        };
        let reaped = mempool.reap_max_bytes_max_gas(max_bytes, max_gas);
        prop_assert_eq!(&reaped[..], &txs[..reaped.len()]);
        prop_assert!(fits(reaped.len()));
        prop_assert!(reaped.len() == txs.len() || !fits(reaped.len() + 1));
    }
}
