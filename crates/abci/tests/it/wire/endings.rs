//! Applications that hang, fail, go and come back.

use std::{net::SocketAddr, sync::Arc, thread};

use perihelion_abci::{
    AppAddress, AppConnections, AppFault, Application, CallName, ConnectionName, Noop, RunningCall,
    types::{
        RequestFinalizeBlock, RequestInfo, RequestQuery, ResponseFinalizeBlock, ResponseQuery,
    },
};
use perihelion_types::Height;
use socket2::{Domain, Socket, Type};

use super::{PATIENCE, Service, Slow, TRANSPORTS, block, losses};

/// The running calls without their times.
fn named(running: &[RunningCall]) -> Vec<(ConnectionName, CallName, Option<Height>)> {
    running
        .iter()
        .map(|it| (it.connection, it.call, it.height))
        .collect()
}

#[test]
fn a_call_that_hangs_is_named_and_the_other_connections_go_on() {
    for transport in TRANSPORTS {
        let (slow, brake) = Slow::new();
        let service = Service::start(transport, slow);
        let app = service.connect();
        let consensus = app.consensus.clone();
        let call = thread::spawn(move || consensus.finalize_block(&block(7)));
        brake.entered.recv().unwrap();
        let running = app.running();
        let expected = (
            ConnectionName::Consensus,
            CallName::FinalizeBlock,
            Some(Height::new(7)),
        );
        assert_eq!(named(&running), [expected]);
        let text = running[0].to_string();
        // Behind it stands its age.
        assert!(text.starts_with("FinalizeBlock of height 7 ("), "{text}");
        app.query.info(&RequestInfo::default()).unwrap();
        app.mempool.flush().unwrap();
        brake.leave.send(()).unwrap();
        call.join().unwrap().unwrap();
        assert_eq!(app.running(), []);
    }
}

#[test]
fn a_call_that_hangs_ends_when_this_node_closes() {
    for transport in TRANSPORTS {
        let (slow, brake) = Slow::new();
        let service = Service::start(transport, slow);
        let app = service.connect();
        let lost = losses(&app);
        let consensus = app.consensus.clone();
        let call = thread::spawn(move || consensus.commit(Height::new(8)));
        brake.entered.recv().unwrap();
        app.close();
        let error = call.join().unwrap().unwrap_err();
        assert_eq!(
            (error.call, error.height),
            (CallName::Commit, Some(Height::new(8)))
        );
        let closed = AppFault::Closed("this node closed it".to_owned());
        assert_eq!(error.reason, closed, "over {transport}");
        let error = app.query.echo("still there?").unwrap_err();
        assert_eq!(error.reason, closed, "over {transport}");
        drop((app, brake, service));
        assert!(lost.recv().is_err(), "whoever closes is not told of a loss");
    }
}

#[test]
fn an_application_that_goes_ends_the_call_and_every_connection() {
    for transport in TRANSPORTS {
        let (slow, brake) = Slow::new();
        let service = Service::start(transport, slow);
        let app = service.connect();
        let lost = losses(&app);
        let consensus = app.consensus.clone();
        let call = thread::spawn(move || consensus.finalize_block(&block(7)));
        brake.entered.recv().unwrap();
        drop(service);
        let error = call.join().unwrap().unwrap_err();
        let text = error.to_string();
        let begin = "application, call FinalizeBlock at height 7: the connection is closed: ";
        assert!(text.starts_with(begin), "over {transport}: {text}");
        // Whichever connection was found lost first, the call is named.
        let loss = lost.recv_timeout(PATIENCE).unwrap();
        let part = "is lost during FinalizeBlock of height 7 (";
        assert!(loss.to_string().contains(part), "over {transport}: {loss}");
        for error in [
            app.query.info(&RequestInfo::default()).unwrap_err(),
            app.mempool.flush().unwrap_err(),
            app.consensus.commit(Height::new(7)).unwrap_err(),
        ] {
            assert!(matches!(error.reason, AppFault::Closed(_)), "{error}");
        }
        drop(brake);
    }
}

