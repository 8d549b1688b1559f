//! The built-in application that stands in where nobody has chosen one: the reasons are in
//! `docs/adr/0008-a-built-in-application-where-none-was-chosen.md`.

use std::{
    net::{TcpStream, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use perihelion_store::Store;
use perihelion_types::Height;

/// What stands in.
pub(super) const STAND_IN: &str = "persistent_kvstore";

/// How long an application may take to answer to a connection. It is one of this machine's.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether [`STAND_IN`] takes the place of the application at `address`. `allowed` says that the
/// address is the one that a new home has and that the genesis speaks to no application.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn stands_in(allowed: bool, address: &str, store: &Arc<Store>) -> anyhow::Result<bool> {
    if !allowed {
        return Ok(false);
    }
    let has_state = !store.app_is_empty()?;
    Ok(decide(store.height(), has_state, || listens(address)))
}

/// A store that has blocks and nothing of the built-in application has run with another one, which
/// is waited for.
fn decide(stored: Height, has_state: bool, listens: impl FnOnce() -> bool) -> bool {
    let may = has_state || stored == Height::ZERO;
    may && !listens()
}

/// What to say then.
pub(super) fn message(address: &str) -> String {
    format!(
        "nothing listens at proxy_app = {address:?}, the address that a new home has, and the genesis \
         has no app_state: the built-in {STAND_IN} is run instead. For your chain's own application, \
         start it before this node, or set proxy_app; to keep the built-in one without this line, \
         set proxy_app = {STAND_IN:?}"
    )
}

/// Whether somebody takes connections at `tcp://HOST:PORT`.
fn listens(address: &str) -> bool {
    let bare = address.strip_prefix("tcp://").unwrap_or(address);
    let Ok(mut addresses) = bare.to_socket_addrs() else {
        return false;
    };
    addresses.any(|address| TcpStream::connect_timeout(&address, PATIENCE).is_ok())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_where_no_application_was_used_and_none_is_there() {
        let (none, some) = (Height::ZERO, Height::new(7));
        for (stored, has_state, listens, expected) in [
            (none, false, false, true),
            (none, false, true, false),
            // It stood in before: again, but for an application that is there now.
            (some, true, false, true),
            (some, true, true, false),
            // Another application has executed these blocks.
            (some, false, false, false),
            (some, false, true, false),
        ] {
            let found = decide(stored, has_state, || listens);
            assert_eq!(found, expected, "{stored} {has_state} {listens}");
        }
    }

    #[test]
    fn who_listens_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        assert!(listens(&address));
        drop(listener);
        assert!(!listens(&address));
    }

    #[test]
    fn a_chosen_application_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &perihelion_store::StoreOptions::default());
        let store = Arc::new(store.unwrap());
        let nobody = "tcp://127.0.0.1:0";
        assert!(!stands_in(false, nobody, &store).unwrap());
        assert!(stands_in(true, nobody, &store).unwrap());
    }
}
