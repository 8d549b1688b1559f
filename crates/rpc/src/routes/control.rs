//! What only operators may call: peers are dialled, the mempool is emptied. These routes exist only
//! where they are configured ([`RpcConfig::unsafe_routes`](crate::RpcConfig::unsafe_routes)).

use perihelion_p2p::DialOrder;
use serde::Serialize;

use super::{Answer, CallError, write};
use crate::{
    arguments::Arguments,
    context::Backend,
    peer_argument::{addresses, check_ids, id_texts},
};

#[derive(Serialize)]
struct Dialling {
    log: &'static str,
}

pub(super) fn dial_seeds(backend: &Backend, arguments: &Arguments) -> Answer {
    let seeds = arguments.texts(0);
    if seeds.is_empty() {
        return Err(CallError::NoSeeds);
    }
    let peers = addresses(seeds)?;
    tracing::info!(?seeds, "a client wants seeds to be dialled");
    backend.context.network.dial(DialOrder {
        peers,
        persistent: false,
        unconditional: false,
    })?;
    write(&Dialling {
        log: "Dialing seeds in progress. See /net_info for details",
    })
}

pub(super) fn dial_peers(backend: &Backend, arguments: &Arguments) -> Answer {
    let texts = arguments.texts(0);
    let (persistent, unconditional) = (arguments.flag(1), arguments.flag(2));
    let private = arguments.flag(3);
    if texts.is_empty() {
        return Err(CallError::NoPeers);
    }
    let ids = id_texts(texts)?;
    let peers = addresses(texts);
    // Of several mistakes CometBFT finds this one first.
    if persistent && let Err(error) = &peers {
        return Err(error.clone().into());
    }
    if private || unconditional {
        check_ids(&ids)?;
    }
    let peers = peers?;
    // Nobody is told any address: all are private.
    tracing::info!(
        peers = ?texts, persistent, unconditional, private,
        "a client wants peers to be dialled"
    );
    backend.context.network.dial(DialOrder {
        peers,
        persistent,
        unconditional,
    })?;
    write(&Dialling {
        log: "Dialing peers in progress. See /net_info for details",
    })
}

pub(super) fn flush_mempool(backend: &Backend, _: &Arguments) -> Answer {
    backend.context.mempool.flush();
    tracing::info!("a client has emptied the mempool");
    Ok("{}".to_owned())
}
