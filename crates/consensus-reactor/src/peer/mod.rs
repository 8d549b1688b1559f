//! What each peer has of the height that is being decided, and what to send it next. Pure: no task,
//! clock or socket.
//!
//! A [`View`] is an immutable picture of this node's own state machine. A [`PeerState`] is what is
//! known of one peer: by its messages (`handle`) and by what was sent to it (`sent`). Its `next_*`
//! functions say what the peer lacks of what the view has, one message at a time; blocks that are
//! decided already come from [`Stored`].
//!
//! Reading order: `view`, `state` (one peer, by its messages), `gossip` (what it lacks), `pick`.

mod gossip;
mod pick;
mod state;
mod view;

pub use gossip::{IDLE_POLLS_BEFORE_HEADER, answer_maj23};
pub use state::{MAX_STATE_BITS, PartBits, PeerState, Received};
pub use view::{PartsView, Stored, View, VotesView};
