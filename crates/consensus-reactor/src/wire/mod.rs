//! The messages of consensus between peers: channels 0x20 to 0x23, in CometBFT's bytes. Pure.
//!
//! Reading order: `message` (what there is, and its stateless rules), `decode` (from bytes, bounded
//! before anything is allocated), `encode`, `error` (what disconnects).

mod decode;
mod encode;
mod error;
mod message;

use perihelion_p2p::ChannelDescriptor;

pub use decode::{MAX_PART_MESSAGE_BYTES, MAX_SMALL_MESSAGE_BYTES};
pub use error::WireError;
pub use message::{HasVote, NewRoundStep, NewValidBlock, PeerMessage, ProposalPol, VoteSetBits};

/// Largest message of any of the channels, in bytes. Smaller, and votes with long extensions would
/// disconnect honest peers; CometBFT refuses larger ones.
pub const MAX_MESSAGE_BYTES: usize = 1_048_576;

/// The channels of consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Where a peer stands: steps, valid blocks, votes had, claims of majorities.
    State,
    /// Proposals and block parts.
    Data,
    /// Votes.
    Vote,
    /// Answers to claims of majorities.
    VoteSetBits,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::State, Self::Data, Self::Vote, Self::VoteSetBits];

    /// The channel's byte.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::State => 0x20,
            Self::Data => 0x21,
            Self::Vote => 0x22,
            Self::VoteSetBits => 0x23,
        }
    }

    /// The channel of a byte.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.id() == id)
    }

    /// What of all channels may wait of one peer, in bytes.
    pub(crate) const ALL_UNHANDLED_BYTES: usize = Self::State.unhandled_bytes()
        + Self::Data.unhandled_bytes()
        + Self::Vote.unhandled_bytes()
        + Self::VoteSetBits.unhandled_bytes();

    /// What the connection is to know of it, with CometBFT's priority. The queues are CometBFT's but
    /// for that of parts, each of which is as large as hundreds of other messages.
    #[must_use]
    pub const fn descriptor(self) -> ChannelDescriptor {
        let (priority, send_queue) = match self {
            Self::State => (6, 100),
            Self::Data => (10, 16),
            Self::Vote => (7, 100),
            Self::VoteSetBits => (1, 2),
        };
        ChannelDescriptor::new(self.id(), priority, send_queue, MAX_MESSAGE_BYTES)
            .with_unhandled_bytes(self.unhandled_bytes())
    }

    /// What may wait of one peer, in bytes; beyond it nothing more is read from that peer. More, and
    /// many peers together take much memory while the application is slow; less, and a peer is read
    /// from in small steps.
    const fn unhandled_bytes(self) -> usize {
        match self {
            Self::State => 256 << 10,
            Self::Data | Self::Vote => 1 << 20,
            Self::VoteSetBits => 64 << 10,
        }
    }
}

/// All channels of consensus.
#[must_use]
pub fn channels() -> Vec<ChannelDescriptor> {
    Channel::ALL.into_iter().map(Channel::descriptor).collect()
}
