//! What a command to FreeSWITCH costs, and what it costs events: the real host under the load of a simulated FreeSWITCH.
//!
//! First: a caller asks over HTTP, some hundred commands a second, while nothing else happens and while 20,000 events a second go through
//! the host into a real redis-server; and the events' own latency, with and without a caller. Then: the shared connection against one
//! for each command (connect, log in, ask, close), as a caller without the host would do it. What is compared takes turns within
//! one run, so that whatever slows the machine down slows both. All run on the same processors, the simulated FreeSWITCH too.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot start must say why, and says what it found"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use jackfield::config::{self, Sources};
use jackfield::esl::{CommandLink, Commands};
use jackfield::link::Link;
use jackfield::simulator::{Load, Settings, Simulator};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How often each of what is compared has its turn.
const ROUNDS: usize = 5;
/// How long a turn takes.
const TURN: Duration = Duration::from_secs(3);
/// Between two commands of a caller: a busy program, not one that does nothing else.
const PAUSE: Duration = Duration::from_millis(2);
/// Events a second of all kinds.
const RATE: f64 = 20_000.0;
/// Commands a turn over each kind of connection.
const COMMANDS: usize = 500;
/// Ample for a process to start.
const START: Duration = Duration::from_secs(20);
/// A command that FreeSWITCH answers at once.
const COMMAND: &str = "echo 0123456789";

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let switch = runtime
        .block_on(Simulator::start(Settings::default()))
        .expect("a free port");
    let switch = Arc::new(switch);
    through_the_host(&runtime, &switch);
    shared_or_own(&runtime, &switch);
}

/// A process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it has an address").port()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < START, "not within {START:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How long commands took.
struct Asked {
    through_host: Histogram<u64>,
    bare: Histogram<u64>,
}

impl Asked {
    fn new() -> Asked {
        Asked {
            through_host: times(),
            bare: times(),
        }
    }
}

/// A connection to the host's HTTP that stays open.
struct Caller {
    stream: BufReader<TcpStream>,
}

impl Caller {
    fn of(http: SocketAddr) -> Option<Caller> {
        let stream = TcpStream::connect(http).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Caller {
            stream: BufReader::new(stream),
        })
    }

    /// Code and body.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t0ken\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut code, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(status) = line.strip_prefix("http/1.1 ") {
                code = status
                    .split(' ')
                    .next()
                    .unwrap_or_default()
                    .parse()
                    .unwrap_or(0);
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap_or(0);
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((code, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Runs commands for a turn, one every few milliseconds.
    /// In turns with one over a connection of our own to FreeSWITCH, which shows what is not the host's doing.
    fn run(&mut self, bare: &mut Bare, times: &mut Asked) {
        let since = Instant::now();
        while since.elapsed() < TURN {
            std::thread::sleep(PAUSE);
            let begun = Instant::now();
            let answer = self.ask("POST", "/esl", COMMAND).expect("an answer");
            note(&mut times.through_host, begun);
            assert_eq!(answer, (200, "0123456789".to_owned()));
            std::thread::sleep(PAUSE);
            let begun = Instant::now();
            bare.ask().expect("an answer");
            note(&mut times.bare, begun);
        }
    }

    /// Sum in milliseconds and count of the time from the socket to the decision.
    fn reader_latency(&mut self) -> (f64, f64) {
        let (_, text) = self.ask("GET", "/metrics", "").expect("the metrics");
        let value = |name: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.and_then(|value| value.parse().ok()).unwrap_or(0.0)
        };
        let name = "telephony_reader_latency_milliseconds";
        (
            value(&format!("{name}_sum")),
            value(&format!("{name}_count")),
        )
    }
}

fn note(times: &mut Histogram<u64>, begun: Instant) {
    let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    times.saturating_record(nanos);
}

fn times() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("valid bounds")
}

#[expect(clippy::cast_precision_loss, reason = "a time for the eye")]
fn millis(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1e6
}

fn say(what: &str, times: &Histogram<u64>) {
    println!(
        "{what:<42} p50 {:>7.3} ms   p99 {:>7.3} ms   ({} commands)",
        millis(times, 0.5),
        millis(times, 0.99),
        times.len()
    );
}

fn ratio(what: &str, over: &Histogram<u64>, under: &Histogram<u64>) {
    let of = |quantile| millis(over, quantile) / millis(under, quantile);
    println!("{what:<42} p50 {:>7.2}      p99 {:>7.2}", of(0.5), of(0.99));
}

