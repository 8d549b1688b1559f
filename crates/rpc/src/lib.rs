//! What clients ask a node over HTTP: CometBFT's JSON-RPC and URI calls, answered text for text as
//! CometBFT does, and the state of the sync.
//!
//! [`serve`] runs the server on threads of its own: neither clients nor the reading of the store
//! and the application for them share a thread with the sync.
//!
//! What a client can make the node hold is bounded: connections, bytes of a request's head and
//! body, requests in a batch, time to send the request and to read the answer, calls at once, bytes of large
//! answers that are made or sent, subscriptions and what waits for them, entries that a search looks
//! at.
//!
//! The pure parts: `arguments` and `go_json` read what is given, `jsonrpc` frames calls and
//! answers, `routes` names what can be called. `calls` calls it, for `http` and for `websocket`.

mod arguments;
mod budget;
mod calls;
mod config;
mod connection;
mod context;
mod evidence_argument;
mod go_json;
mod http;
mod jsonrpc;
mod listen;
mod peer_argument;
mod routes;
mod search;
mod server;
mod target;
mod vote_text;
mod websocket;

pub use config::{RpcConfig, TlsFiles};
pub use context::{
    ConsensusView, DisconnectView, NetworkView, PeerRoundView, PeerView, RpcContext,
};
pub use listen::{RpcAddress, check_address, check_tls};
pub use server::{RpcServer, ServeError, serve};

/// The version of CometBFT that is told to applications; clients choose their dialect by the same
/// one in `node_info.version`.
pub const COMETBFT_VERSION: &str = "0.38.25";
