//! Chooses the headers that consumers get: keeps a few, or drops some, and renames others.
//!
//! The lesson: name what is to go, or what is to stay, and let the host do it. Only patterns cross into the host, never the
//! headers themselves, so an event with a hundred headers costs no more than one with ten.

mod settings;

use jackfield_sdk::{Event, Filter, Manifest, Verdict};

use settings::Settings;

/// The filter.
pub struct Project {
    events: Vec<String>,
    kept: Kept,
    /// Old names and new ones.
    rename: Vec<(String, String)>,
}

/// Which headers stay. A name may end in `*`: all that begin so.
enum Kept {
    Only(Vec<String>),
    AllBut(Vec<String>),
}

impl Filter for Project {
    type Settings = Settings;

    fn new(settings: Settings, _saved: Option<Vec<u8>>) -> Result<Self, String> {
        settings.checked()
    }

    fn manifest(&self) -> Manifest {
        let renamed = self.rename.iter().map(|(old, _)| old);
        Manifest::new().events(&self.events).headers(renamed)
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let value = |(old, new): &(String, String)| Some((new.clone(), event.get(old)?.to_owned()));
        let renamed: Vec<_> = self.rename.iter().filter_map(value).collect();
        // Removals first: a header may get the name of one that goes.
        match &self.kept {
            Kept::Only(names) => event.keep(names),
            Kept::AllBut(names) => names.iter().for_each(|name| event.remove(name)),
        }
        for (old, _) in &self.rename {
            event.remove(old);
        }
        for (name, value) in renamed {
            event.set(name, value);
        }
        Verdict::Pass
    }
}

jackfield_sdk::export!(Project);

#[cfg(test)]
mod tests;
