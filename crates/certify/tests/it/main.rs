//! Tests of certification: the sentences of `docs/pinning.md` over generated chains with real
//! signatures, and the golden vectors.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blame;
mod blocks;
mod chain;
mod churn;
mod every;
mod evidence_vectors;
mod forgery;
mod initial;
mod pin;
mod vectors;
