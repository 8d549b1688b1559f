//! From stages to a speed.

use serde::Serialize;

use crate::{Place, Side, Stage};

/// How fast a node syncs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// From peers on other machines, over a network that is no bound; the application is built in.
    pub from_elsewhere: Speed,
    /// From one server on the same machine, as `make bench` measures it.
    pub from_here: Speed,
    /// The most blocks a second with an application that keeps its own state: each block is durable
    /// before it commits.
    pub durable_blocks_per_second: f64,
}

/// A speed, and what bounds it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speed {
    /// Blocks a second.
    pub blocks_per_second: f64,
    /// Millions of bytes of blocks a second.
    pub megabytes_per_second: f64,
    /// The stage, or the group of stages, that allows no more.
    pub limit: String,
}

impl Prediction {
    pub(crate) fn of(
        stages: &[Stage],
        durable_write_us: f64,
        block_bytes: usize,
        cores: usize,
    ) -> Self {
        let client: Vec<&Stage> = stages
            .iter()
            .filter(|stage| stage.side == Side::Client)
            .collect();
        let all: Vec<&Stage> = stages.iter().collect();
        // Several peers have as many connections; one server has one.
        let from_elsewhere = speed(&client, &[Place::ApplyThread], block_bytes, cores);
        let lanes = [Place::ApplyThread, Place::Connection];
        Self {
            from_elsewhere,
            from_here: speed(&all, &lanes, block_bytes, cores),
            durable_blocks_per_second: 1e6 / durable_write_us.max(f64::MIN_POSITIVE),
        }
    }
}

/// The least of what each lane that has one core allows, and of what all cores allow.
fn speed(stages: &[&Stage], lanes: &[Place], block_bytes: usize, cores: usize) -> Speed {
    let total: f64 = stages.iter().map(|stage| stage.cpu_us).sum();
    let mut longest = total / cores as f64;
    let mut limit = format!("all {cores} cores, most of all {}", dearest(stages));
    for side in [Side::Client, Side::Server] {
        for place in lanes {
            let of: Vec<&Stage> = stages
                .iter()
                .copied()
                .filter(|stage| stage.place == *place && stage.side == side)
                .collect();
            let time: f64 = of.iter().map(|stage| stage.cpu_us).sum();
            if time > longest {
                longest = time;
                limit = format!("{}, most of all {}", name(*place, side), dearest(&of));
            }
        }
    }
    let blocks_per_second = 1e6 / longest.max(f64::MIN_POSITIVE);
    Speed {
        blocks_per_second,
        megabytes_per_second: blocks_per_second * block_bytes as f64 / 1e6,
        limit,
    }
}

fn name(place: Place, side: Side) -> &'static str {
    match (place, side) {
        (Place::ApplyThread, _) => "the one thread that applies",
        (Place::Connection, Side::Client) => "the client's end of the connection",
        (Place::Connection, Side::Server) => "the server's end of the connection",
        (Place::Workers, _) => "the workers",
        (Place::Background, _) => "the database's threads",
        (Place::Tasks, _) => "tasks",
    }
}

fn dearest(stages: &[&Stage]) -> &'static str {
    let dearest = stages
        .iter()
        .max_by(|a, b| a.cpu_us.total_cmp(&b.cpu_us))
        .map(|stage| stage.name);
    dearest.unwrap_or("nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &'static str, side: Side, place: Place, cpu_us: f64) -> Stage {
        Stage {
            name,
            side,
            place,
            cpu_us,
        }
    }

    fn stages() -> Vec<Stage> {
        vec![
            stage("seal", Side::Server, Place::Connection, 150.0),
            stage("open", Side::Client, Place::Connection, 50.0),
            stage("decode", Side::Client, Place::Workers, 100.0),
            stage("execute", Side::Client, Place::ApplyThread, 80.0),
            stage("store", Side::Client, Place::ApplyThread, 20.0),
        ]
    }

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < right / 1e6
    }

    #[test]
    fn few_cores_are_the_bound() {
        let told = Prediction::of(&stages(), 1_000.0, 2_000, 2);
        assert!(close(told.from_elsewhere.blocks_per_second, 8_000.0));
        assert!(close(told.from_elsewhere.megabytes_per_second, 16.0));
        let limit = "all 2 cores, most of all decode";
        assert_eq!(told.from_elsewhere.limit, limit);
        assert!(close(told.from_here.blocks_per_second, 5_000.0));
        let limit = "all 2 cores, most of all seal";
        assert_eq!(told.from_here.limit, limit);
        assert!(close(told.durable_blocks_per_second, 1_000.0));
    }

    #[test]
    fn with_many_cores_one_thread_is() {
        let told = Prediction::of(&stages(), 1_000.0, 2_000, 16);
        assert!(close(told.from_elsewhere.blocks_per_second, 10_000.0));
        let limit = "the one thread that applies, most of all execute";
        assert_eq!(told.from_elsewhere.limit, limit);
        assert!(close(told.from_here.blocks_per_second, 1e6 / 150.0));
        let limit = "the server's end of the connection, most of all seal";
        assert_eq!(told.from_here.limit, limit);
    }
}
