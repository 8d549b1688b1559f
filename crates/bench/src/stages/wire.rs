//! From the server's memory to the client's: packets, frames of the secret connection, loopback.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use perihelion_blocksync_reactor::wire::{CHANNEL, MAX_MESSAGE_BYTES, Message, block_response};
use perihelion_p2p::{
    ByteBudget, MConnectionConfig, Permit,
    frame::{FrameOpener, FrameSealer, Frames, SEALED_FRAME},
    mconnection::{ChannelConfig, Event, MConnection},
};
use zeroize::Zeroizing;

use super::{each_raw, go_on, median, network::WINDOW};
use crate::{
    BenchError,
    chain::Chain,
    clock::{self, repeat, used},
};

/// Bytes of packets that a connection seals at once where it is not quick, and of messages that it
/// takes up for them.
const WRITE: usize = 64 * 1024;
/// Messages that it takes up at most.
const READY: usize = 64;
/// Bytes of one read, likewise.
const READ: usize = 64 * SEALED_FRAME;
/// Bytes that are sent over loopback in one pass, at least.
const PASS: usize = 16 << 20;

/// What all blocks took.
#[derive(Debug, Default)]
pub(super) struct Wire {
    pub(super) cut: Duration,
    pub(super) seal: Duration,
    pub(super) send: Duration,
    pub(super) receive: Duration,
    pub(super) open: Duration,
    pub(super) assemble: Duration,
}

pub(super) fn measure(chain: &Chain, stop: &dyn Fn() -> bool) -> Result<Wire, BenchError> {
    let (mut pipe, mut passes) = (Pipe::new(), Vec::new());
    repeat(|| {
        let taken = pipe.pass(chain, stop)?;
        let all = taken.cut + taken.seal + taken.open + taken.assemble;
        passes.push(taken);
        Ok(all)
    })?;
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    repeat(|| {
        go_on(stop)?;
        let (send, receive) = loopback().map_err(BenchError::system("loopback"))?;
        sent.push(send);
        received.push(receive);
        Ok(send + receive)
    })?;
    let each = |stage: fn(&Wire) -> Duration| median(passes.iter().map(stage).collect());
    let share = pipe.sealed as f64 / (passes.len() * PASS) as f64;
    Ok(Wire {
        cut: each(|pass| pass.cut),
        seal: each(|pass| pass.seal),
        open: each(|pass| pass.open),
        assemble: each(|pass| pass.assemble),
        send: median(sent).mul_f64(share),
        receive: median(received).mul_f64(share),
    })
}

/// Both ends of a connection, with nothing between them.
struct Pipe {
    server: MConnection,
    sealer: FrameSealer,
    opener: FrameOpener,
    client: MConnection,
    budget: ByteBudget,
    /// Bytes that were sealed.
    sealed: usize,
}

impl Pipe {
    fn new() -> Self {
        let config = MConnectionConfig {
            send_rate: 0,
            recv_rate: 0,
            ..MConnectionConfig::default()
        };
        let channel = ChannelConfig {
            id: CHANNEL,
            priority: 5,
            max_message_bytes: MAX_MESSAGE_BYTES,
            budgeted: true,
        };
        let end = || MConnection::new(config.clone(), &[channel], Instant::now());
        let key = Zeroizing::new([7; 32]);
        Self {
            server: end(),
            sealer: FrameSealer::new(&key),
            opener: FrameOpener::new(&key),
            client: end(),
            budget: ByteBudget::new(WINDOW),
            sealed: 0,
        }
    }

    /// Takes all blocks through it.
    fn pass(&mut self, chain: &Chain, stop: &dyn Fn() -> bool) -> Result<Wire, BenchError> {
        let mut taken = Wire::default();
        let mut blocks = each_raw(chain).peekable();
        let mut arrivals = each_raw(chain);
        let (mut frames, mut sealed, mut opened) = (Frames::default(), Vec::new(), Vec::new());
        let mut arrived = Vec::new();
        let mut permits = Vec::new();
        while blocks.peek().is_some() {
            go_on(stop)?;
            // Made before it is counted: the stage of reading has it.
            let answers = next_answers(&mut blocks);
            taken.cut += used(|| self.take_up(answers))?;
            loop {
                taken.cut += used(|| {
                    frames.clear();
                    self.server
                        .poll_transmit(Instant::now(), &mut frames, WRITE);
                    Ok(())
                })?;
                if frames.is_empty() {
                    break;
                }
                taken.seal += used(|| {
                    let sealing = self.sealer.seal_frames(&mut frames);
                    sealing.map_err(BenchError::chain)
                })?;
                self.sealed += frames.sealed().len();
                // The kernel's copying is counted with the network.
                sealed.extend_from_slice(frames.sealed());
                taken.open += used(|| {
                    let opening = self.opener.open_all(&mut sealed, &mut opened);
                    opening.map_err(BenchError::chain)
                })?;
                taken.assemble += used(|| self.assemble(&mut opened, &mut permits, &mut arrived))?;
                sealed.clear();
                for message in arrived.drain(..) {
                    same_block(&message, arrivals.next())?;
                }
            }
        }
        match arrivals.next() {
            None => Ok(taken),
            Some(_) => Err(BenchError::chain("a block got lost in packets")),
        }
    }

