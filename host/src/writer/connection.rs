//! One connection to Redis: made, greeted, asked. Every failure ends it.
//!
//! One write, all replies, and a time limit of ours. It knows nothing of cursors and batches, and tries nothing twice.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::batch::error_of;
use super::commands::Commands;
use super::reserve::{Positions, Reserve, Survey, time_ms};
use super::tls;
use super::wire::Wire;
use crate::config;
use crate::link::Fault;
use crate::route::{Routes, Stream};

/// Redis' own default for `proto-max-bulk-len`, where it may not be asked.
const MAX_BULK: usize = 512 << 20;
/// The least that Redis lets it be; every dead letter fits.
const MIN_BULK: usize = 1 << 20;

/// How long and how much is listened to of a Redis that lets us go: it says so at once, or never.
const PARTING: Duration = Duration::from_millis(100);
const MAX_PARTING: u64 = 512;

/// Whether Redis says so to a client that it does not want, whatever that asks.
fn turns_away(error: &str) -> bool {
    ["ERR max number of clients", "DENIED"]
        .iter()
        .any(|words| error.starts_with(words))
}

/// Why there is no connection, or no use in it.
#[derive(Debug, Error)]
pub(super) enum ConnectionError {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("no TLS: {0}")]
    Tls(#[from] tls::Trouble),
    #[error(
        "password rejected: check redis.user and redis.password, or those in redis.url (REDIS_REMOTE_PASSWORD)"
    )]
    Password,
    #[error("connection broken: {0}")]
    Broken(#[source] io::Error),
    #[error("no reply within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("no reply within {} ms; does this port speak TLS?", .0.as_millis())]
    NoHandshake(Duration),
    #[error("is a {0}, not a master")]
    NotMaster(String),
    #[error("refuses to write: {0}")]
    Refused(String),
    #[error("refuses connections: {0}")]
    TurnedAway(String),
    #[error("a new connection was asked for")]
    AskedFor,
}

impl ConnectionError {
    /// Whether waiting may help.
    pub(super) fn fault(&self) -> Fault {
        match self {
            ConnectionError::Password => Fault::Setting,
            // What Redis says of a user that may not do this, and of a database that it does not have.
            ConnectionError::Refused(text) | ConnectionError::TurnedAway(text)
                if text.starts_with("NOPERM") || text.contains("DB index") =>
            {
                Fault::Setting
            }
            _ => Fault::Peer,
        }
    }

    /// What it means that the choice of a database, or the first question, is answered with this error.
    fn of_first_words(error: String) -> ConnectionError {
        let begins = |words: &[&str]| words.iter().any(|word| error.starts_with(word));
        if begins(&["NOAUTH"]) {
            ConnectionError::Password
        } else if turns_away(&error) || begins(&["ERR DB index", "NOPERM"]) {
            ConnectionError::TurnedAway(error)
        } else {
            // So it would be with everything that follows.
            ConnectionError::Refused(error)
        }
    }

    /// What it means that a login is answered with this error, whose words may have the password in them.
    fn of_login(error: String) -> ConnectionError {
        match turns_away(&error) {
            true => ConnectionError::TurnedAway(error),
            false => ConnectionError::Password,
        }
    }
}

/// An open connection.
pub(super) struct Connection {
    wire: Wire,
    timeout: Duration,
    /// The largest value that this Redis takes.
    pub(super) max_bulk: usize,
}

impl Connection {
    /// Connects and logs in.
    pub(super) async fn open(settings: &config::Redis) -> Result<Connection, ConnectionError> {
        let late = |_| match settings.tls {
            None => ConnectionError::Late(settings.connect_timeout),
            Some(_) => ConnectionError::NoHandshake(settings.connect_timeout),
        };
        let connecting = async {
            let mut wire = Wire::connect(settings).await.map_err(not_connected)?;
            log_in(&mut wire, settings).await?;
            Ok(wire)
        };
        let connected = timeout(settings.connect_timeout, connecting)
            .await
            .map_err(late)?;
        let wire = match connected {
            // In the clear it may be heard once more; with TLS whoever answers in the clear is nobody.
            Err(ConnectionError::Broken(error)) if settings.tls.is_none() => {
                let said = parting_words(settings).await;
                return Err(said.map_or(not_connected(error), ConnectionError::TurnedAway));
            }
            Err(ConnectionError::Broken(error)) => return Err(not_connected(error)),
            connected => connected?,
        };
        Ok(Connection {
            wire,
            timeout: settings.timeout,
            max_bulk: MAX_BULK,
        })
    }

    /// Makes sure that this is a master which takes transactions, and learns how much it takes at once.
    pub(super) async fn greet(&mut self) -> Result<(), ConnectionError> {
        let mut commands = Commands::default();
        commands.add(&[b"ROLE"]);
        commands.add(&[b"MULTI"]);
        commands.add(&[b"EXEC"]);
        commands.add(&[b"CONFIG", b"GET", b"proto-max-bulk-len"]);
        let replies = self.ask(&commands).await?;
        if let Some(error) = replies.iter().take(3).find_map(error_of) {
            return Err(ConnectionError::Refused(error));
        }
        require_master(replies.first())?;
        if let Some(Value::Array(setting)) = replies.get(3)
            && let Some(Value::BulkString(bytes)) = setting.get(1)
        {
            let bytes = std::str::from_utf8(bytes).ok();
            let bytes = bytes.and_then(|bytes| bytes.parse().ok());
            self.max_bulk = bytes.unwrap_or(MAX_BULK).max(MIN_BULK);
        }
        Ok(())
    }

