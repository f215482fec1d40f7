//! A candidate that sees live events beside its namesake and changes nothing: what it would have done otherwise is counted,
//! with samples.
//!
//! It runs on a thread of its own, at low priority, behind a bounded queue. The pipeline never waits for it: what it is too slow
//! for is skipped, and counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;

use super::decision::Allowance;
use super::difference::{Answer, Difference};
use super::engine::Engine;
use super::instance::Failure;
use super::refusal::short;
use super::status::Attempt;
use super::version::{Active, Made, Wants};
use crate::event::Event;
use crate::journal::Lsn;
use crate::metrics::{Counter, FilterMetrics};

/// Events that may wait for it.
const QUEUE: usize = 256;
/// Differences that are shown, the newest ones.
const SAMPLES: usize = 8;
/// Failures in a row after which it rests, and for how long.
const TIRED: u32 = 10;
const REST: Duration = Duration::from_secs(1);
/// How much the operating system prefers everything else to it.
const NICE: i32 = 10;

/// What `/status` shows of a shadow.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ShadowStatus {
    /// The manifest's version.
    pub version: Arc<str>,
    /// SHA-256 of the component.
    pub digest: Arc<str>,
    /// Events about which both agree.
    pub same: u64,
    /// Events about which they do not.
    pub differs: u64,
    /// Events that it was too slow for, or that came while it rested.
    pub skipped: u64,
    /// Calls that failed.
    pub failed: u64,
    /// The newest differences.
    pub samples: VecDeque<Sample>,
    /// Why it does not run, or its last failure.
    pub last_error: Option<String>,
    /// The gates that its file went through.
    pub attempt: Option<Attempt>,
}

/// One difference.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// The input's number, for `jackfield why`.
    pub lsn: Lsn,
    /// The event's name.
    pub event: String,
    /// In words.
    pub difference: String,
}

/// A candidate.
pub(super) struct Shadow {
    /// Known once it has started.
    wants: Arc<OnceLock<Wants>>,
    shown: Arc<Mutex<ShadowStatus>>,
    skipped: Skipped,
    thread: Option<Running>,
}

/// Events that it did not see, here and in the metric.
#[derive(Clone)]
struct Skipped {
    here: Arc<AtomicU64>,
    counter: Counter,
}

impl Skipped {
    fn inc(&self) {
        self.here.fetch_add(1, Ordering::Relaxed);
        self.counter.inc();
    }
}

