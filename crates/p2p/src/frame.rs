//! Frames of a secret connection. Pure.
//!
//! Every frame is 1044 bytes on the wire: ChaCha20-Poly1305 over a length of four bytes (little
//! endian), up to 1024 bytes of data and padding, and the tag. The nonce is a counter of frames
//! for each direction, which must not repeat.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of the length in front of the data.
pub const LENGTH_BYTES: usize = 4;
/// Data bytes in one frame at most.
pub const MAX_DATA: usize = 1024;
/// Bytes of a frame before it is sealed.
pub const PLAIN_FRAME: usize = LENGTH_BYTES + MAX_DATA;
/// Bytes of Poly1305's tag.
pub const TAG: usize = 16;
/// Bytes of a frame on the wire.
pub const SEALED_FRAME: usize = PLAIN_FRAME + TAG;

/// A frame cannot be sealed or opened; the connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The tag does not fit: another key, another order, or bytes changed on the way.
    #[error("a frame fails authentication")]
    Authentication,
    /// The sender claims more data than a frame holds.
    #[error("a frame claims {0} bytes of data, at most {MAX_DATA} fit")]
    Length(u32),
    /// All nonces of this direction are used up.
    #[error("the nonces of this connection are used up")]
    NoncesExhausted,
}

/// One direction's key, 32 bytes, wiped when dropped.
pub type DirectionKey = Zeroizing<[u8; 32]>;

/// The key and the counter of one direction.
struct Direction {
    key: LessSafeKey,
    /// The next nonce; `None` once the last one was used.
    next: Option<u64>,
}

impl Direction {
    fn new(key: &DirectionKey) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_slice())
            .expect("a ChaCha20-Poly1305 key has 32 bytes");
        Self {
            key: LessSafeKey::new(key),
            next: Some(0),
        }
    }

    /// The next nonce: four zero bytes and the counter, little endian. Never the same twice.
    fn advance(&mut self) -> Result<Nonce, FrameError> {
        let counter = self.next.ok_or(FrameError::NoncesExhausted)?;
        self.next = counter.checked_add(1);
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Seals frames in the order in which they are sent.
pub struct FrameSealer(Direction);

impl FrameSealer {
    /// A sealer whose first nonce is 0.
    #[must_use]
    pub fn new(key: &DirectionKey) -> Self {
        Self(Direction::new(key))
    }

    /// Seals a frame in place. Its first four bytes must hold the length of the data, which and
    /// the padding follow up to [`PLAIN_FRAME`]; the tag is written behind.
    ///
    /// # Errors
    /// When the nonces are used up.
    pub fn seal(&mut self, frame: &mut [u8; SEALED_FRAME]) -> Result<(), FrameError> {
        let nonce = self.0.advance()?;
        let (plain, tag) = frame.split_at_mut(PLAIN_FRAME);
        let sealed = self
            .0
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), plain)
            .expect("a frame is far shorter than the cipher's limit");
        tag.copy_from_slice(sealed.as_ref());
        Ok(())
    }

    /// Appends `data`, cut into frames with padding of zeros, to `wire`.
    ///
    /// # Errors
    /// When the nonces are used up.
    pub fn seal_all(&mut self, data: &[u8], wire: &mut Vec<u8>) -> Result<(), FrameError> {
        wire.reserve_exact(data.len().div_ceil(MAX_DATA) * SEALED_FRAME);
        for chunk in data.chunks(MAX_DATA) {
            let start = wire.len();
            wire.resize(start + SEALED_FRAME, 0);
            let frame = frame_at(wire, start);
            frame[..LENGTH_BYTES].copy_from_slice(&length_bytes(chunk.len()));
            frame[LENGTH_BYTES..LENGTH_BYTES + chunk.len()].copy_from_slice(chunk);
            self.seal(frame)?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn set_next_nonce(&mut self, next: u64) {
        self.0.next = Some(next);
    }
}

/// Opens frames in the order in which they arrive.
pub struct FrameOpener(Direction);

impl FrameOpener {
    /// An opener whose first nonce is 0.
    #[must_use]
    pub fn new(key: &DirectionKey) -> Self {
        Self(Direction::new(key))
    }

    /// Opens a frame in place. Returns how many bytes of data it holds; they stand behind its
    /// first [`LENGTH_BYTES`] bytes. What follows them is padding of any content.
    ///
    /// # Errors
    /// When the tag does not fit, the length is above [`MAX_DATA`], or the nonces are used up.
    pub fn open(&mut self, frame: &mut [u8; SEALED_FRAME]) -> Result<usize, FrameError> {
        let nonce = self.0.advance()?;
        self.0
            .key
            .open_in_place(nonce, Aad::empty(), frame.as_mut_slice())
            .map_err(|_| FrameError::Authentication)?;
        let (length, _) = frame
            .split_first_chunk::<LENGTH_BYTES>()
            .expect("a frame is longer than its length field");
        let length = u32::from_le_bytes(*length);
        usize::try_from(length)
            .ok()
            .filter(|&length| length <= MAX_DATA)
            .ok_or(FrameError::Length(length))
    }

    #[cfg(test)]
    pub(crate) fn set_next_nonce(&mut self, next: u64) {
        self.0.next = Some(next);
    }
}

/// The length field of a frame with `length` bytes of data.
pub(crate) fn length_bytes(length: usize) -> [u8; LENGTH_BYTES] {
    debug_assert!(length <= MAX_DATA);
    u32::try_from(length)
        .expect("a frame holds at most 1024 bytes")
        .to_le_bytes()
}

/// The frame that starts at `start` of `wire`, which must reach to its end.
pub(crate) fn frame_at(wire: &mut [u8], start: usize) -> &mut [u8; SEALED_FRAME] {
    wire[start..]
        .first_chunk_mut()
        .expect("the caller made room for a whole frame")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> DirectionKey {
        Zeroizing::new([7; 32])
    }

    #[test]
    fn the_nonce_never_wraps() {
        let mut sealer = FrameSealer::new(&key());
        let mut opener = FrameOpener::new(&key());
        sealer.set_next_nonce(u64::MAX);
        opener.set_next_nonce(u64::MAX);
        let mut wire = Vec::new();
        sealer.seal_all(b"last", &mut wire).unwrap();
        assert_eq!(opener.open(frame_at(&mut wire, 0)), Ok(4));
        assert_eq!(
            sealer.seal_all(b"more", &mut Vec::new()),
            Err(FrameError::NoncesExhausted)
        );
        assert_eq!(
            opener.open(frame_at(&mut wire, 0)),
            Err(FrameError::NoncesExhausted)
        );
    }

    #[test]
    fn a_claimed_length_is_bounded() {
        for (length, verdict) in [(1024_u32, Ok(1024)), (1025, Err(FrameError::Length(1025)))] {
            let mut frame = [0; SEALED_FRAME];
            frame[..4].copy_from_slice(&length.to_le_bytes());
            FrameSealer::new(&key()).seal(&mut frame).unwrap();
            assert_eq!(FrameOpener::new(&key()).open(&mut frame), verdict);
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let mut wire = Vec::new();
        FrameSealer::new(&key())
            .seal_all(b"data", &mut wire)
            .unwrap();
        for byte in [0, 500, 1027, 1028, 1043] {
            let mut bent = wire.clone();
            bent[byte] ^= 1;
            assert_eq!(
                FrameOpener::new(&key()).open(frame_at(&mut bent, 0)),
                Err(FrameError::Authentication)
            );
        }
    }
}
