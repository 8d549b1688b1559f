//! Frames of a secret connection. Pure.
//!
//! Every frame is 1044 bytes on the wire: ChaCha20-Poly1305 over a length of four bytes (little
//! endian), up to 1024 bytes of data and padding, and the tag. The nonce is a counter of frames
//! for each direction, which must not repeat. Frames are sealed and opened in groups where there are
//! as many and the processor can (ADR 15), which gives the same bytes and verdicts.

use perihelion_crypto::{AEAD_GROUP, AEAD_MESSAGE, AeadGroup, open_group, seal_group};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::mconnection::PacketSink;

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

const _: () = assert!(PLAIN_FRAME == AEAD_MESSAGE, "frames go in groups");

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
    /// The same, for groups.
    raw: DirectionKey,
    /// The next nonce; `None` once the last one was used.
    next: Option<u64>,
    /// As on a processor that has no groups.
    #[cfg(test)]
    is_single: bool,
}

impl Direction {
    fn new(key: &DirectionKey) -> Self {
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, key.as_slice())
            .expect("a ChaCha20-Poly1305 key has 32 bytes");
        Self {
            key: LessSafeKey::new(unbound),
            raw: key.clone(),
            next: Some(0),
            #[cfg(test)]
            is_single: false,
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

    /// Seals or opens a group; `false`, with no nonce used, where that must go one by one.
    fn at_once(
        &mut self,
        group: &mut AeadGroup,
        work: impl Fn(&[u8; 32], u64, &mut AeadGroup) -> bool,
    ) -> bool {
        #[cfg(test)]
        if self.is_single {
            return false;
        }
        let Some(first) = self.next else {
            return false;
        };
        let is_done = work(&self.raw, first, group);
        if is_done {
            self.next = first.checked_add(AEAD_GROUP as u64);
        }
        is_done
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
    /// When the nonces are used up; nothing is appended then.
    pub fn seal_all(&mut self, data: &[u8], wire: &mut Vec<u8>) -> Result<(), FrameError> {
        let mut frames = Frames::default();
        frames.reserve(data.len());
        frames.put(data);
        self.seal_frames(&mut frames)?;
        wire.extend_from_slice(frames.sealed());
        Ok(())
    }

    /// Seals all frames where they stand, the last one with padding of zeros.
    ///
    /// # Errors
    /// When the nonces are used up; the frames are empty then.
    ///
    /// # Panics
    /// Where the frames are sealed.
    pub fn seal_frames(&mut self, frames: &mut Frames) -> Result<(), FrameError> {
        frames.end();
        let is_sealed = self.seal_each(&mut frames.wire);
        if is_sealed.is_err() {
            frames.clear();
        }
        is_sealed
    }

    fn seal_each(&mut self, frames: &mut [u8]) -> Result<(), FrameError> {
        let (groups, others) = groups_of(frames);
        for group in groups {
            if !self.0.at_once(group, seal_group) {
                group.iter_mut().try_for_each(|frame| self.seal(frame))?;
            }
        }
        others.iter_mut().try_for_each(|frame| self.seal(frame))
    }

    #[cfg(test)]
    pub(crate) fn set_next_nonce(&mut self, next: u64) {
        self.0.next = Some(next);
    }
}

/// Data that is cut into frames as it comes, and sealed where it stands.
#[derive(Default)]
pub struct Frames {
    wire: Vec<u8>,
    /// Bytes of data in them.
    data: usize,
    is_sealed: bool,
}

impl Frames {
    /// Appends data.
    ///
    /// # Panics
    /// Where the frames are sealed.
    pub fn put(&mut self, mut data: &[u8]) {
        assert!(!self.is_sealed, "nothing is put into sealed frames");
        while !data.is_empty() {
            let used = self.data % MAX_DATA;
            if used == 0 {
                self.wire.extend_from_slice(&length_bytes(MAX_DATA));
            }
            let (fitting, rest) = data.split_at(data.len().min(MAX_DATA - used));
            self.wire.extend_from_slice(fitting);
            self.data += fitting.len();
            if used + fitting.len() == MAX_DATA {
                self.wire.extend_from_slice(&[0; TAG]);
            }
            data = rest;
        }
    }

    /// Makes room for so many more bytes of data.
    pub fn reserve(&mut self, data: usize) {
        let frames = (self.data + data).div_ceil(MAX_DATA);
        let bytes = frames * SEALED_FRAME;
        self.wire
            .reserve_exact(bytes.saturating_sub(self.wire.len()));
    }

    /// Bytes of data.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.data
    }

    /// Whether they hold no data.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.data == 0
    }

