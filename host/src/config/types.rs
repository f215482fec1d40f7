//! What a user can set, one struct per stage. The defaults stand beside each field and are made in `stages` and
//! `routes`. Every value here has passed its checks, so that a stage need not repeat them.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// All settings of one router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who this router is.
    pub router: Router,
    /// The connection to FreeSWITCH.
    pub esl: Esl,
    /// The log on disk that every event goes through.
    pub journal: Journal,
    /// What is held while the journal's disk takes nothing.
    pub buffer: Buffer,
    /// The connection to Redis.
    pub redis: Redis,
    /// The streams that events go to, each name once. A filter may name others.
    pub streams: Vec<Stream>,
    /// Which events go to which stream, in order: the first match wins.
    pub routes: Vec<Route>,
    /// Where events go that cannot be handled.
    pub dead_letter: DeadLetter,
    /// The filters and their limits.
    pub filters: Filters,
    /// The HTTP server.
    pub http: Http,
    /// The log on standard error.
    pub log: Log,
    /// The latency above which a stage counts and warns.
    pub limits: Limits,
    /// How often entries older than their stream's `expire` are trimmed. Above zero; default 10 s.
    pub trim_interval: Duration,
    /// Variables that are set and have no effect here, for the log at start.
    pub notes: Vec<Note>,
}

/// The identity of this router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// The name in Redis keys and logs, never empty; default: none, which means FreeSWITCH's own switchname.
    pub name: Option<String>,
}

/// The connection to FreeSWITCH's Event Socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Esl {
    /// Host name or address, without a port; default `127.0.0.1`.
    pub host: String,
    /// Default 8021.
    pub port: u16,
    /// Without line breaks; default `ClueCon`.
    pub password: Secret,
    /// Empty, the default: `auth password`. Else `userauth user:password`. Has no colon and no line break.
    pub user: String,
    /// The events to subscribe to; default [`EventsWanted::Auto`].
    pub events: EventsWanted,
    /// The encoding of events on the socket; default [`Format::Json`].
    pub format: Format,
    /// The pauses between attempts to connect.
    pub backoff: Backoff,
    /// The time allowed for a connect, for a login and for the reply to a command, each. Above zero; default 3 s.
    pub timeout: Duration,
    /// Failed attempts in a row that raise an alarm. At least 1; default 15.
    pub alarm_after: u32,
    /// The API commands that may be run over HTTP, by their first word; default none.
    pub allow: Vec<String>,
}

/// The pauses between attempts to connect. The first attempt after a loss is made at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause, doubled after each failed attempt. Above zero; default 3 s.
    pub initial: Duration,
    /// The longest pause, never below `initial`; default 10 s.
    pub max: Duration,
}

/// Which events FreeSWITCH is asked for. HEARTBEAT is always among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventsWanted {
    /// What the routes and the filters want.
    Auto,
    /// These, whatever routes and filters want. Never empty.
    List(Vec<EventPattern>),
}

/// An event name, with a subclass if only that one is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventPattern {
    /// The `Event-Name`: capitals, digits and underscores. Never `ALL`.
    pub name: String,
    /// The `Event-Subclass`, only ever beside `CUSTOM`; none there means every subclass.
    pub subclass: Option<String>,
}

/// The encoding of events on the Event Socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `event json`: lossless.
    Json,
    /// `event plain`: cheaper for FreeSWITCH, and ambiguous about percent signs.
    Plain,
}

/// The log on disk that every event goes through before anything else sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// The folder of its segments, made if it is missing; default `data/journal`.
    pub dir: PathBuf,
    /// Bytes that the segments may take on disk. At least 16 MiB; default 4 GiB.
    pub max_size: u64,
    /// How long a record is kept after Redis has it, so that a Redis that forgot can be refilled. Above zero; default
    /// the longest `expire` of the streams, 10 minutes if none expires.
    pub retain: Duration,
    /// When records are forced to the disk; default [`Sync::Interval`].
    pub sync: Sync,
}

/// When the journal's records are forced to the disk (`fdatasync`). A crash of the process alone loses nothing in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// In the background, every 10 ms.
    Interval,
    /// Before the Redis write of the batch that they belong to.
    Batch,
    /// Never: left to the operating system.
    Never,
}

/// What is held in memory while the journal's disk is full or hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Events held; what comes beyond them is counted as lost. From 1 to 10 million; default 50000.
    pub events: usize,
}

/// The connection to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// Host name or address, an IPv6 address without brackets; default `127.0.0.1`.
    pub host: String,
    /// Default 6379.
    pub port: u16,
    /// The number of the logical database; default 2.
    pub db: u32,
    /// Empty, the default: the password alone is sent.
    pub user: String,
    /// Empty, the default: no `AUTH` is sent. Never empty beside a user.
    pub password: Secret,
    /// None, the default: in the clear.
    pub tls: Option<Tls>,
    /// The time allowed for a connect. Above zero; default 3 s.
    pub connect_timeout: Duration,
    /// The time allowed for the reply to a batch. Above zero; default 3 s.
    pub timeout: Duration,
}

