//! `[rpc]`: the server for clients.

use std::time::Duration;

use super::{
    Config,
    visit::{Key, Section, Visitor},
};

/// The server for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcConfig {
    /// Address to listen on; empty for no server. Default `tcp://127.0.0.1:26657`.
    pub laddr: String,
    /// Origins that browsers may call from; `*` for all. Default none.
    pub cors_allowed_origins: Vec<String>,
    /// Methods that browsers may use. Default HEAD, GET, POST.
    pub cors_allowed_methods: Vec<String>,
    /// Headers that browsers may send. Default the five that CometBFT lists.
    pub cors_allowed_headers: Vec<String>,
    /// Address of CometBFT's old gRPC server for broadcasting. Default empty.
    pub grpc_laddr: String,
    /// Connections to it at once. Default 900.
    pub grpc_max_open_connections: u64,
    /// Whether the unsafe routes exist. Default false.
    pub unsafe_routes: bool,
    /// Connections at once, WebSockets included; 0 for no bound. Default 900.
    pub max_open_connections: u64,
    /// Clients that may subscribe at once. Default 100.
    pub max_subscription_clients: u64,
    /// Subscriptions of one client. Default 5.
    pub max_subscriptions_per_client: u64,
    /// Events held for one subscription, at least 100. Default 200.
    pub experimental_subscription_buffer_size: u64,
    /// Answers held for one WebSocket, at least the size above. Default 200.
    pub experimental_websocket_write_buffer_size: u64,
    /// Whether a slow WebSocket is closed; else it misses events. Default false.
    pub experimental_close_on_slow_client: bool,
    /// How long `broadcast_tx_commit` waits for its block. Default 10s.
    pub timeout_broadcast_tx_commit: Duration,
    /// Requests in one batch; 0 for no bound. Default 10.
    pub max_request_batch_size: u64,
    /// Bytes of one request's body. Default 1,000,000.
    pub max_body_bytes: u64,
    /// Bytes of one request's headers. Default 1 MiB.
    pub max_header_bytes: u64,
    /// Certificate for HTTPS, relative to `config`. Default empty.
    pub tls_cert_file: String,
    /// Key for HTTPS, relative to `config`. Default empty.
    pub tls_key_file: String,
    /// Address of Go's profiler. Accepted, without effect. Default empty.
    pub pprof_laddr: String,
}

impl Default for RpcConfig {
    fn default() -> Self {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Self {
            laddr: "tcp://127.0.0.1:26657".to_owned(),
            cors_allowed_origins: Vec::new(),
            cors_allowed_methods: texts(&["HEAD", "GET", "POST"]),
            cors_allowed_headers: texts(&[
                "Origin",
                "Accept",
                "Content-Type",
                "X-Requested-With",
                "X-Server-Time",
            ]),
            grpc_laddr: String::new(),
            grpc_max_open_connections: 900,
            unsafe_routes: false,
            max_open_connections: 900,
            max_subscription_clients: 100,
            max_subscriptions_per_client: 5,
            experimental_subscription_buffer_size: 200,
            experimental_websocket_write_buffer_size: 200,
            experimental_close_on_slow_client: false,
            timeout_broadcast_tx_commit: Duration::from_secs(10),
            max_request_batch_size: 10,
            max_body_bytes: 1_000_000,
            max_header_bytes: 1 << 20,
            tls_cert_file: String::new(),
            tls_key_file: String::new(),
            pprof_laddr: String::new(),
        }
    }
}

impl Config {
    /// The same for the server itself, the paths being those of this home.
    #[must_use]
    pub fn rpc_server(&self) -> perihelion_rpc::RpcConfig {
        let rpc = &self.rpc;
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let file = |name: &str| self.home().join("config").join(name);
        let tls = !rpc.tls_cert_file.is_empty() && !rpc.tls_key_file.is_empty();
        perihelion_rpc::RpcConfig {
            cors_allowed_origins: rpc.cors_allowed_origins.clone(),
            cors_allowed_methods: rpc.cors_allowed_methods.clone(),
            cors_allowed_headers: rpc.cors_allowed_headers.clone(),
            max_open_connections: size(rpc.max_open_connections),
            max_request_batch_size: size(rpc.max_request_batch_size),
            max_body_bytes: size(rpc.max_body_bytes),
            max_header_bytes: size(rpc.max_header_bytes),
            tls: tls.then(|| perihelion_rpc::TlsFiles {
                certificate: file(&rpc.tls_cert_file),
                key: file(&rpc.tls_key_file),
            }),
            max_subscription_clients: size(rpc.max_subscription_clients),
            max_subscriptions_per_client: size(rpc.max_subscriptions_per_client),
            subscription_buffer_size: size(rpc.experimental_subscription_buffer_size),
            websocket_write_buffer_size: size(rpc.experimental_websocket_write_buffer_size),
            close_on_slow_client: rpc.experimental_close_on_slow_client,
            timeout_broadcast_tx_commit: rpc.timeout_broadcast_tx_commit,
            unsafe_routes: rpc.unsafe_routes,
            max_search_entries: size(self.perihelion.search_entries),
            search_timeout: self.perihelion.search_timeout,
            ..perihelion_rpc::RpcConfig::default()
        }
    }
}

