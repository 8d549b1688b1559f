//! What makes a block final: commit verification, pins, evidence.
