//! The stages of one block's way, each by itself, over blocks of the chain `c` (175 validators,
//! 160 transactions, 59 KB).
#![allow(missing_docs, reason = "the macros of criterion make functions")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use perihelion_abci::{AppConnections, KvStore, KvStoreOptions};
use perihelion_blocksync_reactor::wire;
use perihelion_certify::{
    Anchor, CertifiedBlock, Run, RunVerdict, certify_every, certify_run, verify_commit_light,
};
use perihelion_p2p::{
    ByteBudget, MConnectionConfig, Permit,
    frame::{FrameOpener, FrameSealer, Frames, SEALED_FRAME},
    mconnection::{ChannelConfig, Event, MConnection},
};
use perihelion_proto::tendermint::{state as pb, types as pb_types};
use perihelion_state::{Executor, ExecutorConfig};
use perihelion_store::{BlockSave, IndexKind, Store, StoreOptions, Sync};
use perihelion_testkit::{
    chain,
    home::{ChainShape, make_genesis, make_home},
};
use perihelion_types::{
    Block, BlockId, FetchedBlock, Genesis, Hash, Height, State, ValidatorSet, part_set,
};
use prost::Message as _;

/// Blocks of the chain; a run has all but the last.
const BLOCKS: u64 = 33;
/// Blocks whose commits are verified in one batch.
const BATCH: usize = 16;
/// Bytes of packets that a connection seals at once, and sealed bytes that it reads at once.
const WRITE: usize = 64 * 1024;
const READ: usize = 64 * SEALED_FRAME;

/// A chain as it comes from a peer, and what our own state knows.
struct Input {
    shape: ChainShape,
    genesis: Genesis,
    set: Arc<ValidatorSet>,
    blocks: Vec<Arc<FetchedBlock>>,
    state: State,
}

impl Input {
    fn make() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let shape = ChainShape {
            blocks: BLOCKS,
            ..ChainShape::preset("c").expect("a preset")
        };
        let made = make_home(&folder.path().join("home"), &shape).expect("a chain");
        let data = made.home.join("data");
        let store = Store::open(&data, &StoreOptions::default()).expect("the chain's store");
        let blocks = (1..=made.height.get()).map(|height| {
            let raw = store.load_block_bytes(Height::new(height));
            let raw = raw.expect("the store reads").expect("the block is there");
            Arc::new(FetchedBlock::decode(raw, None).expect("a block"))
        });
        let genesis = make_genesis(&shape);
        Self {
            blocks: blocks.collect(),
            set: Arc::new(genesis.validator_set().expect("a set")),
            state: store
                .load_state()
                .expect("the store reads")
                .expect("a state"),
            genesis,
            shape,
        }
    }

    /// The last block, and its bytes.
    fn sample(&self) -> (&FetchedBlock, Bytes) {
        let block = self.blocks.last().expect("there are blocks");
        (block, block.raw().clone())
    }

    fn run(&self) -> Run {
        self.run_of(self.blocks.len() - 1)
    }

    /// The first blocks, and the one above them.
    fn run_of(&self, length: usize) -> Run {
        let blocks = self.blocks.get(..=length);
        let (closing, blocks) = blocks.and_then(<[_]>::split_last).expect("enough blocks");
        Run {
            chain_id: self.shape.chain_id.as_str().into(),
            anchor: Anchor {
                height: Height::new(1),
                set: Arc::clone(&self.set),
                next: None,
                confirmed: true,
            },
            previous: BlockId::NIL,
            blocks: blocks.to_vec(),
            closing: Arc::clone(closing),
        }
    }

    /// All blocks but the last, each with its commit.
    fn certified(&self) -> Vec<CertifiedBlock> {
        let certify = |pair: &[Arc<FetchedBlock>]| {
            let commit = pair[1].block().last_commit.clone().expect("a last commit");
            let block = Arc::clone(&pair[0]);
            CertifiedBlock::decided(block, commit, &self.set, &self.shape.chain_id)
                .expect("the commit holds")
        };
        self.blocks.windows(2).map(certify).collect()
    }
}

