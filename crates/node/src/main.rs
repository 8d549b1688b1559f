//! The `perihelion` binary.
fn main() {}
