//! A sync over a long and lossy way, against plain connections over the same.
//!
//! The way lies in a network namespace of its own, which a copy of this program is started in: a
//! device whose packets come back to this machine 50 ms later, but for one in a hundred, with their
//! two addresses exchanged. So who connects to 10.9.0.2 and up reaches what listens at 10.9.0.1, and
//! sees it as the other; no checksum changes.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use perihelion_testkit::{
    home::{CopyData, copy_home},
    measure::Contender,
    process::Launch,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::{
    INDEX, Options,
    bench::Bench,
    chains,
    goals::Figure,
    measure::{self, Feed, Settings, Subject},
};

/// Servers, and plain connections.
const PEERS: u8 = 10;
/// One way; there and back is twice as long.
const DELAY: Duration = Duration::from_millis(50);
/// The share of packets that are lost, each way.
const LOSS: f64 = 0.01;
/// How connections find their speed: losses slow them down. Those who take none for congestion (bbr)
/// would be limited by this machine's cores, which both ends share.
const CONGESTION: &str = "cubic";
/// Packets on their way at most; what comes then is lost.
const QUEUE: usize = 10_000;
/// Bytes of a packet.
const MTU: u16 = 1500;
/// The device, where it leads to, and the address that it has here.
const DEVICE: &str = "long0";
const NETWORK: &str = "10.9.0.0/24";
const HERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Time in which plain connections find their speed.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long they are timed, and a sync from its first block on.
const TIMED: Duration = Duration::from_secs(30);
/// With `--quick`.
const TIMED_QUICK: Duration = Duration::from_secs(10);

/// Starts the copies of this program that measure.
pub(super) fn lossy(bench: &mut Bench) -> anyhow::Result<()> {
    // The copies find it.
    bench.chain("c")?;
    println!(
        "\nFrom {PEERS} servers over a way of {} ms there and back that loses {} % of packets:",
        2 * DELAY.as_millis(),
        100.0 * LOSS
    );
    for run in 0..bench.runs {
        let output = in_namespace(bench)?;
        let (plain, ours) = parse(&output)
            .with_context(|| format!("no figures from the other namespace: {output:?}"))?;
        println!(
            "run {}: {:.3} MB/s of blocks, {PEERS} plain connections {:.3} MB/s",
            run + 1,
            ours / 1e6,
            plain / 1e6
        );
        bench.sheet.add(Figure::Lossy, [ours / plain]);
    }
    Ok(())
}

/// Bytes a second of plain connections and of blocks.
fn parse(output: &str) -> Option<(f64, f64)> {
    let (plain, ours) = output.trim().split_once(' ')?;
    Some((plain.parse().ok()?, ours.parse().ok()?))
}

/// Runs this program in a network namespace, as who it is or as root of that alone.
fn in_namespace(bench: &Bench) -> anyhow::Result<String> {
    let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    let mut why = String::new();
    for way in ways {
        let mut command = Command::new("unshare");
        command
            .args(way)
            .arg(std::env::current_exe()?)
            .arg("--lossy")
            .arg("--dir")
            .arg(&bench.folder)
            .arg("--perihelion")
            .arg(&bench.ours().program)
            .args(bench.quick.then_some("--quick"))
            .stderr(Stdio::piped());
        let output = command
            .output()
            .context("cannot run unshare (of util-linux)")?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    }
    bail!("no network namespace with a device in it could be made: {why}")
}

/// In the namespace: measures, and prints bytes a second of plain connections and of blocks.
pub(crate) fn measure_here(options: &Options) -> anyhow::Result<()> {
    let ours = Contender::perihelion(options.perihelion.as_deref())?;
    let time = if options.quick { TIMED_QUICK } else { TIMED };
    let _way = LongWay::open()?;
    let plain = plain(time)?;
    let blocks = blocks(options, &ours, time)?;
    println!("{plain} {blocks}");
    Ok(())
}

/// The address that reaches a peer.
fn there(peer: u8) -> Ipv4Addr {
    let [a, b, c, here] = HERE.octets();
    Ipv4Addr::new(a, b, c, here + 1 + peer)
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .context("cannot run ip (of iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {}", said.trim());
    Ok(())
}

/// A device whose packets come back late, or not. It ends with the process.
struct LongWay;

