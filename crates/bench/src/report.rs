//! What was measured, for people and as JSON.

use std::fmt;

use serde::Serialize;

use crate::{Place, Prediction, Shape, Side, Speed, Stage, Verify};

/// All shapes. As JSON it is what `perihelion bench --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// This program's version.
    pub version: &'static str,
    /// Cores that this process may use.
    pub cores: usize,
    /// Whether this program was built with optimisation: without it the figures mean nothing.
    pub is_optimised: bool,
    /// How blocks are verified.
    pub verify: Verify,
    /// In the order in which they were asked for.
    pub shapes: Vec<ShapeReport>,
}

/// What blocks of a shape take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShapeReport {
    /// The shape.
    #[serde(flatten)]
    pub shape: Shape,
    /// Blocks that were made.
    pub blocks: usize,
    /// Bytes of a block on the wire, on average.
    pub block_bytes: usize,
    /// The stages in the order of a block's way.
    pub stages: Vec<Stage>,
    /// Microseconds until one block is durable by itself.
    pub durable_write_us: f64,
    /// How fast such a chain is synced.
    pub prediction: Prediction,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verify = match self.verify {
            Verify::Pinned => "pinned",
            Verify::Every => "every",
        };
        writeln!(
            f,
            "perihelion {}, {} cores, verify {verify}, application kvstore, index null",
            self.version, self.cores
        )?;
        if !self.is_optimised {
            writeln!(f, "Built WITHOUT optimisation: the figures mean nothing.")?;
        }
        for shape in &self.shapes {
            write!(f, "\n{shape}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ShapeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = &self.shape;
        writeln!(
            f,
            "{}: {} validators, {} transactions of {} bytes, {} bytes a block",
            shape.name, shape.validators, shape.txs, shape.tx_bytes, self.block_bytes
        )?;
        writeln!(f, "  {:<22}{:>14}  where", "stage", "CPU µs/block")?;
        for stage in &self.stages {
            let (name, place) = (stage.name, place(stage));
            writeln!(f, "  {name:<22}{:>14.1}  {place}", stage.cpu_us)?;
        }
        let told = &self.prediction;
        say(f, "predicted", &told.from_elsewhere)?;
        say(f, "with its server here", &told.from_here)?;
        writeln!(
            f,
            "  with an application that keeps its own state: {:.0} blocks/s at the most, as a durable write takes {:.0} µs",
            told.durable_blocks_per_second, self.durable_write_us
        )
    }
}

fn say(f: &mut fmt::Formatter<'_>, what: &str, speed: &Speed) -> fmt::Result {
    writeln!(
        f,
        "  {what}: {:.0} blocks/s, {:.1} MB/s, limited by {}",
        speed.blocks_per_second, speed.megabytes_per_second, speed.limit
    )
}

fn place(stage: &Stage) -> &'static str {
    match (stage.side, stage.place) {
        (Side::Server, _) => "server",
        (Side::Client, Place::Connection) => "connection",
        (Side::Client, Place::Workers) => "workers",
        (Side::Client, Place::ApplyThread) => "one thread",
        (Side::Client, Place::Background) => "database",
        (Side::Client, Place::Tasks) => "tasks",
    }
}