    /// What goes to the peer; nothing before it is sealed.
    #[must_use]
    pub fn sealed(&self) -> &[u8] {
        if self.is_sealed { &self.wire } else { &[] }
    }

    /// Makes them empty.
    pub fn clear(&mut self) {
        self.wire.clear();
        self.data = 0;
        self.is_sealed = false;
    }

    /// Pads the last frame.
    fn end(&mut self) {
        assert!(!self.is_sealed, "frames are sealed once");
        let used = self.data % MAX_DATA;
        if used > 0 {
            let start = self.wire.len() - used - LENGTH_BYTES;
            self.wire.resize(start + SEALED_FRAME, 0);
            self.wire[start..start + LENGTH_BYTES].copy_from_slice(&length_bytes(used));
        }
        self.is_sealed = true;
    }
}

impl PacketSink for Frames {
    fn put(&mut self, bytes: &[u8]) {
        Self::put(self, bytes);
    }

    fn bytes(&self) -> usize {
        self.data
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
        data_of(frame).map(<[u8]>::len)
    }

    /// Opens `sealed`, which is whole frames, and appends their data to `opened`, as far as the first
    /// frame with a fault.
    ///
    /// # Errors
    /// As [`FrameOpener::open`] gives them. The connection is over then: which nonce is next is open.
    ///
    /// # Panics
    /// When bytes are left behind the last whole frame.
    pub fn open_all(&mut self, sealed: &mut [u8], opened: &mut Vec<u8>) -> Result<(), FrameError> {
        opened.reserve_exact(sealed.len() / SEALED_FRAME * MAX_DATA);
        let (groups, others) = groups_of(sealed);
        for group in groups {
            if self.0.at_once(group, open_group) {
                for frame in group {
                    opened.extend_from_slice(data_of(frame)?);
                }
            } else {
                self.open_each(group, opened)?;
            }
        }
        self.open_each(others, opened)
    }

