//! The record: a derived event. Names are FreeSWITCH's own where it has them, so that the settings of `redact` fit it, too.

use jackfield_sdk::Derived;

use crate::calls::Call;
use crate::leg::Leg;

pub(crate) fn of(call: &Call, streams: &[String]) -> Derived {
    let mut record = Record(Derived::new("CALL_RECORD"));
    if let Some(first) = &call.first {
        record.first(first, call.other.as_deref());
    }
    record.number("Legs", Some(u64::from(call.legs)));
    if let Some(other) = &call.other {
        record.other(other);
    }
    let Record(derived) = record;
    streams.iter().fold(derived, Derived::stream)
}

struct Record(Derived);

impl Record {
    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            let derived = std::mem::replace(&mut self.0, Derived::new(""));
            self.0 = derived.header(name, value);
        }
    }

    fn number(&mut self, name: &str, value: Option<u64>) {
        self.text(name, value.map(|value| value.to_string()).as_deref());
    }

    fn first(&mut self, leg: &Leg, other: Option<&Leg>) {
        self.text("Unique-ID", Some(&leg.id));
        self.text("Call-Direction", leg.direction.as_deref());
        self.text("Caller-Caller-ID-Name", leg.caller_name.as_deref());
        self.text("Caller-Caller-ID-Number", leg.caller_number.as_deref());
        self.text("Caller-Destination-Number", leg.destination.as_deref());
        self.number("Start-Time", leg.start);
        // Where the first leg was not told that it rings, the other one may have rung all the same.
        self.number("Ring-Time", leg.ring.or_else(|| other?.ring));
        self.number("Answer-Time", leg.answer);
        self.number("End-Time", leg.end);
        self.number("Duration", leg.duration);
        self.number("Billsec", leg.billsec);
        self.text("Hangup-Cause", leg.cause.as_deref());
    }

    fn other(&mut self, leg: &Leg) {
        self.text("Other-Leg-Unique-ID", Some(&leg.id));
        self.text("Other-Leg-Direction", leg.direction.as_deref());
        self.text("Other-Leg-Caller-ID-Number", leg.caller_number.as_deref());
        self.text("Other-Leg-Destination-Number", leg.destination.as_deref());
        self.number("Other-Leg-Start-Time", leg.start);
        self.number("Other-Leg-Ring-Time", leg.ring);
        self.number("Other-Leg-Answer-Time", leg.answer);
        self.number("Other-Leg-End-Time", leg.end);
        self.number("Other-Leg-Billsec", leg.billsec);
        self.text("Other-Leg-Hangup-Cause", leg.cause.as_deref());
    }
}
