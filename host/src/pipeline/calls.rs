//! The calls that are believed alive, from the events and from what FreeSWITCH says when it is asked.
//!
//! An event socket that was away has missed beginnings and ends; what it missed is what the two do not agree about. FreeSWITCH
//! answers from a table that its events are a little ahead of, so what an event said a moment before is not held against it.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::esl::{LiveCall, RollCall, part_of};
use crate::event::{Event, Own, subclass};

/// FreeSWITCH's table of channels is behind its events by less than this.
const SETTLED_US: u64 = 500_000;
/// Ends that are remembered: a beginning that comes after its end begins nothing.
const ENDED: usize = 10_000;

/// All that is known of calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    /// Whether every beginning and end comes.
    #[serde(skip)]
    followed: bool,
    /// What comes, came before.
    #[serde(skip)]
    warming: bool,
    alive: HashMap<Box<str>, Alive>,
    /// The newest ends.
    ended: HashSet<Box<str>>,
    ended_order: VecDeque<Box<str>>,
    core_uuid: Option<String>,
    /// Of the roll call whose parts come now.
    missed: Missed,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Alive {
    /// When something said so last, in microseconds since the epoch.
    at_us: u64,
    /// As FreeSWITCH names it.
    name: Box<str>,
    /// `Caller-Channel-Created-Time`: in microseconds since the epoch.
    created_us: Box<str>,
}

/// What a roll call showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Missed {
    pub(super) lost: u64,
    pub(super) found: u64,
}

/// A roll call, answered.
#[derive(Debug)]
pub(super) struct Answered {
    /// What the host says of it.
    pub(super) events: Vec<Own>,
    /// What all of its parts showed, with the last one.
    pub(super) whole: Option<Missed>,
    pub(super) restarted: bool,
}

impl Calls {
    /// Whether every beginning and end comes from now on.
    pub(super) fn follow(&mut self, followed: bool) {
        self.followed = followed;
        if !followed {
            // Whose end does not come would be alive for ever.
            self.alive.clear();
        }
    }

    /// What comes from now on came before, or does not.
    pub(super) fn warm_up(&mut self, is_warming: bool) {
        self.warming = is_warming;
    }

    pub(super) fn is_warming(&self) -> bool {
        self.warming
    }

    /// How many are believed alive.
    pub(super) fn len(&self) -> usize {
        self.alive.len()
    }

    pub(super) fn core_uuid(&self) -> Option<&str> {
        self.core_uuid.as_deref()
    }

