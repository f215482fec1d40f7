//! Chooses the headers that consumers get: keeps a few, or drops some, and renames others.
//!
//! The lesson: whole names under `drop` and `rename` can be declared in the manifest, so that only their values cross into the
//! filter (1 µs an event). `keep` and names that end in `*` need the list of all headers (40 µs for a hundred of them).

mod settings;

use jackfield_sdk::{Event, Filter, Manifest, Verdict};

use settings::{Kept, Settings};

/// Routes and filters need it: it always stays, under its own name.
const EVENT_NAME: &str = "Event-Name";

/// The filter.
pub struct Project {
    events: Vec<String>,
    kept: Kept,
    /// Old names and new ones.
    rename: Vec<(String, String)>,
    /// All headers that can change, if that is known without looking at an event.
    affected: Option<Vec<String>>,
}

impl Filter for Project {
    type Settings = Settings;

    fn new(settings: Settings, _saved: Option<Vec<u8>>) -> Result<Self, String> {
        settings.checked()
    }

    fn manifest(&self) -> Manifest {
        let headers = self.affected.as_deref().unwrap_or_default();
        Manifest::new().events(&self.events).headers(headers)
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let mut plan = Plan::default();
        match &self.affected {
            Some(names) => {
                let present = |name| Some((name, event.get(name)?));
                names
                    .iter()
                    .filter_map(|name| present(name))
                    .for_each(|(name, value)| self.add(&mut plan, name, value));
            }
            None => event
                .headers()
                .for_each(|(name, value)| self.add(&mut plan, name, value)),
        }
        // Removals first: a header may get the name of one that goes.
        for name in plan.removed {
            event.remove(name);
        }
        for (name, value) in plan.renamed {
            event.set(name, value);
        }
        Verdict::Pass
    }
}

/// What is to be done to an event. Its headers are borrowed while it is made.
#[derive(Default)]
struct Plan {
    removed: Vec<String>,
    renamed: Vec<(String, String)>,
}

impl Project {
    fn add(&self, plan: &mut Plan, name: &str, value: &str) {
        let renamed = self.rename.iter().find(|(old, _)| old == name);
        if let Some((_, new)) = renamed {
            plan.renamed.push((new.clone(), value.to_owned()));
        }
        if renamed.is_some() || !self.kept.keeps(name) {
            plan.removed.push(name.to_owned());
        }
    }
}

jackfield_sdk::export!(Project);

#[cfg(test)]
mod tests;
