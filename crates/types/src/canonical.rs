//! Canonical sign bytes: what votes, proposals and vote extensions are signed over.
