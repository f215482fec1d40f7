//! A running instance: one long-lived store, and calls into it that cannot hang or grow without bound.
//!
//! Deadlines count epochs, so whoever calls holds an [`Engine::ticking`] guard meanwhile.
//! After any failure the instance is dead and must be dropped: wasmtime says nothing about the state that a trap leaves.

use std::time::Duration;

use thiserror::Error;
use wasmtime::{Store, Trap};

use super::engine::{Component, Engine};
use super::guest::Guest;
use super::guest::bindings::Filter as Bindings;
use super::guest::bindings::jackfield::filter::types;
use super::refusal::short;
use super::ticker::EPOCH;
use crate::event::Event;

/// How long `configure` and `save` may take: they run while the pipeline waits.
const SWAP_DEADLINE: Duration = Duration::from_millis(100);

/// How a call failed. A failure is never a verdict.
#[derive(Clone, Debug, Error)]
pub enum Failure {
    /// The guest trapped.
    #[error("trap: {0}")]
    Trap(String),
    /// It took longer than its deadline.
    #[error("deadline: no answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// It wanted more memory than it may have.
    #[error("memory: over the limit of {0} bytes")]
    Memory(u64),
    /// It answered what the contract forbids.
    #[error("bad output: {0}")]
    BadOutput(String),
    /// `configure` answered with an error.
    #[error("settings refused: {0}")]
    Refused(String),
    /// It was not called: it rests after failures, or never could start.
    #[error("not running: {0}")]
    NotRunning(String),
}

impl Failure {
    /// The label of the metric.
    pub fn cause(&self) -> &'static str {
        match self {
            Failure::Trap(_) => "trap",
            Failure::Deadline(_) => "deadline",
            Failure::Memory(_) => "memory",
            Failure::BadOutput(_) => "bad_output",
            Failure::Refused(_) => "refused",
            Failure::NotRunning(_) => "not_running",
        }
    }
}

pub(super) struct Instance {
    store: Store<Guest>,
    bindings: Bindings,
    deadline: Duration,
    memory: u64,
}

impl Instance {
    pub(super) fn new(
        engine: &Engine,
        component: &Component,
        guest: Guest,
        deadline: Duration,
    ) -> Result<Instance, Failure> {
        let memory = guest.limits.memory();
        let mut store = Store::new(engine.wasmtime(), guest);
        store.limiter(|guest| &mut guest.limits);
        // What the guest may make the host allocate in one call.
        store.set_hostcall_fuel(usize::try_from(memory).unwrap_or(usize::MAX));
        store.set_epoch_deadline(epochs(SWAP_DEADLINE));
        let instantiated = component.pre.instantiate(&mut store);
        let bindings =
            instantiated.map_err(|error| classify(&error, &store, SWAP_DEADLINE, memory))?;
        Ok(Instance {
            store,
            bindings,
            deadline,
            memory,
        })
    }

    pub(super) fn guest(&mut self) -> &mut Guest {
        self.store.data_mut()
    }

    pub(super) fn configure(
        &mut self,
        settings: &str,
        saved: Option<&[u8]>,
        now_us: u64,
    ) -> Result<types::Manifest, Failure> {
        let answer = self.call(SWAP_DEADLINE, now_us, |store, bindings| {
            bindings
                .jackfield_filter_handler()
                .call_configure(store, settings, saved)
        })?;
        answer.map_err(|error| Failure::Refused(short(error)))
    }

    pub(super) fn save(&mut self, now_us: u64) -> Result<Vec<u8>, Failure> {
        self.call(SWAP_DEADLINE, now_us, |store, bindings| {
            bindings.jackfield_filter_handler().call_save(store)
        })
    }

    pub(super) fn tick(&mut self, now_us: u64) -> Result<Vec<types::Derived>, Failure> {
        self.call(self.deadline, now_us, |store, bindings| {
            bindings.jackfield_filter_handler().call_tick(store, now_us)
        })
    }

    /// One event. It is in the store meanwhile, and comes back as it was whatever happens.
    pub(super) fn handle(
        &mut self,
        event: &mut Event,
        values: &[Option<&str>],
        now_us: u64,
    ) -> Result<types::Decision, Failure> {
        self.store.data_mut().event = Some(std::mem::take(event));
        let decision = self.call(self.deadline, now_us, |store, bindings| {
            bindings
                .jackfield_filter_handler()
                .call_handle(store, now_us, values)
        });
        if let Some(back) = self.store.data_mut().event.take() {
            *event = back;
        }
        decision
    }

    fn call<T>(
        &mut self,
        deadline: Duration,
        now_us: u64,
        call: impl FnOnce(&mut Store<Guest>, &Bindings) -> wasmtime::Result<T>,
    ) -> Result<T, Failure> {
        self.store.data_mut().prepare(now_us);
        self.store.set_epoch_deadline(epochs(deadline));
        let answer = call(&mut self.store, &self.bindings);
        answer.map_err(|error| classify(&error, &self.store, deadline, self.memory))
    }
}

/// The first epoch may end at once, so one more than the deadline has.
fn epochs(deadline: Duration) -> u64 {
    u64::try_from(deadline.as_micros().div_ceil(EPOCH.as_micros()))
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

fn classify(
    error: &wasmtime::Error,
    store: &Store<Guest>,
    deadline: Duration,
    memory: u64,
) -> Failure {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Failure::Deadline(deadline),
        _ if store.data().limits.exceeded => Failure::Memory(memory),
        _ => {
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            let last = causes.last().map_or("unknown", String::as_str);
            Failure::Trap(
                last.trim_start_matches("wasm trap: ")
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(200)
                    .collect(),
            )
        }
    }
}
