//! Which events a route or a filter means: names, and subclasses of the two events that have them.

use std::collections::BTreeSet;

use super::Event;

/// FreeSWITCH's event of modules, applications and users.
pub const CUSTOM: &str = "CUSTOM";
/// The host's own event, about its links and about calls.
pub const JACKFIELD: &str = "JACKFIELD";

/// Whether `text` is an `Event-Name`.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Whether an event of this name has an `Event-Subclass`.
pub fn has_subclass(name: &str) -> bool {
    name == CUSTOM || name == JACKFIELD
}

/// Events by name or subclass.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    names: BTreeSet<Box<str>>,
    custom: BTreeSet<Box<str>>,
    own: BTreeSet<Box<str>>,
}

impl Selection {
    /// Adds an event by name, or one subclass of it.
    pub fn add(&mut self, name: &str, subclass: Option<&str>) {
        match (name, subclass) {
            (CUSTOM, Some(subclass)) => self.custom.insert(subclass.into()),
            (JACKFIELD, Some(subclass)) => self.own.insert(subclass.into()),
            _ => self.names.insert(name.into()),
        };
    }

    /// Whether it means this event.
    pub fn matches(&self, event: &Event) -> bool {
        let name = event.name();
        if self.names.contains(name.as_ref()) {
            return true;
        }
        let subclasses = match name.as_ref() {
            CUSTOM => &self.custom,
            JACKFIELD => &self.own,
            _ => return false,
        };
        !subclasses.is_empty()
            && event
                .subclass()
                .is_some_and(|subclass| subclasses.contains(subclass.as_ref()))
    }

    /// All of it: names, with a subclass where only that one is meant.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let bare = self.names.iter().map(|name| (&**name, None));
        let custom = self.custom.iter().map(|one| (CUSTOM, Some(&**one)));
        let own = self.own.iter().map(|one| (JACKFIELD, Some(&**one)));
        bare.chain(custom).chain(own)
    }
}

#[cfg(test)]
mod tests {
    use super::Selection;
    use crate::event::{Event, Format};

    fn event(name: &str, subclass: &str) -> Event {
        let text = format!("{{\"Event-Name\":\"{name}\",\"Event-Subclass\":\"{subclass}\"}}");
        Event::parse(Format::Json, text.into()).unwrap()
    }

    #[test]
    fn a_subclass_is_one_of_its_own_event_alone() {
        let mut selection = Selection::default();
        selection.add("CUSTOM", Some("sofia::register"));
        selection.add("JACKFIELD", Some("link.alarm"));
        selection.add("DTMF", None);
        for (name, subclass, expected) in [
            ("CUSTOM", "sofia::register", true),
            ("CUSTOM", "link.alarm", false),
            ("JACKFIELD", "link.alarm", true),
            ("JACKFIELD", "sofia::register", false),
            ("DTMF", "whatever", true),
            ("CODEC", "link.alarm", false),
        ] {
            assert_eq!(
                selection.matches(&event(name, subclass)),
                expected,
                "{name} {subclass}"
            );
        }
        selection.add("JACKFIELD", None);
        assert!(selection.matches(&event("JACKFIELD", "call.lost")));
        assert_eq!(selection.iter().count(), 4);
    }
}
