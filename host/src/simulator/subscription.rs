//! What one connection wants to hear: event names, subclasses of CUSTOM, and filters.
//!
//! Decides for one event at a time; does not know how events are written.

use std::borrow::Cow;
use std::collections::HashSet;

use super::names::Mask;

/// Looks up the first header of a name in the event at hand.
pub(super) type Lookup<'a> = &'a dyn Fn(&[u8]) -> Option<Cow<'a, [u8]>>;

/// The subscription of one connection. Empty at first: then nothing is sent.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    all: bool,
    names: Mask,
    subclasses: HashSet<Vec<u8>>,
    filters: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Subscription {
    /// Adds the words of an `event` command, without the format. False if none of them meant anything.
    pub(super) fn add(&mut self, words: &[&str]) -> bool {
        let mut found = false;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word.eq_ignore_ascii_case("ALL") {
                self.all = true;
                found = true;
            } else if let Some(mask) = Mask::named(word) {
                self.names = self.names.with(mask);
                found = true;
                if mask == Mask::CUSTOM {
                    // Every further word is a subclass, whatever it looks like.
                    self.subclasses
                        .extend(words.by_ref().map(|subclass| subclass.as_bytes().to_vec()));
                }
            }
        }
        found
    }

    /// Takes the words of a `nixevent` command away. False if none of them meant anything.
    pub(super) fn remove(&mut self, words: &[&str]) -> bool {
        let mut found = false;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word.eq_ignore_ascii_case("ALL") {
                self.clear();
                found = true;
            } else if let Some(mask) = Mask::named(word) {
                found = true;
                let subclasses: Vec<_> = if mask == Mask::CUSTOM {
                    words.by_ref().collect()
                } else {
                    Vec::new()
                };
                if subclasses.is_empty() {
                    // Whoever had everything now has every name but this one, and no subclass of CUSTOM any more.
                    let had = if self.all { Mask::EVERY } else { self.names };
                    self.all = false;
                    self.names = had.without(mask);
                }
                for subclass in subclasses {
                    self.subclasses.remove(subclass.as_bytes());
                }
            }
        }
        found
    }

    /// Forgets all names, not the filters. False if there were none.
    pub(super) fn clear(&mut self) -> bool {
        let was_listening = self.is_listening();
        self.all = false;
        self.names = Mask::NONE;
        self.subclasses.clear();
        was_listening
    }

    pub(super) fn is_listening(&self) -> bool {
        self.all || !self.names.is_empty()
    }

    /// Whether it hears of background jobs and heartbeats alone: that of a connection for commands, which is no listener of events.
    pub(super) fn is_for_commands(&self) -> bool {
        let few = ["BACKGROUND_JOB", "HEARTBEAT"].map(Mask::named);
        let few = few.into_iter().flatten().fold(Mask::NONE, Mask::with);
        !self.all && self.filters.is_empty() && self.names == few
    }

    pub(super) fn add_filter(&mut self, name: &str, value: &str) {
        self.filters
            .push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    }

    /// Deletes the filters of a header, or only those with that value.
    pub(super) fn delete_filter(&mut self, name: &str, value: Option<&str>) {
        self.filters.retain(|(filtered, wanted)| {
            let same_value = value.is_none_or(|value| value.as_bytes() == wanted);
            !(filtered.eq_ignore_ascii_case(name.as_bytes()) && same_value)
        });
    }

    pub(super) fn delete_filters(&mut self) {
        self.filters.clear();
    }

    /// Whether an event of that name and subclass is sent.
    pub(super) fn wants(&self, mask: Mask, subclass: Option<&[u8]>, first: Lookup<'_>) -> bool {
        let subscribed = self.all
            || (self.names.has(mask)
                && (mask != Mask::CUSTOM
                    || subclass.is_none_or(|subclass| self.subclasses.contains(subclass))));
        subscribed
            && (self.filters.is_empty()
                || self
                    .filters
                    .iter()
                    .any(|(name, wanted)| first(name).is_some_and(|value| matches(wanted, &value))))
    }
}

