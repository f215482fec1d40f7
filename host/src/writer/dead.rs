//! Dead letters as `jackfield dead` sees them, in both places where they lie: the dead-letter stream, and the local file
//! for those that even it refused. They are looked at, and one is removed once it has been replayed.
//!
//! A blocking connection of its own, beside the lane and without its cursor: what is done here decides nothing about events
//! that are on their way. Writes no letters, and knows nothing of the host that replays them.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, Cmd, Connection, ConnectionAddr, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, cmd,
};
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::letters::{self, Fields};
use crate::config;

/// Why a dead letter cannot be had or removed.
#[derive(Debug, Error)]
pub enum DeadError {
    /// It is not where its id says.
    #[error("there is no such dead letter")]
    NotFound,
    /// Redis is away, or refuses.
    #[error("the dead-letter stream cannot be used: {0}")]
    Stream(RedisError),
    /// The disk refuses.
    #[error("the local dead-letter file cannot be used")]
    File(#[from] io::Error),
}

/// Names a letter and the place where it lies. A user writes the id of a stream entry, or `local:` and a line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// The id of an entry of the dead-letter stream.
    Stream(String),
    /// A line of the local file.
    Local(u64),
}

/// A letter, wherever it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its name for as long as it lies there.
    pub id: Id,
    /// What it says, bytes that are no UTF-8 repaired.
    pub fields: Fields,
}

/// The newest letters of one place.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    /// The newest last.
    pub letters: Vec<DeadLetter>,
    /// How many there are in that place.
    pub total: u64,
    /// Lines of the local file that are no letters; see [`letters::Kept`].
    pub malformed: u64,
}

/// Both places. Redis is connected when it is needed first, so that the local file can be read without it.
pub struct DeadLetters {
    redis: config::Redis,
    stream: String,
    dir: PathBuf,
    connection: Option<Connection>,
}

impl DeadLetters {
    /// The stream of this name, and the local file in `dir`, which is the journal's folder.
    pub fn new(redis: config::Redis, stream: String, dir: PathBuf) -> DeadLetters {
        DeadLetters {
            redis,
            stream,
            dir,
            connection: None,
        }
    }

    /// The newest `limit` letters of the stream.
    ///
    /// # Errors
    /// Redis is away, or refuses.
    pub fn newest(&mut self, limit: usize) -> Result<Listed, DeadError> {
        let total = cmd("XLEN").arg(&self.stream).query(self.connection()?)?;
        // One at least: Redis answers COUNT 0 with nil, which is no list.
        let mut range = cmd("XREVRANGE");
        range.arg(&self.stream).arg("+").arg("-");
        let mut letters = self.entries(range.arg("COUNT").arg(limit.max(1)))?;
        letters.truncate(limit);
        letters.reverse();
        Ok(Listed {
            letters,
            total,
            malformed: 0,
        })
    }

    /// The newest `limit` letters of the local file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn newest_local(&self, limit: usize) -> Result<Listed, DeadError> {
        let kept = letters::read(&self.dir)?;
        let total = kept.letters.len();
        let newest = kept.letters.into_iter();
        let newest = newest.skip(total.saturating_sub(limit));
        let letters = newest.map(|letter| DeadLetter {
            id: Id::Local(letter.number),
            fields: letter.fields,
        });
        Ok(Listed {
            letters: letters.collect(),
            total: total as u64,
            malformed: kept.malformed,
        })
    }

    /// Up to `count` letters of the stream, oldest first: those after the id `after` (`0-0` for all), up to `last` and
    /// with it.
    ///
    /// # Errors
    /// Redis is away, or refuses.
    pub fn page(
        &mut self,
        after: &Id,
        last: &Id,
        count: usize,
    ) -> Result<Vec<DeadLetter>, DeadError> {
        let mut range = cmd("XRANGE");
        range.arg(&self.stream).arg(format!("({after}"));
        range.arg(last.to_string()).arg("COUNT").arg(count);
        self.entries(&range)
    }

    /// The letter of this id.
    ///
    /// # Errors
    /// It is not there, or its place cannot be read.
    pub fn find(&mut self, id: &Id) -> Result<DeadLetter, DeadError> {
        let letters = match id {
            Id::Stream(entry) => {
                let mut range = cmd("XRANGE");
                self.entries(range.arg(&self.stream).arg(entry).arg(entry))?
            }
            Id::Local(_) => self.newest_local(usize::MAX)?.letters,
        };
        let mut letters = letters.into_iter();
        letters
            .find(|letter| letter.id == *id)
            .ok_or(DeadError::NotFound)
    }

    /// Removes the letter of this id from its place; one that is gone from the stream already is fine.
    ///
    /// # Errors
    /// Redis or the disk refuses.
    pub fn remove(&mut self, id: &Id) -> Result<(), DeadError> {
        match id {
            Id::Stream(entry) => {
                let mut delete = cmd("XDEL");
                delete.arg(&self.stream).arg(entry);
                delete.exec(self.connection()?)?;
            }
            Id::Local(number) => letters::replayed(&self.dir, *number)?,
        }
        Ok(())
    }

    fn connection(&mut self) -> RedisResult<&mut Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        Ok(self.connection.insert(connection))
    }

    fn connect(&self) -> RedisResult<Connection> {
        let client = client(&self.redis)?;
        let connection = client.get_connection_with_timeout(self.redis.connect_timeout)?;
        connection.set_read_timeout(Some(self.redis.timeout))?;
        connection.set_write_timeout(Some(self.redis.timeout))?;
        Ok(connection)
    }

    fn entries(&mut self, range: &Cmd) -> Result<Vec<DeadLetter>, DeadError> {
        type Raw = HashMap<Vec<u8>, Vec<u8>>;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let raw: Vec<(String, Raw)> = range.query(self.connection()?)?;
        let letters = raw.into_iter().map(|(id, fields)| {
            let fields = fields.into_iter();
            let fields = fields.map(|(name, value)| (text(name), text(value)));
            DeadLetter {
                id: Id::Stream(id),
                fields: fields.collect(),
            }
        });
        Ok(letters.collect())
    }
}

