//! Golden vectors and properties of the types.
#![allow(clippy::unwrap_used)]

mod chains;