    fn open_each(
        &mut self,
        frames: &mut [[u8; SEALED_FRAME]],
        opened: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        for frame in frames {
            let length = self.open(frame)?;
            opened.extend_from_slice(&frame[LENGTH_BYTES..LENGTH_BYTES + length]);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn set_next_nonce(&mut self, next: u64) {
        self.0.next = Some(next);
    }
}

/// Whole frames in groups, and those that are left.
fn groups_of(frames: &mut [u8]) -> (&mut [AeadGroup], &mut [[u8; SEALED_FRAME]]) {
    let (frames, rest) = frames.as_chunks_mut();
    assert!(rest.is_empty(), "whole frames");
    frames.as_chunks_mut()
}

/// The data of an opened frame.
fn data_of(frame: &[u8; SEALED_FRAME]) -> Result<&[u8], FrameError> {
    let (length, data) = frame
        .split_first_chunk::<LENGTH_BYTES>()
        .expect("a frame is longer than its length field");
    let length = u32::from_le_bytes(*length);
    usize::try_from(length)
        .ok()
        .filter(|&length| length <= MAX_DATA)
        .map(|length| &data[..length])
        .ok_or(FrameError::Length(length))
}

/// The length field of a frame with `length` bytes of data.
fn length_bytes(length: usize) -> [u8; LENGTH_BYTES] {
    debug_assert!(length <= MAX_DATA);
    u32::try_from(length)
        .expect("a frame holds at most 1024 bytes")
        .to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> DirectionKey {
        Zeroizing::new([7; 32])
    }

    /// The first frame of `wire`.
    fn first_of(wire: &mut [u8]) -> &mut [u8; SEALED_FRAME] {
        wire.first_chunk_mut().unwrap()
    }

    #[test]
    fn the_nonce_never_wraps() {
        let mut sealer = FrameSealer::new(&key());
        let mut opener = FrameOpener::new(&key());
        sealer.set_next_nonce(u64::MAX);
        opener.set_next_nonce(u64::MAX);
        let mut wire = Vec::new();
        sealer.seal_all(b"last", &mut wire).unwrap();
        assert_eq!(opener.open(first_of(&mut wire)), Ok(4));
        for frames in [1, AEAD_GROUP] {
            let mut more = b"before".to_vec();
            let sealed = sealer.seal_all(&vec![0; frames * MAX_DATA], &mut more);
            assert_eq!(sealed, Err(FrameError::NoncesExhausted));
            assert_eq!(more, b"before");
            let mut unsealed = Frames::default();
            unsealed.put(b"more");
            let sealed = sealer.seal_frames(&mut unsealed);
            assert_eq!(sealed, Err(FrameError::NoncesExhausted));
            assert!(unsealed.is_empty() && unsealed.sealed().is_empty());
        }
        assert_eq!(
            opener.open(first_of(&mut wire)),
            Err(FrameError::NoncesExhausted)
        );
    }

    #[test]
    fn a_group_uses_the_last_nonces_and_none_above() {
        for (left, frames) in [(8, 8), (7, 8), (8, 9)] {
            let data = vec![5; frames * MAX_DATA];
            let (mut wire, mut opened) = (Vec::new(), Vec::new());
            let (mut sealer, mut opener) = (FrameSealer::new(&key()), FrameOpener::new(&key()));
            let first = u64::MAX - left as u64 + 1;
            sealer.set_next_nonce(first);
            opener.set_next_nonce(first);
            let sealed = sealer.seal_all(&data[..left * MAX_DATA], &mut wire);
            assert_eq!(sealed, Ok(()));
            let more = sealer.seal_all(&data[left * MAX_DATA..], &mut wire);
            let is_enough = left == frames;
            let exhausted = Err(FrameError::NoncesExhausted);
            assert_eq!(more, if is_enough { Ok(()) } else { exhausted });
            assert_eq!(sealer.seal_all(b"more", &mut wire), exhausted);
            assert_eq!(wire.len(), left * SEALED_FRAME);
            wire.resize(frames * SEALED_FRAME, 0);
            let told = opener.open_all(&mut wire, &mut opened);
            assert_eq!(told, if is_enough { Ok(()) } else { exhausted });
            assert_eq!(opened, data[..left * MAX_DATA]);
        }
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

    /// A pair that seals and opens in groups, or not.
    fn pair(is_single: bool) -> (FrameSealer, FrameOpener) {
        let (mut sealer, mut opener) = (FrameSealer::new(&key()), FrameOpener::new(&key()));
        sealer.0.is_single = is_single;
        opener.0.is_single = is_single;
        (sealer, opener)
    }

    #[test]
    fn any_number_of_frames_is_sealed_and_opened_as_one_by_one() {
        let data: Vec<u8> = (0..20_000_u32).map(|at| (at * 7) as u8).collect();
        for is_single in [false, true] {
            let (mut sealer, mut opener) = pair(is_single);
            let mut each = FrameSealer::new(&key());
            for bytes in (0..18).flat_map(|whole| [0, 1, 1023].map(|more| whole * MAX_DATA + more))
            {
                let mut wire = b"before".to_vec();
                sealer.seal_all(&data[..bytes], &mut wire).unwrap();
                let mut expected = b"before".to_vec();
                for chunk in data[..bytes].chunks(MAX_DATA) {
                    each.seal_all(chunk, &mut expected).unwrap();
                }
                assert_eq!(wire, expected, "{bytes}");
                let mut opened = b"before".to_vec();
                opener.open_all(&mut wire[6..], &mut opened).unwrap();
                assert_eq!(opened, [b"before", &data[..bytes]].concat());
            }
        }
    }

    #[test]
    fn frames_whose_nonces_run_out_among_them_are_gone() {
        for frames in [5, AEAD_GROUP, AEAD_GROUP + 3] {
            let mut sealer = FrameSealer::new(&key());
            sealer.set_next_nonce(u64::MAX - 2);
            let mut unsealed = Frames::default();
            unsealed.put(&vec![5; frames * MAX_DATA]);
            let sealed = sealer.seal_frames(&mut unsealed);
            assert_eq!(sealed, Err(FrameError::NoncesExhausted));
            assert!(unsealed.is_empty() && unsealed.sealed().is_empty());
        }
    }

    #[test]
    #[should_panic(expected = "frames are sealed once")]
    fn frames_are_sealed_once() {
        let (mut sealer, mut frames) = (FrameSealer::new(&key()), Frames::default());
        frames.put(b"data");
        sealer.seal_frames(&mut frames).unwrap();
        let _ = sealer.seal_frames(&mut frames);
    }

    #[test]
    #[should_panic(expected = "nothing is put into sealed frames")]
    fn nothing_is_put_behind_sealed_frames() {
        let mut frames = Frames::default();
        FrameSealer::new(&key()).seal_frames(&mut frames).unwrap();
        frames.put(b"data");
    }

    #[test]
    fn room_for_frames_is_exact() {
        let mut frames = Frames::default();
        for data in [3 * MAX_DATA - 1, 3 * MAX_DATA] {
            frames.clear();
            frames.reserve(data);
            let room = frames.wire.capacity();
            frames.put(&vec![0; data]);
            FrameSealer::new(&key()).seal_frames(&mut frames).unwrap();
            assert_eq!((room, frames.wire.capacity()), (3 * SEALED_FRAME, room));
        }
    }

    #[test]
    fn frames_hold_what_is_put_into_them_however_it_comes() {
        let data: Vec<u8> = (0..20_000_u32).map(|at| (at * 7) as u8).collect();
        let mut frames = Frames::default();
        for steps in [[1, 3, 9], [1024, 1, 1023], [5000, 1030, 0], [4096, 0, 2048]] {
            for pieces in 1..12 {
                let mut rest = data.as_slice();
                frames.clear();
                for step in (0..pieces).map(|at| steps[at % 3]) {
                    let (piece, others) = rest.split_at(step.min(rest.len()));
                    frames.put(piece);
                    rest = others;
                }
                let bytes = data.len() - rest.len();
                assert_eq!((frames.len(), frames.is_empty()), (bytes, bytes == 0));
                assert!(frames.sealed().is_empty());
                FrameSealer::new(&key()).seal_frames(&mut frames).unwrap();
                let mut expected = Vec::new();
                for chunk in data[..bytes].chunks(MAX_DATA) {
                    let mut frame = [0; SEALED_FRAME];
                    frame[..4].copy_from_slice(&length_bytes(chunk.len()));
                    frame[4..4 + chunk.len()].copy_from_slice(chunk);
                    expected.push(frame);
                }
                let mut sealer = FrameSealer::new(&key());
                for frame in &mut expected {
                    sealer.seal(frame).unwrap();
                }
                assert_eq!(frames.sealed(), expected.as_flattened());
            }
        }
    }

    #[test]
    fn of_many_frames_the_first_fault_is_told_and_what_is_before_it_opened() {
        const FRAMES: usize = 2 * AEAD_GROUP + 3;
        let pairs = (0..FRAMES).flat_map(|a| (0..FRAMES).map(move |b| (a, b)));
        for ((false_length, flipped), is_single) in pairs.flat_map(|at| [(at, false), (at, true)]) {
            let (mut sealer, mut opener) = pair(is_single);
            let mut frames = vec![[0; SEALED_FRAME]; FRAMES];
            for (at, frame) in frames.iter_mut().enumerate() {
                let length = if at == false_length { 2000_u32 } else { 2 };
                frame[..4].copy_from_slice(&length.to_le_bytes());
                frame[4..6].copy_from_slice(&[at as u8, 7]);
                sealer.seal(frame).unwrap();
            }
            frames[flipped][9] ^= 1;
            let mut opened = Vec::new();
            let told = opener.open_all(frames.as_flattened_mut(), &mut opened);
            let (first, error) = if false_length < flipped {
                (false_length, FrameError::Length(2000))
            } else {
                (flipped, FrameError::Authentication)
            };
            assert_eq!(told, Err(error), "{false_length}, {flipped}");
            let before: Vec<_> = (0..first).flat_map(|at| [at as u8, 7]).collect();
            assert_eq!(opened, before, "{false_length}, {flipped}");
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
                FrameOpener::new(&key()).open(first_of(&mut bent)),
                Err(FrameError::Authentication)
            );
        }
    }
}
