//! Sends events to streams, or drops them, by rules over one header each; the first rule that matches wins, and an event
//! that no rule matches passes on to the host's own routes.
//!
//! The lesson: the manifest comes from the settings. The host then calls the filter only for the events that a rule names,
//! with the headers that the rules read.

mod glob;
mod settings;

use jackfield_sdk::{Event, Filter, Manifest, Verdict};

use settings::{Action, Settings};

/// The filter.
pub struct Route {
    /// Empty: every event.
    events: Vec<String>,
    headers: Vec<String>,
    rules: Vec<Rule>,
}

/// A rule whose conditions all hold decides.
struct Rule {
    conditions: Vec<Condition>,
    verdict: Verdict,
}

/// The manifest's header number `header` matches `pattern`.
struct Condition {
    header: usize,
    pattern: String,
}

impl Filter for Route {
    type Settings = Settings;

    fn new(settings: Settings, _saved: Option<Vec<u8>>) -> Result<Self, String> {
        let rules = settings.checked()?;
        let mut route = Self {
            events: Vec::new(),
            headers: Vec::new(),
            rules: Vec::new(),
        };
        for rule in &rules {
            let mut conditions = Vec::new();
            if let Some(event) = &rule.event {
                let (name, subclass) = event
                    .split_once(' ')
                    .map_or((event.as_str(), None), |(n, s)| (n, Some(s)));
                conditions.push(route.condition("Event-Name", name));
                conditions
                    .extend(subclass.map(|subclass| route.condition("Event-Subclass", subclass)));
            }
            if let Some((header, pattern)) = &rule.header {
                conditions.push(route.condition(header, pattern));
            }
            let verdict = match &rule.action {
                Action::Streams(streams) => Verdict::route(streams),
                Action::Drop(reason) => Verdict::drop(reason),
            };
            route.rules.push(Rule {
                conditions,
                verdict,
            });
        }
        // One rule for every event makes the filter see every event.
        if rules.iter().all(|rule| rule.event.is_some()) {
            for event in rules.into_iter().filter_map(|rule| rule.event) {
                if !route.events.contains(&event) {
                    route.events.push(event);
                }
            }
        }
        Ok(route)
    }

    fn manifest(&self) -> Manifest {
        Manifest::new().events(&self.events).headers(&self.headers)
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let holds = |condition: &Condition| {
            let value = event.declared(condition.header);
            value.is_some_and(|value| glob::matches(&condition.pattern, value))
        };
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.conditions.iter().all(holds));
        rule.map_or(Verdict::Pass, |rule| rule.verdict.clone())
    }
}

impl Route {
    /// A condition on a header, which joins the manifest's headers if it is not yet among them.
    fn condition(&mut self, header: &str, pattern: &str) -> Condition {
        let known = self.headers.iter().position(|known| known == header);
        let index = known.unwrap_or_else(|| {
            self.headers.push(header.to_owned());
            self.headers.len() - 1
        });
        Condition {
            header: index,
            pattern: pattern.to_owned(),
        }
    }
}

jackfield_sdk::export!(Route);

#[cfg(test)]
mod tests;
