//! A load of transactions, through the RPC of nodes of either kind.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// Pause after a transaction that was not taken. Shorter, and asking again and again costs the node
/// more than what it does; longer, and a mempool with room again waits for transactions.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);
/// Pause before a node that is not there is tried again.
const GONE_PAUSE: Duration = Duration::from_millis(100);
/// How long an answer may take. A node that has not answered by then hangs, or was stopped.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A sender that is later than this does not make up for what it missed.
const MOST_LATE: Duration = Duration::from_secs(1);
/// Headers of an answer, in bytes, at most.
const MAX_HEAD_BYTES: u64 = 16 << 10;
/// The body of an answer, in bytes, at most.
const MAX_BODY_BYTES: usize = 1 << 20;

/// What is sent, and to whom.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// The nodes' RPC addresses.
    pub targets: Vec<SocketAddr>,
    /// Connections to each, on each of which one transaction at a time is checked
    /// (`broadcast_tx_sync`).
    pub connections: usize,
    /// Bytes of a transaction, at least [`MIN_TX_BYTES`].
    pub tx_bytes: usize,
    /// Transactions a second, over all connections; as many as are taken when `None`.
    pub per_second: Option<f64>,
}

/// Room for a key that no other transaction has.
pub const MIN_TX_BYTES: usize = 40;

/// How many transactions were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadCounts {
    /// Taken into the mempool.
    pub taken: u64,
    /// Not taken, such as by a full mempool.
    pub refused: u64,
    /// Not answered.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    taken: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// A load that goes on until it is stopped or dropped.
#[derive(Debug)]
pub struct Load {
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins to send.
    #[must_use]
    pub fn start(plan: &LoadPlan) -> Self {
        let counters = Arc::new(Counters::default());
        let stop = Arc::new(AtomicBool::new(false));
        let all = plan.targets.len() * plan.connections;
        let interval = plan
            .per_second
            .map(|rate| Duration::from_secs_f64(all as f64 / rate));
        // Transactions of an earlier load on the same chain had others.
        let run: u64 = rand::random();
        let senders = (0..all).map(|number| {
            let mut sender = Sender {
                target: plan.targets[number % plan.targets.len()],
                connection: None,
                prefix: format!("{run:016x}-{number}"),
                tx_bytes: plan.tx_bytes.max(MIN_TX_BYTES),
                sent: 0,
            };
            let (counters, stop) = (Arc::clone(&counters), Arc::clone(&stop));
            // Spread over the interval, so that they do not all send at once.
            let start = Instant::now()
                + interval
                    .unwrap_or_default()
                    .mul_f64(number as f64 / all as f64);
            thread::spawn(move || sender.run(start, interval, &counters, &stop))
        });
        Self {
            threads: senders.collect(),
            counters,
            stop,
        }
    }

    /// What was sent so far.
    #[must_use]
    pub fn counts(&self) -> LoadCounts {
        LoadCounts {
            taken: self.counters.taken.load(Ordering::Relaxed),
            refused: self.counters.refused.load(Ordering::Relaxed),
            failed: self.counters.failed.load(Ordering::Relaxed),
        }
    }

    /// Sends no more, and tells what was sent.
    #[must_use]
    pub fn stop(mut self) -> LoadCounts {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A sender that panicked has sent what was counted.
            drop(thread.join());
        }
        self.counts()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One connection.
struct Sender {
    target: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
    prefix: String,
    tx_bytes: usize,
    sent: u64,
}

impl Sender {
    fn run(
        &mut self,
        mut next: Instant,
        interval: Option<Duration>,
        counters: &Counters,
        stop: &AtomicBool,
    ) {
        while !stop.load(Ordering::Relaxed) {
            if let Some(interval) = interval {
                let now = Instant::now();
                if now > next + MOST_LATE {
                    next = now;
                }
                thread::sleep(next.saturating_duration_since(now));
                next += interval;
            }
            match self.send() {
                Ok(true) => drop(counters.taken.fetch_add(1, Ordering::Relaxed)),
                Ok(false) => {
                    counters.refused.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(REFUSED_PAUSE);
                }
                Err(_) => {
                    self.connection = None;
                    counters.failed.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(GONE_PAUSE);
                }
            }
        }
    }

    /// Sends one transaction; whether it was taken.
    fn send(&mut self) -> io::Result<bool> {
        let tx = transaction(&self.prefix, self.sent, self.tx_bytes);
        self.sent += 1;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(self.target)?),
        };
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"broadcast_tx_sync","params":{{"tx":"{}"}}}}"#,
            BASE64_STANDARD.encode(tx)
        );
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.target,
            body.len()
        );
        connection.get_mut().write_all(request.as_bytes())?;
        let answer = read_answer(connection)?;
        let is_taken = br#""code":0"#;
        Ok(answer
            .windows(is_taken.len())
            .any(|window| window == is_taken))
    }
}

fn connect(target: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// `KEY=VALUE` of so many bytes.
fn transaction(prefix: &str, number: u64, bytes: usize) -> Vec<u8> {
    let mut tx = format!("{prefix}-{number:x}=").into_bytes();
    tx.resize(bytes.max(tx.len() + 1), b'v');
    tx
}

/// The body of an answer on a connection that is kept.
fn read_answer(connection: &mut impl io::BufRead) -> io::Result<Vec<u8>> {
    let mut head = connection.take(MAX_HEAD_BYTES);
    let mut length = None;
    loop {
        let mut line = String::new();
        head.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    let length: usize = length
        .filter(|length| *length <= MAX_BODY_BYTES)
        .ok_or(io::ErrorKind::InvalidData)?;
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_differ_and_have_their_size() {
        let one = transaction("aa-1", 15, 250);
        assert_eq!(one.len(), 250);
        assert!(one.starts_with(b"aa-1-f=v"));
        assert_ne!(one, transaction("aa-1", 16, 250));
        // There is always a value.
        assert_eq!(transaction("aa", 1, 0), b"aa-1=v");
    }

    #[test]
    fn answers_follow_each_other_on_one_connection() {
        let mut answers = &b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nA: b\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nd"[..];
        assert_eq!(read_answer(&mut answers).unwrap(), b"abc");
        assert_eq!(read_answer(&mut answers).unwrap(), b"d");
        assert!(read_answer(&mut answers).is_err());
    }

    #[test]
    fn answers_of_unknown_or_great_length_are_refused() {
        for head in ["A: b", "Content-Length: 9999999", "Content-Length: x"] {
            let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nabc");
            assert!(read_answer(&mut answer.as_bytes()).is_err(), "{head}");
        }
    }
}
