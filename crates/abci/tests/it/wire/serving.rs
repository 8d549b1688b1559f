//! What a server listens on, and what a served application keeps.

use std::{net::TcpListener, os::unix::net::UnixListener, sync::Arc};

use bytes::Bytes;
use perihelion_abci::{
    AppAddress, AppServer, AppStore as _, AppTransport, KvStore, KvStoreOptions, MemoryAppStore,
    Noop, types::RequestInfo,
};
use perihelion_types::Height;

use super::{Service, TRANSPORTS, block, loopback};

#[test]
fn a_taken_address_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = AppAddress::Tcp {
        host: "127.0.0.1".to_owned(),
        port: taken.local_addr().unwrap().port(),
    };
    let listening = UnixListener::bind(&path).unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "kept").unwrap();
    let addresses = [
        tcp,
        AppAddress::Unix(path.clone()),
        AppAddress::Unix(file.clone()),
    ];
    for address in addresses {
        let started = AppServer::start(&address, AppTransport::Socket, Arc::new(Noop), drop);
        let error = started.err().unwrap().to_string();
        let begin = format!("{address} cannot be listened on: ");
        assert!(error.starts_with(&begin), "{error}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"kept");
    // Left by a process that was killed.
    drop(listening);
    assert!(path.exists());
    let service = Service::at(
        &AppAddress::Unix(path.clone()),
        AppTransport::Socket,
        Arc::new(Noop),
    );
    service.connect().query.echo("hello").unwrap();
    drop(service);
    assert!(!path.exists(), "a server takes its socket away");
}

#[test]
fn a_served_application_keeps_what_it_committed() {
    for transport in TRANSPORTS {
        let disk = Arc::new(MemoryAppStore::new());
        let open = || {
            let store = Arc::clone(&disk) as _;
            Arc::new(KvStore::standalone(store, KvStoreOptions::default()).unwrap())
        };
        let service = Service::at(&loopback(), transport, open());
        let app = service.connect();
        for height in 1..=3 {
            let tx = Bytes::from(format!("key{height}=value"));
            let mut request = block(height);
            request.txs = vec![tx];
            app.consensus.finalize_block(&request).unwrap();
            if height < 3 {
                app.consensus.commit(Height::new(height)).unwrap();
                // Before the answer came.
                let key = format!("kvPairKey:key{height}");
                assert!(disk.get(key.as_bytes()).unwrap().is_some());
            }
        }
        drop((app, service));
        let service = Service::at(&loopback(), transport, open());
        let info = service.connect().query.info(&RequestInfo::default());
        let info = info.unwrap();
        assert_eq!(info.last_block_height, 2, "the third was not committed");
        assert_eq!(info.last_block_app_hash[..], [4, 0, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn servers_and_connections_end_within_a_task() {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        for transport in TRANSPORTS {
            let service = Service::start(transport, Arc::new(Noop));
            let taken = service.server.address();
            AppServer::start(taken, transport, Arc::new(Noop), drop)
                .err()
                .unwrap();
            drop(service.connect());
            drop(service);
        }
    });
}
