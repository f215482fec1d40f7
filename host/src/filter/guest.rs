//! What an instance finds around it: the current event, log and counters, and a WASI that gives nothing away.
//!
//! Stdout and stderr go to the log up to a cap and never block; the clocks give the event's own time and random numbers
//! come from a fixed seed, so that the same events make the same decisions. No files, sockets, environment or arguments.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};
use wasmtime_wasi::random::Deterministic;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};

use crate::event::Event;

/// The bindings that wasmtime makes of `wit/filter.wit`.
pub(super) mod bindings {
    #![allow(
        clippy::all,
        clippy::pedantic,
        clippy::restriction,
        unreachable_pub,
        reason = "generated"
    )]
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "filter",
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: { default: trappable },
    });
}

use bindings::jackfield::filter::host::Level;
use bindings::jackfield::filter::{current_event, host, types};

/// Bytes of log messages, stdout and stderr that one call may write; the rest is dropped and counted.
const LOG_CAP: usize = 4 << 10;
/// Handles that an instance may hold; what it uses of WASI takes a handful.
const HANDLE_CAP: usize = 1_000;
/// Random bytes of one call, which no deadline interrupts.
const RANDOM_CAP: u64 = 64 << 10;
/// Names of counters that a filter may use.
const COUNTER_CAP: usize = 32;

/// The state of one store.
pub(super) struct Guest {
    wasi: WasiCtx,
    table: ResourceTable,
    /// The event being handled; absent outside `handle`.
    pub(super) event: Option<Event>,
    pub(super) limits: Limits,
    output: Arc<Output>,
    now: Arc<AtomicU64>,
    counters: Vec<(String, u64)>,
    muted: bool,
}

impl Guest {
    /// What a muted one says goes nowhere.
    pub(super) fn new(filter: Arc<str>, memory: u64, muted: bool) -> Guest {
        let output = Arc::new(Output {
            filter,
            left: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            line: Mutex::default(),
        });
        let now = Arc::new(AtomicU64::new(0));
        let wasi = WasiCtx::builder()
            .stdout(Stdout(Arc::clone(&output)))
            .stderr(Stdout(Arc::clone(&output)))
            .wall_clock(EventTime(Arc::clone(&now)))
            .monotonic_clock(EventTime(Arc::clone(&now)))
            .secure_random(Deterministic::new(SEED.to_vec()))
            .insecure_random(Deterministic::new(SEED.to_vec()))
            .insecure_random_seed(0x6a61_636b)
            .max_random_size(RANDOM_CAP)
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLE_CAP);
        let limits = Limits {
            memory: usize::try_from(memory).unwrap_or(usize::MAX),
            exceeded: false,
        };
        Guest {
            wasi,
            table,
            event: None,
            limits,
            output,
            now,
            counters: Vec::new(),
            muted,
        }
    }

    /// Before each call: its time, and a fresh allowance for the log.
    pub(super) fn prepare(&mut self, now_us: u64) {
        self.now.store(now_us, Ordering::Relaxed);
        let cap = if self.muted { 0 } else { LOG_CAP as u64 };
        self.output.left.store(cap, Ordering::Relaxed);
        self.limits.exceeded = false;
    }

    /// What `count` added since the last time.
    pub(super) fn take_counts(&mut self) -> impl Iterator<Item = (&str, u64)> {
        self.counters
            .iter_mut()
            .filter(|(_, by)| *by > 0)
            .map(|(name, by)| (name.as_str(), std::mem::take(by)))
    }

    /// Bytes of output that were over the cap since the last time.
    pub(super) fn take_dropped_output(&self) -> u64 {
        self.output.dropped.swap(0, Ordering::Relaxed)
    }

    fn current(&self) -> wasmtime::Result<&Event> {
        self.event
            .as_ref()
            .ok_or_else(|| wasmtime::Error::msg("current-event was called outside handle"))
    }
}

/// Any fixed bytes will do; WASI's random numbers only have to be the same at every run.
const SEED: &[u8; 32] = b"jackfield: the same at every run";

impl types::Host for Guest {}