impl RpcConfig {
    fn visit_limits(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::new(
                "max_open_connections",
                "Connections at once, WebSockets included; 0: no bound.\nKeep it below the limit of open files (ulimit -n).",
            ),
            &mut self.max_open_connections,
        );
        v.key(
            Key::new(
                "max_subscription_clients",
                "Clients that may subscribe at once.",
            ),
            &mut self.max_subscription_clients,
        );
        v.key(
            Key::new(
                "max_subscriptions_per_client",
                "Subscriptions of one client.",
            ),
            &mut self.max_subscriptions_per_client,
        );
        v.key(
            Key::new(
                "experimental_subscription_buffer_size",
                "Events held for one subscription before it is ended; at least 100.",
            ),
            &mut self.experimental_subscription_buffer_size,
        );
        v.key(
            Key::new(
                "experimental_websocket_write_buffer_size",
                "Answers held for one WebSocket; at least the size above.",
            ),
            &mut self.experimental_websocket_write_buffer_size,
        );
        v.key(
            Key::new(
                "experimental_close_on_slow_client",
                "Close a WebSocket that reads too slowly; otherwise it misses events.",
            ),
            &mut self.experimental_close_on_slow_client,
        );
        v.key(
            Key::new(
                "timeout_broadcast_tx_commit",
                "How long broadcast_tx_commit waits for the transaction's block.",
            ),
            &mut self.timeout_broadcast_tx_commit,
        );
        v.key(
            Key::new(
                "max_request_batch_size",
                "Requests in one JSON-RPC batch; 0: no bound.",
            ),
            &mut self.max_request_batch_size,
        );
        v.key(
            Key::new("max_body_bytes", "Bytes of one request's body."),
            &mut self.max_body_bytes,
        );
        v.key(
            Key::new("max_header_bytes", "Bytes of one request's headers."),
            &mut self.max_header_bytes,
        );
    }
}

impl Section for RpcConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::new(
                "laddr",
                "Address to listen on, tcp:// or unix://; empty: no server.",
            ),
            &mut self.laddr,
        );
        v.key(
            Key::new(
                "cors_allowed_origins",
                "Origins whose pages may call this server from a browser; [\"*\"]: all, []: none.",
            ),
            &mut self.cors_allowed_origins,
        );
        v.key(
            Key::new("cors_allowed_methods", "Methods that those pages may use."),
            &mut self.cors_allowed_methods,
        );
        v.key(
            Key::new("cors_allowed_headers", "Headers that those pages may send."),
            &mut self.cors_allowed_headers,
        );
        v.key(
            Key::new(
                "grpc_laddr",
                "Address of CometBFT's gRPC broadcast server; empty: none.",
            ),
            &mut self.grpc_laddr,
        );
        v.key(
            Key::new("grpc_max_open_connections", "Connections to it at once."),
            &mut self.grpc_max_open_connections,
        );
        v.key(
            Key::new(
                "unsafe",
                "Offer the unsafe routes: dial_seeds, dial_peers and unsafe_flush_mempool.",
            ),
            &mut self.unsafe_routes,
        );
        self.visit_limits(v);
        v.key(
            Key::new(
                "tls_cert_file",
                "Certificate and key for HTTPS, relative to the config folder; both or neither.",
            ),
            &mut self.tls_cert_file,
        );
        v.key(Key::new("tls_key_file", ""), &mut self.tls_key_file);
        v.key(
            Key::new(
                "pprof_laddr",
                "Address of Go's profiler: without effect here.",
            ),
            &mut self.pprof_laddr,
        );
    }
}
