//! JSON-RPC, status and metrics.
