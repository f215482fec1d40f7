//! What CHANNEL_HANGUP_COMPLETE says of a leg.

use jackfield_sdk::Event;
use serde::{Deserialize, Serialize};

/// What is read of it, beside the headers that tell the legs apart.
pub(crate) const HEADERS: [&str; 12] = [
    "Call-Direction",
    "Caller-Caller-ID-Name",
    "Caller-Caller-ID-Number",
    "Caller-Destination-Number",
    "Caller-Channel-Created-Time",
    "Caller-Channel-Progress-Time",
    "Caller-Channel-Progress-Media-Time",
    "Caller-Channel-Answered-Time",
    "Caller-Channel-Hangup-Time",
    "variable_duration",
    "variable_billsec",
    "Hangup-Cause",
];

/// Longer values are cut, so that the state has a bound in bytes, too.
const VALUE_MAX: usize = 64;

/// A leg that has ended. Times are microseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Leg {
    pub(crate) id: String,
    pub(crate) direction: Option<String>,
    pub(crate) caller_name: Option<String>,
    pub(crate) caller_number: Option<String>,
    pub(crate) destination: Option<String>,
    pub(crate) start: Option<u64>,
    pub(crate) ring: Option<u64>,
    pub(crate) answer: Option<u64>,
    pub(crate) end: Option<u64>,
    /// In seconds, as FreeSWITCH counts them.
    pub(crate) duration: Option<u64>,
    pub(crate) billsec: Option<u64>,
    pub(crate) cause: Option<String>,
}

impl Leg {
    pub(crate) fn of(event: &Event) -> Self {
        let text = |name: &str| event.get(name).map(cut);
        let number = |name: &str| event.get(name)?.parse::<u64>().ok();
        // 0: never.
        let time = |name: &str| number(name).filter(|time| *time > 0);
        let ringing = time("Caller-Channel-Progress-Time");
        let early_media = time("Caller-Channel-Progress-Media-Time");
        Self {
            id: text("Unique-ID").unwrap_or_default(),
            direction: text("Call-Direction"),
            caller_name: text("Caller-Caller-ID-Name"),
            caller_number: text("Caller-Caller-ID-Number"),
            destination: text("Caller-Destination-Number"),
            start: time("Caller-Channel-Created-Time"),
            ring: ringing.into_iter().chain(early_media).min(),
            answer: time("Caller-Channel-Answered-Time"),
            end: time("Caller-Channel-Hangup-Time"),
            duration: number("variable_duration"),
            billsec: number("variable_billsec"),
            cause: text("Hangup-Cause"),
        }
    }
}

/// The beginning of a value.
pub(crate) fn cut(value: &str) -> String {
    let (beginning, _) = value.split_at(value.floor_char_boundary(VALUE_MAX));
    beginning.to_owned()
}
