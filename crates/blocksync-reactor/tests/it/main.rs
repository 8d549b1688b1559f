//! The reactor against peers that misbehave, over loopback.
#![allow(clippy::unwrap_used, missing_docs)]

mod attacks;
mod util;
