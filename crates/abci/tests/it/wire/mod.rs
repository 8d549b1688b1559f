//! Applications over the wire, on loopback.

mod broken;
mod calls;
mod endings;
mod serving;

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use perihelion_abci::{
    AppAddress, AppConnections, AppError, AppFault, AppServer, AppTransport, Application,
    LostConnection,
    types::{RequestCommit, RequestFinalizeBlock, ResponseCommit, ResponseFinalizeBlock},
};

pub(crate) const TRANSPORTS: [AppTransport; 2] = [AppTransport::Socket, AppTransport::Grpc];

/// Far longer than anything takes: who waits so long waits for what never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) fn loopback() -> AppAddress {
    "tcp://127.0.0.1:0".parse().unwrap()
}

/// A served application, and what the server says of its failure.
pub(crate) struct Service {
    pub(crate) server: AppServer,
    pub(crate) failed: Receiver<AppError>,
    transport: AppTransport,
}

impl Service {
    pub(crate) fn start(transport: AppTransport, app: Arc<dyn Application>) -> Self {
        Self::at(&loopback(), transport, app)
    }

    pub(crate) fn at(
        address: &AppAddress,
        transport: AppTransport,
        app: Arc<dyn Application>,
    ) -> Self {
        let (tell, failed) = channel();
        // A test may have ended.
        let told = move |error| drop(tell.send(error));
        Self {
            server: AppServer::start(address, transport, app, told).unwrap(),
            failed,
            transport,
        }
    }

    pub(crate) fn connect(&self) -> AppConnections {
        AppConnections::connect(self.server.address(), self.transport).unwrap()
    }
}

/// What is told when a connection is lost.
pub(crate) fn losses(app: &AppConnections) -> Receiver<LostConnection> {
    let (tell, lost) = channel();
    app.on_lost(move |loss| drop(tell.send(loss)));
    lost
}

/// An application whose FinalizeBlock and Commit end when they are told to.
pub(crate) struct Slow {
    entered: Sender<()>,
    leave: Mutex<Receiver<()>>,
}

/// The other side of [`Slow`].
pub(crate) struct Brake {
    pub(crate) entered: Receiver<()>,
    pub(crate) leave: Sender<()>,
}

impl Slow {
    pub(crate) fn new() -> (Arc<Self>, Brake) {
        let (enter, entered) = channel();
        let (leave, left) = channel();
        let slow = Self {
            entered: enter,
            leave: Mutex::new(left),
        };
        (Arc::new(slow), Brake { entered, leave })
    }

    fn pause(&self) {
        self.entered.send(()).unwrap();
        // Told to, or the test is over.
        let _told = self.leave.lock().unwrap().recv();
    }
}

impl Application for Slow {
    fn finalize_block(&self, _: &RequestFinalizeBlock) -> Result<ResponseFinalizeBlock, AppFault> {
        self.pause();
        Ok(ResponseFinalizeBlock::default())
    }

    fn commit(&self, _: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        self.pause();
        Ok(ResponseCommit::default())
    }
}

pub(crate) fn block(height: i64) -> RequestFinalizeBlock {
    RequestFinalizeBlock {
        height,
        ..RequestFinalizeBlock::default()
    }
}
