//! Asks the application who may be a peer (`filter_peers`), by the queries that CometBFT asks:
//! `/p2p/filter/addr/IP:PORT` before a handshake and `/p2p/filter/id/ID` behind it. Code 0 lets the
//! peer in.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use perihelion_abci::{QueryConnection, types::RequestQuery};
use perihelion_p2p::{NodeId, NodeInfo, PeerFilter};

/// Questions under way at once. Each holds a thread, and an application may take as long as it
/// likes: without a bound, whoever dials again and again would take all threads.
const MOST_AT_ONCE: usize = 32;
/// Characters of the application's reason that are told.
const MOST_TOLD: usize = 200;

/// The application as the judge of peers.
pub(super) struct AppFilter {
    query: QueryConnection,
    asking: AtomicUsize,
}

impl AppFilter {
    /// Asks over this connection.
    pub(super) fn new(query: QueryConnection) -> Self {
        Self {
            query,
            asking: AtomicUsize::new(0),
        }
    }

    fn ask(&self, path: String) -> Result<(), String> {
        let before = self.asking.fetch_add(1, Ordering::Relaxed);
        let answer = if before < MOST_AT_ONCE {
            self.query(path)
        } else {
            Err("the application does not answer questions about others".to_owned())
        };
        self.asking.fetch_sub(1, Ordering::Relaxed);
        answer
    }

    fn query(&self, path: String) -> Result<(), String> {
        let request = RequestQuery {
            path,
            ..RequestQuery::default()
        };
        let answer = self
            .query
            .query(&request)
            .map_err(|error| error.to_string())?;
        if answer.code == 0 {
            return Ok(());
        }
        let why: String = answer.log.chars().take(MOST_TOLD).collect();
        Err(format!("the application says code {} {why:?}", answer.code))
    }
}

impl PeerFilter for AppFilter {
    fn filter_address(&self, address: SocketAddr) -> Result<(), String> {
        self.ask(format!("/p2p/filter/addr/{address}"))
    }

    fn filter_node(&self, id: NodeId, _: &NodeInfo) -> Result<(), String> {
        self.ask(format!("/p2p/filter/id/{id}"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    };

    use perihelion_abci::{AppConnections, AppFault, Application, types::ResponseQuery};

    use super::*;

    /// Tells what it is asked, and answers once it is told how.
    struct Judge {
        asked: Sender<String>,
        answers: Mutex<Receiver<Result<u32, AppFault>>>,
    }

    impl Application for Judge {
        fn query(&self, request: &RequestQuery) -> Result<ResponseQuery, AppFault> {
            self.asked.send(request.path.clone()).unwrap();
            let answer = self.answers.lock().unwrap().recv().unwrap();
            Ok(ResponseQuery {
                code: answer?,
                log: "not here".to_owned(),
                ..ResponseQuery::default()
            })
        }
    }

    type Answers = Sender<Result<u32, AppFault>>;

    fn judge() -> (Arc<AppFilter>, Receiver<String>, Answers) {
        let ((asked, questions), (answers, given)) = (channel(), channel());
        let answers_of = Mutex::new(given);
        let app = Judge {
            asked,
            answers: answers_of,
        };
        let app = AppConnections::in_process(Arc::new(app));
        (Arc::new(AppFilter::new(app.query)), questions, answers)
    }

    fn info() -> NodeInfo {
        NodeInfo::decode(&[]).unwrap()
    }

    #[test]
    fn it_asks_as_cometbft_and_only_code_0_lets_in() {
        let (filter, asked, answers) = judge();
        let told = "the application says code 7 \"not here\"".to_owned();
        for (address, path) in [
            ("1.2.3.4:56", "/p2p/filter/addr/1.2.3.4:56"),
            ("[2001:db8::1]:56", "/p2p/filter/addr/[2001:db8::1]:56"),
        ] {
            for (code, expected) in [(0, Ok(())), (7, Err(told.clone()))] {
                answers.send(Ok(code)).unwrap();
                let address = address.parse().unwrap();
                assert_eq!(filter.filter_address(address), expected);
                assert_eq!(asked.recv().unwrap(), path);
            }
        }
        let id = "00112233445566778899aabbccddeeff00112233";
        for (code, expected) in [(0, Ok(())), (7, Err(told))] {
            answers.send(Ok(code)).unwrap();
            let id = id.parse().unwrap();
            assert_eq!(filter.filter_node(id, &info()), expected);
            assert_eq!(asked.recv().unwrap(), format!("/p2p/filter/id/{id}"));
        }
        answers.send(Err(AppFault::failed("out of order"))).unwrap();
        let id = id.parse().unwrap();
        let error = filter.filter_node(id, &info()).unwrap_err();
        assert!(error.contains("out of order"), "{error}");
    }

    #[test]
    fn an_application_that_does_not_answer_is_asked_so_often_at_once_and_no_more() {
        let (filter, asked, answers) = judge();
        let address: SocketAddr = "1.2.3.4:56".parse().unwrap();
        let ask = || {
            let filter = Arc::clone(&filter);
            std::thread::spawn(move || filter.filter_address(address))
        };
        let waiting: Vec<_> = (0..MOST_AT_ONCE).map(|_| ask()).collect();
        // The others of them wait for this one, inside of the filter.
        asked.recv().unwrap();
        while filter.asking.load(Ordering::Relaxed) < MOST_AT_ONCE {
            std::thread::yield_now();
        }
        let refused = filter.filter_address(address).unwrap_err();
        assert!(refused.contains("about others"), "{refused}");
        for _ in &waiting {
            answers.send(Ok(0)).unwrap();
        }
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap(), Ok(()));
        }
        answers.send(Ok(0)).unwrap();
        assert_eq!(filter.filter_address(address), Ok(()));
    }
}
