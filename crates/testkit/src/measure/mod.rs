//! What benchmarks of whole nodes have in common: who is measured, on what machine, peers that only
//! ask, tables and plots.

mod contender;
mod machine;
pub mod plot;
mod requester;
mod table;

pub use self::{
    contender::Contender,
    machine::{MachineLoad, describe},
    requester::{Ask, Served, request_blocks},
    table::{align, median, sorted},
};
