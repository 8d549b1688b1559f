//! Chains, simulated networks and lying peers for tests and benchmarks.
