//! Many listeners, half of which never read: they cost nobody anything, and are cut off.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jackfield::simulator::{Event, Simulator};

use crate::faults::resident_kib;
use crate::harness::{DEADLINE, Host, wait_for};
use crate::scene::Scene;

/// Events a second.
const RATE: u64 = 3_000;
const FOR: Duration = Duration::from_secs(8);

/// Fires at the rate, from this number on, for a while; the numbers that were fired. Real events have some two kilobytes.
fn fire(switch: &Simulator, first: u64) -> std::ops::Range<u64> {
    let long = "x".repeat(1_500);
    let (started, mut next) = (Instant::now(), first);
    while started.elapsed() < FOR {
        let due = first + u64::try_from(started.elapsed().as_micros()).unwrap() * RATE / 1_000_000;
        while next < due {
            let event = Event::new("CHANNEL_ANSWER").header("Number", next.to_string());
            switch.fire(event.header("Long", &*long));
            next += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    first..next
}

fn ask(host: SocketAddr, query: &str) -> TcpStream {
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET /events?{query} HTTP/1.0\r\n\r\n").unwrap();
    stream
}

/// Reads the numbers that end in `last`, up to the first one from `until` on, which is the end; how many there were.
fn read(host: SocketAddr, last: &'static str, first: u64, until: u64) -> JoinHandle<u64> {
    let stream = ask(host, &format!("header=Number:*{last}"));
    std::thread::spawn(move || {
        let (mut reader, mut line) = (BufReader::new(stream), String::new());
        let step = if last.is_empty() { 1 } else { 10 };
        let mut expected = (first..)
            .find(|number| number.to_string().ends_with(last))
            .unwrap();
        let mut told = 0;
        loop {
            line.clear();
            assert!(
                reader.read_line(&mut line).unwrap() > 0,
                "it is not cut off"
            );
            assert!(!line.starts_with("event: gap"), "nothing is missing");
            let Some((_, behind)) = line.split_once("\"Number\":\"") else {
                continue;
            };
            let number: u64 = behind.split('"').next().unwrap().parse().unwrap();
            if number >= until {
                return told;
            }
            assert_eq!(number, expected, "each once and in order");
            expected += step;
            told += 1;
        }
    })
}

/// Milliseconds from the socket to Redis' reply.
fn p50(host: &Host) -> f64 {
    let latencies = &host.status()["latency"]["total"];
    latencies["p50_us"].as_f64().expect("as in /status") / 1_000.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_listeners_of_which_fifty_never_read_cost_nobody_anything() {
    let scene = Scene::start(|setup| setup).await;
    let host = &scene.host;
    let fire_from = |first| {
        let switch = Arc::clone(&scene.switch);
        tokio::task::spawn_blocking(move || fire(&switch, first))
    };
    let alone = fire_from(0).await.unwrap();
    let (alone_p50, alone_kib) = (p50(host), resident_kib(host.pid()).unwrap());
    scene.settle();

    let deaf: Vec<TcpStream> = (0..50).map(|_| ask(host.http, "")).collect();
    // Its number is the first that nobody waits for.
    let until = alone.end + 1_000_000_000;
    // Five want everything.
    let readers: Vec<_> = (0..50)
        .map(|at| read(host.http, if at < 5 { "" } else { "7" }, alone.end, until))
        .collect();
    wait_for("all listen", || {
        (host.status()["listeners"] == 100).then_some(())
    });
    let fired = fire_from(alone.end).await.unwrap();
    let (p50, kib) = (p50(host), resident_kib(host.pid()).unwrap());
    for number in until..until + 10 {
        let event = Event::new("CHANNEL_ANSWER").header("Number", number.to_string());
        scene.switch.fire(event);
    }
    let told: Vec<u64> = readers
        .into_iter()
        .map(|reader| reader.join().unwrap())
        .collect();
    let status = scene.settle();
    println!(
        "{} events alone: p50 {alone_p50} ms, {alone_kib} KiB; {} with 100 listeners: p50 {p50} ms ({:.2} times), {kib} KiB; told {told:?}",
        alone.end,
        fired.end - fired.start,
        p50 / alone_p50,
    );
    assert_eq!(told[0], fired.end - fired.start, "all");
    assert_eq!(status["counts"]["lost"], 0);
    assert_eq!(status["counts"]["delivered"], fired.end + 10);
    assert!(
        p50 < alone_p50 * 5.0 + 10.0,
        "{p50} ms, {alone_p50} ms without"
    );
    assert!(
        kib < alone_kib + (96 << 10),
        "{kib} KiB, {alone_kib} KiB without"
    );

    let stalled = wait_for_longer("those that never read are cut off", || {
        host.metric("jackfield_listeners_ended_total{why=\"stalled\"}")
            .filter(|stalled| *stalled >= 50.0)
    });
    assert_eq!(stalled, 50.0, "they, and nobody else");
    assert_eq!(host.status()["listeners"], 0);
    drop(deaf);
}

/// They are cut off after half a minute without progress.
fn wait_for_longer<T>(what: &str, done: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(90), "{what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
