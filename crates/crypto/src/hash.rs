use sha2::{Digest, Sha256, block_api::compress256};

/// Blocks of 64 bytes that a short message may fill, padding included.
const SHORT_BLOCKS: usize = 4;
/// Longest short message: one byte of padding and eight of length follow it.
const SHORT_MAX: usize = SHORT_BLOCKS * 64 - 9;
/// FIPS 180-4, section 5.3.3.
pub(crate) const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// SHA-256 of `data`.
#[must_use]
pub fn sha256(data: &[u8]) -> [u8; 32] {
    sha256_pair(data, &[])
}

/// SHA-256 of `first` followed by `second`, without joining them on the heap.
///
/// Merkle trees hash little else than messages of a few blocks, where a streaming hasher spends as
/// much time on its buffer as on the hash: short ones are padded here and compressed in one call.
#[must_use]
pub fn sha256_pair(first: &[u8], second: &[u8]) -> [u8; 32] {
    let length = first.len() + second.len();
    if length > SHORT_MAX {
        return Sha256::new()
            .chain_update(first)
            .chain_update(second)
            .finalize()
            .into();
    }
    let mut blocks = [[0; 64]; SHORT_BLOCKS];
    let used = (length + 9).div_ceil(64);
    let bytes = blocks.as_flattened_mut();
    bytes[..first.len()].copy_from_slice(first);
    bytes[first.len()..length].copy_from_slice(second);
    bytes[length] = 0x80;
    bytes[used * 64 - 8..used * 64].copy_from_slice(&(length as u64 * 8).to_be_bytes());

    let mut state = INITIAL;
    compress256(&mut state, &blocks[..used]);
    bytes_of(state)
}

/// A state's bytes.
pub(crate) fn bytes_of(state: [u32; 8]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (bytes, word) in hash.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_messages_hash_alike() {
        let data: Vec<u8> = (0..600_u32).map(|i| (i * 7) as u8).collect();
        for length in 0..data.len() {
            let message = &data[..length];
            let expected: [u8; 32] = Sha256::digest(message).into();
            assert_eq!(sha256(message), expected, "{length} bytes");
            for cut in [0, 1, length / 2, length] {
                let (first, second) = message.split_at(cut.min(length));
                assert_eq!(sha256_pair(first, second), expected, "{length} at {cut}");
            }
        }
    }
}
