//! ABCI 2.0: the application trait, its connections by role, and the built-in applications.
//!
//! Requests and responses are the schema's own messages ([`types`]): an application interface is
//! its schema, and a second set of types between the two would only be translated back (ADR 0004).
//!
//! All calls block. The executor has a thread of its own for them; whoever calls from an
//! asynchronous task goes through a blocking pool.

mod application;
mod calls;
mod connection;
mod error;
mod finalized;
mod kvstore;
mod noop;
mod pending;
mod remote;
mod server;
mod store;
mod threads;

/// The messages of `tendermint.abci`, and the two of other packages that they hold.
///
/// A field that CometBFT always encodes (see `Some` in the schema's comments) must be set by
/// whoever encodes it.
pub mod types {
    pub use perihelion_proto::tendermint::{
        abci::*,
        crypto::{PublicKey, public_key},
        types::{BlockIdFlag, ConsensusParams},
    };
    pub use prost_types::Timestamp;
}

pub use application::{Answer, Application, Persistence};
pub use calls::{ConnectionName, RunningCall};
pub use connection::{
    AppConnections, ConsensusConnection, MempoolConnection, QueryConnection, SnapshotConnection,
};
pub use error::{AppError, AppFault, CallName};
pub use finalized::Finalized;
pub use kvstore::{KvStore, KvStoreOptions};
pub use noop::Noop;
pub use pending::{PendingCheckTx, PendingCommit, PendingFinalizeBlock};
pub use remote::{AddressError, AppAddress, AppTransport, ConnectError, LostConnection};
pub use server::{AppServer, ServeError};
pub use store::{AppStore, AppStoreError, AppWrite, KeyValue, MemoryAppStore, OwnAppStore};

/// The version of ABCI that is spoken, as `Info` tells it.
pub const ABCI_VERSION: &str = "2.0.0";
