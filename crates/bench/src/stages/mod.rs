//! The stages, each by itself.

mod apply;
mod blocks;
mod network;
mod pool;
mod wire;

use std::{path::Path, time::Duration};

use serde::Serialize;

use crate::{
    BenchError, Prediction, Report, Shape, ShapeReport, Verify,
    chain::{Chain, raw},
};

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The node that syncs.
    Client,
    /// A node that serves it.
    Server,
}

/// Where it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the task of one connection, for which there is one core at the most.
    Connection,
    /// On as many threads as there are cores.
    Workers,
    /// On one thread, block after block.
    ApplyThread,
    /// On threads of the database.
    Background,
    /// In tasks beside those.
    Tasks,
}

/// What one stage takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// Who does it.
    pub side: Side,
    /// Where it is done.
    pub place: Place,
    /// Microseconds of one core a block.
    pub cpu_us: f64,
}

/// Measures all stages for each shape, in folders of their own below `folder` that are removed again.
/// Takes ten seconds or so a shape; `stop` is asked again and again whether to end.
///
/// # Errors
/// When a shape has contradictions, the folder cannot be written, or it was stopped.
pub fn measure(
    shapes: &[Shape],
    verify: Verify,
    folder: &Path,
    stop: &dyn Fn() -> bool,
    mut begins: impl FnMut(&Shape),
) -> Result<Report, BenchError> {
    shapes.iter().try_for_each(Shape::check)?;
    let cores = std::thread::available_parallelism().map_err(BenchError::system("cores"))?;
    let mut reports = Vec::new();
    for shape in shapes {
        begins(shape);
        reports.push(measure_shape(shape, verify, folder, stop, cores.get())?);
    }
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        cores: cores.get(),
        is_optimised: !cfg!(debug_assertions),
        verify,
        shapes: reports,
    })
}

fn measure_shape(
    shape: &Shape,
    verify: Verify,
    folder: &Path,
    stop: &dyn Fn() -> bool,
    cores: usize,
) -> Result<ShapeReport, BenchError> {
    let folder = tempfile::Builder::new()
        .prefix("perihelion-bench-")
        .tempdir_in(folder)
        .map_err(BenchError::system("a folder for stores"))?;
    let served = folder.path().join("served");
    let chain = Chain::make(shape, &served, stop)?;
    let applied = apply::measure(&chain, folder.path(), stop)?;
    let client = |name, place, time: Duration| stage(&chain, Side::Client, name, place, time);
    let server = |name, place, time: Duration| stage(&chain, Side::Server, name, place, time);
    let wire = wire::measure(&chain, stop)?;
    let decode = blocks::decode(&chain, stop)?;
    let certify = blocks::certify(&chain, verify, stop)?;
    let read = blocks::read(&chain, &served, stop)?;
    let network = network::measure(&chain, &served, folder.path(), stop)?;
    // What both sides do beside the stages by themselves: requests, tasks that wake one another,
    // data that is in no cache.
    let answer = network
        .server
        .saturating_sub(read + wire.cut + wire.seal + wire.send);
    let request = network
        .client
        .saturating_sub(wire.receive + wire.open + wire.assemble);
    let pool = pool::measure(&chain, verify, folder.path(), stop)?;
    let by_stages = decode + certify + applied.on_thread() + applied.background;
    let hand_over = pool.saturating_sub(by_stages);
    let durable_write_us = apply::durable_write(&chain, folder.path(), stop)?;
    let stages = vec![
        server("read from the store", Place::Tasks, read),
        server("answer requests", Place::Tasks, answer),
        server("cut into packets", Place::Connection, wire.cut),
        server("seal (AEAD)", Place::Connection, wire.seal),
        server("send (loopback)", Place::Connection, wire.send),
        client("receive (loopback)", Place::Connection, wire.receive),
        client("open (AEAD)", Place::Connection, wire.open),
        client("put together", Place::Connection, wire.assemble),
        client("request and pass on", Place::Tasks, request),
        client("ask and hand over", Place::Tasks, hand_over),
        client("decode and hash", Place::Workers, decode),
        client("certify", Place::Workers, certify),
        client("validate", Place::ApplyThread, applied.validate),
        client("execute (kvstore)", Place::ApplyThread, applied.execute),
        client("encode and store", Place::ApplyThread, applied.store),
        client("write tables out", Place::Background, applied.background),
    ];
    let block_bytes = chain.bytes() / chain.blocks.len();
    Ok(ShapeReport {
        shape: shape.clone(),
        blocks: chain.blocks.len(),
        block_bytes,
        prediction: Prediction::of(&stages, durable_write_us, block_bytes, cores),
        stages,
        durable_write_us,
    })
}

/// A stage that took `time` for all blocks.
fn stage(chain: &Chain, side: Side, name: &'static str, place: Place, time: Duration) -> Stage {
    Stage {
        name,
        side,
        place,
        cpu_us: micros(time) / chain.blocks.len() as f64,
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The median of what passes took.
fn median(mut passes: Vec<Duration>) -> Duration {
    passes.sort();
    passes[passes.len() / 2]
}

/// Ends a stage that is to be stopped.
fn go_on(stop: &dyn Fn() -> bool) -> Result<(), BenchError> {
    if stop() {
        Err(BenchError::Stopped)
    } else {
        Ok(())
    }
}

/// The bytes of each block of the chain.
fn each_raw(chain: &Chain) -> impl Iterator<Item = &bytes::Bytes> {
    chain.blocks.iter().map(raw)
}
