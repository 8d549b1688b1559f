//! What connected peers do: they come and go, tell their statuses, and answer.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use perihelion_types::{Height, HeightRange};

use super::{
    Kind, PeerSpec, World,
    peer::{Answer, answer},
    world::{Event, id_of},
};

/// How often the node looks at what has come of a large block.
const PART: Duration = Duration::from_millis(100);

/// A peer in a running simulation.
pub(super) struct Node {
    pub(super) spec: PeerSpec,
    pub(super) connected: bool,
    /// Each connection has a number: what was sent on an old one is lost.
    pub(super) connection: u64,
    pub(super) sends_until: Instant,
    pub(super) statuses: i64,
    /// Requests that have come over this connection.
    pub(super) asked: u64,
    /// Heights that it was asked for.
    pub(super) heights: BTreeSet<i64>,
    pub(super) banned: bool,
}

impl World {
    pub(super) fn live(&self, index: usize, connection: u64) -> bool {
        self.nodes[index].connected && self.nodes[index].connection == connection
    }

    /// When the block of a height will be made.
    pub(super) fn made_at(&self, height: i64) -> Option<Instant> {
        let (from, every) = self.setup.growth?;
        let blocks = u32::try_from(height - from).ok()?;
        (height <= self.setup.chain.height()).then(|| self.origin + every * blocks)
    }

    pub(super) fn join(&mut self, index: usize) {
        if self.nodes[index].banned || self.nodes[index].connected {
            return;
        }
        let node = &mut self.nodes[index];
        node.connected = true;
        node.connection += 1;
        node.statuses = 0;
        node.asked = 0;
        node.sends_until = self.now;
        let (kind, connection) = (node.spec.kind, node.connection);
        self.log(format!("{index} joins"));
        self.schedule.handle_peer_added(self.now, id_of(index));
        if kind == Kind::Drip {
            self.at(self.now, Event::Bytes(index, connection));
        }
        if kind == Kind::Unsolicited
            && let Some(block) = self.setup.chain.block(self.setup.chain.height()).cloned()
        {
            self.at(
                self.now + Duration::from_millis(50),
                Event::Block(index, block, connection),
            );
        }
    }

    pub(super) fn disconnect(&mut self, index: usize) {
        if self.nodes[index].connected {
            self.nodes[index].connected = false;
            self.log(format!("{index} leaves"));
            self.schedule.handle_peer_removed(self.now, id_of(index));
        }
    }

    pub(super) fn tell_status(&mut self, index: usize) {
        let node = &self.nodes[index];
        if node.connected && node.spec.kind != Kind::Mute {
            let slow = u64::from(node.spec.kind == Kind::SlowStatus);
            let takes = node.spec.latency + Duration::from_secs(3 * slow);
            let (at, connection) = (self.now + takes, node.connection);
            self.at(at, Event::Status(index, connection));
        }
    }

    pub(super) fn take_status(&mut self, index: usize) {
        let tip = self.tip();
        let node = &mut self.nodes[index];
        node.statuses += 1;
        let initial = self.setup.chain.shape().initial_height;
        let top = (tip - node.spec.lag).max(0);
        let base = node.spec.base.max(initial).min(top.max(1));
        let (base, height) = match node.spec.kind {
            Kind::Inflated | Kind::FrontRunner => (base, top + 1000),
            Kind::Creeping => (base, top + 1000 + node.statuses),
            Kind::OtherValidators => (initial, initial + 4),
            Kind::MaxHeight | Kind::MaxHeightSilent => (1, i64::MAX),
            Kind::Lowered => (base, top - node.statuses),
            Kind::Impossible => (top + 1, top),
            _ if top < initial => (0, 0),
            _ => (base, top),
        };
        let (id, now) = (id_of(index), self.now);
        match HeightRange::new(Height::new(base), Height::new(height)) {
            Some(range) => self.schedule.handle_status(now, id, range),
            None => {
                let (base, height) = (Height::new(base), Height::new(height));
                self.schedule
                    .handle_impossible_status(now, id, base, height);
            }
        }
    }

    /// What comes of a large block before it is whole.
    fn send_in_parts(&mut self, index: usize, begins: Instant, sending: Duration) {
        let Node {
            spec, connection, ..
        } = &self.nodes[index];
        let (latency, connection) = (spec.latency, *connection);
        let bytes = spec.bandwidth * PART.as_millis() as u64 / 1000;
        let parts = sending.as_millis().saturating_sub(1) / PART.as_millis();
        for part in 1..=parts as u32 {
            let at = begins + PART * part + latency;
            self.at(at, Event::Sent(index, connection, bytes));
        }
    }

    /// A peer has the request: its answer leaves when what it sent before has left.
    pub(super) fn serve(&mut self, index: usize, height: i64) {
        let spec = &self.nodes[index].spec;
        let tip = self.tip() - spec.lag;
        if spec.kind == Kind::FrontRunner && height > tip {
            if let Some(at) = self.made_at(height + spec.lag) {
                self.at(at, Event::Asked(index, height));
            }
            return;
        }
        let node = &mut self.nodes[index];
        if !node.connected {
            return;
        }
        node.asked += 1;
        let forgets = node.spec.kind == Kind::Forgetful && node.heights.insert(height);
        let fades = forgets || (node.spec.kind == Kind::Fading && node.asked > 1);
        let (spec, connection) = (node.spec.clone(), node.connection);
        let what = if height < spec.base {
            Answer::NoBlock
        } else if fades {
            Answer::Nothing
        } else {
            answer(spec.kind, &self.setup.chain, &self.setup.fork, height, tip)
        };
        let bytes = match &what {
            Answer::Block(block) => block.raw().len() as u64,
            Answer::Corrupt => 1000,
            Answer::NoBlock | Answer::Nothing => 20,
        };
        let sending = Duration::from_secs_f64(bytes as f64 / spec.bandwidth as f64);
        let begins = self.nodes[index].sends_until.max(self.now);
        let leaves = begins + sending;
        let arrives = leaves + spec.latency;
        if matches!(what, Answer::Block(_)) {
            self.send_in_parts(index, begins, sending);
        }
        match what {
            Answer::Nothing => return,
            Answer::Block(block) => self.at(arrives, Event::Block(index, block, connection)),
            Answer::Corrupt => self.at(arrives, Event::Corrupt(index, height, connection)),
            Answer::NoBlock => self.at(arrives, Event::NoBlock(index, height, connection)),
        }
        self.nodes[index].sends_until = leaves;
        if spec.kind == Kind::NoBlockFlood {
            for flood in 0..100 {
                self.at(arrives, Event::NoBlock(index, height + flood, connection));
            }
        }
    }
}
