//! The handshake of a secret connection and the exchange of node information. Pure: randomness
//! comes in as an argument, bytes go out as values.
//!
//! 1. Each end sends an ephemeral X25519 key in the clear.
//! 2. Both put the keys (the lower one first) and the shared secret in a merlin transcript, whose
//!    challenge each end signs with its node key; HKDF-SHA256 of the shared secret yields one key
//!    for each direction.
//! 3. In frames, each end sends its node key with that signature, then its node information.
//!
//! Either end may send ahead, so nothing here waits for an order between the two ends.

use bytes::Bytes;
use hkdf::Hkdf;
use merlin::Transcript;
use perihelion_crypto::{NodeId, PrivateKey, PublicKey};
use perihelion_proto::tendermint::{crypto as pb_crypto, p2p as pb};
use prost::Message as _;
use sha2::Sha256;
use thiserror::Error;
use x25519_dalek::{PublicKey as EphemeralPublic, StaticSecret};
use zeroize::Zeroizing;

use crate::{
    frame::{DirectionKey, FrameError, FrameOpener, FrameSealer, SEALED_FRAME},
    node_info::{MAX_NODE_INFO, NodeInfo, NodeInfoError},
};

const TRANSCRIPT: &[u8] = b"TENDERMINT_SECRET_CONNECTION_TRANSCRIPT_HASH";
const LOWER_KEY: &[u8] = b"EPHEMERAL_LOWER_PUBLIC_KEY";
const UPPER_KEY: &[u8] = b"EPHEMERAL_UPPER_PUBLIC_KEY";
const SHARED_SECRET: &[u8] = b"DH_SECRET";
const CHALLENGE: &[u8] = b"SECRET_CONNECTION_MAC";
const KEY_DERIVATION: &[u8] = b"TENDERMINT_SECRET_CONNECTION_KEY_AND_CHALLENGE_GEN";

/// An ephemeral key's message is 34 bytes; unknown fields of another implementation have room.
const MAX_HELLO: usize = 128;
/// An authentication message is 102 bytes for an ed25519 key; other key types are refused, but
/// must decode so that the refusal can say so.
const MAX_AUTH: usize = 1024;

/// Bytes that a peer may have in the handshake's buffers at any moment, at most. Before it has
/// authenticated, it cannot make this node keep more.
pub const MAX_BUFFERED: usize = 16 * 1024;

