//! The hosts that are measured: which filters, with which settings.

use load::store::STREAM;
use load::subject::{Setup, Subject};

/// A file's name, its component, its settings.
type Filter = (&'static str, &'static str, &'static str);

const REDACT: Filter = (
    "10-redact",
    "redact",
    "mask = [\"Caller-Caller-ID-Number\", \"Caller-ANI\", \"Caller-Destination-Number\", \"variable_sip_from_user\"]\n\
     keep = 2\nhash = [\"variable_customer_number\"]\nsalt = \"of the benchmark alone\"\n",
);
const DEDUP: Filter = (
    "20-dedup",
    "dedup",
    "window = \"5s\"\nby = [\"Core-UUID\", \"Event-Sequence\"]\nmax_keys = 65536\n",
);
const ROUTE: Filter = (
    "30-route",
    "route",
    "[[rule]]\nevent = \"CHANNEL_ANSWER\"\nheader = \"variable_tenant\"\npattern = \"acme*\"\n\
     streams = [\"freeswitch:telephony:events\"]\n",
);
/// Subscribes to events that are not sent.
const OTHERS: Filter = (
    "40-others",
    "route",
    "[[rule]]\nevent = \"CHANNEL_HANGUP_COMPLETE\"\nheader = \"Hangup-Cause\"\npattern = \"*\"\n\
     streams = [\"freeswitch:telephony:events\"]\n",
);
const RATE_LIMIT: Filter = (
    "50-rate-limit",
    "rate_limit",
    include_str!("../../../filters/rate-limit/rate-limit.toml"),
);

/// The whole path: three filters that all work on every event.
pub fn three() -> Subject {
    of(&[REDACT, DEDUP, ROUTE], String::new())
}

/// These three, and one that is not called; its name.
pub fn with_others() -> (Subject, &'static str) {
    (of(&[REDACT, DEDUP, ROUTE, OTHERS], String::new()), OTHERS.0)
}

/// Five filters, and room for a long backlog.
pub fn five() -> Subject {
    let room = "[journal]\nmax_size = \"16GiB\"\n".to_owned();
    of(&[REDACT, DEDUP, ROUTE, OTHERS, RATE_LIMIT], room)
}

/// No filter, and a field for each header.
pub fn fields() -> Subject {
    let stream = format!(
        "[[stream]]\nname = \"{STREAM}\"\nevents = [\"CHANNEL_ANSWER\"]\nmax_len = 0\nformat = \"fields\"\n"
    );
    of(&[], stream)
}

fn of(filters: &[Filter], config: String) -> Subject {
    Subject::Host(Setup {
        filters: filters.to_vec(),
        config,
    })
}
