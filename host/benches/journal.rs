//! What safety costs an event: the journal against a mere copy, and the lane's transaction against a plain pipeline.
//!
//! Everything is done for 64 events at a time, as by a busy host, and shown for one. The journal lies on the disk of the
//! target folder and is written as fast as it goes, which no host does: `interval` shows what a disk makes of that. The two
//! ways to write to Redis take turns within one run, so that whatever slows the machine down slows both. The commands are
//! those of `writer/batch.rs`, on a redis-server of this program's own.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot start must say why"
)]

use std::hint::black_box;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jackfield::clock::now_us;
use jackfield::config::{self, Sync};
use jackfield::journal::{Journal, Kind, RealDisk};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, Pipeline, Value, cmd,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Events at a time: what the lane takes at once, and the pipeline too.
const BATCH: usize = 64;
/// A large event of a real call.
const FRAME_BYTES: usize = 5 << 10;
/// A decision that names one stream and changes nothing.
const DECISION_BYTES: usize = 40;
/// The entry of such an event.
const ENTRY_BYTES: usize = 4 << 10;
/// Ample for a redis-server to start.
const START: Duration = Duration::from_secs(10);

const STREAM: &str = "freeswitch:telephony:events";
const CURSOR: &str = "jackfield:bench:cursor";
/// As long as a real cursor; what it says is nobody's business here.
const PLACE: &str = "0123456789abcdef0123456789abcdef:1099511627776";

/// A journal in a folder of its own.
struct Recorder {
    journal: Journal,
    waits: bool,
    frame: Vec<u8>,
    decision: Vec<u8>,
    _dir: TempDir,
}

impl Recorder {
    fn open(sync: Sync) -> Recorder {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let settings = config::Journal {
            dir: dir.path().join("journal"),
            max_size: 512 << 20,
            retain: Duration::from_millis(1),
            sync,
        };
        let (mut journal, _) =
            Journal::open(Arc::new(RealDisk), &settings, None).expect("the journal opens");
        let recorder = std::thread::current();
        journal.on_synced(Box::new(move |_took| recorder.unpark()));
        Recorder {
            journal,
            waits: sync == Sync::Batch,
            frame: vec![b'x'; FRAME_BYTES],
            decision: vec![b'x'; DECISION_BYTES],
            _dir: dir,
        }
    }

    /// Records a batch of events and their decisions. With `batch` they are on stable storage after it, as before a write to
    /// Redis.
    fn record(&mut self) {
        let at_us = now_us();
        let mut last = 0;
        for _ in 0..BATCH {
            last = self.journal.append(Kind::Json, at_us, 1, 0, &self.frame);
            self.journal.decide(last, at_us, &self.decision);
        }
        self.journal.write(last).expect("the disk takes it");
        let progress = self.journal.progress();
        while self.waits && progress.durable() < last {
            std::thread::park();
        }
        // Redis has it, so its room may be used again.
        self.journal.committed(last);
        self.journal.tidy(Instant::now());
    }
}

/// A redis-server of our own, and a connection of the redis crate, for both sides of the comparison.
struct Redis {
    connection: MultiplexedConnection,
    runtime: Runtime,
    entry: Vec<u8>,
    _server: Server,
}

/// Ends with its owner.
struct Server(Child);

impl Redis {
    fn start() -> Redis {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let (server, port) = Server::start();
        let mut redis = Redis {
            connection: connect(&runtime, port),
            runtime,
            entry: vec![b'x'; ENTRY_BYTES],
            _server: server,
        };
        let mut watch = Pipeline::new();
        arm(&mut watch);
        redis.ask(&watch);
        redis
    }

    /// One write, all replies.
    fn ask(&mut self, commands: &Pipeline) -> Vec<Value> {
        let asking = self
            .connection
            .send_packed_commands(commands, 0, commands.len());
        self.runtime.block_on(asking).expect("Redis answers")
    }

