//! Says once, for each call, that all it needs has been seen (`READY`), or what is missing (`READY_TIMEOUT`).
//!
//! The lesson: state over many events that comes in any order, twice, or not at all. What a call knows only grows (ids, legs, needs
//! seen), so that the order of arrival does not matter; what is said of it is said once and remembered; all of it is bounded, and goes
//! from version to version, and over a restart, by `save`.
//!
//! Two clocks, neither of them its own: the events' time says how long a need took, the ticks' time says when a call has waited
//! too long, so that a FreeSWITCH whose clock differs from the host's does no harm.

mod call;
mod calls;
mod outcome;
mod rules;
mod saved;
mod settings;

use std::iter;
use std::time::Duration;

use jackfield_sdk::{Derived, Event, Filter, Manifest, Verdict, count, warn};

use call::{Call, State};
use calls::Calls;
use outcome::Outcome;
use rules::Rules;
use settings::Settings;

/// Calls that may time out in one tick; the next tick goes on. The host takes 256 derived events, and 1 MiB, of one call.
const DUE_A_TICK: usize = 100;
/// Calls that give way in one event; more than one only after a swap to a lower bound.
const EVICTED_AT_ONCE: usize = 10;
/// An ended call is remembered so long, because events of it may still come: a blocking command keeps them back for 30 s.
const LATE: Duration = Duration::from_secs(60);

/// The filter.
pub struct Ready {
    rules: Rules,
    calls: Calls,
}

impl Filter for Ready {
    type Settings = Settings;

    fn new(settings: Settings, saved: Option<Vec<u8>>) -> Result<Self, String> {
        let rules = settings.checked()?;
        let calls = saved.map_or_else(Vec::new, |bytes| {
            saved::read(&bytes).unwrap_or_else(|| {
                warn!("the saved state is damaged or of another version: calls start anew");
                Vec::new()
            })
        });
        Ok(Self {
            calls: Calls::new(rules.max_calls, calls),
            rules,
        })
    }

    fn manifest(&self) -> Manifest {
        // A call waits up to two ticks longer: a fifth of the timeout, half a second at most. And as long as a call is known, its time
        // must come, so no settings do without ticks.
        let tick =
            (self.rules.timeout / 10).clamp(Duration::from_millis(10), Duration::from_millis(250));
        let manifest = Manifest::new().events(&self.rules.events);
        manifest.headers(&self.rules.headers).tick(tick)
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let now = event.now();
        let meaning = self.rules.meaning(event);
        if meaning.ids.is_empty() {
            count("without_id", 1);
            return Verdict::Pass;
        }
        let number = self.calls.join(&meaning.ids);
        let mut derived = Vec::new();
        let mut phase = None;
        if let Some(call) = self.calls.get_mut(number) {
            call.learn(&meaning, now);
            if let Some(outcome) = self.rules.outcome(call) {
                call.settle(outcome.state());
                derived.push(self.rules.derive(call, outcome, now));
                self.calls.settled(number);
                count(outcome.name(), 1);
            }
            phase = self.calls.get_mut(number).and_then(|call| call.phase());
        }
        for evicted in iter::from_fn(|| self.calls.evict()).take(EVICTED_AT_ONCE) {
            if evicted.is_awaited() {
                derived.push(self.rules.derive(&evicted, Outcome::Evicted, now));
            }
            count(Outcome::Evicted.name(), 1);
        }
        for derived in derived {
            event.emit(derived);
        }
        if let Some(phase) = phase {
            event.set("Ready-Phase", phase);
        }
        Verdict::Pass
    }

    fn tick(&mut self, now: u64) -> Vec<Derived> {
        let (timeout, forget) = (self.rules.timeout, self.rules.forget);
        let time = |call: &Call| match call.state() {
            State::Waiting if !call.has_ended() => timeout,
            _ if call.has_ended() => LATE,
            _ => forget,
        };
        let mut derived = Vec::new();
        for number in self.calls.due(now, time, DUE_A_TICK) {
            match self.calls.get_mut(number) {
                Some(call) if call.is_awaited() => {
                    // New settings may ask for less than it has by now.
                    let outcome = self.rules.outcome(call).unwrap_or(Outcome::TimedOut);
                    call.settle(outcome.state());
                    derived.push(self.rules.derive(call, outcome, now));
                    self.calls.settled(number);
                    count(outcome.name(), 1);
                }
                _ => {
                    self.calls.remove(number);
                    count("forgotten", 1);
                }
            }
        }
        derived
    }

    fn save(&self) -> Vec<u8> {
        saved::write(self.calls.iter())
    }
}

jackfield_sdk::export!(Ready);

#[cfg(test)]
mod tests;