/// Exact, or between slashes a piece of text that may be anchored with `^` and `$`. Other regular expressions are taken literally.
fn matches(wanted: &[u8], value: &[u8]) -> bool {
    let Some(pattern) = wanted
        .strip_prefix(b"/")
        .and_then(|rest| rest.strip_suffix(b"/"))
    else {
        return wanted == value;
    };
    match (pattern.strip_prefix(b"^"), pattern.strip_suffix(b"$")) {
        (Some(_), Some(_)) => {
            pattern
                .strip_prefix(b"^")
                .and_then(|rest| rest.strip_suffix(b"$"))
                == Some(value)
        }
        (Some(start), None) => value.starts_with(start),
        (None, Some(end)) => value.ends_with(end),
        (None, None) => {
            pattern.is_empty() || value.windows(pattern.len()).any(|part| part == pattern)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{Mask, Subscription, matches};

    fn wants(subscription: &Subscription, name: &str, subclass: Option<&str>) -> bool {
        let first = |header: &[u8]| {
            header
                .eq_ignore_ascii_case(b"Event-Name")
                .then(|| Cow::Owned(name.as_bytes().to_vec()))
        };
        let mask = Mask::named(name).unwrap();
        subscription.wants(mask, subclass.map(str::as_bytes), &first)
    }

    #[test]
    fn every_word_after_custom_is_a_subclass() {
        let mut subscription = Subscription::default();
        assert!(subscription.add(&["CUSTOM", "lab::ping", "HEARTBEAT"]));
        assert!(wants(&subscription, "CUSTOM", Some("lab::ping")));
        assert!(wants(&subscription, "CUSTOM", Some("HEARTBEAT")));
        assert!(
            !wants(&subscription, "HEARTBEAT", None),
            "HEARTBEAT was taken as a subclass"
        );
        assert!(!wants(&subscription, "CUSTOM", Some("lab::pong")));
    }

    #[test]
    fn a_bare_custom_brings_no_subclass() {
        let mut subscription = Subscription::default();
        assert!(
            subscription.add(&["CHANNEL_HANGUP", "BOGUS", "CUSTOM"]),
            "unknown names are ignored"
        );
        assert!(!wants(&subscription, "CUSTOM", Some("lab::ping")));
        assert!(wants(&subscription, "CHANNEL_HANGUP", None));
        assert!(!subscription.add(&["NOSUCH"]), "nothing that is known");
    }

    #[test]
    fn all_brings_everything_until_something_is_nixed() {
        let mut subscription = Subscription::default();
        subscription.add(&["ALL"]);
        assert!(wants(&subscription, "CUSTOM", Some("lab::ping")));
        assert!(subscription.remove(&["CODEC"]));
        assert!(!wants(&subscription, "CODEC", None));
        assert!(wants(&subscription, "DTMF", None), "the other names stay");
        assert!(subscription.remove(&["ALL"]) && !subscription.is_listening());
        assert!(!subscription.remove(&["nosuchevent"]));
    }

    #[test]
    fn filters_are_alternatives_and_hold_for_every_event() {
        let mut subscription = Subscription::default();
        subscription.add(&["ALL"]);
        subscription.add_filter("Event-Name", "CHANNEL_HANGUP");
        subscription.add_filter("event-name", "DTMF");
        assert!(wants(&subscription, "CHANNEL_HANGUP", None) && wants(&subscription, "DTMF", None));
        assert!(
            !wants(&subscription, "CHANNEL_HANGUP_COMPLETE", None),
            "exact"
        );
        assert!(
            !wants(&subscription, "HEARTBEAT", None),
            "heartbeats are filtered too"
        );
        subscription.delete_filter("Event-Name", Some("DTMF"));
        assert!(!wants(&subscription, "DTMF", None));
        subscription.delete_filter("Event-Name", None);
        assert!(
            wants(&subscription, "HEARTBEAT", None),
            "no filter, no limit"
        );
    }

    #[test]
    fn slashes_make_a_pattern() {
        assert!(matches(
            b"/^switch_channel/",
            b"switch_channel_perform_answer"
        ));
        assert!(!matches(b"/^channel/", b"switch_channel"));
        assert!(
            matches(b"/channel$/", b"switch_channel") && matches(b"/ch_ch/", b"switch_channel")
        );
        assert!(matches(b"/^a$/", b"a") && !matches(b"/^a$/", b"ab") && !matches(b"/a", b"a"));
    }
}
