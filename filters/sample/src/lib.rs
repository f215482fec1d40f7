//! Keeps a share of the calls, or of whatever a header names, and drops the rest. What is kept is kept whole: all events of a call
//! stay or go together.
//!
//! The lesson: a hash in place of state. Whether a call is kept follows from its id alone, so nothing has to be remembered, two
//! hosts agree, and a restart changes nothing.

mod hash;
mod settings;

use jackfield_sdk::{Event, Filter, Manifest, Verdict, count};

use settings::Settings;

/// A second leg names the first one, which originated it; a first leg and a leg of its own name nobody.
const OF_CALLS: [&str; 3] = ["Unique-ID", "Other-Type", "Other-Leg-Unique-ID"];

/// The filter.
pub struct Sample {
    by: Vec<String>,
    events: Vec<String>,
    /// A hash below it is kept.
    below: u64,
}

impl Filter for Sample {
    type Settings = Settings;

    fn new(settings: Settings, _saved: Option<Vec<u8>>) -> Result<Self, String> {
        settings.checked()
    }

    fn manifest(&self) -> Manifest {
        let manifest = Manifest::new().events(&self.events);
        if self.by.is_empty() {
            manifest.headers(OF_CALLS)
        } else {
            manifest.headers(&self.by)
        }
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let hash = if self.by.is_empty() {
            call(event).map(|call| hash::of([call]))
        } else {
            let values = (0..self.by.len()).map(|index| event.declared(index));
            values.collect::<Option<Vec<_>>>().map(hash::of)
        };
        let Some(hash) = hash else {
            // It belongs to nothing that could be kept or dropped as a whole.
            count("without_key", 1);
            return Verdict::Pass;
        };
        if hash < self.below {
            Verdict::Pass
        } else {
            Verdict::drop("not in the sample")
        }
    }
}

/// The id of the first leg.
fn call(event: &Event) -> Option<&str> {
    let [own, other_type, other] = [0, 1, 2].map(|index| event.declared(index));
    other.filter(|_| other_type == Some("originator")).or(own)
}

jackfield_sdk::export!(Sample);

#[cfg(test)]
mod tests;
