//! The executor: certified block and state in, state out.
