//! Asks the application who may be a peer (`filter_peers`), by the queries that CometBFT asks:
//! `/p2p/filter/addr/IP:PORT` before a handshake and `/p2p/filter/id/ID` behind it. Code 0 lets the
//! peer in.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use perihelion_abci::{QueryConnection, types::RequestQuery};
use perihelion_p2p::{NodeId, NodeInfo, PeerFilter, Remote};

/// Questions under way at once about peers that this node dials, and about those that come. Each holds a
/// thread, and an application may take as long as it likes: without a bound, whoever dials again and
/// again would take all threads. Those whom this node dials have places of their own, which no stranger
/// can take.
const DIALLED: usize = 8;
const INBOUND: usize = 24;
/// Of the latter those about one site: a public IPv4 address, or a /64. Fewer, and of honest nodes behind
/// one address some are refused whenever they come together; more, and a few addresses take all places.
/// Private addresses are no sites: behind a proxy everybody comes from one.
const OF_ONE_SITE: usize = 4;
/// Characters of the application's reason that are told.
const MOST_TOLD: usize = 200;

/// The application as the judge of peers.
pub(super) struct AppFilter {
    query: QueryConnection,
    places: Places,
}

/// Questions under way.
#[derive(Default)]
struct Places(Mutex<Taken>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Taken {
    dialled: usize,
    inbound: usize,
    /// Of those by site, where there is one; only sites with any.
    sites: HashMap<IpAddr, usize>,
}

/// The place of a question, given back when it is dropped.
struct Place<'a> {
    places: &'a Places,
    remote: Remote,
}

impl Places {
    /// A place for a question about somebody, if there is one.
    fn enter(&self, remote: Remote) -> Option<Place<'_>> {
        let mut taken = self.taken();
        if remote.outbound {
            if taken.dialled >= DIALLED {
                return None;
            }
            taken.dialled += 1;
        } else {
            if taken.inbound >= INBOUND {
                return None;
            }
            if let Some(site) = remote.site() {
                let own = taken.sites.get(&site).copied().unwrap_or(0);
                if own >= OF_ONE_SITE {
                    return None;
                }
                taken.sites.insert(site, own + 1);
            }
            taken.inbound += 1;
        }
        Some(Place {
            places: self,
            remote,
        })
    }

    /// Never left half changed.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if self.remote.outbound {
            taken.dialled -= 1;
            return;
        }
        taken.inbound -= 1;
        if let Some(site) = self.remote.site()
            && let Some(own) = taken.sites.get_mut(&site)
        {
            *own -= 1;
            if *own == 0 {
                taken.sites.remove(&site);
            }
        }
    }
}

impl AppFilter {
    /// Asks over this connection.
    pub(super) fn new(query: QueryConnection) -> Self {
        Self {
            query,
            places: Places::default(),
        }
    }

    fn ask(&self, remote: Remote, path: String) -> Result<(), String> {
        match self.places.enter(remote) {
            Some(_place) => self.query(path),
            None => Err("the application does not answer questions about others".to_owned()),
        }
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
    fn filter_address(&self, remote: Remote) -> Result<(), String> {
        self.ask(remote, format!("/p2p/filter/addr/{}", remote.address))
    }

    fn filter_node(&self, remote: Remote, id: NodeId, _: &NodeInfo) -> Result<(), String> {
        self.ask(remote, format!("/p2p/filter/id/{id}"))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::{
            Arc,
            mpsc::{Receiver, Sender, channel},
        },
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

    fn remote(address: &str, outbound: bool) -> Remote {
        let address: SocketAddr = address.parse().unwrap();
        Remote { address, outbound }
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
                let answer = filter.filter_address(remote(address, false));
                assert_eq!(answer, expected);
                assert_eq!(asked.recv().unwrap(), path);
            }
        }
        let id = "00112233445566778899aabbccddeeff00112233";
        let dialled = remote("1.2.3.4:56", true);
        for (code, expected) in [(0, Ok(())), (7, Err(told))] {
            answers.send(Ok(code)).unwrap();
            let id = id.parse().unwrap();
            assert_eq!(filter.filter_node(dialled, id, &info()), expected);
            assert_eq!(asked.recv().unwrap(), format!("/p2p/filter/id/{id}"));
        }
        answers.send(Err(AppFault::failed("out of order"))).unwrap();
        let id = id.parse().unwrap();
        let error = filter.filter_node(dialled, id, &info()).unwrap_err();
        assert!(error.contains("out of order"), "{error}");
    }

    #[test]
    fn who_is_dialled_and_each_site_have_places_of_their_own() {
        let places = Places::default();
        let mut inbound = Vec::new();
        let mut enter = |address: &str| {
            let place = places.enter(remote(address, false));
            let is_let_in = place.is_some();
            inbound.extend(place);
            is_let_in
        };
        // One that asks again and again.
        for port in 1..=4 {
            assert!(enter(&format!("203.0.113.1:{port}")));
            assert!(enter(&format!("[2001:db8::{port}]:1")));
        }
        assert!(!enter("203.0.113.1:5") && !enter("[2001:db8::5]:1"));
        for host in 2..18 {
            assert!(enter(&format!("203.0.113.{host}:1")));
        }
        assert!(!enter("203.0.113.18:1"), "all are taken");
        let dialled: Vec<_> = (0..DIALLED)
            .map(|_| places.enter(remote("203.0.113.1:1", true)))
            .collect();
        assert!(dialled.iter().all(Option::is_some));
        assert!(places.enter(remote("203.0.113.99:1", true)).is_none());
        drop((inbound, dialled));
        assert_eq!(*places.taken(), Taken::default());
    }

    /// A proxy, or the network of a container.
    #[test]
    fn who_comes_from_a_private_address_may_be_anybody() {
        for address in ["10.0.0.7:1", "127.0.0.1:1", "[fd00::7]:1"] {
            let places = Places::default();
            let enter = || places.enter(remote(address, false));
            let inbound: Vec<_> = (0..INBOUND).map(|_| enter()).collect();
            assert!(inbound.iter().all(Option::is_some), "{address}");
            assert!(enter().is_none(), "all are taken");
            drop(inbound);
            assert_eq!(*places.taken(), Taken::default());
        }
    }

    #[test]
    fn a_question_that_panics_gives_its_place_back() {
        let places = Places::default();
        std::thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _place = places.enter(remote("1.2.3.4:56", false));
                panic!("the application");
            });
            assert!(panics.join().is_err());
        });
        assert_eq!(*places.taken(), Taken::default());
    }

    #[test]
    fn an_application_that_does_not_answer_is_asked_so_often_at_once_and_no_more() {
        let (filter, asked, answers) = judge();
        let strange = remote("1.2.3.4:56", false);
        let ask = || {
            let filter = Arc::clone(&filter);
            std::thread::spawn(move || filter.filter_address(strange))
        };
        let waiting: Vec<_> = (0..OF_ONE_SITE).map(|_| ask()).collect();
        // The others of them wait for this one, inside of the filter.
        asked.recv().unwrap();
        while filter.places.taken().inbound != OF_ONE_SITE {
            std::thread::yield_now();
        }
        let refused = filter.filter_address(strange).unwrap_err();
        assert!(refused.contains("about others"), "{refused}");
        for _ in &waiting {
            answers.send(Ok(0)).unwrap();
        }
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap(), Ok(()));
        }
        answers.send(Ok(0)).unwrap();
        assert_eq!(filter.filter_address(strange), Ok(()));
    }
}
