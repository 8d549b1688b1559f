use crate::{Application, Persistence};

/// The application that accepts everything and keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noop;

impl Application for Noop {
    fn persistence(&self) -> Persistence {
        Persistence::Volatile
    }
}
