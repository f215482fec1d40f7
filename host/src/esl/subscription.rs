//! Which events to ask FreeSWITCH for, and the commands that ask.
//!
//! Pure: sets in, command lines out. Three things of FreeSWITCH shape it. `CUSTOM` takes every word after it as a
//! subclass, so it stands last; a bare `CUSTOM` selects nothing, so whoever wants every subclass gets `event … ALL` narrowed by
//! `filter Event-Name …` lines; and a first filter line hides all that does not match it, so on a live connection a line that
//! matches everything covers the change.

use std::collections::BTreeSet;

use crate::config::EventsWanted;
use crate::event::{CUSTOM, Format, JACKFIELD, Selection};

/// What says that a call began, and that it ended: with both, the calls that are alive are known.
const CALLS: [&str; 2] = ["CHANNEL_CREATE", "CHANNEL_DESTROY"];
/// Matches every event while filter lines change.
const COVER: &str = "/^/";

/// The events that someone wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    all: bool,
    names: BTreeSet<String>,
    subclasses: BTreeSet<String>,
    /// Subclasses of the host's own events, which FreeSWITCH is not asked for; empty text for all of them.
    own: BTreeSet<String>,
}

impl Subscription {
    /// HEARTBEAT alone: the only sign of life that an idle FreeSWITCH gives.
    pub fn new() -> Subscription {
        Subscription {
            names: BTreeSet::from(["HEARTBEAT".to_owned()]),
            ..Subscription::default()
        }
    }

    /// What the settings alone ask for; with `auto`, routes and filters add to it.
    pub fn of(settings: &EventsWanted) -> Subscription {
        let mut wanted = Subscription::new();
        if let EventsWanted::List(events) = settings {
            for event in events {
                wanted.add(&event.name, event.subclass.as_deref());
            }
        }
        wanted
    }

    /// Adds every event that there is.
    pub fn add_all(&mut self) {
        self.all = true;
    }

    /// Adds an event by name; `CUSTOM` without a subclass means all of its subclasses.
    pub fn add(&mut self, name: &str, subclass: Option<&str>) {
        match subclass {
            _ if name == JACKFIELD => self.own.insert(subclass.unwrap_or_default().to_owned()),
            Some(subclass) if name == CUSTOM => self.subclasses.insert(subclass.to_owned()),
            _ => self.names.insert(name.to_owned()),
        };
    }

    /// Adds what a route or a filter means.
    pub fn add_selection(&mut self, selection: &Selection) {
        for (name, subclass) in selection.iter() {
            self.add(name, subclass);
        }
    }

    /// Where calls that were missed are wanted, so are those that were not: nothing is missed but beside them.
    pub fn add_what_calls_need(&mut self) {
        if self.wants_own("call.lost") || self.wants_own("call.found") {
            self.names.extend(CALLS.map(str::to_owned));
        }
    }

    /// Whether somebody lists this subclass of the host's own events.
    pub fn wants_own(&self, subclass: &str) -> bool {
        self.own.contains("") || self.own.contains(subclass)
    }

    /// Takes over which of the host's own events are wanted.
    pub fn set_own(&mut self, other: &Subscription) {
        self.own.clone_from(&other.own);
    }

    /// Whether every beginning and end of a call comes.
    pub fn follows_calls(&self) -> bool {
        self.all || CALLS.iter().all(|name| self.names.contains(*name))
    }

    /// Whether FreeSWITCH is asked for the same.
    fn asks_for(&self, other: &Subscription) -> bool {
        (self.all, &self.names, &self.subclasses) == (other.all, &other.names, &other.subclasses)
    }

    /// Whether naming the events is enough.
    fn by_name(&self) -> bool {
        !self.all && !self.names.contains(CUSTOM)
    }

    /// The values of `Event-Name` that may pass where everything is subscribed to.
    fn filters(&self) -> BTreeSet<&str> {
        let mut filters: BTreeSet<&str> = self.names.iter().map(String::as_str).collect();
        if !self.subclasses.is_empty() {
            filters.insert(CUSTOM);
        }
        if filters.contains("PRIVATE_COMMAND") {
            // FreeSWITCH's filter reads the first of the two names that this event carries.
            filters.insert("COMMAND");
        }
        filters
    }
}

/// What a connection has been told.
#[derive(Clone, Debug)]
pub(super) struct Subscribed {
    format: &'static str,
    wanted: Subscription,
    /// `event … ALL` was sent: from then on only filters narrow it, because `nixevent ALL` would leave a gap.
    all: bool,
}

impl Subscribed {
    /// The commands for a fresh connection.
    pub(super) fn start(format: Format, wanted: &Subscription) -> (Subscribed, Vec<String>) {
        let format = match format {
            Format::Json => "json",
            Format::Plain => "plain",
        };
        let subscribed = Subscribed {
            format,
            wanted: wanted.clone(),
            all: !wanted.by_name(),
        };
        let mut commands = Vec::new();
        if wanted.by_name() {
            commands.push(event_line(
                format,
                &wanted.names.iter().collect(),
                &wanted.subclasses.iter().collect(),
            ));
        } else {
            if !wanted.all {
                commands.extend(wanted.filters().into_iter().map(add_filter));
            }
            commands.push(format!("event {format} ALL"));
        }
        (subscribed, commands)
    }

