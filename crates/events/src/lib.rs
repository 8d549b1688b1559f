//! What happens on the chain, for those who subscribe to it.
//!
//! [`EventBus`] takes blocks that were applied and steps of consensus, and hands each subscriber
//! what its [`Query`] matches. Who publishes never waits: matching is done on the bus's own thread,
//! and a subscriber that does not take what it is given is cancelled. The event names, their
//! attributes and the query language are CometBFT's (`types/events.go`, `libs/pubsub/query`).

mod bus;
mod event;
pub mod query;
mod subscription;

pub use bus::{EventBus, Limits, NotSubscribed, SubscribeError};
pub use event::{AppliedBlock, Attributes, EventData, Message, RoundEvent};
pub use query::{Condition, Op, Query, QueryError};
pub use subscription::{Cancelled, Subscription};

/// Reserved key: the event's name.
pub const EVENT_KEY: &str = "tm.event";
/// Reserved key: a transaction's hash, in upper-case hexadecimal.
pub const TX_HASH_KEY: &str = "tx.hash";
/// Reserved key: the height of a transaction's block.
pub const TX_HEIGHT_KEY: &str = "tx.height";
/// Reserved key: a block's height, in searches.
pub const BLOCK_HEIGHT_KEY: &str = "block.height";
