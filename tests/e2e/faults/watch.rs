//! What a host said of itself all the while: accounts that balance, memory and disk within bounds, a readiness that tells the truth.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Host, request};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// A host that calls itself ready for so long while something waits and nothing gets on does not tell the truth; nor does one that
/// calls itself unready so long after the last fault is over.
const LIE: Duration = Duration::from_secs(8);

/// What one look saw.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    ready: bool,
    pending: u64,
    settled: u64,
    disturbed: bool,
}

/// The most that was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peak {
    /// Resident memory over what it was at the first look, in KiB.
    pub(crate) memory_kib: u64,
    /// Bytes of the journal.
    pub(crate) journal: u64,
    /// Events that waited.
    pub(crate) pending: u64,
}

/// Somebody who looks at one life of a host until it ends.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    disturbed: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Look>>>,
    thread: JoinHandle<Peak>,
}

impl Watch {
    /// `disturbed`: set while something is wrong that the host must not call ready, or may.
    pub(crate) fn new(host: &Host, disturbed: &Arc<AtomicBool>) -> Watch {
        let (stop, seen) = (
            Arc::<AtomicBool>::default(),
            Arc::<Mutex<Vec<Look>>>::default(),
        );
        let looker = Looker {
            http: host.http,
            pid: host.pid(),
            stop: Arc::clone(&stop),
            disturbed: Arc::clone(disturbed),
            seen: Arc::clone(&seen),
        };
        Watch {
            stop,
            disturbed: Arc::clone(disturbed),
            seen,
            thread: std::thread::spawn(move || looker.run()),
        }
    }

    /// Ends it: the most that was seen. Panics where the host contradicted itself.
    #[track_caller]
    pub(crate) fn end(self) -> Peak {
        self.stop.store(true, Ordering::Relaxed);
        let peak = self
            .thread
            .join()
            .expect("the accounts balance at every look");
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        check_ready(&seen);
        if !self.disturbed.load(Ordering::Relaxed) {
            check_unready(&seen);
        }
        peak
    }
}

struct Looker {
    http: SocketAddr,
    pid: u32,
    stop: Arc<AtomicBool>,
    disturbed: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Look>>>,
}

impl Looker {
    fn run(self) -> Peak {
        let mut peak = Peak::default();
        let mut memory_before = None;
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(PAUSE);
            let disturbed = self.disturbed.load(Ordering::Relaxed);
            let Ok((200, _, body)) = request(self.http, "GET", "/status", "") else {
                continue;
            };
            // A host that is killed may leave half an answer.
            let Ok(status) = serde_json::from_str::<Value>(&body) else {
                continue;
            };
            let counts = &status["counts"];
            assert_eq!(counts["balanced"], true, "the accounts balance: {status:#}");
            if let Some(memory) = resident_kib(self.pid) {
                let before = *memory_before.get_or_insert(memory);
                peak.memory_kib = peak.memory_kib.max(memory.saturating_sub(before));
            }
            let journal = status["journal"]["bytes"].as_u64().unwrap();
            peak.journal = peak.journal.max(journal);
            let count = |name: &str| counts[name].as_u64().unwrap();
            peak.pending = peak.pending.max(count("pending"));
            self.seen.lock().unwrap().push(Look {
                at: Instant::now(),
                ready: status["ready"] == true,
                pending: count("pending"),
                settled: count("received") - count("pending"),
                disturbed,
            });
        }
        peak
    }
}

/// The resident memory of a process, in KiB, while it is there.
pub(crate) fn resident_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Who calls itself ready gets on.
#[track_caller]
fn check_ready(seen: &[Look]) {
    let mut since: Option<&Look> = None;
    for look in seen {
        let stands = since.is_some_and(|first| first.settled == look.settled);
        if !look.ready || look.pending == 0 {
            since = None;
        } else if !stands {
            since = Some(look);
        }
        if let Some(first) = since {
            let time = look.at.duration_since(first.at);
            assert!(
                time < LIE,
                "ready for {time:?} with {} pending and no progress",
                look.pending
            );
        }
    }
}

/// Where nothing is wrong any more, a host that was ready once says so again.
#[track_caller]
fn check_unready(seen: &[Look]) {
    let mut since: Option<Instant> = None;
    for look in seen.iter().skip_while(|look| !look.ready) {
        if look.ready || look.disturbed {
            since = None;
            continue;
        }
        let time = look.at.duration_since(*since.get_or_insert(look.at));
        assert!(
            time < LIE,
            "not ready for {time:?} although nothing is wrong"
        );
    }
}
