use std::time::Instant;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The next ping is due.
    Ping,
    /// The peer must have answered a ping.
    Pong,
    /// While reading is held back: the next unsolicited pong is due.
    HeldPong,
    /// The sending rate allows for more.
    Send,
    /// The receiving rate allows for more.
    Receive,
    /// Large messages must have made progress.
    Progress,
}

impl Timer {
    const ALL: [Self; 6] = [
        Self::Ping,
        Self::Pong,
        Self::HeldPong,
        Self::Send,
        Self::Receive,
        Self::Progress,
    ];
}

/// All deadlines of a connection; the next wake-up is the least of them.
#[derive(Debug, Default)]
pub(super) struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// A timer whose moment has come; it is stopped.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Timer> {
        let timer = Timer::ALL
            .into_iter()
            .find(|&timer| self.0[timer as usize].is_some_and(|at| at <= now))?;
        self.stop(timer);
        Some(timer)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }
}
