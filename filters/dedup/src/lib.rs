//! Drops an event that came before: the same value in each key header, within the window. By default the key is `Core-UUID` and
//! `Event-Sequence`, which name one event of one run of FreeSWITCH.
//!
//! The lesson: state. It has a bound, it ages by the events' own time and never by a clock, and `save` hands it to the next
//! version and the next run: a reload or a restart lets no repeat through.

mod key;
mod memory;
mod settings;

use jackfield_sdk::{Event, Filter, Manifest, Verdict, count, warn};

use memory::{Memory, Noted};
use settings::Settings;

/// The filter.
pub struct Dedup {
    by: Vec<String>,
    events: Vec<String>,
    memory: Memory,
}

impl Filter for Dedup {
    type Settings = Settings;

    fn new(settings: Settings, saved: Option<Vec<u8>>) -> Result<Self, String> {
        let mut dedup = settings.checked()?;
        if let Some(saved) = saved
            && let Err(why) = dedup.memory.restore(&saved)
        {
            warn!("saved state is not used, so the memory begins empty: {why}");
        }
        Ok(dedup)
    }

    fn manifest(&self) -> Manifest {
        Manifest::new().events(&self.events).headers(&self.by)
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let values = (0..self.by.len()).map(|index| event.declared(index));
        let Some(values) = values.collect::<Option<Vec<_>>>() else {
            // Nothing says that it came before.
            count("without_key", 1);
            return Verdict::Pass;
        };
        match self.memory.note(key::of(values), event.now()) {
            Noted::Before => return Verdict::drop("duplicate"),
            Noted::New => {}
            Noted::NewForOldest => count("evicted", 1),
        }
        Verdict::Pass
    }

    fn save(&self) -> Vec<u8> {
        self.memory.save()
    }
}

jackfield_sdk::export!(Dedup);

#[cfg(test)]
mod tests;
