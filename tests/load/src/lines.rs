//! The lines of the table, with what they must be and what is aimed at.

use load::table::{Bounds, Line};

const fn line(what: &'static str, unit: &'static str, bounds: Option<Bounds>) -> Line {
    Line { what, unit, bounds }
}

pub const CPU: Line = line(
    "processor time of the host an event, whole path, 3 filters",
    "µs",
    Bounds::under(10.0, 6.0),
);
pub const THROUGH: Line = line(
    "throughput / `redis-benchmark -c 1 -P 64`",
    "",
    Bounds::over(0.5, 0.7),
);
pub const INDEX: Line = line("frame → event index", "µs", Bounds::under(1.5, 0.5));
pub const ENTRY_UNEDITED: Line = line(
    "event → JSON entry, unedited",
    "µs",
    Bounds::under(1.5, 0.5),
);
pub const ENTRY_EDITED: Line = line("event → JSON entry, edited", "µs", Bounds::under(3.0, 1.5));
pub const CALL: Line = line(
    "one filter call: read 4, set 2, route",
    "µs",
    Bounds::under(1.0, 0.6),
);
pub const CALL_IDLE: Line = line(
    "a filter that subscribed and does nothing",
    "ns",
    Bounds::under(200.0, 120.0),
);
pub const UNSUBSCRIBED_CALLS: Line = line(
    "calls for an event that no filter subscribed to",
    "",
    Bounds::under(0.0, 0.0),
);
pub const P50: Line = line("p50 at 10,000/s / bare relay", "×", Bounds::under(1.5, 1.2));
pub const P99: Line = line("p99 at 10,000/s / bare relay", "×", Bounds::under(2.0, 1.3));
pub const DRAIN: Line = line(
    "drain of a backlog / live rate of 1,000/s",
    "×",
    Bounds::over(10.0, 40.0),
);
pub const SWAP_SETTINGS: Line = line(
    "swap, new settings: p99 in its second / steady p99",
    "×",
    Bounds::under(2.0, 1.2),
);
pub const SWAP_BUILD: Line = line(
    "swap, new build: p99 in its second / steady p99",
    "×",
    Bounds::under(2.0, 1.2),
);
pub const DROP_IN_FIRST: Line = line(
    "drop-in to live, first time",
    "ms",
    Bounds::under(2_000.0, 1_000.0),
);
pub const DROP_IN_CACHED: Line = line(
    "drop-in to live, from the cache",
    "ms",
    Bounds::under(500.0, 250.0),
);
pub const MEMORY: Line = line(
    "resident memory, 5 filters, full backlog",
    "MiB",
    Bounds::under(128.0, 64.0),
);
pub const IDLE: Line = line("processor while idle", "%", Bounds::under(0.5, 0.1));
pub const START: Line = line(
    "start to first delivered event, 5 cached components",
    "ms",
    Bounds::under(500.0, 100.0),
);
pub const FIELDS: Line = line(
    "bytes in Redis an entry, `fields` / raw frame",
    "",
    Bounds::under(0.8, 0.55),
);

// To read the others by.
pub const REDIS_ALONE: Line = line("`redis-benchmark -c 1 -P 64`", "entries/s", None);
pub const EVENTS_A_SECOND: Line = line("all at once", "events/s", None);
pub const CPU_AT_ONCE: Line = line("processor time an event, all at once", "µs", None);
pub const CPU_STEADY: Line = line("processor time an event at 10,000/s", "µs", None);
pub const P50_MS: Line = line("p50 at 10,000/s", "ms", None);
pub const P99_MS: Line = line("p99 at 10,000/s", "ms", None);
pub const LATE: Line = line("the sender's own lateness at 10,000/s, p99", "ms", None);
pub const HICCUPS: Line = line("hiccups of the machine at 10,000/s, p99", "ms", None);
pub const CALL_ALONE: Line = line(
    "one filter call: read 4, set 2, route; wasmtime and the guest alone",
    "µs",
    None,
);
pub const CALL_IDLE_ALONE: Line = line(
    "a filter that does nothing; wasmtime and the guest alone",
    "ns",
    None,
);
pub const UNSUBSCRIBED_NS: Line = line("a filter that did not subscribe", "ns", None);
pub const MEMORY_EMPTY: Line = line("resident memory, 5 filters, no backlog", "MiB", None);
pub const RAW_BYTES: Line = line("bytes in Redis an entry, raw frame", "bytes", None);
pub const FIELDS_BYTES: Line = line("bytes in Redis an entry, `fields`", "bytes", None);
pub const FIELDS_LARGE_NODES: Line =
    line("the same with `stream-node-max-bytes 65536`", "bytes", None);
