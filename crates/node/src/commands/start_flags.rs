//! Flags of `start` that set keys of the configuration.

use clap::Args;

use crate::config::Flag;

/// Flags of `start`. Each sets the key of its name.
#[derive(Debug, Args)]
pub(super) struct StartFlags {
    /// A name for this node
    #[arg(long)]
    moniker: Option<String>,
    /// Address to wait on for a remote signer
    #[arg(long = "priv_validator_laddr", value_name = "ADDR")]
    priv_validator_laddr: Option<String>,
    /// SHA-256 of the genesis file that must be there, in hexadecimal
    #[arg(long = "genesis_hash", value_name = "HASH", value_parser = sha256_text)]
    pub(super) genesis_hash: Option<Hash>,
    /// Blocks that are searched for own votes before joining consensus
    #[arg(
        long = "consensus.double_sign_check_height",
        value_name = "NUMBER",
        allow_negative_numbers = true
    )]
    double_sign_check_height: Option<String>,
    /// Address of the application, or kvstore, persistent_kvstore or noop
    #[arg(long = "proxy_app", value_name = "ADDR")]
    proxy_app: Option<String>,
    /// How the application is reached: socket or grpc
    #[arg(long)]
    abci: Option<String>,
    /// Address to listen on for clients
    #[arg(long = "rpc.laddr", value_name = "ADDR")]
    rpc_laddr: Option<String>,
    /// Address of the gRPC broadcast server
    #[arg(long = "rpc.grpc_laddr", value_name = "ADDR", hide = true)]
    rpc_grpc_laddr: Option<String>,
    /// Offer the unsafe routes
    #[arg(long = "rpc.unsafe", value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    rpc_unsafe: Option<String>,
    /// Address of Go's profiler: without effect
    #[arg(long = "rpc.pprof_laddr", value_name = "ADDR", hide = true)]
    rpc_pprof_laddr: Option<String>,
    /// Address to listen on for peers
    #[arg(long = "p2p.laddr", value_name = "ADDR")]
    p2p_laddr: Option<String>,
    /// Address that peers are told to dial, HOST:PORT
    #[arg(
        long = "p2p.external-address",
        alias = "p2p.external_address",
        value_name = "ADDR"
    )]
    p2p_external_address: Option<String>,
    /// Seed nodes, ID@HOST:PORT with commas
    #[arg(long = "p2p.seeds", value_name = "PEERS")]
    p2p_seeds: Option<String>,
    /// Peers to stay connected to, ID@HOST:PORT with commas
    #[arg(long = "p2p.persistent_peers", value_name = "PEERS")]
    p2p_persistent_peers: Option<String>,
    /// Node ids that no limit applies to, with commas
    #[arg(long = "p2p.unconditional_peer_ids", value_name = "IDS")]
    p2p_unconditional_peer_ids: Option<String>,
    /// Exchange addresses with peers
    #[arg(long = "p2p.pex", value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    p2p_pex: Option<String>,
    /// Only crawl the network and answer for addresses
    #[arg(long = "p2p.seed_mode", value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    p2p_seed_mode: Option<String>,
    /// Node ids whose addresses are told to nobody, with commas
    #[arg(long = "p2p.private_peer_ids", value_name = "IDS")]
    p2p_private_peer_ids: Option<String>,
    /// Make blocks without transactions
    #[arg(long = "consensus.create_empty_blocks", value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    create_empty_blocks: Option<String>,
    /// Pause between blocks without transactions
    #[arg(
        long = "consensus.create_empty_blocks_interval",
        value_name = "DURATION"
    )]
    create_empty_blocks_interval: Option<String>,
    /// CometBFT's database: without effect
    #[arg(long = "db_backend", value_name = "NAME", hide = true)]
    db_backend: Option<String>,
    /// Folder of the data
    #[arg(long = "db_dir", value_name = "DIR")]
    db_dir: Option<String>,
    #[arg(hide = true)]
    _extra: Vec<String>,
}

/// A SHA-256 hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hash(pub(super) [u8; 32]);

fn sha256_text(text: &str) -> Result<Hash, String> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err("a SHA-256 hash has 64 hexadecimal digits".to_owned());
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        let (high, low) = value(pair[0])
            .zip(value(pair[1]))
            .ok_or("a SHA-256 hash has 64 hexadecimal digits")?;
        *byte = u8::try_from(high * 16 + low).map_err(|error| error.to_string())?;
    }
    Ok(Hash(hash))
}

impl StartFlags {
    /// The flags that were given, by the path of their key.
    pub(super) fn flags(&self) -> impl Iterator<Item = (String, Flag)> {
        [
            ("moniker", "moniker", &self.moniker),
            (
                "priv_validator_laddr",
                "priv_validator_laddr",
                &self.priv_validator_laddr,
            ),
            (
                "consensus.double_sign_check_height",
                "consensus.double_sign_check_height",
                &self.double_sign_check_height,
            ),
            ("proxy_app", "proxy_app", &self.proxy_app),
            ("abci", "abci", &self.abci),
            ("rpc.laddr", "rpc.laddr", &self.rpc_laddr),
            ("rpc.grpc_laddr", "rpc.grpc_laddr", &self.rpc_grpc_laddr),
            ("rpc.unsafe", "rpc.unsafe", &self.rpc_unsafe),
            ("rpc.pprof_laddr", "rpc.pprof_laddr", &self.rpc_pprof_laddr),
            ("p2p.laddr", "p2p.laddr", &self.p2p_laddr),
            (
                "p2p.external_address",
                "p2p.external-address",
                &self.p2p_external_address,
            ),
            ("p2p.seeds", "p2p.seeds", &self.p2p_seeds),
            (
                "p2p.persistent_peers",
                "p2p.persistent_peers",
                &self.p2p_persistent_peers,
            ),
            (
                "p2p.unconditional_peer_ids",
                "p2p.unconditional_peer_ids",
                &self.p2p_unconditional_peer_ids,
            ),
            ("p2p.pex", "p2p.pex", &self.p2p_pex),
            ("p2p.seed_mode", "p2p.seed_mode", &self.p2p_seed_mode),
            (
                "p2p.private_peer_ids",
                "p2p.private_peer_ids",
                &self.p2p_private_peer_ids,
            ),
            (
                "consensus.create_empty_blocks",
                "consensus.create_empty_blocks",
                &self.create_empty_blocks,
            ),
            (
                "consensus.create_empty_blocks_interval",
                "consensus.create_empty_blocks_interval",
                &self.create_empty_blocks_interval,
            ),
            ("db_backend", "db_backend", &self.db_backend),
            ("db_dir", "db_dir", &self.db_dir),
        ]
        .into_iter()
        .filter_map(|(path, name, value)| {
            let value = value.clone()?;
            let name = name.to_owned();
            Some((path.to_owned(), Flag { name, value }))
        })
    }
}
