//! The `perihelion` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    perihelion_node::commands::run(std::env::args_os())
}
