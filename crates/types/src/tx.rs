//! Transactions: hashes and proofs.