impl DeadLetter {
    /// What it says under this name; empty if nothing.
    pub fn text(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// The event; none if it was cut short, and is no JSON object any more, or if the letter is a malformed frame.
    pub fn event(&self) -> Option<Map<String, Value>> {
        serde_json::from_str(self.text("event")).ok()
    }

    /// The bytes that were no event, as text.
    pub fn frame(&self) -> Option<&str> {
        self.fields.get("frame").map(String::as_str)
    }

    /// What is to be an input once more: the event is the text that it is, as parsed and written anew it might be another one.
    /// None if it was cut short.
    pub fn again(&self) -> Option<&str> {
        self.frame()
            .or_else(|| self.event().map(|_| self.text("event")))
    }

    /// The `Event-Name`, or why there is none.
    pub fn event_name(&self) -> String {
        match (self.frame(), self.event()) {
            (Some(_), _) => "(malformed)".to_owned(),
            (None, None) => "(cut short)".to_owned(),
            (None, Some(event)) => {
                let name = event.get("Event-Name").and_then(Value::as_str);
                name.unwrap_or("(no name)").to_owned()
            }
        }
    }

    /// What a list shows of it.
    pub fn summary(&self) -> Value {
        json!({
            "id": self.id.to_string(),
            "time": self.text("time"),
            "lsn": self.lsn(),
            "filter": self.text("filter"),
            "reason": self.text("reason"),
            "event": self.event_name(),
            "streams": self.text("streams"),
        })
    }

    /// The number in the journal of the input that it comes from.
    pub fn lsn(&self) -> Option<u64> {
        self.text("lsn").parse().ok()
    }
}

/// By hand, because this error already says what its cause says: as a source, it would be said twice.
impl From<RedisError> for DeadError {
    fn from(error: RedisError) -> DeadError {
        DeadError::Stream(error)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(id) => f.write_str(id),
            Self::Local(number) => write!(f, "local:{number}"),
        }
    }
}

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Id, Self::Err> {
        let number = |text: &str| text.parse::<u64>().ok();
        let id = match text.strip_prefix("local:") {
            Some(line) => number(line).map(Id::Local),
            None => text
                .split_once('-')
                .and_then(|(ms, at)| number(ms).zip(number(at)))
                .map(|(ms, at)| Id::Stream(format!("{ms}-{at}"))),
        };
        id.ok_or("expected the id of a stream entry, such as 1700000000000-0, or local:3")
    }
}

/// A client for these settings, not connected yet.
fn client(settings: &config::Redis) -> RedisResult<Client> {
    let mut redis = RedisConnectionInfo::default().set_db(i64::from(settings.db));
    if !settings.user.is_empty() {
        redis = redis.set_username(&settings.user);
    }
    if !settings.password.is_empty() {
        redis = redis.set_password(settings.password.expose());
    }
    let (host, port) = (settings.host.clone(), settings.port);
    let address = match settings.tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(_) => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        },
    };
    let info = address
        .into_connection_info()?
        .set_redis_settings(redis)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    match &settings.tls {
        None => Client::open(info),
        Some(tls) => Client::build_with_tls(info, certificates(tls)),
    }
}

/// What to trust and what to show, as the `redis` crate takes it.
fn certificates(tls: &config::Tls) -> TlsCertificates {
    let client_tls = tls.identity.as_ref().map(|identity| ClientTlsConfig {
        client_cert: identity.cert.clone().into_bytes(),
        client_key: identity.key.expose().as_bytes().to_vec(),
    });
    TlsCertificates {
        client_tls,
        root_cert: tls.ca.clone().map(String::into_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::Id;

    #[test]
    fn an_id_names_an_entry_of_the_stream_or_a_line_of_the_file() {
        for (text, id) in [
            (
                "1700000000000-0",
                Some(Id::Stream("1700000000000-0".to_owned())),
            ),
            ("local:3", Some(Id::Local(3))),
            ("1700000000000", None),
            ("local:", None),
            ("local:-1", None),
            ("-", None),
            ("+", None),
            ("1-x", None),
        ] {
            assert_eq!(text.parse().ok(), id, "{text}");
            if let Some(id) = id {
                assert_eq!(id.to_string(), text, "it is shown as it is written");
            }
        }
    }
}
