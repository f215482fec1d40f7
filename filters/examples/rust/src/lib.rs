//! The filter `screen`: drops calls to test numbers, and tells of every other call who calls whom.
//!
//! Here to be compared with the same filter in C and in JavaScript, in the folders beside it.

use jackfield_sdk::{Event, Filter, Manifest, NoSettings, Verdict};

/// Calls to numbers that begin so are tests.
const TEST_PREFIX: &str = "999";

/// The filter.
pub struct Screen;

impl Filter for Screen {
    type Settings = NoSettings;

    fn new(_settings: NoSettings, _saved: Option<Vec<u8>>) -> Result<Self, String> {
        Ok(Self)
    }

    fn manifest(&self) -> Manifest {
        Manifest::new()
            .events(["CHANNEL_ANSWER", "CHANNEL_HANGUP_COMPLETE"])
            .headers(["Caller-Caller-ID-Number", "Caller-Destination-Number"])
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        let (caller, number) = (event.declared(0), event.declared(1));
        if number.is_some_and(|number| number.starts_with(TEST_PREFIX)) {
            return Verdict::drop("test call");
        }
        if let (Some(caller), Some(number)) = (caller, number) {
            event.set("X-Call", format!("{caller} -> {number}"));
        }
        Verdict::Pass
    }
}

jackfield_sdk::export!(Screen);
