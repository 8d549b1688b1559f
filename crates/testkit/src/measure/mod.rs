//! What benchmarks of whole nodes have in common: who is measured, on what machine, and tables.

mod contender;
mod machine;
mod table;

pub use self::{
    contender::Contender,
    machine::{MachineLoad, describe},
    table::{align, median, sorted},
};
