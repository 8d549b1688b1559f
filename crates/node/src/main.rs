//! The `perihelion` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Without it the node takes more memory, and works.
    let _tuned = perihelion_node::memory::tune();
    perihelion_node::commands::run(std::env::args_os())
}
