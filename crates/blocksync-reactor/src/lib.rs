//! The blocksync reactor on channel 0x40.
