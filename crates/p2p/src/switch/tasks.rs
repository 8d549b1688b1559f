//! The tasks of a switch: one that accepts, one for each persistent peer, one for each connection.

use std::{net::SocketAddr, sync::Arc, time::Duration, time::SystemTime};

use perihelion_crypto::NodeId;
use rand::RngExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::{
    DisconnectReason, PeerAddress, PeerEvent, PeerHandle, RejectReason,
    address::canonical,
    connection::Connection,
    peer::{PeerIdentity, PeerShared, lock},
    secret_connection::Established,
};

use super::{
    Disconnected, FILTER_TIMEOUT, Inner, Remote, backoff::Backoff, host, table::Candidate,
    upgrade::upgrade,
};

/// Pause after the operating system refused to accept, as it does when it has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Between two warnings of one kind about one persistent peer, which is dialled far more often.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// How a connection ended: why, and after how long.
pub(super) type End = oneshot::Receiver<(DisconnectReason, Duration)>;

/// Accepts connections until the switch stops.
pub(super) async fn accept(inner: Arc<Inner>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = inner.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                let task = welcome(Arc::clone(&inner), stream, canonical(remote));
                inner.tasks.spawn(task);
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One inbound connection, from its acceptance to its admission.
async fn welcome(inner: Arc<Inner>, stream: TcpStream, remote: SocketAddr) {
    let place = inner.pending.enter(host(remote));
    let admitted = tokio::select! {
        () = inner.stop.cancelled() => Err(RejectReason::Shutdown),
        () = place.crowded_out() => Err(RejectReason::Crowded),
        admitted = inbound(&inner, stream, remote) => admitted,
    };
    drop(place);
    if let Err(reason) = admitted {
        tracing::debug!(%remote, %reason, "refused an inbound connection");
    }
}

async fn inbound(
    inner: &Arc<Inner>,
    stream: TcpStream,
    remote: SocketAddr,
) -> Result<(), RejectReason> {
    lock(&inner.table).check_ip_ban(Instant::now().into_std(), host(remote))?;
    connect(inner, stream, remote, None).await?;
    Ok(())
}

/// Dials a peer once. Returns it, and how its connection will have ended.
pub(super) async fn dial(
    inner: &Arc<Inner>,
    address: &PeerAddress,
) -> Result<(PeerHandle, End), RejectReason> {
    if address.id == inner.node_key.id() {
        return Err(RejectReason::Myself);
    }
    let limit = inner.config.dial_timeout;
    let dialled = async {
        let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
        let found = found.map_err(|error| RejectReason::Resolve(resolver_text(&error)))?;
        let mut refused = std::io::ErrorKind::NotFound;
        for remote in found {
            match TcpStream::connect(remote).await {
                Ok(stream) => return Ok((stream, canonical(remote))),
                Err(error) => refused = error.kind(),
            }
        }
        Err(RejectReason::Dial(refused))
    };
    let (stream, remote) = tokio::select! {
        () = inner.stop.cancelled() => return Err(RejectReason::Shutdown),
        dialled = timeout(limit, dialled) => {
            dialled.map_err(|_| RejectReason::Dial(std::io::ErrorKind::TimedOut))??
        }
    };
    tokio::select! {
        () = inner.stop.cancelled() => Err(RejectReason::Shutdown),
        connected = connect(inner, stream, remote, Some(address.id)) => connected,
    }
}

/// What the resolver said, without saying that it is the resolver. Its errors have no kind.
fn resolver_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let bare = text.strip_prefix("failed to lookup address information: ");
    bare.map(str::to_owned).unwrap_or(text)
}