fn redis_server() -> (Running, u16) {
    let port = free_port();
    let mut server = Command::new("redis-server");
    server.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    server.args(["--save", "", "--appendonly", "no"]);
    server.stdout(Stdio::null());
    let server = Running(server.spawn().expect("redis-server starts"));
    wait_for("redis-server", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
    (server, port)
}

/// The real binary, ready.
fn host(switch: &Simulator, redis: u16, dir: &TempDir) -> (Running, SocketAddr) {
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let mut host = Command::new(env!("CARGO_BIN_EXE_jackfield"));
    host.arg("run").current_dir(dir.path()).env_clear();
    host.env("ESL_PORT", switch.addr().port().to_string())
        .env("REDIS_REMOTE_ADDR", format!("127.0.0.1:{redis}"))
        .env("JACKFIELD_HTTP_LISTEN", http.to_string())
        .env("JACKFIELD_HTTP_TOKEN", "t0ken")
        .env("JACKFIELD_ESL_ALLOW", "echo")
        .env("JACKFIELD_LOG_LEVEL", "error");
    let host = Running(host.spawn().expect("the host starts"));
    wait_for("the host runs commands", || {
        let answer = Caller::of(http).map(|mut caller| caller.ask("POST", "/esl", COMMAND));
        matches!(answer, Some(Ok((200, _))))
    });
    (host, http)
}

fn through_the_host(runtime: &Runtime, switch: &Arc<Simulator>) {
    let (_redis, port) = redis_server();
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (_host, http) = host(switch, port, &dir);
    let mut caller = Caller::of(http).expect("the host listens");
    let mut bare = Bare::open(switch.addr()).expect("FreeSWITCH listens");
    let (mut idle, mut loaded) = (Asked::new(), Asked::new());
    let (mut alone, mut beside) = ((0.0, 0.0), (0.0, 0.0));
    let mut fired = 0;
    for _ in 0..ROUNDS {
        caller.run(&mut bare, &mut idle);
        for with_caller in [false, true] {
            let before = caller.reader_latency();
            let load = Load {
                rate: RATE,
                events: None,
                calls_at_once: 2_000,
            };
            let placing = Arc::clone(switch);
            let so_far = switch.sent().fired;
            let calls = runtime.spawn(async move { placing.place_calls(load).await });
            match with_caller {
                true => caller.run(&mut bare, &mut loaded),
                false => std::thread::sleep(TURN),
            }
            calls.abort();
            fired += switch.sent().fired - so_far;
            let after = caller.reader_latency();
            let total = if with_caller { &mut beside } else { &mut alone };
            total.0 += after.0 - before.0;
            total.1 += after.1 - before.1;
        }
    }
    let sent = switch.sent();
    assert_eq!((sent.dropped, sent.given_up), (0, 0), "no event is lost");
    #[expect(clippy::cast_precision_loss, reason = "a rate for the eye")]
    let rate = fired as f64 / (TURN.as_secs_f64() * 2.0 * ROUNDS as f64);
    println!("the load is {rate:.0} events a second");
    let through_host = (&idle.through_host, &loaded.through_host);
    let bare = (&idle.bare, &loaded.bare);
    for (what, (idle, loaded)) in [
        ("over HTTP through the host", through_host),
        ("straight to FreeSWITCH", bare),
    ] {
        say(&format!("{what}, idle"), idle);
        say(&format!("{what}, under load"), loaded);
        ratio("under load / idle", loaded, idle);
    }
    let mean = |(sum, count): (f64, f64)| sum / count;
    println!(
        "an event from the socket to its decision: {:.3} ms without a caller, {:.3} ms beside one (mean)",
        mean(alone),
        mean(beside)
    );
}

fn shared_or_own(runtime: &Runtime, switch: &Arc<Simulator>) {
    let sources = Sources {
        flags: vec![("esl.port".to_owned(), switch.addr().port().to_string())],
        ..Sources::default()
    };
    let settings = config::load(sources).expect("valid settings").esl;
    let commands = Commands::default();
    // In the place of the link for events, which goes first.
    let events = Arc::new(Link::new("esl", String::new(), 15));
    events.ready();
    let link = CommandLink {
        settings,
        commands: commands.clone(),
        link: Arc::new(Link::new("commands", String::new(), 15)),
        events,
    };
    let (mut shared, mut own) = (times(), times());
    runtime.block_on(async {
        let link = tokio::task::JoinSet::from_iter([link.run()]);
        assert!(commands.connected(START).await, "the link is ready");
        for _ in 0..ROUNDS {
            for _ in 0..COMMANDS {
                let begun = Instant::now();
                let answer = commands.api(COMMAND, START).await.expect("an answer");
                note(&mut shared, begun);
                assert_eq!(answer, "0123456789");
            }
            // A connection of its own is blocking work, as in a script.
            let addr = switch.addr();
            let turn = tokio::task::spawn_blocking(move || {
                let mut own = times();
                for _ in 0..COMMANDS {
                    let begun = Instant::now();
                    let asked = Bare::open(addr).and_then(|mut bare| bare.ask());
                    asked.expect("an answer");
                    note(&mut own, begun);
                }
                own
            });
            own.add(turn.await.expect("a turn"))
                .expect("the same bounds");
        }
        drop(link);
    });
    println!("a command without HTTP");
    say("over the shared connection", &shared);
    say("over a connection of its own", &own);
    ratio("own / shared", &own, &shared);
}

/// A connection of a caller's own to FreeSWITCH.
struct Bare(BufReader<TcpStream>);

impl Bare {
    /// Connects and logs in.
    fn open(addr: SocketAddr) -> std::io::Result<Bare> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        head(&mut stream)?;
        stream.get_mut().write_all(b"auth ClueCon\n\n")?;
        head(&mut stream)?;
        Ok(Bare(stream))
    }

    fn ask(&mut self) -> std::io::Result<()> {
        let command = format!("api {COMMAND}\n\n");
        self.0.get_mut().write_all(command.as_bytes())?;
        head(&mut self.0)?;
        let mut body = [0; 10];
        self.0.read_exact(&mut body)
    }
}

/// Reads a header block.
fn head(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    let mut line = String::new();
    while line != "\n" {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