    fn add_entries(&self, commands: &mut Pipeline) {
        for _ in 0..BATCH {
            let add = commands.cmd("XADD").arg(STREAM);
            add.arg("MAXLEN").arg("~").arg(10_000).arg("*");
            add.arg("event").arg(&self.entry);
        }
    }

    /// The entries alone.
    fn plain(&mut self) {
        let mut commands = Pipeline::with_capacity(BATCH);
        self.add_entries(&mut commands);
        let replies = self.ask(&commands);
        let is_id = |reply: &Value| matches!(reply, Value::BulkString(_));
        assert!(replies.iter().all(is_id), "every entry is taken");
    }

    /// The entries, the cursor, and the fence for the next batch.
    fn transaction(&mut self) {
        let mut commands = Pipeline::with_capacity(BATCH + 8);
        commands.add_command(cmd("MULTI"));
        self.add_entries(&mut commands);
        commands.cmd("SET").arg(CURSOR).arg(PLACE);
        commands.add_command(cmd("EXEC"));
        arm(&mut commands);
        let replies = self.ask(&commands);
        let executed = replies.iter().rev().nth(2);
        assert!(
            matches!(executed, Some(Value::Array(_))),
            "the transaction is executed: {executed:?}"
        );
    }
}

impl Server {
    fn start() -> (Server, u16) {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", ""])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing: apt-get install redis-server");
        (Server(server), port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let killed = self.0.kill().and_then(|()| self.0.wait());
        killed.expect("redis-server ends");
    }
}

/// With the settings that the lane has.
fn connect(runtime: &Runtime, port: u16) -> MultiplexedConnection {
    let address = ConnectionAddr::Tcp(Ipv4Addr::LOCALHOST.to_string(), port);
    let info = address.into_connection_info().expect("an address");
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let client = Client::open(info).expect("a client");
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let started = Instant::now();
    loop {
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        match runtime.block_on(connecting) {
            Ok(connection) => return connection,
            Err(error) => assert!(
                started.elapsed() < START,
                "redis-server does not answer: {error}"
            ),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn arm(commands: &mut Pipeline) {
    commands.cmd("WATCH").arg(CURSOR);
    commands.cmd("GET").arg(CURSOR);
}

fn journal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("yardstick: a copy", |b| {
        let (frame, decision) = (vec![b'x'; FRAME_BYTES], vec![b'x'; DECISION_BYTES]);
        let mut copies = Vec::new();
        b.iter(|| {
            copies.clear();
            for _ in 0..BATCH {
                copies.extend_from_slice(black_box(&frame));
                copies.extend_from_slice(black_box(&decision));
            }
            black_box(copies.as_slice());
        });
    });
    for (name, sync) in [
        ("sync never", Sync::Never),
        ("sync interval", Sync::Interval),
        ("sync batch, until durable", Sync::Batch),
    ] {
        let mut recorder = Recorder::open(sync);
        group.bench_function(name, |b| b.iter(|| recorder.record()));
        recorder.journal.close();
    }
    group.finish();
}

fn transaction(criterion: &mut Criterion) {
    let mut redis = Redis::start();
    let mut group = criterion.benchmark_group("redis");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("plain pipeline", |b| {
        b.iter_custom(|times| in_turns(&mut redis, times, Redis::plain, Redis::transaction));
    });
    group.bench_function("transaction with cursor and fence", |b| {
        b.iter_custom(|times| in_turns(&mut redis, times, Redis::transaction, Redis::plain));
    });
    group.finish();
}

/// The time that `timed` takes, with one `other` after each.
fn in_turns(
    redis: &mut Redis,
    times: u64,
    timed: impl Fn(&mut Redis),
    other: impl Fn(&mut Redis),
) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..times {
        let started = Instant::now();
        timed(redis);
        spent += started.elapsed();
        other(redis);
    }
    spent
}

criterion_group!(benches, journal, transaction);
criterion_main!(benches);
