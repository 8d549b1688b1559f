use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};

use tokio_util::sync::CancellationToken;

use crate::peer::lock;

/// Inbound connections that have not authenticated, at most. Each may hold a socket and the 16 KiB
/// of a handshake for the handshake's timeout.
const MAX_PENDING: usize = 128;
/// The same of one IP address. An honest node shakes hands within a few round trips, so the oldest
/// of too many is the least likely to be honest.
const MAX_PENDING_PER_IP: usize = 32;

/// Inbound connections that have not authenticated, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pending {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    connections: Vec<(u64, IpAddr, CancellationToken)>,
}

/// A place among the connections that have not authenticated; dropping it gives it back.
#[derive(Debug)]
pub(super) struct PendingPlace {
    pending: Arc<Pending>,
    key: u64,
    crowded_out: CancellationToken,
}

impl Pending {
    /// Takes a place. Where there is none left, the oldest connection of the same address, or of
    /// all, loses its own.
    pub(super) fn enter(self: &Arc<Self>, ip: IpAddr) -> PendingPlace {
        let crowded_out = CancellationToken::new();
        let mut state = lock(&self.state);
        let same = |place: &(u64, IpAddr, CancellationToken)| place.1 == ip;
        let oldest =
            if state.connections.iter().filter(|place| same(place)).count() >= MAX_PENDING_PER_IP {
                state.connections.iter().position(same)
            } else {
                (state.connections.len() >= MAX_PENDING).then_some(0)
            };
        if let Some(oldest) = oldest {
            state.connections.remove(oldest).2.cancel();
        }
        let key = state.next;
        state.next += 1;
        state.connections.push((key, ip, crowded_out.clone()));
        drop(state);
        PendingPlace {
            pending: Arc::clone(self),
            key,
            crowded_out,
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        lock(&self.state).connections.len()
    }
}

impl PendingPlace {
    /// Waits until the place is lost to a newer connection.
    pub(super) async fn crowded_out(&self) {
        self.crowded_out.cancelled().await;
    }
}

impl Drop for PendingPlace {
    fn drop(&mut self) {
        lock(&self.pending.state)
            .connections
            .retain(|(key, ..)| *key != self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(place: &PendingPlace) -> bool {
        place.crowded_out.is_cancelled()
    }

    #[test]
    fn the_oldest_of_one_address_makes_room() {
        let pending = Arc::new(Pending::default());
        let other = pending.enter([127, 0, 0, 2].into());
        let places: Vec<_> = (0..=MAX_PENDING_PER_IP)
            .map(|_| pending.enter([127, 0, 0, 1].into()))
            .collect();
        assert!(!lost(&other) && lost(&places[0]) && !lost(&places[1]));
        assert_eq!(pending.len(), MAX_PENDING_PER_IP + 1);
        drop((other, places));
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn the_oldest_of_all_makes_room() {
        let pending = Arc::new(Pending::default());
        let places: Vec<_> = (0..=MAX_PENDING)
            .map(|index| {
                let host = u8::try_from(index).unwrap_or(u8::MAX);
                pending.enter([127, 0, 0, host].into())
            })
            .collect();
        assert!(lost(&places[0]) && !lost(&places[1]));
        assert_eq!(pending.len(), MAX_PENDING);
    }
}
