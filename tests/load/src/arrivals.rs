//! When each entry reached Redis, as a client sees it.
//!
//! Redis tells of every `XADD` to a stream (`notify-keyspace-events`), some seventy bytes an entry and in the order of execution. It
//! sends them at the end of the same turn of its loop that sends the writer its replies. So the time at which they are read is the
//! time of the reply, taken outside of whatever is measured, in the same way for every subject. Reading the entries themselves, as
//! a consumer does, would cost Redis as much again as writing them did.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::schedule::Clock;
use crate::store::{Store, ask};

/// How often it is looked whether somebody wants the result.
const LOOK: Duration = Duration::from_millis(50);

/// A reader of notifications.
pub struct Arrivals {
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    reading: JoinHandle<Vec<u64>>,
}

impl Arrivals {
    /// From now on, for this stream.
    pub fn watch(store: &Store, clock: Clock, stream: &str) -> Arrivals {
        let set = ["CONFIG", "SET", "notify-keyspace-events", "Kt"];
        let () = ask(&mut store.connect(), &set);
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, store.port));
        let mut socket = socket.expect("redis-server is up");
        socket.set_read_timeout(Some(LOOK)).expect("a time");
        let channel = format!("__keyspace@0__:{stream}");
        let subscribe = format!(
            "*2\r\n$9\r\nSUBSCRIBE\r\n${}\r\n{channel}\r\n",
            channel.len()
        );
        socket.write_all(subscribe.as_bytes()).expect("Redis reads");
        let mut reader = BufReader::with_capacity(64 << 10, socket);
        // The answer: that it is subscribed, with a count.
        let mut line = String::new();
        while !line.starts_with(':') {
            line.clear();
            reader.read_line(&mut line).expect("Redis answers");
        }
        let (count, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (counted, stopped) = (Arc::clone(&count), Arc::clone(&stop));
        let reading = std::thread::spawn(move || {
            let (mut times, mut line) = (Vec::new(), Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                let read = match reader.fill_buf() {
                    Ok([]) => break,
                    Ok(read) => read,
                    Err(error) if is_late(error.kind()) => continue,
                    Err(_) => break,
                };
                let now = clock.now_us();
                let before = times.len();
                for &byte in read {
                    if byte != b'\n' {
                        line.push(byte);
                        continue;
                    }
                    // Other commands on the stream, such as a trim, have names of their own.
                    if line == b"xadd\r" {
                        times.push(now);
                    }
                    line.clear();
                }
                let length = read.len();
                reader.consume(length);
                counted.fetch_add((times.len() - before) as u64, Ordering::Relaxed);
            }
            times
        });
        Arrivals {
            count,
            stop,
            reading,
        }
    }

    /// So far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The times of all of them, in microseconds since the epoch.
    pub fn stop(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.reading.join().expect("the reader ends")
    }
}

fn is_late(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
