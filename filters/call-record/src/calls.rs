//! The calls that have not ended. A call is its first leg, which nobody originated, and all legs that one of its legs did.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::leg::Leg;

/// Of the saved state. Another layout gets another number.
const VERSION: u32 = 1;

/// A call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// When it came up.
    at: u64,
    /// The id of its first leg.
    id: String,
    /// The ids of the legs that have not ended.
    open: Vec<String>,
    /// The first leg, once it has ended.
    pub(crate) first: Option<Box<Leg>>,
    /// Of the others that have ended the answered one that ended last, or the last one if none was answered.
    pub(crate) other: Option<Box<Leg>>,
    /// So many have ended.
    pub(crate) legs: u32,
}

/// The calls by the order in which they came up, and which call each open leg is in.
pub(crate) struct Calls {
    calls: BTreeMap<u64, Call>,
    legs: HashMap<String, u64>,
    next: u64,
    max_legs: usize,
    max_age_us: u64,
}

#[derive(Serialize)]
struct Saving<'a> {
    version: u32,
    calls: Vec<&'a Call>,
}

#[derive(Deserialize)]
struct Saved {
    version: u32,
    calls: Vec<Call>,
}

impl Calls {
    pub(crate) fn new(max_legs: usize, max_age_us: u64) -> Self {
        Self {
            calls: BTreeMap::new(),
            legs: HashMap::new(),
            next: 0,
            max_legs,
            max_age_us,
        }
    }

    /// A leg is there; nothing, if that is known.
    pub(crate) fn begin(&mut self, id: String, originator: Option<String>, now: u64) {
        if self.legs.contains_key(&id) {
            return;
        }
        let number = match originator {
            // An originator that nothing is known of began before this filter did, and is still there.
            Some(first) => match self.legs.get(&first) {
                Some(number) => *number,
                None => self.open_call(first, now),
            },
            None => {
                self.open_call(id, now);
                return;
            }
        };
        if let Some(call) = self.calls.get_mut(&number) {
            call.open.push(id.clone());
            self.legs.insert(id, number);
        }
    }

    fn open_call(&mut self, first: String, now: u64) -> u64 {
        let call = Call {
            at: now,
            id: first.clone(),
            open: vec![first],
            first: None,
            other: None,
            legs: 0,
        };
        self.put(call)
    }

    fn put(&mut self, call: Call) -> u64 {
        let number = self.next;
        self.next += 1;
        self.legs
            .extend(call.open.iter().map(|leg| (leg.clone(), number)));
        self.calls.insert(number, call);
        number
    }

    /// A leg has ended; the call, if it was the last one.
    pub(crate) fn end(
        &mut self,
        id: String,
        originator: Option<String>,
        leg: Leg,
        now: u64,
    ) -> Option<Call> {
        self.begin(id.clone(), originator, now);
        let number = self.legs.remove(&id)?;
        let call = self.calls.get_mut(&number)?;
        call.open.retain(|open| *open != id);
        call.legs += 1;
        if id == call.id {
            call.first = Some(Box::new(leg));
        } else if leg.answer.is_some()
            || call
                .other
                .as_ref()
                .is_none_or(|other| other.answer.is_none())
        {
            call.other = Some(Box::new(leg));
        }
        if call.open.is_empty() {
            return self.calls.remove(&number);
        }
        None
    }

    /// Forgets the oldest calls while there are too many legs, or the oldest is too old. How many there were.
    pub(crate) fn forget(&mut self, now: u64) -> u64 {
        let mut forgotten = 0;
        while let Some(oldest) = self.calls.first_entry()
            && (self.legs.len() > self.max_legs
                || oldest.get().at.saturating_add(self.max_age_us) < now)
        {
            for leg in oldest.remove().open {
                self.legs.remove(&leg);
            }
            forgotten += 1;
        }
        forgotten
    }

    pub(crate) fn save(&self) -> Vec<u8> {
        let calls = self.calls.values().collect();
        let state = Saving {
            version: VERSION,
            calls,
        };
        // Nothing in it can fail to be written.
        serde_json::to_vec(&state).unwrap_or_default()
    }

    pub(crate) fn restore(&mut self, saved: &[u8]) -> Result<(), String> {
        let saved: Saved = serde_json::from_slice(saved).map_err(|error| error.to_string())?;
        if saved.version != VERSION {
            return Err(format!("it is of version {}, not {VERSION}", saved.version));
        }
        for call in saved.calls {
            self.put(call);
        }
        Ok(())
    }
}
