//! What is said of a call, and the event that says it.

use jackfield_sdk::Derived;

use crate::call::{Call, State};
use crate::rules::Rules;

/// What is said of a call: that it is ready, or why it never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ready,
    /// It waited too long.
    TimedOut,
    /// It ended before.
    Ended,
    /// It gave way to newer ones.
    Evicted,
}

impl Outcome {
    pub(crate) fn state(self) -> State {
        match self {
            Self::Ready => State::Ready,
            Self::TimedOut | Self::Ended | Self::Evicted => State::TimedOut,
        }
    }

    /// Also the name of its counter.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::TimedOut => "timeout",
            Self::Ended => "ended",
            Self::Evicted => "evicted",
        }
    }
}

impl Rules {
    /// What is now to be said of a call, if anything.
    pub(crate) fn outcome(&self, call: &Call) -> Option<Outcome> {
        if !call.is_awaited() {
            None
        } else if self.missing(call).is_empty() {
            Some(Outcome::Ready)
        } else {
            call.has_ended().then_some(Outcome::Ended)
        }
    }

    /// The event that says it.
    pub(crate) fn derive(&self, call: &Call, outcome: Outcome, now: u64) -> Derived {
        let needs = self.needs_of(call);
        let name = match outcome {
            Outcome::Ready => "READY",
            Outcome::TimedOut | Outcome::Ended | Outcome::Evicted => "READY_TIMEOUT",
        };
        let ids: Vec<&str> = call.ids.iter().map(|id| &*id.text).collect();
        let mut derived = Derived::new(name)
            .header("Event-Date-Timestamp", now.to_string())
            .header(self.id_header(), call.id())
            .header("Ready-Ids", ids.join(","))
            .header("Ready-Needs", needs.join(","));
        if let Some(phase) = call.phase() {
            derived = derived.header("Ready-Phase", phase);
        }
        if outcome != Outcome::Ready {
            derived = derived
                .header("Ready-Reason", outcome.name())
                .header("Ready-Missing", self.missing(call).join(","));
        }
        let Some(started) = call.started() else {
            return derived;
        };
        let took = |at: u64| at.saturating_sub(started) / 1_000;
        if outcome == Outcome::Ready {
            let times = needs.iter().filter_map(|need| call.seen_at(need));
            let last = times.max().map_or(0, took);
            derived = derived.header("Ready-Took-Ms", last.to_string());
        }
        for need in needs {
            if let Some(at) = call.seen_at(need) {
                derived = derived.header(format!("Ready-Took-Ms-{need}"), took(at).to_string());
            }
        }
        derived
    }

    /// What a call still lacks: `start`, `declaration`, needs.
    fn missing<'a>(&'a self, call: &'a Call) -> Vec<&'a str> {
        let start = call.started().is_none().then_some("start");
        let declaration = (call.declared.is_none() && !self.has_needs()).then_some("declaration");
        let needs = self.needs_of(call).into_iter();
        let unseen = needs.filter(|need| call.seen_at(need).is_none());
        start.into_iter().chain(declaration).chain(unseen).collect()
    }

    /// The needs declared for this call, or else those of every call.
    fn needs_of<'a>(&'a self, call: &'a Call) -> Vec<&'a str> {
        match &call.declared {
            Some(declared) => declared.iter().map(|need| &**need).collect(),
            None => self.always().collect(),
        }
    }
}