    /// The commands that take this connection to `wanted` without missing an event that both want.
    pub(super) fn change(&mut self, wanted: &Subscription) -> Vec<String> {
        let before = std::mem::replace(&mut self.wanted, wanted.clone());
        if before.asks_for(wanted) {
            return Vec::new();
        }
        if !self.all && wanted.by_name() {
            return self.change_names(&before, wanted);
        }
        let old_filters = if before.all || !self.all {
            BTreeSet::new()
        } else {
            before.filters()
        };
        let new_filters = if wanted.all {
            BTreeSet::new()
        } else {
            wanted.filters()
        };
        let mut commands = vec![add_filter(COVER)];
        if !self.all {
            self.all = true;
            commands.push(format!("event {} ALL", self.format));
        }
        commands.extend(
            new_filters
                .difference(&old_filters)
                .map(|name| add_filter(name)),
        );
        commands.extend(
            old_filters
                .difference(&new_filters)
                .map(|name| delete_filter(name)),
        );
        commands.push(delete_filter(COVER));
        commands
    }

    fn change_names(&self, before: &Subscription, wanted: &Subscription) -> Vec<String> {
        let mut commands = Vec::new();
        let names = wanted
            .names
            .difference(&before.names)
            .collect::<BTreeSet<_>>();
        let subclasses = wanted
            .subclasses
            .difference(&before.subclasses)
            .collect::<BTreeSet<_>>();
        if !names.is_empty() || !subclasses.is_empty() {
            commands.push(event_line(self.format, &names, &subclasses));
        }
        let names = before
            .names
            .difference(&wanted.names)
            .map(String::as_str)
            .collect::<Vec<_>>();
        if !names.is_empty() {
            commands.push(format!("nixevent {}", names.join(" ")));
        }
        let subclasses = before
            .subclasses
            .difference(&wanted.subclasses)
            .map(String::as_str)
            .collect::<Vec<_>>();
        if !subclasses.is_empty() {
            commands.push(format!("nixevent {CUSTOM} {}", subclasses.join(" ")));
        }
        commands
    }
}

fn event_line(format: &str, names: &BTreeSet<&String>, subclasses: &BTreeSet<&String>) -> String {
    let mut line = format!("event {format}");
    let custom = CUSTOM.to_owned();
    let custom = (!subclasses.is_empty()).then_some(&custom);
    for word in names
        .iter()
        .copied()
        .chain(custom)
        .chain(subclasses.iter().copied())
    {
        line.push(' ');
        line.push_str(word);
    }
    line
}

fn add_filter(name: &str) -> String {
    format!("filter Event-Name {name}")
}

fn delete_filter(name: &str) -> String {
    format!("filter delete Event-Name {name}")
}

#[cfg(test)]
mod tests {
    use super::{Subscribed, Subscription};
    use crate::event::Format;

    fn wanted(events: &[&str]) -> Subscription {
        let mut wanted = Subscription::new();
        for event in events {
            match event.split_once(' ') {
                Some((name, subclass)) => wanted.add(name, Some(subclass)),
                None if *event == "*" => wanted.add_all(),
                None => wanted.add(event, None),
            }
        }
        wanted
    }

    fn check_start(events: &[&str], expected: &[&str]) {
        assert_eq!(Subscribed::start(Format::Json, &wanted(events)).1, expected);
    }

    fn check_change(before: &[&str], after: &[&str], expected: &[&str]) {
        let (mut subscribed, _) = Subscribed::start(Format::Plain, &wanted(before));
        assert_eq!(subscribed.change(&wanted(after)), expected);
        assert!(
            subscribed.change(&wanted(after)).is_empty(),
            "nothing changes twice"
        );
    }

    #[test]
    fn named_events_are_asked_for_by_name_with_custom_last() {
        check_start(&[], &["event json HEARTBEAT"]);
        check_start(
            &["DTMF", "CUSTOM sofia::register", "API", "CUSTOM a::b"],
            &["event json API DTMF HEARTBEAT CUSTOM a::b sofia::register"],
        );
    }

    #[test]
    fn a_bare_custom_takes_everything_through_filters_sent_first() {
        check_start(
            &["DTMF", "CUSTOM", "PRIVATE_COMMAND"],
            &[
                "filter Event-Name COMMAND",
                "filter Event-Name CUSTOM",
                "filter Event-Name DTMF",
                "filter Event-Name HEARTBEAT",
                "filter Event-Name PRIVATE_COMMAND",
                "event json ALL",
            ],
        );
        check_start(&["*", "DTMF"], &["event json ALL"]);
    }

    #[test]
    fn a_change_of_names_adds_before_it_removes() {
        check_change(
            &["API", "DTMF", "CUSTOM a::b"],
            &["API", "CODEC", "CUSTOM c::d"],
            &[
                "event plain CODEC CUSTOM c::d",
                "nixevent DTMF",
                "nixevent CUSTOM a::b",
            ],
        );
    }

    #[test]
    fn a_change_that_needs_filters_is_covered_by_one_that_matches_everything() {
        check_change(
            &["DTMF"],
            &["DTMF", "CUSTOM"],
            &[
                "filter Event-Name /^/",
                "event plain ALL",
                "filter Event-Name CUSTOM",
                "filter Event-Name DTMF",
                "filter Event-Name HEARTBEAT",
                "filter delete Event-Name /^/",
            ],
        );
        check_change(
            &["DTMF", "CUSTOM"],
            &["API", "CUSTOM a::b"],
            &[
                "filter Event-Name /^/",
                "filter Event-Name API",
                "filter delete Event-Name DTMF",
                "filter delete Event-Name /^/",
            ],
        );
        check_change(
            &["CUSTOM"],
            &["*"],
            &[
                "filter Event-Name /^/",
                "filter delete Event-Name CUSTOM",
                "filter delete Event-Name HEARTBEAT",
                "filter delete Event-Name /^/",
            ],
        );
    }
}
