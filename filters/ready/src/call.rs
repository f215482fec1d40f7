//! What is known of one call. It only grows, and every time in it is the earliest, so that what it says in the end does not depend
//! on the order in which its parts came, nor on how often.

use std::rc::Rc;

use jackfield_sdk::count;

use crate::rules::Meaning;

/// Ids of one call. A header that joins everything with everything must not make one call of all.
pub(crate) const MAX_IDS: usize = 16;
/// Needs of one call, seen or declared.
pub(crate) const MAX_NEEDS: usize = 32;

/// Whether something was said of the call, which happens once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Ready,
    TimedOut,
}

/// One call, or what else the ids stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// In the order in which they came; at least one.
    pub(crate) ids: Vec<Id>,
    /// Needs that were seen, and when first, in the events' time.
    pub(crate) seen: Vec<(Rc<str>, u64)>,
    /// The needs that an event declared for this call.
    pub(crate) declared: Option<Vec<Rc<str>>>,
    pub(crate) state: State,
    /// When its time is up, in the ticks' time; 0: the next tick decides it.
    pub(crate) until: u64,
}

/// An id of a call. It is a leg if it started or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Id {
    pub(crate) text: Rc<str>,
    pub(crate) started: Option<u64>,
    pub(crate) ended: bool,
}

impl Call {
    pub(crate) fn new() -> Self {
        Self {
            ids: Vec::new(),
            seen: Vec::new(),
            declared: None,
            state: State::Waiting,
            until: 0,
        }
    }

    /// Takes up what an event says of it.
    pub(crate) fn learn(&mut self, meaning: &Meaning<'_>, now: u64) {
        let own = meaning.ids.first().copied().unwrap_or_default();
        if let Some(leg) = self.ids.iter_mut().find(|id| &*id.text == own) {
            if meaning.starts {
                leg.started = Some(leg.started.map_or(now, |earlier| earlier.min(now)));
            }
            leg.ended |= meaning.ends;
        }
        for need in &meaning.seen {
            self.see(need, now);
        }
        if let Some(needs) = &meaning.declared {
            self.declare(needs);
        }
        // What is only remembered is so for as long again.
        if self.state != State::Waiting {
            self.until = 0;
        }
    }

    fn see(&mut self, need: &str, now: u64) {
        let full = self.seen.len() >= MAX_NEEDS;
        match self.seen.iter_mut().find(|(name, _)| &**name == need) {
            Some((_, at)) => *at = now.min(*at),
            None if full => count("needs_over", 1),
            None => self.seen.push((need.into(), now)),
        }
    }

    fn declare(&mut self, needs: &[&str]) {
        let declared = self.declared.get_or_insert_default();
        for need in needs {
            if declared.iter().any(|known| &**known == *need) {
                continue;
            }
            if declared.len() < MAX_NEEDS {
                declared.push((*need).into());
            } else {
                count("needs_over", 1);
            }
        }
    }

    /// Makes one call of two. What was said of either stands for both.
    pub(crate) fn merge(&mut self, other: Self) {
        self.ids.extend(other.ids);
        for (need, at) in other.seen {
            self.see(&need, at);
        }
        if let Some(needs) = other.declared {
            self.declare(&needs.iter().map(|need| &**need).collect::<Vec<_>>());
        }
        self.state = match (self.state, other.state) {
            (State::Ready, _) | (_, State::Ready) => State::Ready,
            (State::TimedOut, _) | (_, State::TimedOut) => State::TimedOut,
            (State::Waiting, State::Waiting) => State::Waiting,
        };
        // The older one waits no longer because of the younger one.
        self.until = match (self.until, other.until) {
            (0, until) | (until, 0) => until,
            (one, two) => one.min(two),
        };
    }

    pub(crate) fn settle(&mut self, state: State) {
        self.state = state;
        self.until = 0;
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Whether something will be said of it. Of a call of which only a link, or only its end, was seen nobody waits for anything.
    pub(crate) fn is_awaited(&self) -> bool {
        let known = self.started().is_some() || !self.seen.is_empty() || self.declared.is_some();
        self.state == State::Waiting && known
    }

    pub(crate) fn started(&self) -> Option<u64> {
        self.ids.iter().filter_map(|id| id.started).min()
    }

    /// All legs that started have ended. An id that is known by name alone is no leg.
    pub(crate) fn has_ended(&self) -> bool {
        let goes_on = |id: &Id| id.started.is_some() && !id.ended;
        self.ids.iter().any(|id| id.ended) && !self.ids.iter().any(goes_on)
    }

    /// `created`, `ready` or `terminated`; nothing before its start.
    pub(crate) fn phase(&self) -> Option<&'static str> {
        match self.state {
            _ if self.has_ended() => Some("terminated"),
            State::Ready => Some("ready"),
            State::Waiting | State::TimedOut => self.started().map(|_| "created"),
        }
    }

    /// The id that started first, or was seen first.
    pub(crate) fn id(&self) -> &str {
        let legs = self.ids.iter().filter(|id| id.started.is_some());
        let first = legs.min_by_key(|leg| leg.started);
        first.or(self.ids.first()).map_or("", |id| &id.text)
    }

    pub(crate) fn seen_at(&self, need: &str) -> Option<u64> {
        let seen = self.seen.iter().find(|(name, _)| &**name == need);
        seen.map(|(_, at)| *at)
    }
}
