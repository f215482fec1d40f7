//! The server's side of the Event Socket, as thin as it can be: it logs clients in, says yes to what they ask, and sends prepared
//! events to the one that subscribed to channel events.
//!
//! The simulated FreeSWITCH of the host composes its events and shares its processors with them; this one costs a copy and a `send`.
//! What it is asked it takes for granted: it knows one kind of event, and whoever subscribes gets it.

use std::io::{BufRead, BufReader, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::prepared::Prepared;
use crate::schedule::{Clock, Schedule, latencies};

/// Events that are due at once go out together, up to so many.
const TOGETHER: u64 = 32;
/// Less cannot be slept: waking up costs as much.
const SHORTEST: Duration = Duration::from_micros(5);
const PASSWORD: &str = "ClueCon";

/// A listening switch.
pub struct Switch {
    pub addr: SocketAddr,
    clients: Arc<Clients>,
    clock: Clock,
    event: Prepared,
    next: u64,
}

#[derive(Default)]
struct Clients {
    /// The connection that gets events: the newest that asked for them.
    listener: Mutex<Option<Arc<Mutex<TcpStream>>>>,
    came: Condvar,
}

/// What became of a load.
pub struct Sent {
    /// The numbers of its events.
    pub numbers: std::ops::Range<u64>,
    /// How late the sender itself was with each event, in microseconds.
    pub late: Histogram<u64>,
}

impl Switch {
    /// Listens on a free port of the loopback, for this kind of event.
    pub fn start(clock: Clock, json: &str) -> Switch {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let clients = Arc::new(Clients::default());
        let serving = Arc::clone(&clients);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let clients = Arc::clone(&serving);
                // A client that goes away ends its thread; nothing else is to be done about it.
                std::thread::spawn(move || drop(serve(&clients, stream)));
            }
        });
        Switch {
            addr,
            clients,
            clock,
            event: Prepared::new(json),
            next: crate::prepared::FIRST,
        }
    }

    /// Forgets who listened, so that the next one is waited for.
    pub fn forget(&self) {
        *lock(&self.clients.listener) = None;
    }

    /// Waits until somebody listens.
    pub fn wait_for_listener(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        let mut listener = lock(&self.clients.listener);
        while listener.is_none() {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return false;
            };
            let waited = self.clients.came.wait_timeout(listener, left);
            listener = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The number that the next event will have.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Sends so many events on a fixed schedule, beginning now.
    pub fn send_paced(&mut self, events: u64, per_second: u64) -> Result<Sent> {
        sleep_exactly();
        let schedule = Schedule::new(self.clock.now_us(), per_second);
        let mut late = latencies();
        let (first, mut sent) = (self.next, 0);
        let mut frames = Vec::new();
        while sent < events {
            let now = self.clock.now_us();
            let due = schedule.due_by(now).min(events).min(sent + TOGETHER);
            if due == sent {
                let wait = Duration::from_micros(schedule.due_us(sent) - now);
                std::thread::sleep(wait.max(SHORTEST));
                continue;
            }
            frames.clear();
            for at in sent..due {
                let due_us = schedule.due_us(at);
                frames.extend_from_slice(self.event.frame(first + at, due_us));
                late.saturating_record(now.saturating_sub(due_us));
            }
            self.write(&frames)?;
            sent = due;
        }
        self.next = first + sent;
        Ok(Sent {
            numbers: first..self.next,
            late,
        })
    }

    /// Sends so many events as fast as they are taken.
    pub fn send_at_once(&mut self, events: u64) -> Result<()> {
        let end = self.next + events;
        let mut frames = Vec::new();
        while self.next < end {
            frames.clear();
            let now = self.clock.now_us();
            for number in self.next..end.min(self.next + TOGETHER) {
                frames.extend_from_slice(self.event.frame(number, now));
                self.next = number + 1;
            }
            self.write(&frames)?;
        }
        Ok(())
    }

    fn write(&self, frames: &[u8]) -> Result<()> {
        let listener = lock(&self.clients.listener).clone();
        let listener = listener.ok_or(std::io::ErrorKind::NotConnected)?;
        lock(&listener).write_all(frames)
    }
}

/// Lets this thread wake when it asked for it: the kernel adds up to 50 µs otherwise. Where it does not let us, the sender's lateness
/// says so.
fn sleep_exactly() {
    let thread = std::fs::read_link("/proc/thread-self");
    if let Some(id) = thread.ok().as_deref().and_then(Path::file_name) {
        drop(std::fs::write(
            Path::new("/proc").join(id).join("timerslack_ns"),
            "1",
        ));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client's conversation, until it ends.
fn serve(clients: &Clients, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let writer = Arc::new(Mutex::new(stream));
    lock(&writer).write_all(b"Content-Type: auth/request\n\n")?;
    let mut command = String::new();
    loop {
        command.clear();
        // A command and its headers, to the empty line.
        while !command.ends_with("\n\n") {
            if reader.read_line(&mut command)? == 0 {
                return Ok(());
            }
            if command.trim().is_empty() {
                command.clear();
            } else if command.ends_with("\r\n") {
                command.truncate(command.len() - 2);
                command.push('\n');
            }
        }
        let line = command.lines().next().unwrap_or_default();
        lock(&writer).write_all(answer(line).as_bytes())?;
        if is_for_calls(line) {
            *lock(&clients.listener) = Some(Arc::clone(&writer));
            clients.came.notify_all();
        }
    }
}

fn answer(line: &str) -> String {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let reply = match verb {
        "auth" if rest == PASSWORD => "+OK accepted",
        "auth" => "-ERR invalid",
        "event" => "+OK event listener enabled json",
        "api" => {
            let said = match rest.split(' ').next() {
                Some("switchname") => "fs1",
                Some("show") => r#"{"row_count":0}"#,
                _ => "-ERR not simulated\n",
            };
            let length = said.len();
            return format!("Content-Type: api/response\nContent-Length: {length}\n\n{said}");
        }
        _ => "+OK",
    };
    format!("Content-Type: command/reply\nReply-Text: {reply}\n\n")
}

/// A connection for commands asks for the ends of its jobs at most.
fn is_for_calls(line: &str) -> bool {
    let mut words = line.split(' ').map(str::to_ascii_uppercase);
    words.next().is_some_and(|verb| verb == "EVENT")
        && words.any(|word| word == "ALL" || word.starts_with("CHANNEL_"))
}

#[cfg(test)]
mod tests {
    use super::{answer, is_for_calls};

    #[test]
    fn who_asks_for_calls_is_the_listener() {
        assert!(is_for_calls("event json CHANNEL_ANSWER HEARTBEAT"));
        assert!(is_for_calls("event json ALL"));
        assert!(!is_for_calls("event json BACKGROUND_JOB HEARTBEAT"));
        assert!(!is_for_calls("filter Event-Name CHANNEL_ANSWER"));
    }

    #[test]
    fn a_wrong_password_is_refused() {
        assert!(answer("auth ClueCon").contains("+OK"));
        assert!(answer("auth other").contains("-ERR"));
    }

    #[test]
    fn an_answer_has_its_length() {
        let answer = answer("api switchname");
        assert!(answer.ends_with("Content-Length: 3\n\nfs1"), "{answer}");
    }
}
