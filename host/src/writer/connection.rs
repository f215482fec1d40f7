//! One connection to Redis: made, greeted, asked. Every failure ends it.
//!
//! One write, all replies, and a time limit of ours. It knows nothing of cursors and batches, and tries nothing twice.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, RedisResult, Value, cmd,
};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::batch::error_of;
use super::reserve::{Positions, Reserve, Survey, time_ms};
use super::tls;
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

/// Why there is no connection, or no use in it.
#[derive(Debug, Error)]
pub(super) enum ConnectionError {
    #[error("cannot connect: {0}")]
    Connect(#[source] RedisError),
    #[error("no TLS: {0}")]
    Tls(#[from] tls::Trouble),
    #[error(
        "password rejected: check redis.user and redis.password, or those in redis.url (REDIS_REMOTE_PASSWORD)"
    )]
    Password,
    #[error("connection broken: {0}")]
    Broken(#[source] RedisError),
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
        // What Redis says of a user that may not do this, and of a database that it does not have.
        let is_setting = |text: &str| text.starts_with("NOPERM") || text.contains("DB index");
        match self {
            ConnectionError::Password => Fault::Setting,
            ConnectionError::Connect(error) if is_setting(&error.to_string()) => Fault::Setting,
            ConnectionError::Refused(text) if is_setting(text) => Fault::Setting,
            _ => Fault::Peer,
        }
    }
}

/// An open connection.
pub(super) struct Connection {
    connection: MultiplexedConnection,
    timeout: Duration,
    /// The largest value that this Redis takes.
    pub(super) max_bulk: usize,
}

impl Connection {
    /// Connects and logs in.
    pub(super) async fn open(settings: &config::Redis) -> Result<Connection, ConnectionError> {
        let client = client(settings).map_err(ConnectionError::Connect)?;
        // Its own time limits would hide that a command is still on its way; ours drop the connection.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let late = |_| match settings.tls {
            None => ConnectionError::Late(settings.connect_timeout),
            Some(_) => ConnectionError::NoHandshake(settings.connect_timeout),
        };
        let connection = timeout(settings.connect_timeout, connecting)
            .await
            .map_err(late)?;
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) if is_about_password(&error) => return Err(ConnectionError::Password),
            Err(error) if error.is_connection_dropped() && settings.tls.is_none() => {
                let said = parting_words(settings).await;
                return Err(
                    said.map_or(ConnectionError::Connect(error), ConnectionError::TurnedAway)
                );
            }
            Err(error) => {
                let trouble = tls::trouble(&error).map(ConnectionError::Tls);
                return Err(trouble.unwrap_or(ConnectionError::Connect(error)));
            }
        };
        Ok(Connection {
            connection,
            timeout: settings.timeout,
            max_bulk: MAX_BULK,
        })
    }

    /// Makes sure that this is a master which takes transactions, and learns how much it takes at once.
    pub(super) async fn greet(&mut self) -> Result<(), ConnectionError> {
        let mut commands = Pipeline::new();
        commands.cmd("ROLE");
        commands.add_command(cmd("MULTI"));
        commands.add_command(cmd("EXEC"));
        commands.cmd("CONFIG").arg("GET").arg("proto-max-bulk-len");
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
    pub(super) async fn ask(&mut self, commands: &Pipeline) -> Result<Vec<Value>, ConnectionError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let asking = self
            .connection
            .send_packed_commands(commands, 0, commands.len());
        timeout(self.timeout, asking)
            .await
            .map_err(|_| ConnectionError::Late(self.timeout))?
            .map_err(ConnectionError::Broken)
    }

    /// A sign of life, and that it is still a master: a replica would answer a PING all the same.
    pub(super) async fn ping(&mut self) -> Result<(), ConnectionError> {
        let mut commands = Pipeline::new();
        commands.cmd("ROLE");
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
        let mut time = Pipeline::new();
        time.cmd("TIME");
        let replies = self.ask(&time).await?;
        let Some(now_ms) = replies.first().and_then(time_ms) else {
            return Ok(replies.first().and_then(error_of));
        };
        let mut commands = Pipeline::new();
        for (stream, expire) in routes.expiring() {
            let expire = u64::try_from(expire.as_millis()).unwrap_or(u64::MAX);
            let trim = commands.cmd("XTRIM").arg(&*stream.name).arg("MINID");
            trim.arg(now_ms.saturating_sub(expire));
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

/// Whether Redis wants another password, or one at all.
fn is_about_password(error: &RedisError) -> bool {
    let is_missing = |text: &str| text.starts_with("Authentication required");
    error.kind() == ErrorKind::AuthenticationFailed || error.detail().is_some_and(is_missing)
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

/// A client for these settings, not connected yet.
pub(super) fn client(settings: &config::Redis) -> RedisResult<Client> {
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
        Some(tls) => Client::build_with_tls(info, tls::certificates(tls)),
    }
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
