//! Compiles filter files to components, and keeps the clock that ends calls which take too long.
//!
//! Calls are bounded by epochs: a thread advances the engine's epoch every millisecond, but only while some call runs, so
//! that an idle host stays idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest, Sha256};
use thiserror::Error;
use wasmtime::component::{Linker, Resource};
use wasmtime::{Config, OptLevel};
use wasmtime_wasi::p2::DynPollable;

use super::guest::{Guest, bindings};
use crate::config::Wasi;

/// The length of an epoch; deadlines are whole numbers of it.
pub(super) const EPOCH: Duration = Duration::from_millis(1);

/// Why a file is no filter that can run.
#[derive(Debug, Error)]
pub enum Refusal {
    /// Not a component of the contract's world.
    #[error("not a component of jackfield:filter@0.1.0: {0}")]
    Component(String),
    /// `wasi = "deny"`, and it imports WASI.
    #[error("imports {0}, and wasi = \"deny\" forbids WASI")]
    Wasi(String),
    /// Its settings file is wrong.
    #[error("{0}")]
    Settings(String),
    /// `configure` said no, or failed.
    #[error("{0}")]
    Configure(String),
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

/// A filter file, validated, compiled, known by its digest.
#[derive(Clone)]
pub struct Component {
    /// SHA-256 of the file, in hexadecimal.
    pub digest: Arc<str>,
    pub(super) pre: bindings::FilterPre<Guest>,
    wasi_import: Option<String>,
}

impl Component {
    /// Whether `wasi` lets it run.
    pub fn admit(&self, wasi: Wasi) -> Result<(), Refusal> {
        match (&self.wasi_import, wasi) {
            (Some(import), Wasi::Deny) => Err(Refusal::Wasi(import.clone())),
            _ => Ok(()),
        }
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> Arc<str> {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        .into()
}

/// wasmtime with its linker, shared by all filters of a host.
pub struct Engine {
    engine: wasmtime::Engine,
    linker: Linker<Guest>,
    ticker: Arc<Ticker>,
}

impl Engine {
    /// One engine, and its ticking thread.
    pub fn new() -> Result<Engine, Refusal> {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .cranelift_opt_level(OptLevel::Speed)
            .wasm_component_model(true);
        let engine = wasmtime::Engine::new(&config).map_err(refused)?;
        let linker = linker(&engine).map_err(refused)?;
        let ticker = Ticker::start(engine.clone())?;
        Ok(Engine {
            engine,
            linker,
            ticker,
        })
    }

    /// Compiles a file and checks it against the contract.
    pub fn compile(&self, bytes: &[u8]) -> Result<Component, Refusal> {
        let component =
            wasmtime::component::Component::new(&self.engine, bytes).map_err(refused)?;
        let kind = component.component_type();
        let wasi_import = kind
            .imports(&self.engine)
            .map(|(name, _)| name.to_owned())
            .find(|name| name.starts_with("wasi:"));
        let pre = self.linker.instantiate_pre(&component).map_err(refused)?;
        let pre = bindings::FilterPre::new(pre).map_err(refused)?;
        Ok(Component {
            digest: digest(bytes),
            pre,
            wasi_import,
        })
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.engine
    }

    /// Epochs advance, and so deadlines hold, until the guard is dropped. Hold one while calling filters.
    pub fn ticking(&self) -> Ticking {
        self.ticker.tick()
    }
}

fn refused(error: wasmtime::Error) -> Refusal {
    // The chain's causes say what is wrong; they are one line for the log and the status.
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    let text = causes.join(": ");
    let words: Vec<&str> = text.split_whitespace().collect();
    Refusal::Component(words.join(" "))
}

fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
    // A wait is not bounded by epochs: it would stop the pipeline. So waiting traps.
    linker.allow_shadowing(true);
    let mut poll = linker.instance("wasi:io/poll@0.2.12")?;
    poll.func_wrap(
        "poll",
        |_, (_,): (Vec<Resource<DynPollable>>,)| -> wasmtime::Result<(Vec<u32>,)> {
            Err(wasmtime::Error::msg(NO_WAITING))
        },
    )?;
    poll.func_wrap(
        "[method]pollable.block",
        |_, (_,): (Resource<DynPollable>,)| -> wasmtime::Result<()> {
            Err(wasmtime::Error::msg(NO_WAITING))
        },
    )?;
    linker.allow_shadowing(false);
    bindings::Filter::add_to_linker::<Guest, wasmtime::component::HasSelf<Guest>>(
        &mut linker,
        |guest| guest,
    )?;
    Ok(linker)
}

const NO_WAITING: &str = "a filter must not wait (sleep or poll)";

/// Advances the epoch while calls run.
struct Ticker {
    running: AtomicUsize,
    stop: AtomicBool,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Ticker {
    fn start(engine: wasmtime::Engine) -> Result<Arc<Ticker>, Refusal> {
        let ticker = Arc::new(Ticker {
            running: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            thread: std::sync::Mutex::new(None),
        });
        let ticking = Arc::clone(&ticker);
        let thread = std::thread::Builder::new()
            .name("epoch".to_owned())
            .spawn(move || {
                while !ticking.stop.load(Ordering::Acquire) {
                    if ticking.running.load(Ordering::Acquire) == 0 {
                        std::thread::park();
                    } else {
                        std::thread::sleep(EPOCH);
                        engine.increment_epoch();
                    }
                }
            })
            .map_err(|error| {
                Refusal::Component(format!("cannot start the epoch thread: {error}"))
            })?;
        *ticker.thread() = Some(thread);
        Ok(ticker)
    }

    /// Epochs advance until the guard is dropped.
    fn tick(self: &Arc<Ticker>) -> Ticking {
        if self.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.wake();
        }
        Ticking(Arc::clone(self))
    }

    fn wake(&self) {
        if let Some(thread) = self.thread().as_ref() {
            thread.thread().unpark();
        }
    }

    fn thread(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Keeps the epochs advancing.
pub struct Ticking(Arc<Ticker>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.ticker.stop.store(true, Ordering::Release);
        self.ticker.wake();
        let thread = self.ticker.thread().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the epoch thread died");
        }
    }
}