impl current_event::Host for Guest {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self
            .current()?
            .get_str(&name)
            .map(std::borrow::Cow::into_owned))
    }

    fn headers(&mut self) -> wasmtime::Result<Vec<types::Header>> {
        let headers = self.current()?.headers();
        Ok(headers
            .map(|(name, value)| types::Header {
                name: name.into_owned(),
                value: value.into_owned(),
            })
            .collect())
    }

    fn body(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.current()?.body().map(std::borrow::Cow::into_owned))
    }
}

impl host::Host for Guest {
    fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        let Some(text) = self.output.allow(&message) else {
            return Ok(());
        };
        let filter = &*self.output.filter;
        match level {
            Level::Debug => tracing::debug!(filter, text, "filter log"),
            Level::Info => tracing::info!(filter, text, "filter log"),
            Level::Warn => tracing::warn!(filter, text, "filter log"),
            Level::Error => tracing::error!(filter, text, "filter log"),
        }
        Ok(())
    }

    fn count(&mut self, name: String, by: u64) -> wasmtime::Result<()> {
        if let Some((_, count)) = self.counters.iter_mut().find(|(known, _)| *known == name) {
            *count = count.saturating_add(by);
        } else if self.counters.len() < COUNTER_CAP && name.len() <= 64 {
            self.counters.push((name, by));
        }
        Ok(())
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// Memory, tables and instances of a store.
pub(super) struct Limits {
    memory: usize,
    /// A growth was denied in this call: what fails then, fails for lack of memory.
    pub(super) exceeded: bool,
}

impl Limits {
    /// Bytes of linear memory.
    pub(super) fn memory(&self) -> u64 {
        self.memory as u64
    }
}

impl wasmtime::ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.exceeded |= desired > self.memory;
        Ok(desired <= self.memory)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.exceeded |= desired > 100_000;
        Ok(desired <= 100_000)
    }

    fn instances(&self) -> usize {
        32
    }

    fn tables(&self) -> usize {
        32
    }

    fn memories(&self) -> usize {
        4
    }
}

/// Where the text of one filter goes, and how much more of it may come in this call.
struct Output {
    filter: Arc<str>,
    left: AtomicU64,
    dropped: AtomicU64,
    line: Mutex<Vec<u8>>,
}

impl Output {
    /// As much of `text` as the cap leaves.
    fn allow<'a>(&self, text: &'a str) -> Option<&'a str> {
        let left = self.left.load(Ordering::Relaxed);
        let mut end = text.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.left
            .store(left.saturating_sub(end as u64), Ordering::Relaxed);
        self.dropped
            .fetch_add((text.len() - end) as u64, Ordering::Relaxed);
        text.get(..end).filter(|allowed| !allowed.is_empty())
    }

    /// Logs whole lines of what was printed.
    fn print(&self, bytes: &[u8]) {
        let mut line = self
            .line
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if line.len() + part.len() <= LOG_CAP {
                line.extend_from_slice(part);
            } else {
                self.dropped.fetch_add(part.len() as u64, Ordering::Relaxed);
            }
            if part.ends_with(b"\n") {
                let printed = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if let Some(text) = self.allow(&printed) {
                    tracing::info!(filter = &*self.filter, text, "filter output");
                }
            }
        }
    }
}

/// Stdout and stderr of a filter. It takes everything at once, so that printing never blocks and never traps.
#[derive(Clone)]
struct Stdout(Arc<Output>);

impl IsTerminal for Stdout {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stdout {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl Pollable for Stdout {
    fn ready<'life, 'future>(&'life mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'future>>
    where
        'life: 'future,
    {
        Box::pin(std::future::ready(()))
    }
}

impl OutputStream for Stdout {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.0.print(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(64 << 10)
    }
}

/// Both clocks: the time of the event being handled.
struct EventTime(Arc<AtomicU64>);

impl HostWallClock for EventTime {
    fn resolution(&self) -> Duration {
        Duration::from_micros(1)
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

impl HostMonotonicClock for EventTime {
    fn resolution(&self) -> u64 {
        1_000
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed).saturating_mul(1_000)
    }
}