/// The peer broke the handshake's rules.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// A message is longer than its bound or its length is malformed.
    #[error("{message} of more than {bound} bytes")]
    TooLong {
        /// Which message.
        message: &'static str,
        /// Its bound in bytes.
        bound: usize,
    },
    /// A message cannot be decoded.
    #[error("{0} that cannot be decoded")]
    Malformed(&'static str),
    /// The ephemeral key has another length than 32 bytes.
    #[error("an ephemeral key of {0} bytes")]
    EphemeralLength(usize),
    /// The ephemeral key is a point of low order: the shared secret would be known to everybody.
    #[error("an ephemeral key of low order")]
    LowOrder,
    /// The node key is not an ed25519 key.
    #[error("a node key that is not ed25519")]
    KeyType,
    /// The signature of the challenge is wrong: the peer does not hold the key that it names.
    #[error("a wrong signature of the challenge")]
    Signature,
    /// A frame is not authentic.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The node information cannot be decoded.
    #[error(transparent)]
    NodeInfo(#[from] NodeInfoError),
}

/// What both ends derive from their ephemeral keys.
pub struct SharedSecrets {
    /// The X25519 result.
    pub shared_secret: Zeroizing<[u8; 32]>,
    /// HKDF's 96 bytes: two keys, and 32 bytes that are not used any more.
    pub hkdf_output: Zeroizing<[u8; 96]>,
    /// What both ends sign.
    pub challenge: [u8; 32],
    /// Opens what the peer sends.
    pub receive_key: DirectionKey,
    /// Seals what this end sends.
    pub send_key: DirectionKey,
}

impl SharedSecrets {
    /// Derives all secrets of a connection.
    ///
    /// # Errors
    /// When the remote key is of low order.
    pub fn derive(ours: &StaticSecret, remote: &[u8; 32]) -> Result<Self, HandshakeError> {
        let local = EphemeralPublic::from(ours).to_bytes();
        let shared = ours.diffie_hellman(&EphemeralPublic::from(*remote));
        if !shared.was_contributory() {
            return Err(HandshakeError::LowOrder);
        }
        let (lower, upper) = if local < *remote {
            (&local, remote)
        } else {
            (remote, &local)
        };
        let mut transcript = Transcript::new(TRANSCRIPT);
        transcript.append_message(LOWER_KEY, lower);
        transcript.append_message(UPPER_KEY, upper);
        transcript.append_message(SHARED_SECRET, shared.as_bytes());
        let mut challenge = [0; 32];
        transcript.challenge_bytes(CHALLENGE, &mut challenge);

        let mut hkdf_output = Zeroizing::new([0; 96]);
        Hkdf::<Sha256>::new(None, shared.as_bytes())
            .expand(KEY_DERIVATION, hkdf_output.as_mut_slice())
            .expect("96 bytes are within HKDF's bound");
        let (mut first, mut second) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        first.copy_from_slice(&hkdf_output[..32]);
        second.copy_from_slice(&hkdf_output[32..64]);
        // The end with the lower key receives by the first key.
        let (receive_key, send_key) = if *lower == local {
            (first, second)
        } else {
            (second, first)
        };
        Ok(Self {
            shared_secret: Zeroizing::new(shared.to_bytes()),
            hkdf_output,
            challenge,
            receive_key,
            send_key,
        })
    }
}

/// A connection that is authenticated, with the other end's information.
pub struct Established {
    /// The id of the peer's node key.
    pub remote_id: NodeId,
    /// The peer's node key.
    pub remote_key: PublicKey,
    /// What the peer says of itself; not validated.
    pub node_info: NodeInfo,
    /// Seals what is sent from here on.
    pub sealer: FrameSealer,
    /// Opens what arrives from here on.
    pub opener: FrameOpener,
    /// Sealed bytes that came behind the handshake already.
    pub sealed: Vec<u8>,
    /// Opened bytes that came behind the handshake already; they precede `sealed`.
    pub opened: Vec<u8>,
}

/// The handshake as a state machine: feed it with [`handle_bytes`](Self::handle_bytes), send what
/// [`poll_transmit`](Self::poll_transmit) yields, until [`poll_established`](Self::poll_established)
/// yields the connection.
pub struct Handshake {
    node_key: PrivateKey,
    node_info: Vec<u8>,
    ephemeral: Option<StaticSecret>,
    sealed: Vec<u8>,
    opened: Vec<u8>,
    transmit: Vec<u8>,
    directions: Option<(FrameSealer, FrameOpener)>,
    challenge: [u8; 32],
    remote_key: Option<PublicKey>,
    remote_info: Option<NodeInfo>,
}

impl Handshake {
    /// Starts a handshake; the first bytes to send are ready at once. `ephemeral` must be 32
    /// random bytes that are used for nothing else.
    #[must_use]
    pub fn new(node_key: &PrivateKey, node_info: &NodeInfo, ephemeral: [u8; 32]) -> Self {
        let ephemeral = StaticSecret::from(ephemeral);
        let public = EphemeralPublic::from(&ephemeral);
        Self {
            node_key: node_key.clone(),
            node_info: node_info.encode_delimited(),
            transmit: Bytes::copy_from_slice(public.as_bytes()).encode_length_delimited_to_vec(),
            ephemeral: Some(ephemeral),
            sealed: Vec::new(),
            opened: Vec::new(),
            directions: None,
            challenge: [0; 32],
            remote_key: None,
            remote_info: None,
        }
    }

    /// How many bytes may be handed to [`handle_bytes`](Self::handle_bytes) next, at most.
    #[must_use]
    pub fn room(&self) -> usize {
        MAX_BUFFERED - self.sealed.len() - self.opened.len()
    }

    /// The id that the peer has proven, once it has.
    #[must_use]
    pub fn remote_id(&self) -> Option<NodeId> {
        self.remote_key.as_ref().map(PublicKey::node_id)
    }

    /// Takes bytes from the peer, at most [`room`](Self::room) of them.
    ///
    /// # Errors
    /// When the peer breaks a rule. The connection must be closed then.
    ///
    /// # Panics
    /// When more bytes than there is room for are handed in.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        assert!(
            bytes.len() <= self.room(),
            "more bytes than there is room for"
        );
        self.sealed.extend_from_slice(bytes);
        self.advance()
    }

    /// Bytes to send, in order.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.transmit.is_empty()).then(|| std::mem::take(&mut self.transmit))
    }

    /// The connection, once the peer has authenticated and told its information. What
    /// [`poll_transmit`](Self::poll_transmit) yields must be sent before anything else.
    pub fn poll_established(&mut self) -> Option<Established> {
        let node_info = self.remote_info.take()?;
        let remote_key = self.remote_key.take()?;
        let (sealer, opener) = self.directions.take()?;
        Some(Established {
            remote_id: remote_key.node_id(),
            remote_key,
            node_info,
            sealer,
            opener,
            sealed: std::mem::take(&mut self.sealed),
            opened: std::mem::take(&mut self.opened),
        })
    }

    fn advance(&mut self) -> Result<(), HandshakeError> {
        if self.directions.is_none() {
            let Some(hello) = take_delimited(&mut self.sealed, "an ephemeral key", MAX_HELLO)?
            else {
                return Ok(());
            };
            self.handle_hello(&hello)?;
        }
        while self.remote_info.is_none() {
            let message = match self.remote_key {
                None => take_delimited(&mut self.opened, "an authentication", MAX_AUTH)?,
                Some(_) => take_delimited(&mut self.opened, "node information", MAX_NODE_INFO)?,
            };
            match message {
                Some(message) if self.remote_key.is_none() => self.handle_auth(&message)?,
                Some(message) => self.remote_info = Some(NodeInfo::decode(&message)?),
                None if !self.open_frame()? => return Ok(()),
                None => {}
            }
        }
        Ok(())
    }

    /// The peer's ephemeral key: everything secret follows, and our own proof can be sent.
    fn handle_hello(&mut self, hello: &[u8]) -> Result<(), HandshakeError> {
        let value =
            Bytes::decode(hello).map_err(|_| HandshakeError::Malformed("an ephemeral key"))?;
        let remote: [u8; 32] = value
            .as_ref()
            .try_into()
            .map_err(|_| HandshakeError::EphemeralLength(value.len()))?;
        let ephemeral = self
            .ephemeral
            .take()
            .expect("one ephemeral key is handled, since directions are set afterwards");
        let secrets = SharedSecrets::derive(&ephemeral, &remote)?;
        let mut sealer = FrameSealer::new(&secrets.send_key);
        let auth = auth_message(&self.node_key, &secrets.challenge);
        sealer.seal_all(&auth, &mut self.transmit)?;
        sealer.seal_all(&self.node_info, &mut self.transmit)?;
        self.directions = Some((sealer, FrameOpener::new(&secrets.receive_key)));
        self.challenge = secrets.challenge;
        Ok(())
    }

    fn handle_auth(&mut self, message: &[u8]) -> Result<(), HandshakeError> {
        let auth = pb::AuthSigMessage::decode(message)
            .map_err(|_| HandshakeError::Malformed("an authentication"))?;
        let key = match auth.pub_key.and_then(|key| key.sum) {
            Some(sum @ pb_crypto::public_key::Sum::Ed25519(_)) => {
                PublicKey::try_from(pb_crypto::PublicKey { sum: Some(sum) })
                    .map_err(|_| HandshakeError::Malformed("a node key"))?
            }
            _ => return Err(HandshakeError::KeyType),
        };
        key.verify(&self.challenge, &auth.sig)
            .map_err(|_| HandshakeError::Signature)?;
        self.remote_key = Some(key);
        Ok(())
    }

    /// Opens the next frame into `opened`; false when there is no whole one.
    fn open_frame(&mut self) -> Result<bool, HandshakeError> {
        let Some((_, opener)) = &mut self.directions else {
            return Ok(false);
        };
        if self.sealed.len() < SEALED_FRAME {
            return Ok(false);
        }
        opener.open_all(&mut self.sealed[..SEALED_FRAME], &mut self.opened)?;
        self.sealed.drain(..SEALED_FRAME);
        Ok(true)
    }
}

/// The node key and its signature of the challenge, behind their length.
#[must_use]
pub fn auth_message(node_key: &PrivateKey, challenge: &[u8; 32]) -> Vec<u8> {
    pb::AuthSigMessage {
        pub_key: Some((&node_key.public_key()).into()),
        sig: node_key.sign(challenge),
    }
    .encode_length_delimited_to_vec()
}

/// Cuts the first length-delimited message off `buffer`, once it is there in whole.
fn take_delimited(
    buffer: &mut Vec<u8>,
    message: &'static str,
    bound: usize,
) -> Result<Option<Vec<u8>>, HandshakeError> {
    let too_long = HandshakeError::TooLong { message, bound };
    let mut length = 0_usize;
    for (index, byte) in buffer.iter().enumerate() {
        // No bound needs more than three bytes of seven bits.
        if index == 3 {
            return Err(too_long);
        }
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 != 0 {
            continue;
        }
        if length > bound {
            return Err(too_long);
        }
        let start = index + 1;
        if buffer.len() < start + length {
            return Ok(None);
        }
        let found = buffer[start..start + length].to_vec();
        buffer.drain(..start + length);
        return Ok(Some(found));
    }
    Ok(None)
}
