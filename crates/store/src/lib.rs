//! Blocks, commits, state and indexes in RocksDB.