fn pure(criterion: &mut Criterion, input: &Input) {
    let (block, raw) = input.sample();
    let mut group = criterion.benchmark_group("block");
    group.throughput(Throughput::Bytes(raw.len() as u64));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| Block::decode(black_box(raw.clone())));
    });
    group.bench_function("decode_and_hash", |bencher| {
        bencher.iter(|| FetchedBlock::decode(black_box(raw.clone()), None));
    });
    group.bench_function("hash_header", |bencher| {
        bencher.iter(|| black_box(block.block()).header.hash());
    });
    group.bench_function("hash_data", |bencher| {
        bencher.iter(|| black_box(block.block()).data.hash());
    });
    group.bench_function("hash_part_set", |bencher| {
        bencher.iter(|| part_set::header_of(black_box(&raw)));
    });
    group.bench_function("serve_prefix", |bencher| {
        bencher.iter(|| wire::block_response(black_box(&raw), None));
    });
    group.finish();

    criterion.bench_function("link_33", |bencher| {
        let linked =
            |pair: &[Arc<FetchedBlock>]| pair[1].block().header.last_block_id == pair[0].block_id();
        bencher.iter(|| black_box(&input.blocks).windows(2).all(linked));
    });
    criterion.bench_function("encode_state", |bencher| {
        bencher.iter(|| pb::State::from(black_box(&input.state)).encode_to_vec());
    });
    criterion.bench_function("encode_set", |bencher| {
        bencher.iter(|| pb_types::ValidatorSet::from(black_box(&*input.set)).encode_to_vec());
    });
}

/// As many blocks as are hashed side by side, to be compared with `block/hash_part_set`.
fn part_sets(criterion: &mut Criterion, input: &Input) {
    let blocks = input.blocks.iter().rev().take(16);
    let blocks: Vec<&[u8]> = blocks.map(|block| &block.raw()[..]).collect();
    let bytes: usize = blocks.iter().map(|block| block.len()).sum();
    let mut group = criterion.benchmark_group("block");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("part_sets_of_16", |bencher| {
        bencher.iter(|| part_set::headers_of(black_box(&blocks)));
    });
    group.finish();
}

fn certify(criterion: &mut Criterion, input: &Input) {
    let mut group = criterion.benchmark_group("certify");
    group.sample_size(10);
    let run = input.run();
    group.bench_function("run_of_32", |bencher| {
        bencher.iter(|| certify_run(black_box(&run)));
    });
    let (block, _) = input.sample();
    let below = &input.blocks[input.blocks.len() - 2];
    let commit = block.block().last_commit.as_ref().expect("a last commit");
    group.bench_function("commit_light", |bencher| {
        bencher.iter(|| {
            let chain_id = &input.shape.chain_id;
            verify_commit_light(
                chain_id,
                &input.set,
                below.block_id(),
                below.height(),
                commit,
            )
        });
    });
    let run = input.run_of(BATCH);
    let known = |hash: Hash| (input.set.hash() == hash).then(|| Arc::clone(&input.set));
    group.bench_function("every_16", |bencher| {
        bencher.iter(|| {
            let (verdict, _) = certify_every(black_box(&run), &known);
            let RunVerdict::Certified { blocks, .. } = &verdict else {
                panic!("{verdict:?}");
            };
            assert!(blocks.len() == BATCH && blocks.iter().all(CertifiedBlock::commit_verified));
            verdict
        });
    });
    let (chain, unverified) = extended_blocks();
    group.bench_function("extended_16", |bencher| {
        let verify = |mut blocks: Vec<CertifiedBlock>| {
            let set = chain.set(1);
            let mut checks: Vec<_> = blocks.iter_mut().map(|block| (block, &*set)).collect();
            let chain_id = &chain.shape().chain_id;
            let results = CertifiedBlock::verify_extended_commits(chain_id, &mut checks);
            assert!(results.iter().all(Result::is_ok), "{results:?}");
            blocks
        };
        bencher.iter_batched(|| unverified.clone(), verify, BatchSize::SmallInput);
    });
    group.finish();
}

/// Final blocks of a chain with vote extensions of 100 validators, their extended commits yet to be
/// verified.
fn extended_blocks() -> (chain::Chain, Vec<CertifiedBlock>) {
    let shape = chain::Shape {
        extensions_from: Some(1),
        ..chain::Shape::simple(100)
    };
    let chain = chain::Chain::new(shape, BATCH);
    let certify = |height: i64| {
        let block = chain.block(height).expect("the chain is so long");
        let extended = block.extended_commit().expect("extensions are enabled");
        let (block, commit) = (Arc::clone(block), extended.to_commit());
        CertifiedBlock::decided(block, commit, &chain.set(1), &chain.shape().chain_id)
            .expect("the commit holds")
    };
    let blocks = (1..).take(BATCH).map(certify).collect();
    (chain, blocks)
}

/// A store in a folder that lives as long.
fn empty_store() -> (tempfile::TempDir, Arc<Store>) {
    store_with(IndexKind::Null)
}

fn store_with(index: IndexKind) -> (tempfile::TempDir, Arc<Store>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = StoreOptions {
        index,
        ..StoreOptions::default()
    };
    let store = Store::open(folder.path(), &options).expect("a store");
    (folder, Arc::new(store))
}

/// An executor of the chain's application over a store.
fn executor(input: &Input, store: Arc<Store>) -> Executor {
    let app = KvStore::in_memory(KvStoreOptions::default());
    let app = AppConnections::in_process(Arc::new(app));
    let config = ExecutorConfig::default();
    Executor::start(store, &input.genesis, app.consensus, &app.query, config).expect("an executor")
}

