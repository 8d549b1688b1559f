//! Results, written against the transactions of their block: what an application tells of one repeats
//! much of it.

use bytes::Bytes;
use lz4_flex::block::{compress_with_dict, decompress_into_with_dict};
use thiserror::Error;

/// The first byte of what is packed: no field of a message begins with it.
const MARK: u8 = 0;
/// Results below this size stay as they are: tables compress them together.
const LEAST_BYTES: usize = 512;
/// Transactions and results are cut into equally many pieces of at most this size. Larger pieces have
/// more places than the compressor remembers; smaller ones cost more for what each begins with.
const PIECE: usize = 16 << 10;
/// So far the piece of the transactions reaches beyond its ends: results are not spread as evenly as
/// they are.
const MARGIN: usize = 1 << 10;
/// Bytes that one packed byte can stand for at the most.
const MOST_RATIO: usize = 256;

/// What is packed cannot be read.
#[derive(Debug, Error)]
pub(crate) enum PackedError {
    #[error("packed results end early")]
    TooShort,
    #[error("packed results of {packed} bytes say that they stand for {bytes}")]
    TooLarge { packed: usize, bytes: usize },
    #[error("packed results: {0}")]
    Piece(lz4_flex::block::DecompressError),
    #[error("packed results have more behind their end")]
    TooLong,
}

/// The results in a shorter form that only the same transactions open again; `None` where they are
/// stored as they are: there is none that is much shorter, and they are not taken for packed.
pub(crate) fn pack(results: &[u8], transactions: &[u8]) -> Option<Vec<u8>> {
    let must = is_packed(results);
    if results.len() < LEAST_BYTES && !must {
        return None;
    }
    let mut packed = Vec::with_capacity(results.len() / 2);
    packed.push(MARK);
    packed.extend_from_slice(&u32::try_from(results.len()).ok()?.to_le_bytes());
    for (piece, dictionary) in pieces(results.len(), transactions) {
        let short = compress_with_dict(&results[piece], dictionary);
        packed.extend_from_slice(&u32::try_from(short.len()).ok()?.to_le_bytes());
        packed.extend_from_slice(&short);
        if packed.len() > results.len() / 4 * 3 && !must {
            return None;
        }
    }
    Some(packed)
}

/// Whether a stored value is packed.
pub(crate) fn is_packed(value: &[u8]) -> bool {
    value.first() == Some(&MARK)
}

/// What was packed with these transactions.
///
/// # Errors
/// When it was not, or is damaged.
pub(crate) fn unpack(value: &[u8], transactions: &[u8]) -> Result<Bytes, PackedError> {
    let mut rest = value.get(1..).unwrap_or_default();
    let bytes = take_length(&mut rest)?;
    if bytes / MOST_RATIO > rest.len() {
        let packed = value.len();
        return Err(PackedError::TooLarge { packed, bytes });
    }
    let mut results = vec![0; bytes];
    for (piece, dictionary) in pieces(bytes, transactions) {
        let length = take_length(&mut rest)?;
        let (short, behind) = rest.split_at_checked(length).ok_or(PackedError::TooShort)?;
        let expected = piece.len();
        let found = decompress_into_with_dict(short, &mut results[piece], dictionary)
            .map_err(PackedError::Piece)?;
        if found != expected {
            return Err(PackedError::TooShort);
        }
        rest = behind;
    }
    if !rest.is_empty() {
        return Err(PackedError::TooLong);
    }
    Ok(results.into())
}

fn take_length(rest: &mut &[u8]) -> Result<usize, PackedError> {
    let (length, behind) = rest.split_first_chunk().ok_or(PackedError::TooShort)?;
    *rest = behind;
    Ok(u32::from_le_bytes(*length) as usize)
}

/// The ranges of the results, each with the bytes of the transactions that are likely to be in it.
fn pieces(
    results: usize,
    transactions: &[u8],
) -> impl Iterator<Item = (std::ops::Range<usize>, &[u8])> {
    let count = results.max(transactions.len()).div_ceil(PIECE).max(1);
    // 64 bits hold the product: both are below 4 GiB.
    let cut = move |length: usize, at: usize| (length as u64 * at as u64 / count as u64) as usize;
    (0..count).map(move |at| {
        let from = cut(transactions.len(), at).saturating_sub(MARGIN);
        let to = (cut(transactions.len(), at + 1) + MARGIN).min(transactions.len());
        (
            cut(results, at)..cut(results, at + 1),
            &transactions[from..to],
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Transactions that are like nothing else, and results that tell each of them.
    fn transactions_and_results(transactions: usize, bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let mut seed = 7_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        };
        let (mut all, mut results) = (Vec::new(), Vec::new());
        for _ in 0..transactions {
            let transaction: Vec<u8> = (0..bytes).map(|_| random()).collect();
            results.extend_from_slice(b"what is told of each of them, and of it this: ");
            results.extend_from_slice(&transaction);
            all.extend_from_slice(&transaction);
        }
        (all, results)
    }

    #[test]
    fn what_the_block_says_is_not_stored_again() {
        for (transactions, bytes) in [(36, 250), (160, 250), (4000, 250), (20, 2000)] {
            let (all, results) = transactions_and_results(transactions, bytes);
            let packed = pack(&results, &all).unwrap();
            assert!(
                packed.len() < results.len() / 5,
                "{} of {}",
                packed.len(),
                results.len()
            );
            assert!(is_packed(&packed));
            assert_eq!(unpack(&packed, &all).unwrap(), results);
        }
    }

    #[test]
    fn what_gets_no_shorter_stays() {
        let (random, _) = transactions_and_results(100, 100);
        assert_eq!(pack(&random, &[]), None);
        assert_eq!(pack(&[7; 511], &[7; 511]), None);
        assert_eq!(pack(&[], &random), None);
    }

    #[test]
    fn a_length_that_cannot_be_is_not_allocated() {
        let packed = [MARK, 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        let error = unpack(&packed, &[]).unwrap_err();
        assert!(matches!(error, PackedError::TooLarge { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(
            results in vec(0..4_u8, 0..80_000),
            all in vec(0..4_u8, 0..80_000),
        ) {
            if let Some(packed) = pack(&results, &all) {
                prop_assert!(packed.len() < results.len() || is_packed(&results));
                prop_assert_eq!(unpack(&packed, &all).unwrap(), results);
            }
        }

        /// Damage is an error, or other bytes of the same number: never a panic.
        #[test]
        fn damage_is_survived(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let (all, results) = transactions_and_results(40, 250);
            let mut packed = pack(&results, &all).unwrap();
            let at = at.index(packed.len());
            packed[at] = byte;
            let _ = unpack(&packed, &all);
            packed.truncate(cut.index(packed.len()));
            prop_assert!(unpack(&packed, &all).is_err());
        }
    }
    #[test]
    fn what_looks_packed_is_packed() {
        for results in [&[MARK][..], &[MARK, 1, 2, 3]] {
            let packed = pack(results, &[]).unwrap();
            assert_eq!(unpack(&packed, &[]).unwrap(), results);
        }
    }
}
