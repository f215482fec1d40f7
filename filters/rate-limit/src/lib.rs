//! Lets so many events a second pass for each key, and drops, marks or dead-letters what is above. It never waits: what waits in
//! a filter waits for everybody.
//!
//! The lesson: a limit for each of many keys in bounded memory. A bucket is one number, buckets that are full again cost nothing
//! to forget, and what it had to forget before that is counted.

mod buckets;
mod key;
mod settings;

use jackfield_sdk::{Event, Filter, Manifest, Verdict, count, warn};

use buckets::{Buckets, Taken};
use settings::{Action, Settings};

/// The metric's label, and the dead letter's reason.
const REASON: &str = "rate limit";

/// The filter.
pub struct RateLimit {
    by: Vec<String>,
    events: Vec<String>,
    action: Action,
    buckets: Buckets,
}

impl Filter for RateLimit {
    type Settings = Settings;

    fn new(settings: Settings, saved: Option<Vec<u8>>) -> Result<Self, String> {
        let mut limit = settings.checked()?;
        if let Some(saved) = saved
            && let Err(why) = limit.buckets.restore(&saved)
        {
            warn!("saved state is not used, so every bucket begins full: {why}");
        }
        Ok(limit)
    }

    fn manifest(&self) -> Manifest {
        Manifest::new().events(&self.events).headers(&self.by)
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let key = key::of((0..self.by.len()).map(|index| event.declared(index)));
        let (taken, evicted) = self.buckets.take(key, event.now());
        if evicted {
            count("evicted", 1);
        }
        if taken == Taken::Token {
            return Verdict::Pass;
        }
        match &self.action {
            Action::Drop => Verdict::drop(REASON),
            Action::DeadLetter => Verdict::dead_letter(REASON),
            Action::Mark(header) => {
                count("marked", 1);
                event.set(header, "true");
                Verdict::Pass
            }
        }
    }

    fn save(&self) -> Vec<u8> {
        self.buckets.save()
    }
}

jackfield_sdk::export!(RateLimit);

#[cfg(test)]
mod tests;
