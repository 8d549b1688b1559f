//! From a TCP connection to an authenticated one.

use std::io;

use perihelion_crypto::NodeId;
use rand::RngExt as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    NodeInfo, NodeKey, RejectReason,
    secret_connection::{Established, Handshake},
};

/// Bytes read at once during a handshake; two frames and the ephemeral key fit.
const READ: usize = 4096;

/// Shakes hands and checks who answered. Bounded in bytes by the handshake; the caller bounds it
/// in time, as a whole.
pub(super) async fn upgrade(
    stream: &mut TcpStream,
    node_key: &NodeKey,
    node_info: &NodeInfo,
    dialled: Option<NodeId>,
) -> Result<Established, RejectReason> {
    let ephemeral: [u8; 32] = rand::rng().random();
    let mut handshake = Handshake::new(node_key.private_key(), node_info, ephemeral);
    let mut buffer = [0; READ];
    let established = loop {
        if let Some(bytes) = handshake.poll_transmit() {
            stream.write_all(&bytes).await.map_err(lost)?;
        }
        if let (Some(dialled), Some(actual)) = (dialled, handshake.remote_id())
            && dialled != actual
        {
            return Err(RejectReason::WrongId { dialled, actual });
        }
        if let Some(established) = handshake.poll_established() {
            break established;
        }
        let room = handshake.room().min(READ);
        match stream.read(&mut buffer[..room]).await.map_err(lost)? {
            0 => return Err(RejectReason::HandshakeIo(io::ErrorKind::UnexpectedEof)),
            length => handshake.handle_bytes(&buffer[..length])?,
        }
    };
    let theirs = &established.node_info;
    let actual = established.remote_id;
    theirs.validate()?;
    if theirs.id != actual.to_string() {
        return Err(RejectReason::ClaimedId {
            claimed: theirs.id.clone(),
            actual,
        });
    }
    if actual == node_key.id() {
        return Err(RejectReason::Myself);
    }
    node_info.compatible_with(theirs)?;
    Ok(established)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn lost(error: io::Error) -> RejectReason {
    RejectReason::HandshakeIo(error.kind())
}
