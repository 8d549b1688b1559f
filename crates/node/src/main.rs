//! The `perihelion` binary.

fn main() {
    // Without it the node takes more memory, and works.
    let _tuned = perihelion_node::memory::tune();
    let code = perihelion_node::commands::run(std::env::args_os());
    perihelion_node::memory::leave(code)
}