    /// What an event that came at this time says.
    pub(super) fn note(&mut self, event: &Event, at_us: u64) {
        let name = event.name();
        if !self.followed || !name.starts_with("CHANNEL_") {
            return;
        }
        let text = |name| event.get_str(name);
        match &*name {
            "CHANNEL_CREATE" => {
                let Some(uuid) = text("Unique-ID").filter(|uuid| !self.ended.contains(&**uuid))
                else {
                    return;
                };
                let alive = Alive {
                    at_us,
                    name: text("Channel-Name").unwrap_or_default().into(),
                    created_us: text("Caller-Channel-Created-Time")
                        .unwrap_or_default()
                        .into(),
                };
                self.alive.insert(uuid.into(), alive);
            }
            "CHANNEL_DESTROY" => {
                if let Some(uuid) = text("Unique-ID") {
                    self.end(&uuid);
                }
            }
            // A channel that gets another UUID.
            "CHANNEL_UUID" => {
                let (Some(new), Some(old)) = (text("Unique-ID"), text("Old-Unique-ID")) else {
                    return;
                };
                if let Some(alive) = self.alive.remove(&*old) {
                    self.end(&old);
                    self.alive.insert(new.into(), Alive { at_us, ..alive });
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, uuid: &str) {
        self.alive.remove(uuid);
        if self.ended.insert(uuid.into()) {
            self.ended_order.push_back(uuid.into());
        }
        if self.ended_order.len() > ENDED
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }

    /// Compares with what FreeSWITCH says. From then on that is believed.
    pub(super) fn answer(&mut self, roll: &RollCall) -> Answered {
        let mut events = Vec::new();
        if roll.part == 0 {
            self.missed = Missed::default();
        }
        let restarted = self.restarted(roll, &mut events);
        let whole = roll.part + 1 == roll.parts;
        let Ok(listed) = &roll.calls else {
            events.extend(reconnected(roll, None));
            return Answered {
                events,
                whole: None,
                restarted,
            };
        };
        let before = events.len();
        self.find_lost(roll, listed, &mut events);
        self.missed.lost += (events.len() - before) as u64;
        let before = events.len();
        self.find_found(roll, listed, &mut events);
        self.missed.found += (events.len() - before) as u64;
        if whole {
            events.extend(reconnected(roll, Some(self.missed)));
        }
        Answered {
            events,
            whole: whole.then_some(self.missed),
            restarted,
        }
    }

    fn restarted(&mut self, roll: &RollCall, events: &mut Vec<Own>) -> bool {
        let Some(new) = &roll.core_uuid else {
            return false;
        };
        let old = self.core_uuid.replace(new.clone());
        let Some(old) = old.filter(|old| old != new) else {
            return false;
        };
        if !self.warming {
            tracing::warn!(
                core_uuid = new,
                before = old,
                "FreeSWITCH was started anew: the calls of before are gone"
            );
        }
        let own = Own::new(subclass::FREESWITCH_RESTARTED, roll.asked_us);
        let own = own.with("Core-UUID", new);
        events.push(own.with("Previous-Core-UUID", old));
        true
    }

    /// Believed alive and not listed. What an event said only just now is not settled.
    fn find_lost(&mut self, roll: &RollCall, listed: &[LiveCall], events: &mut Vec<Own>) {
        let listed: HashSet<&str> = listed.iter().map(|call| &*call.uuid).collect();
        let is_lost = |uuid: &str, alive: &Alive| {
            alive.at_us + SETTLED_US < roll.asked_us
                && part_of(uuid, roll.parts) == roll.part
                && !listed.contains(uuid)
        };
        let alive = self.alive.iter();
        let lost = alive.filter(|(uuid, alive)| is_lost(uuid, alive));
        let mut lost: Vec<Box<str>> = lost.map(|(uuid, _)| uuid.clone()).collect();
        lost.sort_unstable();
        for uuid in lost {
            if let Some(alive) = self.alive.remove(&uuid) {
                let own = Own::new(subclass::CALL_LOST, roll.asked_us);
                let own = own.with("Unique-ID", &*uuid);
                let own = own.with("Channel-Name", alive.name);
                events.push(own.with("Caller-Channel-Created-Time", alive.created_us));
            }
        }
    }

    /// Listed, not believed alive, and not known to have ended since.
    fn find_found(&mut self, roll: &RollCall, listed: &[LiveCall], events: &mut Vec<Own>) {
        for call in listed {
            if call.uuid.is_empty() || self.ended.contains(&*call.uuid) {
                continue;
            }
            if let Some(alive) = self.alive.get_mut(&*call.uuid) {
                alive.at_us = alive
                    .at_us
                    .max(roll.asked_us.saturating_sub(SETTLED_US + 1));
                continue;
            }
            let created_us = match call.created_epoch.is_empty() {
                true => String::new(),
                false => format!("{}000000", call.created_epoch),
            };
            let own = Own::new(subclass::CALL_FOUND, roll.asked_us);
            let own = own.with("Unique-ID", &call.uuid);
            let own = own.with("Channel-Call-UUID", &call.call_uuid);
            let own = own.with("Channel-Name", &call.name);
            let own = own.with("Call-Direction", &call.direction);
            let own = own.with("Channel-Call-State", &call.callstate);
            let own = own.with("Caller-Caller-ID-Number", &call.cid_num);
            let own = own.with("Caller-Destination-Number", &call.dest);
            events.push(own.with("Caller-Channel-Created-Time", &created_us));
            let alive = Alive {
                at_us: roll.asked_us.saturating_sub(SETTLED_US + 1),
                name: call.name.as_str().into(),
                created_us: created_us.into(),
            };
            self.alive.insert(call.uuid.as_str().into(), alive);
        }
    }
}

/// The link is back, and this was missed, if that is known.
fn reconnected(roll: &RollCall, missed: Option<Missed>) -> Option<Own> {
    let outage = roll.outage.as_ref()?;
    let own = Own::new(subclass::LINK_RECONNECTED, roll.asked_us);
    let own = own.with("Link", "esl").with("Link-Peer", &outage.peer);
    let own = own.with("Link-Error", &outage.error);
    let own = own.with("Link-Attempts", outage.attempts.to_string());
    let own = own.with("Link-Downtime-Ms", (outage.down_us / 1_000).to_string());
    Some(match (missed, &roll.calls) {
        (Some(Missed { lost, found }), _) => own
            .with("Calls-Lost", lost.to_string())
            .with("Calls-Found", found.to_string()),
        (None, Err(why)) => own.with("Calls", "unknown").with("Calls-Error", why),
        (None, Ok(_)) => own.with("Calls", "unknown"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

    use super::{Calls, SETTLED_US};
    use crate::esl::{LiveCall, Outage, RollCall};
    use crate::event::{Event, Format};

    fn event(name: &str, call: u8) -> Event {
        let text = format!("{{\"Event-Name\":\"{name}\",\"Unique-ID\":\"{call}\"}}");
        Event::parse(Format::Json, text.into()).unwrap()
    }

    fn followed() -> Calls {
        let mut calls = Calls::default();
        calls.follow(true);
        calls
    }

    fn roll(asked_us: u64, alive: impl IntoIterator<Item = u8>) -> RollCall {
        let call = |call: u8| LiveCall {
            uuid: call.to_string(),
            ..LiveCall::default()
        };
        RollCall {
            asked_us,
            part: 0,
            parts: 1,
            core_uuid: Some("core".to_owned()),
            outage: None,
            calls: Ok(alive.into_iter().map(call).collect()),
        }
    }

    /// What an answer says, as `subclass call`.
    fn said(calls: &mut Calls, roll: &RollCall) -> Vec<String> {
        let events = calls.answer(roll).events.into_iter();
        let line = |own: crate::event::Own| {
            let header = |name: &str| {
                let found = own.headers.iter().find(|(header, _)| header == name);
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            };
            format!("{} {}", own.subclass, header("Unique-ID"))
                .trim()
                .to_owned()
        };
        events.map(line).collect()
    }

    #[test]
    fn what_differs_is_lost_or_found_once() {
        let mut calls = followed();
        for call in 1..=3 {
            calls.note(&event("CHANNEL_CREATE", call), 1);
        }
        calls.note(&event("CHANNEL_DESTROY", 3), 2);
        let now = 10 * SETTLED_US;
        assert_eq!(
            said(&mut calls, &roll(now, [2, 3, 4])),
            ["call.lost 1", "call.found 4"],
            "3 has ended, whatever the table says"
        );
        assert!(said(&mut calls, &roll(now, [2, 3, 4])).is_empty());
        assert_eq!(
            said(&mut calls, &roll(now + 1, [2])),
            ["call.lost 4"],
            "the table was late"
        );
    }

    #[test]
    fn what_an_event_said_just_now_is_not_held_against_it() {
        let mut calls = followed();
        calls.note(&event("CHANNEL_CREATE", 1), 1_000);
        assert!(said(&mut calls, &roll(1_000 + SETTLED_US, [])).is_empty());
        assert_eq!(
            said(&mut calls, &roll(1_001 + SETTLED_US, [])),
            ["call.lost 1"]
        );
    }

    #[test]
    fn a_beginning_that_comes_after_its_end_begins_nothing() {
        let mut calls = followed();
        calls.note(&event("CHANNEL_DESTROY", 1), 1);
        calls.note(&event("CHANNEL_CREATE", 1), 2);
        assert_eq!(calls.len(), 0);
    }

    #[test]
    fn calls_that_are_not_followed_are_not_kept() {
        let mut calls = followed();
        calls.note(&event("CHANNEL_CREATE", 1), 1);
        calls.follow(false);
        calls.note(&event("CHANNEL_CREATE", 2), 2);
        assert_eq!(calls.len(), 0);
    }

    #[test]
    fn a_new_core_uuid_is_a_restart_and_an_outage_ends_with_what_it_cost() {
        let mut calls = followed();
        assert_eq!(
            said(&mut calls, &roll(SETTLED_US, [1])),
            ["call.found 1"],
            "the first one is no restart"
        );
        let outage = Outage {
            peer: "peer".to_owned(),
            error: "closed".to_owned(),
            down_us: 5_000,
            attempts: 2,
        };
        let anew = RollCall {
            core_uuid: Some("other".to_owned()),
            outage: Some(outage),
            ..roll(9 * SETTLED_US, [])
        };
        assert_eq!(
            said(&mut calls, &anew),
            ["freeswitch.restarted", "call.lost 1", "link.reconnected"]
        );
        let unknown = RollCall {
            calls: Err("why".to_owned()),
            ..anew
        };
        let answered = calls.answer(&unknown);
        let back = &answered.events[0].headers;
        assert!(
            back.contains(&("Calls".to_owned(), "unknown".to_owned())),
            "{back:?}"
        );
        assert!(
            back.contains(&("Calls-Error".to_owned(), "why".to_owned())),
            "{back:?}"
        );
    }

    /// What happens to FreeSWITCH and to the link.
    #[derive(Clone, Debug)]
    enum Happens {
        Create(u8),
        Destroy(u8),
        /// Events are heard from now on, or not.
        Link(bool),
        /// So long nothing happens.
        Quiet(u64),
        RollCall,
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            4 => any::<u8>().prop_map(Happens::Create),
            4 => any::<u8>().prop_map(Happens::Destroy),
            1 => any::<bool>().prop_map(Happens::Link),
            2 => (0..2 * SETTLED_US).prop_map(Happens::Quiet),
            1 => prop::strategy::Just(Happens::RollCall),
        ]
    }

    proptest! {
        #[test]
        fn two_roll_calls_end_every_doubt(history in prop::collection::vec(happens(), 0..300), lag in 0..SETTLED_US) {
            let (mut calls, mut now, mut heard) = (followed(), 1, true);
            // What is alive, and what FreeSWITCH's table showed from when on.
            let (mut alive, mut table) = (BTreeSet::new(), vec![(0, BTreeSet::new())]);
            // UUIDs are never given twice.
            let mut used = BTreeSet::new();
            let mut consumer = BTreeSet::new();
            let listed = |table: &[(u64, BTreeSet<u8>)], now: u64| {
                let shown = table.iter().rev().find(|(at, _)| *at + lag <= now);
                shown.map(|(_, shown)| shown.clone()).unwrap_or_default()
            };
            let believe = |consumer: &mut BTreeSet<u8>, said: Vec<String>| {
                for line in said {
                    let (what, call) = line.split_once(' ').unwrap();
                    let call = call.parse().unwrap();
                    match what {
                        "call.found" => consumer.insert(call),
                        _ => consumer.remove(&call),
                    };
                }
            };
            for one in history {
                now += 1_000;
                match one {
                    Happens::Create(call) if used.insert(call) => {
                        alive.insert(call);
                        table.push((now, alive.clone()));
                        if heard {
                            calls.note(&event("CHANNEL_CREATE", call), now);
                            consumer.insert(call);
                        }
                    }
                    Happens::Destroy(call) if alive.remove(&call) => {
                        table.push((now, alive.clone()));
                        if heard {
                            calls.note(&event("CHANNEL_DESTROY", call), now);
                            consumer.remove(&call);
                        }
                    }
                    Happens::Create(_) | Happens::Destroy(_) => {}
                    Happens::Link(up) => heard = up,
                    Happens::Quiet(time) => now += time,
                    Happens::RollCall => {
                        let said = said(&mut calls, &roll(now, listed(&table, now)));
                        believe(&mut consumer, said);
                    }
                }
            }
            for _ in 0..2 {
                now += 2 * SETTLED_US;
                let said = said(&mut calls, &roll(now, listed(&table, now)));
                believe(&mut consumer, said);
            }
            prop_assert_eq!(&consumer, &alive, "the consumer knows");
            prop_assert_eq!(calls.len(), alive.len(), "the host knows");
        }
    }
}