/// Asks the filters, shakes hands between, takes a place in the table and starts the connection's task.
async fn connect(
    inner: &Arc<Inner>,
    mut stream: TcpStream,
    remote: SocketAddr,
    dialled: Option<NodeId>,
) -> Result<(PeerHandle, End), RejectReason> {
    let asked = Remote {
        address: remote,
        outbound: dialled.is_some(),
    };
    if let Some(filter) = inner.filter.clone() {
        ask(move || filter.filter_address(asked)).await?;
    }
    // Small messages are flushed at once; waiting for more is not the kernel's business.
    stream
        .set_nodelay(true)
        .map_err(|error| RejectReason::HandshakeIo(error.kind()))?;
    let shake = upgrade(&mut stream, &inner.node_key, &inner.node_info, dialled);
    let established = timeout(inner.config.handshake_timeout, shake)
        .await
        .map_err(|_| RejectReason::HandshakeTimeout)??;
    if let Some(filter) = inner.filter.clone() {
        let (id, node_info) = (established.remote_id, established.node_info.clone());
        ask(move || filter.filter_node(asked, id, &node_info)).await?;
    }
    admit(inner, stream, established, remote, dialled.is_some())
}

fn admit(
    inner: &Arc<Inner>,
    stream: TcpStream,
    established: Established,
    remote: SocketAddr,
    outbound: bool,
) -> Result<(PeerHandle, End), RejectReason> {
    let id = established.remote_id;
    let mut table = lock(&inner.table);
    if inner.stop.is_cancelled() {
        return Err(RejectReason::Shutdown);
    }
    let identity = PeerIdentity {
        id,
        node_info: established.node_info.clone(),
        remote,
        outbound,
        persistent: table.is_persistent(&id),
    };
    let (shared, outgoing) = PeerShared::new(identity, inner.routes.descriptors());
    let peer = PeerHandle { shared };
    let candidate = Candidate {
        id,
        ip: host(remote),
        outbound,
    };
    table.admit(Instant::now().into_std(), candidate, || peer.clone())?;
    drop(table);
    let connection = Connection::new(
        stream,
        established,
        Arc::clone(&peer.shared),
        outgoing,
        Arc::clone(&inner.routes),
        inner.connection.clone(),
    );
    let (ended, end) = oneshot::channel();
    let task = serve(Arc::clone(inner), connection, peer.clone(), ended);
    inner.tasks.spawn(task);
    Ok((peer, end))
}

/// A connection, from its first event to its last.
async fn serve(
    inner: Arc<Inner>,
    connection: Connection,
    peer: PeerHandle,
    ended: oneshot::Sender<(DisconnectReason, Duration)>,
) {
    let id = peer.id();
    // Strangers come and go as they like; the log is not theirs to fill.
    let stranger = !peer.is_outbound() && !peer.is_persistent();
    let arrival = if stranger {
        inner.arrivals.pass()
    } else {
        Some(0)
    };
    if let Some(left_out) = arrival {
        tracing::info!(peer = %id, remote = %peer.remote_address(), outbound = peer.is_outbound(),
            left_out, "connected to a peer");
    }
    let closing = {
        let (stop, shared) = (inner.stop.clone(), Arc::clone(&peer.shared));
        async move {
            stop.cancelled().await;
            shared.close(DisconnectReason::Shutdown);
            std::future::pending::<std::convert::Infallible>().await
        }
    };
    let life = async {
        inner
            .routes
            .broadcast(|| PeerEvent::Added(peer.clone()))
            .await;
        connection.run().await
    };
    let reason = tokio::select! {
        reason = life => reason,
        never = closing => match never {},
    };
    let held = peer.shared.connected_for();
    let departure = if stranger {
        inner.departures.pass()
    } else {
        Some(0)
    };
    if let Some(left_out) = departure {
        tracing::info!(peer = %id, %reason, left_out, "disconnected from a peer");
    }
    // The place is given back last, so that the next connection of this peer is added after this
    // one was removed.
    inner
        .routes
        .broadcast(|| PeerEvent::Removed {
            id,
            reason: reason.clone(),
        })
        .await;
    let disconnected = Disconnected {
        id,
        remote: peer.remote_address(),
        outbound: peer.is_outbound(),
        connected_for: held,
        at: SystemTime::now(),
        reason: reason.clone(),
    };
    let now = Instant::now().into_std();
    let fault = reason.is_peers_fault().then(|| reason.to_string());
    lock(&inner.table).remove(now, &id, disconnected, fault);
    inner.removals.send_modify(|count| *count += 1);
    // Nobody waits for the end of an inbound connection.
    let _ = ended.send((reason, held));
}

