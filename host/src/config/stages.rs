//! Where each setting comes from and what it defaults to: one function per stage.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::drop_in::DROP_INS;
use super::environment::Environment;
use super::filter::filter_limits;
use super::mistakes::{Mistake, Mistakes, in_one_line};
use super::reader::{Given, Reader};
use super::routes::read_routes;
use super::tls::tls;
use super::types::{
    Backoff, Buffer, Config, DeadLetter, Esl, EventsWanted, FilterLimits, Filters, Format, Http,
    Journal, Level, Limits, Log, LogFormat, Note, OnError, Policy, Redis, Router, Secret, Stream,
    Sync, Wasi,
};
use super::values;

/// The file that is read if it is there and no other is named.
const DEFAULT_FILE: &str = "jackfield.toml";
/// Entries that a stream keeps unless a setting says otherwise.
pub(super) const DEFAULT_MAX_LEN: u64 = 10_000;
/// How long the journal keeps what Redis has if no stream expires: the age at which streams expire by default.
const DEFAULT_RETAIN: Duration = Duration::from_secs(600);

/// Everything that can hold a setting.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file, which must be there; none: `jackfield.toml` in the working directory, if it is there.
    pub file: Option<PathBuf>,
    /// The environment, as `std::env::vars_os()` gives it.
    pub env: Vec<(OsString, OsString)>,
    /// Settings of the command line: a key such as `esl.host`, and its value.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// The file that is read, if any is.
    pub fn path(&self) -> Option<PathBuf> {
        let default_file = Path::new(DEFAULT_FILE);
        match &self.file {
            Some(path) => Some(path.clone()),
            None if matches!(default_file.try_exists(), Ok(false)) => None,
            None => Some(default_file.to_owned()),
        }
    }
}

/// Reads and checks all settings: flags over environment over file over default.
///
/// # Errors
/// Every mistake that there is, not only the first.
pub fn load(sources: Sources) -> Result<Config, Mistakes> {
    let mut reader = open(sources);
    let config = read_config(&mut reader);
    Mistakes::of(reader.finish())?;
    Ok(config)
}

/// The same for a running host. What is there by now must not hold it up, and a file that is gone is a mistake, not a wish for the
/// defaults.
///
/// # Errors
/// As for [`load`].
pub fn load_again(sources: Sources) -> Result<Config, Mistakes> {
    if let Some(path) = &sources.file
        && let Ok(found) = path.metadata()
        && !found.is_file()
    {
        Mistakes::of(vec![Mistake::File {
            place: in_one_line(&path.to_string_lossy()),
            cause: "is not a regular file, so it cannot be read again".to_owned(),
        }])?;
    }
    load(sources)
}

/// Where a host with these settings answers HTTP, whatever else is wrong with them: a host that runs keeps those that it had.
pub fn http_listen(sources: Sources) -> SocketAddr {
    http(&mut open(sources)).listen
}

pub(super) fn open(sources: Sources) -> Reader {
    let path = sources.path();
    let reader = path.map_or_else(Reader::default, |path| Reader::of_file(&path));
    reader.under(Environment::new(sources.env), sources.flags)
}

pub(super) fn read_config(reader: &mut Reader) -> Config {
    let (streams, routes, streams_in_file) = read_routes(reader);
    let notes = DROP_INS
        .iter()
        .filter(|drop_in| reader.is_set(drop_in.name))
        .filter_map(|drop_in| {
            let why = drop_in.effect.why_nothing(streams_in_file)?;
            let variable = drop_in.name;
            Some(Note { variable, why })
        })
        .collect();
    Config {
        router: router(reader),
        esl: esl(reader),
        journal: journal(reader, &streams),
        redis: redis(reader),
        trim_interval: reader.get(
            "redis.trim_interval",
            Duration::from_secs(10),
            &values::POSITIVE_DURATION,
        ),
        dead_letter: dead_letter(reader, &streams),
        streams,
        routes,
        buffer: Buffer {
            events: reader.get("buffer.events", 50_000, &values::BUFFERED),
        },
        filters: filters(reader),
        http: http(reader),
        log: log(reader),
        limits: limits(reader),
        notes,
    }
}