#[test]
fn an_application_that_restarts_while_nothing_runs_is_told_of_at_once() {
    for transport in TRANSPORTS {
        // A port may be somebody else's by then.
        let folder = tempfile::tempdir().unwrap();
        let address = AppAddress::Unix(folder.path().join("app.sock"));
        let service = Service::at(&address, transport, Arc::new(Noop));
        let app = service.connect();
        let lost = losses(&app);
        app.query.echo("hello").unwrap();
        drop(service);
        let loss = lost.recv_timeout(PATIENCE).unwrap();
        assert_eq!(loss.running, None);
        let text = loss.to_string();
        let begin = format!(
            "the {} connection to the application is lost: ",
            loss.connection
        );
        assert!(text.starts_with(&begin), "{text}");
        // Told too whoever asks later.
        assert_eq!(losses(&app).recv_timeout(PATIENCE).unwrap(), loss);
        // It is back, and its state may be another: the old connections stay closed.
        let again = Service::at(&address, transport, Arc::new(Noop));
        app.query.echo("hello").unwrap_err();
        again.connect().query.echo("hello").unwrap();
    }
}

#[test]
fn connections_that_are_dropped_are_no_loss() {
    for transport in TRANSPORTS {
        let service = Service::start(transport, Arc::new(Noop));
        let app = service.connect();
        let lost = losses(&app);
        let query = app.query.clone();
        drop(app);
        query.echo("hello").unwrap();
        drop(query);
        drop(service);
        assert!(lost.recv().is_err(), "over {transport}");
    }
}

/// Refuses queries, and panics at a block.
struct Failing;

impl Application for Failing {
    fn query(&self, _: &RequestQuery) -> Result<ResponseQuery, AppFault> {
        Err(AppFault::failed("not today"))
    }
    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        panic!("out of ideas at {}", request.height)
    }
}

#[test]
fn an_application_that_fails_says_why() {
    for transport in TRANSPORTS {
        let service = Service::start(transport, Arc::new(Failing));
        let app = service.connect();
        let error = app.query.query(&RequestQuery::default()).unwrap_err();
        assert_eq!(error.call, CallName::Query);
        assert!(error.to_string().contains("not today"), "{error}");
        assert!(matches!(error.reason, AppFault::Failed(_)), "{error:?}");
        // What changes nothing harms nothing: the next connections are served.
        let app = service.connect();
        app.query.echo("hello").unwrap();
        let error = app.consensus.finalize_block(&block(4)).unwrap_err();
        assert!(error.to_string().contains("out of ideas at 4"), "{error}");
        let failure = service.failed.recv_timeout(PATIENCE).unwrap();
        assert_eq!(failure.call, CallName::FinalizeBlock);
        assert!(matches!(failure.reason, AppFault::Panicked(_)));
        // It may be half changed now, so nobody is to ask it for its state.
        let app = service.connect();
        let error = app.query.info(&RequestInfo::default()).unwrap_err();
        assert!(error.to_string().contains("it failed before"), "{error}");
    }
}

#[test]
fn nobody_listens() {
    // A port that is held is nobody else's, and who does not listen there refuses.
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    held.bind(&any.into()).unwrap();
    let held_at = held.local_addr().unwrap().as_socket().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for transport in TRANSPORTS {
        let tcp: AppAddress = format!("tcp://{held_at}").parse().unwrap();
        let unix = AppAddress::Unix(folder.path().join("none"));
        for address in [tcp, unix] {
            let Err(error) = AppConnections::connect(&address, transport) else {
                panic!("connected to {address}");
            };
            let begin = format!("the application at {address} ({transport}) cannot be reached: ");
            assert!(error.to_string().starts_with(&begin), "{error}");
        }
    }
}