fn disk(criterion: &mut Criterion, input: &Input) {
    let mut group = criterion.benchmark_group("disk");
    group.sample_size(10);
    let certified = input.certified();
    group.bench_function("apply_32", |bencher| {
        let start = || {
            let (folder, store) = empty_store();
            let mut executor = executor(input, store);
            // As a sync does.
            executor.begin_catch_up();
            (folder, executor)
        };
        let apply = |(folder, mut executor): (tempfile::TempDir, Executor)| {
            for block in &certified {
                executor.apply(block).expect("the block follows");
            }
            (folder, executor)
        };
        bencher.iter_batched(start, apply, BatchSize::PerIteration);
    });
    group.bench_function("apply_and_sync_32", |bencher| {
        let start = || {
            let (folder, store) = empty_store();
            (folder, executor(input, store))
        };
        let apply = |(folder, mut executor): (tempfile::TempDir, Executor)| {
            for block in &certified {
                executor.apply(block).expect("the block follows");
            }
            executor.flush().expect("the store syncs");
            (folder, executor)
        };
        bencher.iter_batched(start, apply, BatchSize::PerIteration);
    });
    group.bench_function("store_32", |bencher| {
        let save = |(folder, store): (tempfile::TempDir, Arc<Store>)| {
            for block in &certified {
                let save = BlockSave {
                    block: block.fetched(),
                    commit: block.commit().map(Into::into),
                    extended_commit: None,
                    results: Some(&[]),
                };
                store.save_block(&save, Sync::No).expect("the store writes");
            }
            store.sync().expect("the store syncs");
            (folder, store)
        };
        bencher.iter_batched(empty_store, save, BatchSize::PerIteration);
    });
    group.bench_function("index_32", |bencher| {
        let applied = || {
            let (folder, store) = store_with(IndexKind::Kv);
            let mut executor = executor(input, Arc::clone(&store));
            for block in &certified {
                executor.apply(block).expect("the block follows");
            }
            (folder, store)
        };
        let index = |(folder, store): (tempfile::TempDir, Arc<Store>)| {
            store.index_pending().expect("the store indexes");
            (folder, store)
        };
        bencher.iter_batched(applied, index, BatchSize::PerIteration);
    });
    let (_folder, store) = empty_store();
    let mut executor = executor(input, Arc::clone(&store));
    for block in &certified {
        executor.apply(block).expect("the block follows");
    }
    store.flush().expect("the store flushes");
    group.bench_function("serve_32", |bencher| {
        bencher.iter(|| {
            for block in &certified {
                let raw = store.load_block_bytes(block.height());
                let raw = raw.expect("the store reads").expect("the block is there");
                black_box(wire::block_response(&raw, None));
            }
        });
    });
    group.finish();
}

fn aead(criterion: &mut Criterion, input: &Input) {
    let (_, raw) = input.sample();
    let key = zeroize::Zeroizing::new([7; 32]);
    let mut group = criterion.benchmark_group("aead");
    group.throughput(Throughput::Bytes(raw.len() as u64));
    let seal = |sealer: &mut FrameSealer, frames: &mut Frames| {
        frames.clear();
        frames.put(black_box(&raw));
        sealer.seal_frames(frames).expect("nonces are left");
    };
    group.bench_function("seal", |bencher| {
        let (mut sealer, mut frames) = (FrameSealer::new(&key), Frames::default());
        bencher.iter(|| seal(&mut sealer, &mut frames));
    });
    group.bench_function("seal_and_open", |bencher| {
        let (mut sealer, mut frames) = (FrameSealer::new(&key), Frames::default());
        let mut opener = FrameOpener::new(&key);
        let (mut wire, mut opened) = (Vec::new(), Vec::new());
        bencher.iter(|| {
            seal(&mut sealer, &mut frames);
            wire.clear();
            wire.extend_from_slice(frames.sealed());
            opened.clear();
            let opening = opener.open_all(&mut wire, &mut opened);
            opening.expect("the frames are ours");
        });
    });
    group.finish();
}

/// One end of a connection with the channel of blocksync, without a socket.
struct End {
    core: MConnection,
    sealer: FrameSealer,
    opener: FrameOpener,
    budget: ByteBudget,
    /// The room of the message that is arriving.
    room: Option<Permit>,
    /// Packets to be sealed, and those that were opened.
    frames: Frames,
    opened: Vec<u8>,
}