fn router(reader: &mut Reader) -> Router {
    let name = reader.get("router.name", String::new(), &values::ROUTER_NAME);
    Router {
        name: Some(name).filter(|name| !name.is_empty()),
    }
}

fn esl(reader: &mut Reader) -> Esl {
    Esl {
        host: reader.get("esl.host", "127.0.0.1".to_owned(), &values::HOST),
        port: reader.get("esl.port", 8021, &values::PORT),
        password: reader.get(
            "esl.password",
            Secret::new("ClueCon"),
            &values::ESL_PASSWORD,
        ),
        user: reader.get("esl.user", String::new(), &values::ESL_USER),
        events: events_wanted(reader),
        format: reader.get("esl.format", Format::Json, &values::FORMAT),
        backoff: backoff(reader),
        timeout: reader.get(
            "esl.timeout",
            Duration::from_secs(3),
            &values::POSITIVE_DURATION,
        ),
        alarm_after: reader.get("esl.alarm_after", 15, &values::ATTEMPTS),
        allow: reader
            .given_list("esl.allow", &values::VERB)
            .map_or(Vec::new(), |given| given.value),
    }
}

fn events_wanted(reader: &mut Reader) -> EventsWanted {
    let Some(given) = reader.given_list("esl.events", &values::EVENT_OR_AUTO) else {
        return EventsWanted::Auto;
    };
    if given.value == [None] {
        return EventsWanted::Auto;
    }
    let named: Option<Vec<_>> = given.value.iter().cloned().collect();
    match named {
        Some(events) if !events.is_empty() => EventsWanted::List(events),
        _ => {
            reader.refuse(&given, values::EVENT_OR_AUTO.allowed);
            EventsWanted::Auto
        }
    }
}

/// A default gives way to the other value; two given values must fit.
fn backoff(reader: &mut Reader) -> Backoff {
    let given_initial = reader.given("esl.backoff.initial", &values::POSITIVE_DURATION);
    let given_max = reader.given("esl.backoff.max", &values::POSITIVE_DURATION);
    let (mut initial, mut max) = (Duration::from_secs(3), Duration::from_secs(10));
    match (given_initial, given_max) {
        (None, None) => {}
        (Some(given), None) => {
            initial = given.value;
            max = max.max(initial);
        }
        (None, Some(given)) => {
            max = given.value;
            initial = initial.min(max);
        }
        (Some(first), Some(last)) => {
            initial = first.value;
            max = last.value;
            if max < initial {
                let Given { place, shown, .. } = first;
                reader.refuse(&last, format!("no less than {place}, which is {shown}"));
            }
        }
    }
    Backoff { initial, max }
}

/// A Redis that forgot is refilled with what its streams would still hold, hence the default of `retain`.
fn journal(reader: &mut Reader, streams: &[Stream]) -> Journal {
    let longest = streams.iter().filter_map(|stream| stream.expire).max();
    Journal {
        dir: reader.get("journal.dir", PathBuf::from("data/journal"), &values::DIR),
        max_size: reader.get("journal.max_size", 4 << 30, &values::JOURNAL_SIZE),
        retain: reader.get(
            "journal.retain",
            longest.unwrap_or(DEFAULT_RETAIN),
            &values::POSITIVE_DURATION,
        ),
        sync: reader.get("journal.sync", Sync::Interval, &values::SYNC),
    }
}

/// The address as a whole, and above a file's the parts that the Go service's variables give.
fn redis(reader: &mut Reader) -> Redis {
    let default = values::RedisUrl {
        is_tls: false,
        host: "127.0.0.1".to_owned(),
        port: 6379,
        db: 2,
        user: String::new(),
        password: Secret::default(),
    };
    let mut url = reader.get("redis.url", default, &values::REDIS_URL);
    if !reader.is_above_drop_in("redis.url") {
        if let Some(given) = reader.variable("REDIS_REMOTE_ADDR", &values::REDIS_ADDRESS) {
            (url.host, url.port) = given.value;
        }
        if let Some(given) = reader.variable("REDIS_REMOTE_PASSWORD", &values::REDIS_PASSWORD) {
            url.password = given.value;
        }
        if let Some(given) = reader.variable("REDIS_REMOTE_DB", &values::REDIS_DB) {
            url.db = given.value;
        }
    }
    own_credentials(reader, &mut url);
    let time_limit = Duration::from_secs(3);
    Redis {
        tls: tls(reader, url.is_tls),
        host: url.host,
        port: url.port,
        db: url.db,
        user: url.user,
        password: url.password,
        connect_timeout: reader.get(
            "redis.connect_timeout",
            time_limit,
            &values::POSITIVE_DURATION,
        ),
        timeout: reader.get("redis.timeout", time_limit, &values::POSITIVE_DURATION),
    }
}

