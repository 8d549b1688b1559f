use crate::ByteBudget;

/// What a reactor asks of one channel of every connection.
#[derive(Debug, Clone)]
pub struct ChannelDescriptor {
    /// The channel's byte id, as CometBFT numbers it (0x40 is blocksync).
    pub id: u8,
    /// Share of the sending rate relative to the other channels; at least 1.
    pub priority: u8,
    /// Messages that may wait to be sent to one peer; beyond it `try_send` refuses. At least 1.
    pub send_queue: usize,
    /// Largest message accepted, in bytes. A peer that sends a longer one is disconnected, so a
    /// smaller figure than CometBFT's would drop honest peers.
    pub max_message_bytes: usize,
    /// When set, a message of more than one packet is buffered only as far as this budget has room for
    /// it, which is asked for in steps of 1 MiB. The message must begin, as every message of the blocksync channel does,
    /// with one length-delimited field, which is what tells its size.
    pub budget: Option<ByteBudget>,
    /// Whether a message that needs room of the budget must have been announced by
    /// [`PeerHandle::expect_answer`](crate::PeerHandle::expect_answer); a peer that sends another
    /// is disconnected before any room is taken.
    pub only_asked: bool,
    /// Bytes of one peer's messages on this channel that the reactor may have in hand at once; each
    /// counts for [`MIN_UNHANDLED_BYTES`](crate::MIN_UNHANDLED_BYTES) at least, and one alone may be
    /// larger. While there are more, nothing is read from that peer, and from no other one for its
    /// sake. The reactor has a message in hand as long as it keeps its permit. `None`: any number.
    pub unhandled_bytes: Option<usize>,
}

impl ChannelDescriptor {
    /// A channel without a byte budget.
    #[must_use]
    pub const fn new(id: u8, priority: u8, send_queue: usize, max_message_bytes: usize) -> Self {
        Self {
            id,
            priority,
            send_queue,
            max_message_bytes,
            budget: None,
            only_asked: false,
            unhandled_bytes: None,
        }
    }

    /// The same channel with its large messages bounded by `budget`, which may be shared with
    /// other channels.
    #[must_use]
    pub fn with_budget(mut self, budget: ByteBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// The same channel, of which the reactor has so many bytes of a peer in hand at most.
    #[must_use]
    pub const fn with_unhandled_bytes(mut self, bytes: usize) -> Self {
        self.unhandled_bytes = Some(bytes);
        self
    }

    /// The same channel, on which large messages are answers and nothing else.
    #[must_use]
    pub const fn only_asked(mut self) -> Self {
        self.only_asked = true;
        self
    }
}
