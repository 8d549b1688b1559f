//! Which file of the vectors is read by the tests of which crate, and which ones wait for what they
//! describe to be built.

/// A file, or files by a pattern in which `*` stands for part of a name, and the folder of the crate
/// whose tests read it.
pub const READ: &[(&str, &str)] = &[
    ("block_validation*.json", "state"),
    ("chain_*/blocks.jsonl", "state"),
    ("chain_*/genesis.json", "types"),
    ("chain_*/start.json", "types"),
    ("config/*/commands.json", "node"),
    ("config/*/config.toml", "node"),
    ("config/*/config_keys.json", "node"),
    ("config/*/genesis.json", "node"),
    ("config/*/node_key.json", "node"),
    ("config/*/priv_validator_key.json", "node"),
    ("config/*/priv_validator_state.json", "node"),
    ("config/*/signing.json", "consensus-reactor"),
    ("config/*/testnet_files.json", "node"),
    ("hashes*.json", "types"),
    ("keys*.json", "crypto"),
    ("kvstore.json", "abci"),
    ("median_time*.json", "types"),
    ("merkle.json", "types"),
    ("p2p*.json", "p2p"),
    ("partset.json", "types"),
    ("rpc/abci_info.json", "rpc"),
    ("rpc/abci_query.json", "rpc"),
    ("rpc/block.json", "rpc"),
    ("rpc/block_by_hash.json", "rpc"),
    ("rpc/block_results.json", "rpc"),
    ("rpc/block_search.json", "rpc"),
    ("rpc/blockchain.json", "rpc"),
    ("rpc/broadcast_evidence.json", "rpc"),
    ("rpc/broadcast_tx_*.json", "rpc"),
    ("rpc/check_tx.json", "rpc"),
    ("rpc/commit.json", "rpc"),
    ("rpc/consensus_params.json", "rpc"),
    ("rpc/consensus_state.json", "rpc"),
    ("rpc/dump_consensus_state.json", "rpc"),
    ("rpc/genesis.json", "rpc"),
    ("rpc/genesis_chunked.json", "rpc"),
    ("rpc/header.json", "rpc"),
    ("rpc/header_by_hash.json", "rpc"),
    ("rpc/health.json", "rpc"),
    ("rpc/live_block.json", "rpc"),
    ("rpc/live_block_results.json", "rpc"),
    ("rpc/live_broadcast_tx_commit.json", "rpc"),
    ("rpc/live_commit.json", "rpc"),
    ("rpc/live_consensus_state.json", "rpc"),
    ("rpc/live_dump_consensus_state.json", "rpc"),
    ("rpc/live_net_info.json", "rpc"),
    ("rpc/live_status.json", "rpc"),
    ("rpc/live_tx_search.json", "rpc"),
    ("rpc/live_validators.json", "rpc"),
    ("rpc/malformed.json", "rpc"),
    ("rpc/net_info.json", "rpc"),
    ("rpc/num_unconfirmed_txs.json", "rpc"),
    ("rpc/status.json", "rpc"),
    ("rpc/tx.json", "rpc"),
    ("rpc/tx_search.json", "rpc"),
    ("rpc/unconfirmed_txs.json", "rpc"),
    ("rpc/validators.json", "rpc"),
    ("rpc/websocket.json", "rpc"),
    ("sign_bytes.json", "types"),
    ("validator_set.json", "types"),
    ("verify_commit*.json", "certify"),
    ("wal*.json", "consensus-reactor"),
    ("wal.bin", "consensus-reactor"),
];

/// The same of files that sets made earlier lack.
pub const ADDED: &[(&str, &str)] = &[("abci.json", "abci"), ("block_encodings*.json", "types")];

/// Files whose subject is not built yet, and what that is. Who builds it moves them up.
pub const LATER: &[(&str, &str)] = &[("config/*/addrbook.json", "the address book")];

/// Whether a pattern stands for a path: each `*` for any part of one name.
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((head, tail)) => path.strip_prefix(head).is_some_and(|rest| {
            let name = rest.split('/').next().unwrap_or_default().len();
            (0..=name).any(|end| rest.is_char_boundary(end) && matches(tail, &rest[end..]))
        }),
    }
}

/// The entry of a list that stands for a path.
#[must_use]
pub fn find<'a>(list: &'a [(&str, &str)], path: &str) -> Option<&'a (&'a str, &'a str)> {
    list.iter().find(|(pattern, _)| matches(pattern, path))
}

/// Fails for a file that tests read without being listed in [`READ`].
pub(crate) fn assert_listed(path: &str) {
    assert!(
        find(READ, path).or(find(ADDED, path)).is_some(),
        "{path} is read and not listed in tests/support/src/files.rs"
    );
}