    /// One write, all replies. A reply that is late makes the connection useless: the command may still run.
    pub(super) async fn ask(&mut self, commands: &Commands) -> Result<Vec<Value>, ConnectionError> {
        timeout(self.timeout, self.wire.ask(commands))
            .await
            .map_err(|_| ConnectionError::Late(self.timeout))?
            .map_err(ConnectionError::Broken)
    }

    /// A sign of life, and that it is still a master: a replica would answer a PING all the same.
    pub(super) async fn ping(&mut self) -> Result<(), ConnectionError> {
        let mut commands = Commands::default();
        commands.add(&[b"ROLE"]);
        let replies = self.ask(&commands).await?;
        match replies.first().and_then(error_of) {
            Some(error) => Err(ConnectionError::Refused(error)),
            None => require_master(replies.first()),
        }
    }

    /// Removes entries that are older than their stream allows, by Redis' own clock. Gives its words if it refuses.
    pub(super) async fn trim(
        &mut self,
        routes: &Routes,
    ) -> Result<Option<String>, ConnectionError> {
        let mut time = Commands::default();
        time.add(&[b"TIME"]);
        let replies = self.ask(&time).await?;
        let Some(now_ms) = replies.first().and_then(time_ms) else {
            return Ok(replies.first().and_then(error_of));
        };
        let mut commands = Commands::default();
        for (stream, expire) in routes.expiring() {
            let expire = u64::try_from(expire.as_millis()).unwrap_or(u64::MAX);
            let oldest = now_ms.saturating_sub(expire).to_string();
            commands.add(&[
                b"XTRIM",
                stream.name.as_bytes(),
                b"MINID",
                oldest.as_bytes(),
            ]);
        }
        Ok(self.ask(&commands).await?.iter().find_map(error_of))
    }

    /// How long these streams are, and how far the slowest consumer group of each is from losing entries to trimming.
    pub(super) async fn survey(
        &mut self,
        streams: Vec<Arc<Stream>>,
    ) -> Result<(Positions, Vec<Reserve>), ConnectionError> {
        let survey = Survey::new(streams);
        let positions = survey.commands();
        let positions = survey.read(&self.ask(&positions).await?);
        let commands = positions.commands();
        let reserves = positions.read(&self.ask(&commands).await?);
        Ok((positions, reserves))
    }
}

/// Why there is no connection: TLS, or the way.
fn not_connected(error: io::Error) -> ConnectionError {
    match tls::trouble(&error) {
        Some(trouble) => ConnectionError::Tls(trouble),
        None => ConnectionError::Connect(error),
    }
}

/// Says who we are and chooses the database. A Redis that turns us away answers the last command, which asks for nothing.
async fn log_in(wire: &mut Wire, settings: &config::Redis) -> Result<(), ConnectionError> {
    let mut commands = Commands::default();
    let (user, password) = (settings.user.as_bytes(), settings.password.expose());
    let logs_in = !settings.password.is_empty();
    match (logs_in, settings.user.is_empty()) {
        (false, _) => {}
        (true, true) => commands.add(&[b"AUTH", password.as_bytes()]),
        (true, false) => commands.add(&[b"AUTH", user, password.as_bytes()]),
    }
    if settings.db > 0 {
        commands.add(&[b"SELECT", settings.db.to_string().as_bytes()]);
    }
    commands.add(&[b"ROLE"]);
    let replies = wire.ask(&commands).await.map_err(ConnectionError::Broken)?;
    let mut errors = replies.iter().map(error_of);
    if logs_in && let Some(error) = errors.next().flatten() {
        return Err(ConnectionError::of_login(error));
    }
    if settings.db > 0
        && let Some(error) = errors.next().flatten()
    {
        return Err(ConnectionError::of_first_words(error));
    }
    // What else it says to the question that asks for nothing, it says to the greeting as well.
    let is_unwanted = |error: &String| error.starts_with("NOAUTH") || turns_away(error);
    match errors.next().flatten().filter(is_unwanted) {
        Some(error) => Err(ConnectionError::of_first_words(error)),
        None => Ok(()),
    }
}

/// What Redis says to a client that it lets go before it has asked anything, such as one too many: the commands of a client that
/// logs in make the kernel throw these words away.
async fn parting_words(settings: &config::Redis) -> Option<String> {
    let mut words = String::new();
    let hear = async {
        let address = (settings.host.as_str(), settings.port);
        let stream = TcpStream::connect(address).await.ok()?;
        let mut line = BufReader::new(stream.take(MAX_PARTING));
        line.read_line(&mut words).await.ok()
    };
    timeout(PARTING, hear).await.ok()??;
    let words = words.strip_prefix('-')?.trim_end();
    Some(words.to_owned())
}

/// Looks at the reply to `ROLE`.
fn require_master(reply: Option<&Value>) -> Result<(), ConnectionError> {
    if let Some(Value::Array(role)) = reply
        && let Some(Value::BulkString(role)) = role.first()
        && role != b"master"
    {
        let role = String::from_utf8_lossy(role).into_owned();
        return Err(ConnectionError::NotMaster(role));
    }
    Ok(())
}
