//! The calls that are known: found by any of their ids, joined when an event has ids of two of them, and no more than a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use jackfield_sdk::count;

use crate::call::{Call, Id, MAX_IDS, State};

/// The calls. A number says which of two calls is older.
pub(crate) struct Calls {
    most: usize,
    next: u64,
    by_number: BTreeMap<u64, Call>,
    by_id: BTreeMap<Rc<str>, u64>,
    /// Who gives way first: of what something was said already, then what still waits; the older one first.
    way: BTreeSet<(bool, u64)>,
}

impl Calls {
    /// At most so many calls; `known` are those that were saved, the oldest first.
    pub(crate) fn new(most: usize, known: Vec<Call>) -> Self {
        let mut calls = Self {
            most,
            next: 0,
            by_number: BTreeMap::new(),
            by_id: BTreeMap::new(),
            way: BTreeSet::new(),
        };
        for call in known {
            calls.add(call);
        }
        calls
    }

    fn add(&mut self, call: Call) -> u64 {
        let number = self.next;
        self.next += 1;
        for id in &call.ids {
            self.by_id.insert(Rc::clone(&id.text), number);
        }
        self.way.insert((call.state() == State::Waiting, number));
        self.by_number.insert(number, call);
        number
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Call> {
        self.by_number.get_mut(&number)
    }

    /// From the oldest on.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Call> {
        self.by_number.values()
    }

    /// The call of the first of these ids. Calls that were two become one, the older; ids that are new join it, or make a new one.
    pub(crate) fn join(&mut self, ids: &[&str]) -> u64 {
        let known: BTreeSet<u64> = ids.iter().filter_map(|id| self.number(id)).collect();
        let mut known = known.into_iter();
        let number = known.next().unwrap_or_else(|| self.add(Call::new()));
        for other in known {
            self.absorb(number, other);
        }
        for id in ids {
            if self.number(id).is_none() {
                self.name(number, id);
            }
        }
        let Some(own) = ids.first() else {
            return number;
        };
        // Where the bound on its ids keeps it out of that call, the first one is a call of its own.
        self.number(own).unwrap_or_else(|| {
            let number = self.add(Call::new());
            self.name(number, own);
            number
        })
    }

    fn number(&self, id: &str) -> Option<u64> {
        self.by_id.get(id).copied()
    }

    fn name(&mut self, number: u64, id: &str) {
        match self.by_number.get_mut(&number) {
            Some(call) if call.ids.len() < MAX_IDS => {
                let text: Rc<str> = id.into();
                self.by_id.insert(Rc::clone(&text), number);
                call.ids.push(Id {
                    text,
                    started: None,
                    ended: false,
                });
            }
            _ => count("ids_over", 1),
        }
    }

    fn absorb(&mut self, number: u64, other: u64) {
        let ids = |calls: &Self, number| calls.by_number.get(&number).map_or(0, |c| c.ids.len());
        if ids(self, number) + ids(self, other) > MAX_IDS {
            count("ids_over", 1);
            return;
        }
        let Some(absorbed) = self.remove(other) else {
            return;
        };
        for id in &absorbed.ids {
            self.by_id.insert(Rc::clone(&id.text), number);
        }
        let mut settled = false;
        if let Some(call) = self.by_number.get_mut(&number) {
            call.merge(absorbed);
            settled = call.state() != State::Waiting;
        }
        if settled {
            self.settled(number);
        }
        count("joined", 1);
    }

    /// Something was said of this call.
    pub(crate) fn settled(&mut self, number: u64) {
        if self.way.remove(&(true, number)) {
            self.way.insert((false, number));
        }
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<Call> {
        let call = self.by_number.remove(&number)?;
        self.way.remove(&(true, number));
        self.way.remove(&(false, number));
        for id in &call.ids {
            self.by_id.remove(&id.text);
        }
        Some(call)
    }

    /// The call that gives way, if there are too many.
    pub(crate) fn evict(&mut self) -> Option<Call> {
        let over = self.by_number.len() > self.most;
        let (_, number) = self.way.first().copied().filter(|_| over)?;
        self.remove(number)
    }

    /// The calls whose time is up, at most so many. Time counts from the first tick on that finds the call as it is now.
    pub(crate) fn due(
        &mut self,
        now: u64,
        time: impl Fn(&Call) -> Duration,
        most: usize,
    ) -> Vec<u64> {
        let mut due = Vec::new();
        for (number, call) in &mut self.by_number {
            if call.until == 0 {
                let micros = u64::try_from(time(call).as_micros()).unwrap_or(u64::MAX);
                call.until = now.saturating_add(micros);
            } else if call.until <= now && due.len() < most {
                due.push(*number);
            }
        }
        due
    }
}
