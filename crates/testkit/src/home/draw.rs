//! What is drawn for a block depends on the seed, the purpose and the height alone, never on how
//! much was drawn before.

use bytes::Bytes;
use perihelion_crypto::sha256;
use perihelion_types::Height;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::ChainShape;

/// What something is drawn for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Genesis,
    Transactions,
    Commit,
    Churn,
}

/// Letters of values; none of them parts key and value.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The random source of one purpose at one height.
pub(super) fn drawer(seed: u64, purpose: Purpose, height: i64) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(sha256(format!("{seed}/{purpose:?}/{height}").as_bytes()))
}

/// A number below `bound`, which is not 0.
pub(super) fn below(draw: &mut ChaCha8Rng, bound: u64) -> u64 {
    draw.next_u64() % bound
}

/// A validator's power.
pub(super) fn power(draw: &mut ChaCha8Rng) -> i64 {
    50 + i64::try_from(below(draw, 101)).expect("below 101")
}

/// Transactions with keys of their own, and values that hardly compress.
pub(super) fn make_transactions(shape: &ChainShape, height: Height) -> Vec<Bytes> {
    let mut draw = drawer(shape.seed, Purpose::Transactions, height.get());
    let make = |index| {
        let key = format!("{height}.{index}=").into_bytes();
        let mut tx = vec![0; shape.tx_bytes as usize];
        draw.fill_bytes(&mut tx[key.len()..]);
        for byte in &mut tx[key.len()..] {
            *byte = LETTERS[usize::from(*byte & 63)];
        }
        tx[..key.len()].copy_from_slice(&key);
        Bytes::from(tx)
    };
    (0..shape.txs).map(make).collect()
}
