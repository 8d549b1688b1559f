//! Writes LZ4 blocks against a dictionary, for texts that repeat long pieces of it.
//!
//! What it writes is what every reader of LZ4 reads. It looks up fewer places of the dictionary than
//! writers for all purposes do, and finds the rest by going back from those: short repetitions are
//! found in part.

/// Dictionary and text may have so many bytes together: places are kept in 16 bits.
pub(crate) const MAX_BYTES: usize = 1 << 16;

/// One in so many places of the dictionary is looked up.
const STRIDE: usize = 8;
/// Bits of a place in the table: 8 KiB, which stay in the nearest cache.
const TABLE_BITS: u32 = 12;
/// Bytes that a repetition has at least, and those that the format wants at the end of a text: behind
/// the last repetition, and behind its beginning.
const MIN_MATCH: usize = 4;
const LAST_LITERALS: usize = 5;
const LAST_MATCH: usize = 12;
/// After so many places without a repetition (as a power of two) the steps between them grow by one.
const SKIP_BITS: u32 = 5;

/// Appends `text`, packed against `dictionary`.
///
/// # Panics
/// When both have more than [`MAX_BYTES`].
pub(crate) fn compress(dictionary: &[u8], text: &[u8], packed: &mut Vec<u8>) {
    let before = dictionary.len();
    assert!(before + text.len() <= MAX_BYTES);
    let mut literals = 0;
    if text.len() > LAST_MATCH {
        // Places are those of the dictionary and, behind them, of the text.
        let mut table = Table([0; 1 << TABLE_BITS]);
        for (index, bytes) in dictionary.chunks_exact(STRIDE).enumerate() {
            table.swap(word(bytes), index * STRIDE);
        }
        let (last, end) = (text.len() - LAST_MATCH, text.len() - LAST_LITERALS);
        let mut misses = 0_usize;
        // Where the table knows nothing it says the first place: the text's own has nothing before it.
        let mut at = usize::from(before == 0);
        while at <= last {
            let found = table.swap(word(&text[at..]), before + at);
            let (source, from) = match found.checked_sub(before) {
                None => (dictionary, found),
                Some(from) => (text, from),
            };
            let same = same_bytes(&source[from..], &text[at..end]);
            if same < MIN_MATCH {
                misses += 1;
                at += 1 + (misses >> SKIP_BITS);
                continue;
            }
            misses = 0;
            let back = same_bytes_before(&source[..from], &text[literals..at]);
            let repetition = (before + at - found, back + same);
            put_sequence(&text[literals..at - back], Some(repetition), packed);
            at += same;
            literals = at;
            if at <= last {
                table.swap(word(&text[at - 2..]), before + at - 2);
            }
        }
    }
    put_sequence(&text[literals..], None, packed);
}

/// The last place of each few bytes; place 0 where there was none.
struct Table([u16; 1 << TABLE_BITS]);

impl Table {
    /// The place that the first bytes of `word` had, now `place`.
    fn swap(&mut self, word: u64, place: usize) -> usize {
        // Five bytes count. The factor spreads them over the upper bits (Fibonacci hashing).
        let hash = (word << 24).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - TABLE_BITS);
        usize::from(std::mem::replace(&mut self.0[hash as usize], place as u16))
    }
}

/// The first eight bytes, of which there are so many.
fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes"))
}

/// How many bytes both begin with.
fn same_bytes(old: &[u8], new: &[u8]) -> usize {
    let (old_words, _) = old.as_chunks::<8>();
    let (new_words, _) = new.as_chunks::<8>();
    let mut same = 0;
    for (old, new) in old_words.iter().zip(new_words) {
        let differing = u64::from_le_bytes(*old) ^ u64::from_le_bytes(*new);
        if differing != 0 {
            return same + differing.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    let rest = old[same..].iter().zip(&new[same..]);
    same + rest.take_while(|(old, new)| old == new).count()
}

/// How many bytes both end with.
fn same_bytes_before(old: &[u8], new: &[u8]) -> usize {
    let both = old.iter().rev().zip(new.iter().rev());
    both.take_while(|(old, new)| old == new).count()
}

/// Bytes as they are, and behind them a repetition: from how far back, and how many bytes.
fn put_sequence(literals: &[u8], repetition: Option<(usize, usize)>, packed: &mut Vec<u8>) {
    let more = repetition.map_or(0, |(_, bytes)| bytes - MIN_MATCH);
    packed.push((literals.len().min(15) << 4 | more.min(15)) as u8);
    put_length(literals.len(), packed);
    packed.extend_from_slice(literals);
    if let Some((offset, _)) = repetition {
        packed.extend_from_slice(&(offset as u16).to_le_bytes());
        put_length(more, packed);
    }
}

/// What four bits do not hold of a length.
fn put_length(length: usize, packed: &mut Vec<u8>) {
    let Some(mut rest) = length.checked_sub(15) else {
        return;
    };
    while rest >= 255 {
        packed.push(255);
        rest -= 255;
    }
    packed.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use lz4_flex::block::decompress_into_with_dict;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn comes_back(text: &[u8], dictionary: usize) -> usize {
        let mut packed = Vec::new();
        compress(&text[..dictionary], &text[dictionary..], &mut packed);
        let mut unpacked = vec![0; text.len() - dictionary];
        let found = decompress_into_with_dict(&packed, &mut unpacked, &text[..dictionary]).unwrap();
        assert_eq!(found, unpacked.len());
        assert!(unpacked == text[dictionary..]);
        packed.len()
    }

    #[test]
    fn the_longest_text_comes_back() {
        let text: Vec<u8> = (0..MAX_BYTES).map(|at| (at / 300) as u8).collect();
        for dictionary in [0, 1, 7, MAX_BYTES / 2, MAX_BYTES - 13, MAX_BYTES] {
            comes_back(&text, dictionary);
        }
        assert!(comes_back(&vec![7; MAX_BYTES], 0) < 300);
    }

    #[test]
    fn a_piece_of_the_dictionary_is_found_wherever_it_begins() {
        let mut seed = 7_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        };
        let dictionary: Vec<u8> = (0..4_000).map(|_| random()).collect();
        for from in 1_000..1_020 {
            let text = [&dictionary[..], &dictionary[from..from + 250], &[0; 13]].concat();
            assert!(comes_back(&text, dictionary.len()) < 30);
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back(
            pieces in vec((0..=u8::MAX, 1..40_usize), 0..60),
            order in vec(any::<prop::sample::Index>(), 0..200),
            dictionary in any::<prop::sample::Index>(),
        ) {
            let piece = |&(first, bytes): &(u8, usize)| {
                (0..bytes).map(|at| first.wrapping_add((at * at) as u8)).collect::<Vec<u8>>()
            };
            let mut text: Vec<u8> = pieces.iter().flat_map(piece).collect();
            if !pieces.is_empty() {
                text.extend(order.iter().flat_map(|at| piece(at.get(&pieces))));
            }
            comes_back(&text, dictionary.index(text.len() + 1));
        }
    }
}
