//! From the server's memory to the client's: frames of the secret connection, and loopback.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use perihelion_blocksync_reactor::wire::block_response;
use perihelion_p2p::frame::{FrameOpener, FrameSealer, SEALED_FRAME};
use zeroize::Zeroizing;

use super::{each_raw, go_on};
use crate::{
    BenchError,
    chain::Chain,
    clock::{self, repeat, used},
};

/// Bytes of one read, as a connection reads them.
const READ: usize = 64 * SEALED_FRAME;
/// Bytes that are sent over loopback in one pass, at least.
const PASS: usize = 16 << 20;

/// What all blocks took.
pub(super) struct Wire {
    pub(super) seal: Duration,
    pub(super) send: Duration,
    pub(super) receive: Duration,
    pub(super) open: Duration,
}

pub(super) fn measure(chain: &Chain, stop: &dyn Fn() -> bool) -> Result<Wire, BenchError> {
    let key = Zeroizing::new([7; 32]);
    let mut sealed = 0;
    let (mut sealer, mut wire) = (FrameSealer::new(&key), Vec::new());
    let seal = repeat(|| {
        sealed = 0;
        let mut total = Duration::ZERO;
        for raw in each_raw(chain) {
            go_on(stop)?;
            // Made before it is counted: the stage of reading has it.
            let answer = block_response(raw, None);
            wire.clear();
            total += used(|| {
                sealer
                    .seal_all(&answer, &mut wire)
                    .map_err(BenchError::chain)
            })?;
            sealed += wire.len();
        }
        Ok(total)
    })?;
    let open = open(chain, stop)?;
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    repeat(|| {
        go_on(stop)?;
        let (send, receive) = loopback().map_err(BenchError::system("loopback"))?;
        sent.push(send);
        received.push(receive);
        Ok(send + receive)
    })?;
    let of_blocks = |mut passes: Vec<Duration>| {
        passes.sort();
        passes[passes.len() / 2].mul_f64(sealed as f64 / PASS as f64)
    };
    Ok(Wire {
        seal,
        open,
        send: of_blocks(sent),
        receive: of_blocks(received),
    })
}

/// Each block's frames opened.
fn open(chain: &Chain, stop: &dyn Fn() -> bool) -> Result<Duration, BenchError> {
    let key = Zeroizing::new([7; 32]);
    let (mut sealer, mut opener) = (FrameSealer::new(&key), FrameOpener::new(&key));
    let mut wire = Vec::new();
    repeat(|| {
        let mut total = Duration::ZERO;
        for raw in each_raw(chain) {
            go_on(stop)?;
            wire.clear();
            let answer = block_response(raw, None);
            sealer
                .seal_all(&answer, &mut wire)
                .map_err(BenchError::chain)?;
            total += used(|| {
                for frame in wire.chunks_exact_mut(SEALED_FRAME) {
                    let frame = frame.try_into().expect("a whole frame");
                    opener.open(frame).map_err(BenchError::chain)?;
                }
                Ok(())
            })?;
        }
        Ok(total)
    })
}

/// Sends a pass over loopback: what sender and receiver used.
fn loopback() -> io::Result<(Duration, Duration)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let mut stream = TcpStream::connect(address)?;
            let begun = clock::thread();
            let data = vec![7; READ];
            let mut left = PASS;
            while left > 0 {
                let part = left.min(data.len());
                stream.write_all(&data[..part])?;
                left -= part;
            }
            io::Result::Ok(clock::thread().saturating_sub(begun))
        });
        let (mut stream, _) = listener.accept()?;
        let begun = clock::thread();
        let mut buffer = vec![0; READ];
        while stream.read(&mut buffer)? > 0 {}
        let receive = clock::thread().saturating_sub(begun);
        let send = sender.join().expect("sending does not panic")?;
        Ok((send, receive))
    })
}