impl LongWay {
    fn open() -> anyhow::Result<Self> {
        ip("link set lo up")?;
        let device = DeviceBuilder::new()
            .name(DEVICE)
            .build_sync()
            .context("cannot make a device (/dev/net/tun)")?;
        ip(&format!("addr add {HERE}/32 dev {DEVICE}"))?;
        ip(&format!("link set {DEVICE} up mtu {MTU}"))?;
        ip(&format!(
            "route add {NETWORK} dev {DEVICE} congctl {CONGESTION}"
        ))?;
        let device = Arc::new(device);
        let (sender, receiver) = sync_channel(QUEUE);
        let from = Arc::clone(&device);
        thread::spawn(move || take_packets(&from, &sender));
        thread::spawn(move || give_packets(&device, &receiver));
        Ok(Self)
    }
}

type OnItsWay = (Instant, Vec<u8>);

fn take_packets(device: &SyncDevice, sender: &SyncSender<OnItsWay>) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut packet = vec![0; usize::from(MTU)];
    while let Ok(length) = device.recv(&mut packet) {
        let packet = &mut packet[..length];
        let is_ipv4 = length >= 20 && packet[0] >> 4 == 4;
        if !is_ipv4 || random.random_bool(LOSS) {
            continue;
        }
        let (source, destination) = packet[12..20].split_at_mut(4);
        source.swap_with_slice(destination);
        // Full: lost.
        let _lost = sender.try_send((Instant::now() + DELAY, packet.to_vec()));
    }
}

fn give_packets(device: &SyncDevice, receiver: &Receiver<OnItsWay>) {
    for (due, packet) in receiver {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // One that the kernel does not take is lost.
        let _lost = device.send(&packet);
    }
}

/// Bytes a second that plain connections carry together.
fn plain(time: Duration) -> anyhow::Result<f64> {
    let listener = TcpListener::bind((HERE, 0))?;
    let port = listener.local_addr()?.port();
    let (ends, bytes) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    for peer in 0..PEERS {
        let (ends, bytes) = (Arc::clone(&ends), Arc::clone(&bytes));
        let mut stream = TcpStream::connect((there(peer), port))?;
        let (mut accepted, _) = listener.accept()?;
        // Both end with the connection.
        thread::spawn(move || while accepted.write_all(&[0; 16 << 10]).is_ok() {});
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(length @ 1..) = stream.read(&mut buffer)
                && !ends.load(Ordering::Relaxed)
            {
                bytes.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
    }
    thread::sleep(WARM_UP);
    let (start, before) = (Instant::now(), bytes.load(Ordering::Relaxed));
    thread::sleep(time);
    let carried = bytes.load(Ordering::Relaxed) - before;
    let seconds = start.elapsed().as_secs_f64();
    ends.store(true, Ordering::Relaxed);
    Ok(carried as f64 / seconds)
}

/// Bytes of blocks a second of a sync.
fn blocks(options: &Options, ours: &Contender, time: Duration) -> anyhow::Result<f64> {
    let chain = chains::prepare(&options.dir, "c", options.quick)?;
    let folder = options.dir.join("lossy");
    chains::remove(&folder)?;
    let (mut servers, mut addresses) = (Vec::new(), Vec::new());
    for peer in 0..PEERS {
        let home = folder.join(peer.to_string());
        copy_home(&chain.home, &home, CopyData::Linked)?;
        let launch = Launch::new(&format!("server{peer}"), &ours.program, &home)?.tuned();
        let address = launch.address()?;
        let (id, _) = address.split_once('@').context("an address has an id")?;
        let port = launch.p2p_port;
        addresses.push(format!("{id}@{}:{port}", there(peer)));
        servers.push(launch.set("p2p.laddr", format!("tcp://{HERE}:{port}")));
    }
    let feed = Feed {
        chain: &chain,
        servers,
        addresses: Some(addresses),
        last: chain.blocks - 1,
    };
    let settings = Settings {
        app: options.app.clone(),
        index: INDEX,
        cut: time,
        is_tuned: true,
        tells_busy: false,
        at_least: Duration::ZERO,
    };
    let sync = measure::sync(&folder, &feed, &Subject::new(ours), &settings)?;
    chains::remove(&folder)?;
    Ok(sync.blocks_per_second * chain.block_bytes as f64)
}