    fn take_up(&mut self, answers: Vec<Bytes>) -> Result<(), BenchError> {
        for answer in answers {
            let sent = self.server.handle_send(CHANNEL, answer);
            sent.map_err(|_| BenchError::chain("there is no room to send"))?;
        }
        Ok(())
    }

    /// Takes packets in, as far as they are whole, and appends what has arrived.
    fn assemble(
        &mut self,
        opened: &mut Vec<u8>,
        permits: &mut Vec<Permit>,
        arrived: &mut Vec<Message>,
    ) -> Result<(), BenchError> {
        let (now, mut taken) = (Instant::now(), 0);
        loop {
            let next = self.client.handle_bytes(now, &opened[taken..]);
            let (length, event) = next.map_err(BenchError::chain)?;
            taken += length;
            match event {
                None => break,
                Some(Event::NeedsRoom { bytes, .. }) => {
                    let permit = self.budget.try_acquire(bytes);
                    permits.push(permit.ok_or_else(|| BenchError::chain("no room"))?);
                    self.client.handle_room(now);
                }
                Some(Event::Message { bytes, .. }) => {
                    permits.clear();
                    arrived.push(Message::decode(&bytes).map_err(BenchError::chain)?);
                }
            }
        }
        opened.drain(..taken);
        Ok(())
    }
}

/// As many answers as a connection takes up at once.
fn next_answers<'a>(blocks: &mut impl Iterator<Item = &'a Bytes>) -> Vec<Bytes> {
    let (mut answers, mut bytes) = (Vec::new(), 0);
    while bytes < WRITE
        && answers.len() < READY
        && let Some(raw) = blocks.next()
    {
        let answer = block_response(raw, None);
        bytes += answer.len();
        answers.push(answer);
    }
    answers
}

fn same_block(message: &Message, sent: Option<&Bytes>) -> Result<(), BenchError> {
    match message {
        Message::BlockResponse(block) if Some(&block.block) == sent => Ok(()),
        _ => Err(BenchError::chain("a block was changed in packets")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    fn chain(folder: &std::path::Path) -> Chain {
        let shape = Shape {
            name: "test".to_owned(),
            validators: 1_000,
            txs: 3,
            tx_bytes: 800_000,
        };
        Chain::make(&shape, folder, &|| false).unwrap()
    }

    #[test]
    fn blocks_of_several_steps_of_room_come_out_as_they_went_in_pass_after_pass() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, mut pipe) = (chain(folder.path()), Pipe::new());
        for pass in 1..3 {
            pipe.pass(&chain, &|| false).unwrap();
            assert!(pipe.sealed > pass * chain.bytes());
        }
        let stopped = pipe.pass(&chain, &|| true);
        assert!(matches!(stopped, Err(BenchError::Stopped)));
    }

    #[test]
    fn answers_are_taken_up_by_bytes_and_by_number() {
        let (small, large) = (Bytes::from(vec![7; 100]), Bytes::from(vec![7; 40_000]));
        let count = |block: &Bytes| next_answers(&mut [block; 200].into_iter()).len();
        assert_eq!((count(&small), count(&large)), (64, 2));
    }

    #[test]
    fn another_block_is_told_apart() {
        let answer = block_response(b"block", None);
        let message = Message::decode(&answer).unwrap();
        assert!(same_block(&message, Some(&Bytes::from_static(b"block"))).is_ok());
        assert!(same_block(&message, Some(&Bytes::from_static(b"other"))).is_err());
        assert!(same_block(&message, None).is_err());
    }
}