impl End {
    fn new() -> Self {
        let config = MConnectionConfig {
            send_rate: 0,
            recv_rate: 0,
            ..MConnectionConfig::default()
        };
        let channel = ChannelConfig {
            id: wire::CHANNEL,
            priority: 5,
            max_message_bytes: wire::MAX_MESSAGE_BYTES,
            budgeted: true,
        };
        let key = zeroize::Zeroizing::new([7; 32]);
        Self {
            core: MConnection::new(config, &[channel], Instant::now()),
            sealer: FrameSealer::new(&key),
            opener: FrameOpener::new(&key),
            budget: ByteBudget::new(64 << 20),
            room: None,
            frames: Frames::default(),
            opened: Vec::new(),
        }
    }

    /// Cuts a message into packets, which stand in frames; each batch of them goes to `batch`.
    fn cut(&mut self, message: &Bytes, mut batch: impl FnMut(&mut FrameSealer, &mut Frames)) {
        let sent = self.core.handle_send(wire::CHANNEL, message.clone());
        sent.expect("the channel has room");
        let now = Instant::now();
        while self.core.poll_transmit(now, &mut self.frames, WRITE) {
            batch(&mut self.sealer, &mut self.frames);
            self.frames.clear();
        }
    }

    /// The packets of a message.
    fn packets_of(&mut self, message: &Bytes) -> Vec<u8> {
        let sent = self.core.handle_send(wire::CHANNEL, message.clone());
        sent.expect("the channel has room");
        let (now, mut packets) = (Instant::now(), Vec::new());
        while self.core.poll_transmit(now, &mut packets, usize::MAX) {}
        packets
    }

    /// Appends the sealed frames of a message.
    fn send(&mut self, message: &Bytes, sealed: &mut Vec<u8>) {
        self.cut(message, |sealer, frames| {
            sealer.seal_frames(frames).expect("nonces are left");
            // As the kernel does.
            sealed.extend_from_slice(frames.sealed());
        });
    }

    /// The block whose frames come in.
    fn receive(&mut self, sealed: &mut [u8]) -> wire::EncodedBlock {
        let mut opened = std::mem::take(&mut self.opened);
        let mut block = None;
        for read in sealed.chunks_mut(READ) {
            let opening = self.opener.open_all(read, &mut opened);
            opening.expect("the frames are ours");
            let (taken, arrived) = self.assemble(&opened);
            opened.drain(..taken);
            block = block.or(arrived);
        }
        self.opened = opened;
        block.expect("all of the block came")
    }

    /// Puts a block together out of packets, as far as they go; and how many bytes of them it took.
    fn assemble(&mut self, packets: &[u8]) -> (usize, Option<wire::EncodedBlock>) {
        let (now, mut taken) = (Instant::now(), 0);
        loop {
            let next = self.core.handle_bytes(now, &packets[taken..]);
            let (length, event) = next.expect("the packets are ours");
            taken += length;
            match event {
                None => return (taken, None),
                Some(Event::NeedsRoom { bytes, .. }) => {
                    self.room = self.budget.try_acquire(bytes);
                    self.core.handle_room(now);
                }
                Some(Event::Message { bytes, .. }) => {
                    self.room = None;
                    match wire::Message::decode(&bytes) {
                        Ok(wire::Message::BlockResponse(block)) => return (taken, Some(block)),
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
    }
}

fn connection(criterion: &mut Criterion, input: &Input) {
    let (_, raw) = input.sample();
    let response = wire::block_response(&raw, None);
    let mut group = criterion.benchmark_group("p2p");
    group.throughput(Throughput::Bytes(response.len() as u64));
    let mut server = End::new();
    group.bench_function("cut", |bencher| {
        bencher.iter(|| server.cut(black_box(&response), |_, frames| _ = black_box(frames)));
    });
    group.bench_function("cut_and_seal", |bencher| {
        let mut sealed = Vec::new();
        bencher.iter(|| {
            sealed.clear();
            server.send(black_box(&response), &mut sealed);
        });
    });
    let (packets, mut client) = (server.packets_of(&response), End::new());
    group.bench_function("assemble", |bencher| {
        bencher.iter(|| {
            let (taken, block) = client.assemble(black_box(&packets));
            assert_eq!(taken, packets.len());
            block.expect("all of the block came")
        });
    });
    let (mut server, mut client) = (End::new(), End::new());
    group.bench_function("open_and_assemble", |bencher| {
        let send = || {
            let mut sealed = Vec::new();
            server.send(&response, &mut sealed);
            sealed
        };
        let receive = |mut sealed: Vec<u8>| (client.receive(&mut sealed), sealed);
        bencher.iter_batched(send, receive, BatchSize::SmallInput);
    });
    group.finish();
}

fn stages(criterion: &mut Criterion) {
    let input = Input::make();
    pure(criterion, &input);
    part_sets(criterion, &input);
    certify(criterion, &input);
    disk(criterion, &input);
    aead(criterion, &input);
    connection(criterion, &input);
}

criterion_group!(
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = stages
);
criterion_main!(benches);
