//! Measures the stages of a block's way on this machine, and predicts how fast it syncs chains of a
//! given shape.
//!
//! [`measure`] makes some blocks of the shape, takes each stage by itself through them, and adds up:
//! what must happen on one thread bounds the speed, and so does what all cores together can do.

mod chain;
mod clock;
mod error;
mod predict;
mod report;
mod shape;
mod stages;

pub use error::BenchError;
pub use predict::{Prediction, Speed};
pub use report::{Report, ShapeReport};
pub use shape::{BadShape, Shape, Verify};
pub use stages::{Place, Side, Stage, measure};
