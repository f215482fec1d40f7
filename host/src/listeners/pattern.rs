//! Which events a listener wants: by name and subclass, and by headers.
//!
//! A pattern is the text itself, in which `*` stands for any text, also for none. Capitals count.

use crate::event::{Event, Name};

/// A text with `*` in it, or none.
#[derive(Debug)]
pub(super) struct Pattern {
    /// What stands before, between and behind the stars; never empty.
    pieces: Vec<String>,
}

/// What an event must be. Without conditions, anything.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// One of these, if there are any.
    events: Vec<EventPattern>,
    /// All of these.
    headers: Vec<(Name, Pattern)>,
}

/// `Event-Name`, and behind a space `Event-Subclass`.
#[derive(Debug)]
struct EventPattern {
    name: Pattern,
    subclass: Option<Pattern>,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Pattern {
        Pattern {
            pieces: text.split('*').map(str::to_owned).collect(),
        }
    }

    pub(super) fn covers(&self, text: &str) -> bool {
        let Some((first, others)) = self.pieces.split_first() else {
            return false;
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else {
            return false;
        };
        let Some((last, between)) = others.split_last() else {
            return rest.is_empty();
        };
        for piece in between {
            // The first place is as good as any later one.
            let Some((_, behind)) = rest.split_once(piece.as_str()) else {
                return false;
            };
            rest = behind;
        }
        rest.ends_with(last.as_str())
    }
}

impl Interest {
    /// Events of this name are wanted too; behind a space may stand the subclass.
    pub(super) fn add_event(&mut self, text: &str) {
        let (name, subclass) = match text.split_once(' ') {
            Some((name, subclass)) => (name, Some(Pattern::new(subclass))),
            None => (text, None),
        };
        self.events.push(EventPattern {
            name: Pattern::new(name),
            subclass,
        });
    }

    /// The header must be there, and so.
    pub(super) fn add_header(&mut self, name: &str, pattern: &str) {
        self.headers.push((Name::new(name), Pattern::new(pattern)));
    }

    /// How many conditions there are.
    pub(super) fn conditions(&self) -> usize {
        self.events.len() + self.headers.len()
    }

    /// Whether an input is wanted that became these events.
    pub(super) fn wants(&self, events: &[Event]) -> bool {
        self.conditions() == 0 || events.iter().any(|event| self.wants_event(event))
    }

    fn wants_event(&self, event: &Event) -> bool {
        let is_named = self.events.is_empty() || self.events.iter().any(|one| one.covers(event));
        is_named
            && self.headers.iter().all(|(name, pattern)| {
                let value = event.get(name);
                value.is_some_and(|value| pattern.covers(&value))
            })
    }
}

impl EventPattern {
    fn covers(&self, event: &Event) -> bool {
        self.name.covers(&event.name())
            && self.subclass.as_ref().is_none_or(|subclass| {
                let found = event.subclass();
                found.is_some_and(|found| subclass.covers(&found))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::{Interest, Pattern};
    use crate::event::Event;

    fn check(pattern: &str, covered: &[&str], others: &[&str]) {
        let made = Pattern::new(pattern);
        for text in covered {
            assert!(made.covers(text), "{pattern:?} covers {text:?}");
        }
        for text in others {
            assert!(!made.covers(text), "{pattern:?} does not cover {text:?}");
        }
    }

    #[test]
    fn a_pattern_is_exact_but_for_its_stars() {
        check("1000", &["1000"], &["", "100", "10001", "01000"]);
        check("", &[""], &["a"]);
        check("*", &["", "a", "a\nb"], &[]);
        check(
            "sofia::*",
            &["sofia::", "sofia::register"],
            &["sofia:", "xsofia::"],
        );
        check(
            "*@example.com",
            &["@example.com", "1@example.com"],
            &["1@example.org", "example.com"],
        );
        check("a*b", &["ab", "axb", "abb"], &["a", "b", "aba"]);
        check("a*a", &["aa", "aba"], &["a"]);
        check("*ab*ab*", &["abab", "xabxabx"], &["ab", "xabx", "aab"]);
        check("ü*€", &["ü€", "üx€"], &["ü", "u€"]);
        check("CHANNEL_*", &["CHANNEL_ANSWER"], &["channel_answer"]);
    }

    fn event(name: &str, headers: &[(&str, &str)]) -> Event {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers: Vec<_> = headers.iter().map(owned).collect();
        Event::derived(name, &headers, None)
    }

    #[test]
    fn one_of_the_names_and_all_of_the_headers() {
        let mut interest = Interest::default();
        interest.add_event("CUSTOM sofia::*");
        interest.add_event("CHANNEL_ANSWER");
        interest.add_header("Realm", "a*");
        interest.add_header("User", "*");
        let right = [
            ("Event-Subclass", "sofia::register"),
            ("Realm", "abc"),
            ("User", ""),
        ];
        let wants = |name, headers: &[(&str, &str)]| interest.wants(&[event(name, headers)]);
        assert!(wants("CUSTOM", &right));
        assert!(wants("CHANNEL_ANSWER", &right), "no subclass was said");
        assert!(!wants("CHANNEL_HANGUP", &right));
        assert!(!wants("CUSTOM", &right[1..]), "there is no subclass");
        assert!(!wants("CUSTOM", &right[..2]), "a header is missing");
        let other = [right[0], ("Realm", "b"), right[2]];
        assert!(!wants("CUSTOM", &other));
    }

    #[test]
    fn an_input_is_wanted_for_any_event_that_it_became() {
        let mut interest = Interest::default();
        let (first, second) = (event("A", &[]), event("call.answered", &[]));
        assert!(interest.wants(&[]), "even one that became none");
        interest.add_event("call.*");
        assert!(interest.wants(&[first.clone(), second]));
        assert!(!interest.wants(&[first]));
        assert!(!interest.wants(&[]));
    }
}
