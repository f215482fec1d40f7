//! Makes one record of each call when its last leg has ended: an event `CALL_RECORD` with times, numbers, direction and cause, and
//! with the other leg, where there was one. The events of the call pass as they are.
//!
//! The lesson: state that has to end. A call whose end never comes (FreeSWITCH died, the socket was away) is forgotten at a bound
//! of legs and of time, and counted; `save` keeps the open calls over a reload and a restart.

mod calls;
mod leg;
mod record;
mod settings;

use jackfield_sdk::{Event, Filter, Manifest, Verdict, count, warn};

use calls::Calls;
use leg::Leg;
use settings::Settings;

/// What a leg is told by.
const HEADERS: [&str; 5] = [
    "Event-Name",
    "Unique-ID",
    "Other-Type",
    "Other-Leg-Unique-ID",
    "Answer-State",
];
const ENDED: &str = "CHANNEL_HANGUP_COMPLETE";

/// The filter.
pub struct CallRecord {
    streams: Vec<String>,
    calls: Calls,
}

impl Filter for CallRecord {
    type Settings = Settings;

    fn new(settings: Settings, saved: Option<Vec<u8>>) -> Result<Self, String> {
        let mut filter = settings.checked()?;
        if let Some(saved) = saved
            && let Err(why) = filter.calls.restore(&saved)
        {
            warn!(
                "saved state is not used, so calls that began before are taken up as they come: {why}"
            );
        }
        Ok(filter)
    }

    /// CHANNEL_OUTGOING comes before anything else of a second leg, and before the first leg can end. CHANNEL_CREATE comes later, at
    /// times after CHANNEL_ANSWER, but a first leg has no other.
    fn manifest(&self) -> Manifest {
        Manifest::new()
            .events(["CHANNEL_OUTGOING", "CHANNEL_CREATE", ENDED])
            .headers(HEADERS.into_iter().chain(leg::HEADERS))
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let Some(id) = event.get("Unique-ID").map(leg::cut) else {
            return Verdict::Pass;
        };
        let other = event.get("Other-Leg-Unique-ID");
        let originator = other.filter(|_| event.get("Other-Type") == Some("originator"));
        let originator = originator.map(leg::cut);
        if event.get("Event-Name") == Some(ENDED) {
            let ended = self.calls.end(id, originator, Leg::of(event), event.now());
            if let Some(call) = ended {
                event.emit(record::of(&call, &self.streams));
            }
        } else if event.get("Answer-State") != Some("hangup") {
            // A leg that has hung up has ended, or is about to: it needs no beginning.
            self.calls.begin(id, originator, event.now());
        }
        let forgotten = self.calls.forget(event.now());
        if forgotten > 0 {
            count("forgotten", forgotten);
        }
        Verdict::Pass
    }

    fn save(&self) -> Vec<u8> {
        self.calls.save()
    }
}

jackfield_sdk::export!(CallRecord);

#[cfg(test)]
mod tests;