/// Keeps a persistent peer connected, for ever.
pub(super) async fn keep_connected(inner: Arc<Inner>, address: PeerAddress) {
    if address.id == inner.node_key.id() {
        tracing::warn!(%address, "this node is its own persistent peer; it is not dialled");
        return;
    }
    let mut backoff = Backoff::new(inner.config.persistent_peers_max_dial_period);
    let mut warned = Warned::default();
    loop {
        let pause = tokio::select! {
            () = inner.stop.cancelled() => return,
            pause = attempt(&inner, &address, &mut backoff, &mut warned) => pause,
        };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What was warned of one persistent peer last, and when.
#[derive(Default)]
struct Warned(Option<(RejectReason, Instant)>);

impl Warned {
    /// Logs that the peer is not connected: as a warning with the remedy where only its operator or
    /// ours can mend it, the same one not again for [`WARN_INTERVAL`].
    fn tell(&mut self, address: &PeerAddress, reason: &RejectReason) {
        let now = Instant::now();
        let known = self
            .0
            .as_ref()
            .is_some_and(|(last, at)| last == reason && now < *at + WARN_INTERVAL);
        match reason.remedy() {
            Some(remedy) if !known => {
                self.0 = Some((reason.clone(), now));
                tracing::warn!(%address, %reason, "a persistent peer is not connected: {remedy}");
            }
            Some(_) => tracing::debug!(%address, %reason, "a persistent peer is not connected"),
            None => tracing::info!(%address, %reason, "a persistent peer is not connected"),
        }
    }
}

/// Dials once, unless the peer is connected or banned, and sees the connection through. Returns how
/// long to pause then.
async fn attempt(
    inner: &Arc<Inner>,
    address: &PeerAddress,
    backoff: &mut Backoff,
    warned: &mut Warned,
) -> Duration {
    let mut removals = inner.removals.subscribe();
    let now = Instant::now().into_std();
    let (connected, banned_until) = {
        let table = lock(&inner.table);
        let connected = table.get(&address.id).cloned();
        (connected, table.banned_until(now, &address.id))
    };
    if let Some(until) = banned_until {
        return until.saturating_duration_since(now) + backoff.next(rand::rng().random());
    }
    if let Some(peer) = connected {
        lock(&inner.dial_failures).remove(&address.id);
        // It dialled us. Look again when somebody has left.
        while lock(&inner.table).get(&address.id).is_some() {
            if removals.changed().await.is_err() {
                return Duration::ZERO;
            }
        }
        backoff.handle_end(
            peer.shared.connected_for(),
            peer.shared.close_reason().is_peers_fault(),
        );
        return backoff.next(rand::rng().random());
    }
    match dial(inner, address).await {
        Ok((_, end)) => {
            lock(&inner.dial_failures).remove(&address.id);
            if let Ok((reason, held)) = end.await {
                backoff.handle_end(held, reason.is_peers_fault());
            }
        }
        Err(reason) => {
            warned.tell(address, &reason);
            lock(&inner.dial_failures).insert(address.id, (address.clone(), reason));
        }
    }
    backoff.next(rand::rng().random())
}

/// Asks a filter on a thread where it may block.
async fn ask(
    filter: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), RejectReason> {
    let answer = timeout(FILTER_TIMEOUT, tokio::task::spawn_blocking(filter)).await;
    match answer {
        Ok(Ok(answer)) => answer.map_err(RejectReason::Filtered),
        Ok(Err(_)) => Err(RejectReason::Filtered("the filter panicked".to_owned())),
        Err(_) => Err(RejectReason::Filtered(
            "the filter did not answer".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_resolved_is_told_in_the_resolvers_words() {
        let error = std::io::Error::other(
            "failed to lookup address information: Name or service not known",
        );
        assert_eq!(
            RejectReason::Resolve(resolver_text(&error)).to_string(),
            "host name cannot be resolved: Name or service not known"
        );
    }
}
