//! The private validator: signs what consensus asks for, once.
//!
//! [`ValidatorKey`] and [`SignState`] are CometBFT's two files; [`FilePrivval`] signs with them;
//! [`SigningLease`] is the right to, which only consensus has; [`check_sign_state`],
//! [`check_replayed`] and [`check_signed_lately`] say before the first signature whether it would be one too many.

mod key;
mod lease;
mod risk;
mod sign_state;
mod signer;

pub use key::ValidatorKey;
pub use lease::{LeasedExecutor, SigningLease};
pub use risk::{DoubleSignRisk, check_replayed, check_sign_state, check_signed_lately};
pub use sign_state::{HeightRoundStep, LastLock, SignState, Step, WITHOUT_A_COPY};
pub use signer::{FilePrivval, SignError};