/// User and password by their own settings, over those of the address; but not those of the file over the environment's.
fn own_credentials(reader: &mut Reader, url: &mut values::RedisUrl) {
    let is_above = reader.is_above_drop_in("redis.url");
    let has_user = is_above && !url.user.is_empty();
    let has_password = match is_above {
        true => !url.password.is_empty(),
        false => reader.is_set("REDIS_REMOTE_PASSWORD"),
    };
    let user = reader.given("redis.user", &values::REDIS_USER);
    let counts = reader.is_above_drop_in("redis.user") || !has_user;
    if let Some(user) = user.filter(|user| counts && !user.value.is_empty()) {
        url.user = user.value;
    }
    let password = reader.given("redis.password", &values::REDIS_PASSWORD);
    let counts = reader.is_above_drop_in("redis.password") || !has_password;
    if let Some(password) = password.filter(|given| counts && !given.value.is_empty()) {
        url.password = password.value;
    }
    if !url.user.is_empty() && url.password.is_empty() {
        let allowed = "the password of the user of redis.url or redis.user";
        reader.missing("redis.password", allowed);
    }
}

fn dead_letter(reader: &mut Reader, streams: &[Stream]) -> DeadLetter {
    let stream = reader
        .given("dead_letter.stream", &values::STREAM_NAME)
        .unwrap_or_else(|| {
            let value = "freeswitch:telephony:dead".to_owned();
            Given {
                place: "dead_letter.stream".to_owned(),
                shown: format!("{value:?}"),
                value,
            }
        });
    if streams.iter().any(|other| other.name == stream.value) {
        reader.refuse(&stream, "a stream that no other setting names");
    }
    DeadLetter {
        stream: stream.value,
        max_len: reader.get("dead_letter.max_len", DEFAULT_MAX_LEN, &values::COUNT),
    }
}

fn filters(reader: &mut Reader) -> Filters {
    let dir = reader.get("filters.dir", PathBuf::from("filters.d"), &values::DIR);
    let defaults = FilterLimits {
        deadline: Duration::from_millis(10),
        memory: 16 << 20,
        on_error: Policy::all(OnError::Pass),
        wasi: Wasi::Locked,
        streams: vec!["freeswitch:*".to_owned()],
        probation: Duration::from_secs(60),
        fuse: true,
    };
    Filters {
        dir,
        limits: filter_limits(reader, "filters", defaults),
    }
}

/// `http.listen`, wherever it is given, over `HEALTH_PORT`, which an image may set.
fn http(reader: &mut Reader) -> Http {
    let health_port = reader.variable("HEALTH_PORT", &values::PORT);
    let default = match health_port {
        Some(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port.value),
        None => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9876),
    };
    Http {
        listen: reader.get("http.listen", default, &values::LISTEN),
        token: reader.get("http.token", Secret::default(), &values::TOKEN),
    }
}

fn log(reader: &mut Reader) -> Log {
    Log {
        level: reader.get("log.level", Level::Info, &values::LEVEL),
        format: reader.get("log.format", LogFormat::Text, &values::LOG_FORMAT),
    }
}

fn limits(reader: &mut Reader) -> Limits {
    let mut limit = |key, millis| reader.get(key, Duration::from_millis(millis), &values::DURATION);
    Limits {
        reader: limit("limits.reader", 300),
        writer: limit("limits.writer", 300),
        total: limit("limits.total", 500),
    }
}
