//! Peers over TCP: secret connection, MConnection, handshake, switch.