/// How to trust a Redis and to be trusted by it. Every PEM text was parsed, and the key fits its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// The authorities that may have issued its certificate, in PEM; none, the default: those of the system.
    pub ca: Option<String>,
    /// Who we are; none, the default: it does not ask.
    pub identity: Option<Identity>,
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate and those between it and its authority, in PEM.
    pub cert: String,
    /// Its private key, in PEM.
    pub key: Secret,
}

/// A Redis stream that this router writes, and how far it may grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// The key in Redis, never empty, without control characters.
    pub name: String,
    /// Entries kept, for `MAXLEN ~`; 0: no limit. Default 10000.
    pub max_len: u64,
    /// The age at which an entry is trimmed; none: never. Default 10 minutes, 1 minute for the jobs stream of the
    /// Go service's variables.
    pub expire: Option<Duration>,
    /// The shape of an entry; default [`StreamFormat::Json`].
    pub format: StreamFormat,
}

/// The shape of a stream entry. Decisions in the journal name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamFormat {
    /// One field `event` with a JSON object of all headers.
    Json,
    /// One field per header.
    Fields,
}

/// One rule: which events go to a stream when no filter said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The place of the stream in [`Config::streams`], always within it.
    pub stream: usize,
    /// The events that the rule takes, never empty.
    pub events: Vec<EventPattern>,
    /// Headers and the values that they must all have; empty: any event of `events`.
    pub when: Vec<(String, String)>,
}

/// The stream of events that could not be handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The key in Redis, different from every stream's; default `freeswitch:telephony:dead`.
    pub stream: String,
    /// Entries kept, for `MAXLEN ~`; 0: no limit. Default 10000.
    pub max_len: u64,
}

/// The filters: where they are, and the limits of those whose own settings say nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filters {
    /// The folder of the `*.wasm` files; need not exist. Default `filters.d`.
    pub dir: PathBuf,
    /// What each filter may use and do, unless its own settings say otherwise.
    pub limits: FilterLimits,
}

/// What one filter may use and do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterLimits {
    /// The time allowed for one call. Above zero; default 10 ms.
    pub deadline: Duration,
    /// Linear memory in bytes, from 64 KiB to 4 GiB; default 16 MiB.
    pub memory: u64,
    /// What becomes of an event whose call failed; default [`OnError::Pass`].
    pub on_error: Policy,
    /// Whether WASI may be imported; default [`Wasi::Locked`].
    pub wasi: Wasi,
    /// The streams that the filter may name: exact, or everything that starts with what is before one trailing `*`.
    /// Default `freeswitch:*`.
    pub streams: Vec<String>,
    /// How long a new version is watched before it counts as good; default 60 s.
    pub probation: Duration,
    /// Whether a version that drops or reroutes far more than the one before it is taken back; default yes.
    pub fuse: bool,
}

/// What becomes of an event that a filter did not handle, by why it did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// It trapped.
    pub trap: OnError,
    /// It took longer than its deadline.
    pub deadline: OnError,
    /// It wanted more memory than it may have.
    pub memory: OnError,
    /// It answered what the contract forbids.
    pub bad_output: OnError,
    /// No version of it runs: it was refused, taken back or suspended.
    pub load: OnError,
}

impl Policy {
    /// The same for every cause.
    pub fn all(on_error: OnError) -> Policy {
        Policy {
            trap: on_error,
            deadline: on_error,
            memory: on_error,
            bad_output: on_error,
            load: on_error,
        }
    }
}

/// What becomes of an event for which a filter trapped, took too long or gave a bad answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// It goes on as it came to the filter.
    Pass,
    /// It is dropped and counted.
    Drop,
    /// It is kept in the dead-letter stream.
    DeadLetter,
    /// The last good version takes over and handles it; without one it goes on as it came.
    LastGood,
}

/// Whether a filter may import WASI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wasi {
    /// Linked without files, sockets and environment.
    Locked,
    /// A filter that imports it is refused.
    Deny,
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Address and port, port 0 for any free one; default `127.0.0.1:9876`.
    pub listen: SocketAddr,
    /// What `Authorization: Bearer` must carry: visible ASCII. Empty, the default: requests that need it are refused.
    pub token: Secret,
}

/// The log on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is logged; default [`Level::Info`].
    pub level: Level,
    /// Default [`LogFormat::Text`].
    pub format: LogFormat,
}

/// How severe a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is lost or needs a person.
    Error,
    /// Unexpected, recovered.
    Warn,
    /// Life cycle.
    Info,
    /// Per connection or batch.
    Debug,
    /// Per event.
    Trace,
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The latency above which a stage counts and, at most once a second, warns. No event is dropped for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the socket to the routes' decision; default 300 ms.
    pub reader: Duration,
    /// From the decision to Redis's reply; default 300 ms.
    pub writer: Duration,
    /// From the socket to Redis's reply; default 500 ms.
    pub total: Duration,
}

/// A variable that is set and has no effect here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its name.
    pub variable: &'static str,
    /// Why it has none: a short sentence without a full stop.
    pub why: &'static str,
}

/// A string that does not show itself: `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The string itself. Never log what this returns.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no secret at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
