//! Any sequence of calls against a plain model of the rules.

use bytes::Bytes;
use perihelion_mempool::{CheckTxError, Fate, MempoolConfig, TxLimits};
use perihelion_types::Height;
use proptest::prelude::*;

use crate::apps::{picky, waiting};

#[derive(Debug, Clone)]
enum Call {
    Check(Bytes),
    /// A block with these, each with a code, behind which these first bytes are bad.
    Block(Vec<(Bytes, u32)>, Vec<u8>),
    Remove(Bytes),
}

/// Few transactions, so that they meet again.
fn some_tx() -> impl Strategy<Value = Bytes> {
    (b'a'..b'f', 0_u8..4, 0_usize..3).prop_map(|(first, gas, more)| {
        let mut tx = vec![first, gas];
        tx.extend(vec![b'.'; more * 5]);
        tx.into()
    })
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        8 => some_tx().prop_map(Call::Check),
        2 => (
            prop::collection::vec((some_tx(), 0_u32..2), 0..4),
            prop::collection::vec(b'a'..b'f', 0..3),
        )
            .prop_map(|(txs, bad)| Call::Block(txs, bad)),
        1 => some_tx().prop_map(Call::Remove),
    ]
}

/// The rules, with lists that are searched through.
struct Model {
    config: MempoolConfig,
    txs: Vec<Bytes>,
    /// The one seen last is at the end.
    cache: Vec<Bytes>,
    bad: Vec<u8>,
    max_gas: i64,
}

impl Model {
    fn see(&mut self, tx: &Bytes) -> bool {
        let known = self.cache.iter().position(|it| it == tx);
        if let Some(at) = known {
            self.cache.remove(at);
        }
        self.cache.push(tx.clone());
        if self.cache.len() > self.config.cache_size {
            self.cache.remove(0);
        }
        known.is_none()
    }

    fn forget(&mut self, tx: &Bytes) {
        self.cache.retain(|it| it != tx);
    }

    fn is_full(&self, more: usize) -> bool {
        let bytes: usize = self.txs.iter().map(Bytes::len).sum();
        self.txs.len() >= self.config.size || (bytes + more) as u64 > self.config.max_txs_bytes
    }

    fn is_bad(&self, tx: &Bytes) -> bool {
        self.bad.contains(&tx[0]) || i64::from(tx[1]) > self.max_gas
    }

    /// `None` where it is not checked.
    fn check(&mut self, tx: &Bytes) -> Option<Fate> {
        if self.is_full(tx.len()) || tx.len() > self.config.max_tx_bytes || !self.see(tx) {
            return None;
        }
        if self.is_bad(tx) {
            if !self.config.keep_invalid_txs_in_cache {
                self.forget(tx);
            }
            return Some(Fate::Refused);
        }
        if self.txs.contains(tx) {
            return Some(Fate::Known);
        }
        self.txs.push(tx.clone());
        Some(Fate::Added)
    }

    fn block(&mut self, txs: &[(Bytes, u32)], bad: &[u8]) {
        self.bad = bad.to_vec();
        for (tx, code) in txs {
            if *code == 0 {
                self.see(tx);
            } else if !self.config.keep_invalid_txs_in_cache {
                self.forget(tx);
            }
            self.txs.retain(|it| it != tx);
        }
        if self.config.recheck {
            let (out, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.txs)
                .into_iter()
                .partition(|tx| self.is_bad(tx));
            self.txs = left;
            if !self.config.keep_invalid_txs_in_cache {
                for tx in &out {
                    self.forget(tx);
                }
            }
        }
    }
}

fn config() -> impl Strategy<Value = MempoolConfig> {
    (
        1_usize..8,
        1_u64..60,
        1_usize..9,
        6_usize..14,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(size, max_txs_bytes, cache_size, max_tx_bytes, recheck, keep)| MempoolConfig {
                size,
                max_txs_bytes,
                cache_size,
                max_tx_bytes,
                recheck,
                keep_invalid_txs_in_cache: keep,
                // A slow machine would leave some unchecked.
                recheck_timeout: std::time::Duration::from_secs(600),
                ..MempoolConfig::default()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_calls_end_as_the_rules_say(
        config in config(),
        max_gas in 1_i64..4,
        calls in prop::collection::vec(call(), 1..80),
    ) {
        let limits = TxLimits { max_data_bytes: i64::MAX, max_gas };
        let (app, mempool) = picky(config.clone());
        mempool.lock().update(Height::new(1), &[], &[], limits).unwrap();
        let mut model = Model { config, txs: Vec::new(), cache: Vec::new(), bad: Vec::new(), max_gas };
        let mut height = 1;
        for call in calls {
            match call {
                Call::Check(tx) => {
                    let expected = model.check(&tx);
                    match mempool.check_tx(&tx, None) {
                        Ok(checked) => prop_assert_eq!(Some(checked.fate), expected),
                        Err(CheckTxError::App(error)) => panic!("{error}"),
                        Err(_) => prop_assert_eq!(None, expected),
                    }
                }
                Call::Block(txs, bad) => {
                    height += 1;
                    app.refuse(&bad);
                    model.block(&txs, &bad);
                    let (txs, codes): (Vec<_>, Vec<_>) = txs.into_iter().unzip();
                    mempool.lock().update(Height::new(height), &txs, &codes, limits).unwrap();
                }
                Call::Remove(tx) => {
                    let there = model.txs.contains(&tx);
                    model.txs.retain(|it| *it != tx);
                    prop_assert_eq!(mempool.remove_tx(&perihelion_types::tx::hash(&tx)), there);
                }
            }
            prop_assert_eq!(&waiting(&mempool), &model.txs);
            let bytes: usize = model.txs.iter().map(Bytes::len).sum();
            prop_assert_eq!(mempool.size_bytes(), bytes as u64);
            prop_assert!(mempool.size() <= mempool.config().size);
        }
    }
}
