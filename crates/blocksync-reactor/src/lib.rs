//! The blocksync reactor on channel 0x40: the bridge between peers and the pool.

pub mod wire;
