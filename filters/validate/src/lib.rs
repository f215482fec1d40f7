//! Checks headers: that they are there, of a type, like a pattern. An event that fails is dropped, marked or dead-lettered, with
//! the header that is wrong and how.
//!
//! The lesson: everything that can be worked out from the settings is worked out once, down to the words of the reasons. So a
//! reason is one of a few fixed words, as a metric's label should be, and never has a caller's number in it.

mod kind;
mod pattern;
mod settings;

use jackfield_sdk::{Event, Filter, Manifest, Verdict, count};

use kind::Kind;
use pattern::Pattern;
use settings::Settings;

/// The manifest's first two headers.
const EVENT_NAME: usize = 0;
const SUBCLASS: usize = 1;

/// The filter.
pub struct Validate {
    /// Empty: every event.
    events: Vec<String>,
    headers: Vec<String>,
    rules: Vec<Rule>,
    action: Action,
}

/// What happens to an event that fails.
enum Action {
    Drop,
    DeadLetter,
    /// This header gets all that is wrong.
    Mark(String),
}

/// What one header of some events has to be.
struct Rule {
    /// Its name and subclass; every event if `None`.
    event: Option<(String, Option<String>)>,
    /// The number of the header in the manifest.
    header: usize,
    /// What to say if the header is absent, where it is required.
    missing: Option<String>,
    kind: Option<(Kind, String)>,
    pattern: Option<(Pattern, String)>,
}

impl Filter for Validate {
    type Settings = Settings;

    fn new(settings: Settings, _saved: Option<Vec<u8>>) -> Result<Self, String> {
        settings.checked()
    }

    fn manifest(&self) -> Manifest {
        Manifest::new().events(&self.events).headers(&self.headers)
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let mut wrong = self.rules.iter().filter_map(|rule| rule.wrong(event));
        match &self.action {
            Action::Drop => wrong.next().map_or(Verdict::Pass, Verdict::drop),
            Action::DeadLetter => wrong.next().map_or(Verdict::Pass, Verdict::dead_letter),
            Action::Mark(header) => {
                let all: Vec<&str> = wrong.collect();
                if !all.is_empty() {
                    count("marked", 1);
                    event.set(header, all.join("; "));
                }
                Verdict::Pass
            }
        }
    }
}

impl Rule {
    /// What is wrong with the event, if anything is.
    fn wrong(&self, event: &Event) -> Option<&str> {
        if let Some((name, subclass)) = &self.event {
            let other = event.declared(EVENT_NAME) != Some(name)
                || (subclass.is_some() && event.declared(SUBCLASS) != subclass.as_deref());
            if other {
                return None;
            }
        }
        let Some(value) = event.declared(self.header) else {
            return self.missing.as_deref();
        };
        if let Some((kind, complaint)) = &self.kind
            && !kind.fits(value)
        {
            return Some(complaint);
        }
        let (pattern, complaint) = self.pattern.as_ref()?;
        (!pattern.matches(value)).then_some(complaint)
    }
}

jackfield_sdk::export!(Validate);

#[cfg(test)]
mod tests;