struct Running {
    events: SyncSender<Seen>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What its namesake saw, and did.
enum Seen {
    Event {
        event: Event,
        lsn: Lsn,
        now_us: u64,
        answer: Answer,
    },
    Tick {
        now_us: u64,
    },
}

impl Shadow {
    /// A candidate that sees events as soon as its thread has made it; `saved` is what its namesake saved last.
    pub(super) fn start(
        engine: &Arc<Engine>,
        file: &Arc<str>,
        made: Made,
        saved: Option<Bytes>,
        now_us: u64,
        metrics: FilterMetrics,
    ) -> Shadow {
        let shown = Arc::new(Mutex::new(ShadowStatus {
            digest: Arc::clone(&made.component.digest),
            ..ShadowStatus::default()
        }));
        let wants = Arc::new(OnceLock::new());
        let skipped = Skipped {
            here: Arc::default(),
            counter: metrics.shadow("skipped"),
        };
        let (events, seen) = sync_channel(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let birth = Birth {
            engine: Arc::clone(engine),
            // Its log is not taken for that of its namesake.
            file: format!("shadow/{file}").into(),
            made,
            saved,
            now_us,
            wants: Arc::clone(&wants),
            shown: Arc::clone(&shown),
            skipped: skipped.clone(),
            metrics,
        };
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("shadow".to_owned())
            .spawn(move || {
                // Without it, it is only less polite.
                let _nice = rustix::process::nice(NICE);
                if let Some(beside) = birth.begin() {
                    beside.run(&seen, &stopped);
                }
            });
        let thread = match thread {
            Ok(thread) => Some(Running {
                events,
                stop,
                thread,
            }),
            Err(error) => {
                lock(&shown).last_error = Some(format!("cannot start its thread: {error}"));
                None
            }
        };
        Shadow {
            wants,
            shown,
            skipped,
            thread,
        }
    }

    /// With the gates that its file went through.
    pub(super) fn after(self, attempt: Option<Attempt>) -> Shadow {
        lock(&self.shown).attempt = attempt;
        self
    }

    /// A file that cannot run.
    pub(super) fn refused(digest: Arc<str>, why: String) -> Shadow {
        Shadow {
            wants: Arc::default(),
            shown: Arc::new(Mutex::new(ShadowStatus {
                digest,
                last_error: Some(why),
                ..ShadowStatus::default()
            })),
            skipped: Skipped {
                here: Arc::default(),
                counter: Counter::default(),
            },
            thread: None,
        }
    }

    pub(super) fn wants_event(&self, event: &Event) -> bool {
        self.wants.get().is_some_and(|wants| wants.event(event))
    }

    /// What its namesake made of an event, which is as it was before. Never waits.
    pub(super) fn see(&self, event: Event, lsn: Lsn, now_us: u64, answer: Answer) {
        self.send(Seen::Event {
            event,
            lsn,
            now_us,
            answer,
        });
    }

    /// Its namesake's `tick` was called.
    pub(super) fn tick(&self, now_us: u64) {
        self.send(Seen::Tick { now_us });
    }

    fn send(&self, seen: Seen) {
        if let Some(running) = &self.thread
            && running.events.try_send(seen).is_err()
        {
            self.skipped.inc();
        }
    }

    pub(super) fn status(&self) -> ShadowStatus {
        ShadowStatus {
            skipped: self.skipped.here.load(Ordering::Relaxed),
            ..lock(&self.shown).clone()
        }
    }

    /// Ends it without waiting; whoever has time joins its thread.
    pub(super) fn leave(self) -> Option<JoinHandle<()>> {
        let running = self.thread?;
        running.stop.store(true, Ordering::Release);
        Some(running.thread)
    }
}

/// What its thread begins with.
struct Birth {
    engine: Arc<Engine>,
    file: Arc<str>,
    made: Made,
    saved: Option<Bytes>,
    now_us: u64,
    wants: Arc<OnceLock<Wants>>,
    shown: Arc<Mutex<ShadowStatus>>,
    skipped: Skipped,
    metrics: FilterMetrics,
}

impl Birth {
    fn begin(self) -> Option<Beside> {
        let ticking = self.engine.ticking();
        let saved = self.saved.as_deref();
        let active = Active::alone(&self.engine, &self.file, self.made, saved, self.now_us);
        drop(ticking);
        match active {
            Ok(active) => {
                lock(&self.shown).version = Arc::clone(&active.version);
                self.wants.get_or_init(|| active.wants.clone());
                Some(Beside {
                    engine: self.engine,
                    active,
                    file: self.file,
                    saved: self.saved,
                    shown: self.shown,
                    skipped: self.skipped,
                    metrics: self.metrics,
                    failures: 0,
                    rests_until: None,
                })
            }
            Err(refusal) => {
                lock(&self.shown).last_error = Some(short(refusal.to_string()));
                None
            }
        }
    }
}

/// What its thread owns.
struct Beside {
    engine: Arc<Engine>,
    active: Active,
    file: Arc<str>,
    /// What it began with; it is what a new instance begins with, too.
    saved: Option<Bytes>,
    shown: Arc<Mutex<ShadowStatus>>,
    skipped: Skipped,
    metrics: FilterMetrics,
    failures: u32,
    rests_until: Option<Instant>,
}

impl Beside {
    fn run(mut self, seen: &Receiver<Seen>, stop: &AtomicBool) {
        while let Ok(seen) = seen.recv() {
            if stop.load(Ordering::Acquire) {
                return;
            }
            if self.rests_until.is_some_and(|until| Instant::now() < until) {
                self.skipped.inc();
                continue;
            }
            let engine = Arc::clone(&self.engine);
            let _ticking = engine.ticking();
            let failed = match seen {
                Seen::Event {
                    event,
                    lsn,
                    now_us,
                    answer,
                } => self.compare(event, lsn, now_us, &answer),
                Seen::Tick { now_us } => self.tick(now_us),
            };
            match failed {
                Ok(()) => self.failures = 0,
                Err(failure) => self.failed(&failure),
            }
        }
    }

    fn compare(
        &mut self,
        mut event: Event,
        lsn: Lsn,
        now_us: u64,
        answer: &Answer,
    ) -> Result<(), Failure> {
        let own = if self.active.wants.event(&event) {
            self.revive(now_us)?;
            let mut allowance = Allowance::of_one_input();
            let decision = self.active.handle(&mut event, now_us, &mut allowance);
            Answer::of(decision?, &self.file)
        } else {
            Answer::pass()
        };
        let difference = Difference::between(&event, answer, &own);
        let outcome = if difference.is_some() {
            "differs"
        } else {
            "same"
        };
        self.metrics.shadow(outcome).inc();
        let sample = difference.map(|difference| Sample {
            lsn,
            event: event.name().into_owned(),
            difference: difference.to_string(),
        });
        let mut shown = lock(&self.shown);
        let Some(sample) = sample else {
            shown.same += 1;
            return Ok(());
        };
        shown.differs += 1;
        if shown.samples.len() == SAMPLES {
            shown.samples.pop_front();
        }
        shown.samples.push_back(sample);
        Ok(())
    }

    /// It asks for its own ticks, but they come when those of its namesake do.
    fn tick(&mut self, now_us: u64) -> Result<(), Failure> {
        if self.active.tick_every.is_none() {
            return Ok(());
        }
        self.revive(now_us)?;
        let mut allowance = Allowance::of_one_input();
        self.active.tick(now_us, &mut allowance).map(|_| ())
    }

    fn revive(&mut self, now_us: u64) -> Result<(), Failure> {
        let saved = self.saved.as_deref();
        self.active.revive(&self.engine, saved, now_us)
    }

    fn failed(&mut self, failure: &Failure) {
        self.active.discard_instance();
        self.metrics.shadow("failed").inc();
        self.failures += 1;
        if self.failures.is_multiple_of(TIRED) {
            self.rests_until = Some(Instant::now() + REST);
        }
        let mut shown = lock(&self.shown);
        shown.failed += 1;
        shown.last_error = Some(failure.to_string());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
