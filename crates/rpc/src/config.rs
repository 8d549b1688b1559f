use std::{path::PathBuf, time::Duration};

/// Certificate and key of a server that speaks TLS, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and behind it those that lead to a root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Bounds and permissions of the server; the defaults are CometBFT's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcConfig {
    /// Origins that browsers may call from: `*` for all, `https://*.example.com` for a pattern with
    /// one asterisk. Empty, the default, for no cross-origin calls.
    pub cors_allowed_origins: Vec<String>,
    /// Methods that browsers may use.
    pub cors_allowed_methods: Vec<String>,
    /// Headers that browsers may send.
    pub cors_allowed_headers: Vec<String>,
    /// Connections at once; further ones wait in the system's queue. 0 for no bound. Default 900.
    pub max_open_connections: usize,
    /// Requests in one batch. 0 for no bound. Default 10.
    pub max_request_batch_size: usize,
    /// Bytes of one request's body. Default 1,000,000.
    pub max_body_bytes: usize,
    /// Bytes of one request's head, at least 8 KiB. Default 1 MiB.
    pub max_header_bytes: usize,
    /// How long a request may take to arrive, and a connection may idle. Default 10 s. A longer one
    /// lets idle clients hold places, a shorter one drops those behind slow links.
    pub read_timeout: Duration,
    /// How long a reader may read less than 64 KiB/s of its answers before it is dropped, and how
    /// long a large answer may wait for space. Default 10 s. The answer is in memory until then.
    pub write_timeout: Duration,
    /// Bytes of large answers in memory at once; a larger one is alone. Further ones wait. Default
    /// 64 MiB.
    pub max_answer_bytes: usize,
    /// Bytes of the answers to one batch; calls beyond it are answered with an error. Default
    /// 16 MiB.
    pub max_batch_answer_bytes: usize,
    /// Answers up to so many bytes count as small, and never wait for large ones. Default 64 KiB.
    pub small_answer_bytes: usize,
    /// Calls that are worked on at once; further ones wait. Default 4: reading the store beside the
    /// sync shall not take over the processors.
    pub workers: usize,
    /// Clients that may subscribe at once, those that wait for a transaction to be committed
    /// included. Default 100.
    pub max_subscription_clients: usize,
    /// Subscriptions of each of them at most. Default 5.
    pub max_subscriptions_per_client: usize,
    /// Events that may wait for one subscription; when more do, it is cancelled. Default 200.
    pub subscription_buffer_size: usize,
    /// Events that may wait to be written to one WebSocket. Default 200.
    pub websocket_write_buffer_size: usize,
    /// Whether a subscription is cancelled when an event cannot be written for 10 s. Default false:
    /// the event is dropped.
    pub close_on_slow_client: bool,
    /// How long `broadcast_tx_commit` waits for a block with the transaction. Default 10 s.
    pub timeout_broadcast_tx_commit: Duration,
    /// Entries of the index that one search may look at. Default 1,000,000.
    pub max_search_entries: usize,
    /// How long one search may take, its page included. Default 2 s.
    pub search_timeout: Duration,
    /// Whether `dial_seeds`, `dial_peers` and `unsafe_flush_mempool` exist: whoever reaches the server
    /// can call them. Default false.
    pub unsafe_routes: bool,
    /// Certificate and key for HTTPS; without them, the default, plain HTTP.
    pub tls: Option<TlsFiles>,
}

impl Default for RpcConfig {
    fn default() -> Self {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Self {
            cors_allowed_origins: Vec::new(),
            cors_allowed_methods: texts(&["HEAD", "GET", "POST"]),
            cors_allowed_headers: texts(&[
                "Origin",
                "Accept",
                "Content-Type",
                "X-Requested-With",
                "X-Server-Time",
            ]),
            max_open_connections: 900,
            max_request_batch_size: 10,
            max_body_bytes: 1_000_000,
            max_header_bytes: 1 << 20,
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            max_answer_bytes: 64 << 20,
            max_batch_answer_bytes: 16 << 20,
            small_answer_bytes: 64 << 10,
            workers: 4,
            max_subscription_clients: 100,
            max_subscriptions_per_client: 5,
            subscription_buffer_size: 200,
            websocket_write_buffer_size: 200,
            close_on_slow_client: false,
            timeout_broadcast_tx_commit: Duration::from_secs(10),
            max_search_entries: 1_000_000,
            search_timeout: Duration::from_secs(2),
            unsafe_routes: false,
            tls: None,
        }
    }
}
