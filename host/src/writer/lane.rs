//! The lane: one Redis connection with its cursor, one batch in flight.
//!
//! After any doubt (a timeout, a broken connection) it reconnects and asks the cursor whether the batch in flight was
//! executed; only if not, it is sent again. There is no limit on tries: transport faults never drop events.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, Value, cmd,
};
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::batch::{Answer, Batch, Outcome, arm, error_of, read_cursor};
use crate::clock;
use crate::config;
use crate::ledger::Ledger;
use crate::link::{Backoff, Link, random};
use crate::metrics::Metrics;
use crate::pipeline::{Decision, Outbox, Seen};
use crate::route::Routes;

/// Decisions in one batch. What is ready goes at once; a larger batch only forms while one is in flight.
const MAX_BATCH: usize = 64;
/// An idle connection is asked for a sign of life this often.
const PING: Duration = Duration::from_secs(1);
/// Redis' own default for `proto-max-bulk-len`, where it may not be asked.
const MAX_BULK: usize = 512 << 20;
/// The least that Redis lets it be; every dead letter fits.
const MIN_BULK: usize = 1 << 20;
/// What a dead letter keeps of an event that is too large.
const DEAD_BYTES: usize = 64 << 10;

#[derive(Debug, Error)]
enum LaneError {
    #[error("cannot connect: {0}")]
    Connect(redis::RedisError),
    #[error("password rejected: check the user and password of redis.url (REDIS_REMOTE_PASSWORD)")]
    Password,
    #[error("connection broken: {0}")]
    Broken(redis::RedisError),
    #[error("no reply within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("is a {0}, not a master")]
    NotMaster(String),
    #[error("refuses to write: {0}")]
    Refused(String),
}

/// All that the lane owns and uses.
pub struct Lane {
    /// Where and how to connect.
    pub settings: config::Redis,
    /// How often entries are trimmed by age.
    pub trim_interval: Duration,
    /// Streams, and their dead letters.
    pub routes: Arc<Routes>,
    /// Where decisions come from.
    pub outbox: Arc<Outbox>,
    /// The router's name, for the cursor's key.
    pub seen: Arc<Seen>,
    /// The accounts.
    pub ledger: Arc<Ledger>,
    /// Latencies.
    pub metrics: Arc<Metrics>,
    /// Written here, read by everyone.
    pub link: Arc<Link>,
}

/// What outlives a connection.
struct State {
    /// Random: tells this run's cursor from another's.
    run: String,
    batches: u64,
    in_flight: Option<Batch>,
    /// Dead letters of what the last batch could not write: they go before anything else.
    buried: Vec<Decision>,
    next_trim: Instant,
    trim_error: Option<String>,
}

/// All that can wake an idle lane.
enum Wake {
    Batch(Option<Vec<Decision>>),
    Trim,
    Ping,
}

impl Lane {
    /// Runs until the outbox is closed and everything in it is in Redis.
    pub async fn run(self) {
        let run = format!("{:016x}", RandomState::new().hash_one(0_u8));
        let next_trim = Instant::now() + self.trim_interval;
        let mut state = State {
            run,
            batches: 0,
            in_flight: None,
            buried: Vec::new(),
            next_trim,
            trim_error: None,
        };
        let mut backoff = Backoff::new(
            Duration::from_secs(1).min(self.settings.timeout),
            Duration::from_secs(5),
        );
        let mut delay = backoff.next(random());
        loop {
            sleep(delay).await;
            self.link.connecting();
            let error = match self.connect().await {
                Err(error) => error,
                Ok(mut connection) => {
                    let since = Instant::now();
                    match self.serve(&mut connection, &mut state).await {
                        Ok(()) => break,
                        Err(error) => {
                            backoff.lost(since.elapsed());
                            error
                        }
                    }
                }
            };
            self.metrics.errors.inc();
            delay = backoff.next(random());
            self.link.waiting(&error.to_string(), delay);
        }
        self.link.stopped();
    }

    async fn connect(&self) -> Result<Connection, LaneError> {
        let settings = &self.settings;
        let mut redis = RedisConnectionInfo::default().set_db(i64::from(settings.db));
        if !settings.user.is_empty() {
            redis = redis.set_username(&settings.user);
        }
        if !settings.password.is_empty() {
            redis = redis.set_password(settings.password.expose());
        }
        let info = ConnectionAddr::Tcp(settings.host.clone(), settings.port)
            .into_connection_info()
            .map_err(LaneError::Connect)?
            .set_redis_settings(redis)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(info).map_err(LaneError::Connect)?;
        // Its own time limits would hide that a command is still on its way; ours drop the connection.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let late = |_| LaneError::Late(settings.connect_timeout);
        let connection = timeout(settings.connect_timeout, connecting)
            .await
            .map_err(late)?;
        let connection = connection.map_err(|error| match error.kind() {
            ErrorKind::AuthenticationFailed => LaneError::Password,
            _ => LaneError::Connect(error),
        })?;
        Ok(Connection {
            connection,
            timeout: settings.timeout,
            max_bulk: MAX_BULK,
        })
    }

    /// Writes batches until there are no more, or the connection fails.
    async fn serve(&self, connection: &mut Connection, state: &mut State) -> Result<(), LaneError> {
        self.link.authenticating();
        connection.greet().await?;
        self.link.ready();
        let mut armed = None;
        loop {
            if state.in_flight.is_none() {
                let buried = std::mem::take(&mut state.buried);
                let decisions = if buried.is_empty() {
                    match self.wait(state).await {
                        Wake::Batch(None) => return Ok(()),
                        Wake::Batch(Some(decisions)) => decisions,
                        Wake::Trim => {
                            self.trim(connection, state).await?;
                            continue;
                        }
                        Wake::Ping => {
                            connection.ping().await?;
                            continue;
                        }
                    }
                } else {
                    buried
                };
                state.batches += 1;
                state.in_flight = Some(Batch::new(&state.run, state.batches, decisions));
            }
            armed = self.write(connection, state, armed).await?;
        }
    }

    async fn wait(&self, state: &State) -> Wake {
        tokio::select! {
            biased;
            () = sleep_until(state.next_trim) => Wake::Trim,
            batch = self.outbox.take(MAX_BATCH) => Wake::Batch(batch),
            () = sleep(PING) => Wake::Ping,
        }
    }

    /// Brings the batch in flight one step further. Gives back the cursor that the watch for the next one saw.
    async fn write(
        &self,
        connection: &mut Connection,
        state: &mut State,
        armed: Option<Cursor>,
    ) -> Result<Option<Cursor>, LaneError> {
        let Some(batch) = &mut state.in_flight else {
            return Ok(armed);
        };
        let router = self.seen.router.get().map_or("freeswitch", String::as_str);
        let key = format!("jackfield:{router}:cursor");
        let cursor = match armed {
            Some(cursor) => cursor,
            None => connection.arm(&key).await?,
        };
        if cursor.as_deref() == Some(&batch.position) {
            // Sent on a connection that broke before the reply: it was executed all the same.
            tracing::info!(
                position = batch.position,
                "batch was executed before the connection broke"
            );
            self.settle(state, &[], connection.max_bulk);
            return Ok(Some(cursor));
        }
        while let Some((entry, bytes)) = batch.too_large(connection.max_bulk) {
            let reason = format!(
                "too large: {bytes} bytes; Redis takes {} (proto-max-bulk-len)",
                connection.max_bulk
            );
            if !batch.replace(entry, &reason, &self.routes, DEAD_BYTES) {
                tracing::warn!(reason, "dead letter cut short");
                batch.shorten(entry, DEAD_BYTES);
            }
        }
        let Answer { outcome, cursor } = batch.read(&connection.ask(&batch.commands(&key)).await?);
        let cursor = cursor.map_err(LaneError::Refused)?;
        match outcome {
            Outcome::Executed(failed) => {
                self.metrics.batches.inc();
                self.settle(state, &failed, connection.max_bulk);
            }
            // Something else moved the cursor: our own batch, late, or another host. The new cursor tells.
            Outcome::Fenced => {
                tracing::warn!(cursor = ?cursor, position = batch.position, "batch fenced by the cursor");
            }
            Outcome::EntryRefused(entry, error) => {
                self.metrics.errors.inc();
                tracing::error!(error, "entry refused by Redis: dead-lettered");
                if !batch.replace(entry, &error, &self.routes, DEAD_BYTES) {
                    return Err(LaneError::Refused(error));
                }
            }
            Outcome::Refused(error) => return Err(LaneError::Refused(error)),
        }
        Ok(Some(cursor))
    }

    /// The batch in flight is in Redis, but for the entries in `failed`.
    fn settle(&self, state: &mut State, failed: &[(usize, String)], max_bulk: usize) {
        let Some(batch) = state.in_flight.take() else {
            return;
        };
        let now_us = clock::now_us();
        for decision in &batch.decisions {
            self.metrics
                .writer_latency
                .observe(now_us.saturating_sub(decision.decided_us));
            self.metrics
                .total_latency
                .observe(now_us.saturating_sub(decision.received_us));
        }
        let (delivered, dead) = batch.count(failed);
        self.metrics.processed.inc_by(delivered);
        self.ledger.written(delivered, dead);
        if let Some((_, error)) = failed.first() {
            self.metrics.errors.inc_by(failed.len() as u64);
            let (buried, lost) = batch.bury(failed, &self.routes, DEAD_BYTES.min(max_bulk));
            tracing::error!(
                error,
                entries = failed.len(),
                lost,
                "entries refused by Redis: dead-lettered"
            );
            self.ledger.lost("dead_letter_refused", lost);
            state.buried = buried;
        }
    }

    /// Removes entries that are older than their stream allows, by Redis' own clock.
    async fn trim(&self, connection: &mut Connection, state: &mut State) -> Result<(), LaneError> {
        state.next_trim = Instant::now() + self.trim_interval;
        let mut time = Pipeline::new();
        time.cmd("TIME");
        let replies = connection.ask(&time).await?;
        let Some(now_ms) = time_ms(&replies) else {
            return Ok(());
        };
        let mut commands = Pipeline::new();
        for (stream, expire) in self.routes.expiring() {
            let oldest =
                now_ms.saturating_sub(u64::try_from(expire.as_millis()).unwrap_or(u64::MAX));
            commands
                .cmd("XTRIM")
                .arg(&*stream.name)
                .arg("MINID")
                .arg(oldest);
        }
        let error = connection.ask(&commands).await?.iter().find_map(error_of);
        if let Some(error) = &error
            && state.trim_error.as_ref() != Some(error)
        {
            tracing::warn!(error, "trimming refused by Redis");
        }
        state.trim_error = error;
        Ok(())
    }
}

fn time_ms(replies: &[Value]) -> Option<u64> {
    let Some(Value::Array(parts)) = replies.first() else {
        return None;
    };
    let number = |at: usize| match parts.get(at)? {
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse::<u64>().ok(),
        _ => None,
    };
    Some(number(0)? * 1_000 + number(1)? / 1_000)
}

/// What `GET cursor` answered under the watch.
type Cursor = Option<String>;

struct Connection {
    connection: MultiplexedConnection,
    timeout: Duration,
    max_bulk: usize,
}

impl Connection {
    /// One write, all replies. A reply that is late makes the connection useless: the command may still run.
    async fn ask(&mut self, commands: &Pipeline) -> Result<Vec<Value>, LaneError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let asking = self
            .connection
            .send_packed_commands(commands, 0, commands.len());
        timeout(self.timeout, asking)
            .await
            .map_err(|_| LaneError::Late(self.timeout))?
            .map_err(LaneError::Broken)
    }

    /// Makes sure that this is a master which takes transactions, and learns how much it takes at once.
    async fn greet(&mut self) -> Result<(), LaneError> {
        let mut commands = Pipeline::new();
        commands.cmd("ROLE");
        commands.add_command(cmd("MULTI"));
        commands.add_command(cmd("EXEC"));
        commands.cmd("CONFIG").arg("GET").arg("proto-max-bulk-len");
        let replies = self.ask(&commands).await?;
        if let Some(error) = replies.iter().take(3).find_map(error_of) {
            return Err(LaneError::Refused(error));
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

    async fn arm(&mut self, key: &str) -> Result<Cursor, LaneError> {
        let mut commands = Pipeline::new();
        arm(&mut commands, key);
        let replies = self.ask(&commands).await?;
        if let Some(error) = replies.first().and_then(error_of) {
            return Err(LaneError::Refused(error));
        }
        read_cursor(replies.get(1)).map_err(LaneError::Refused)
    }

    /// A sign of life, and that it is still a master: a replica would answer a PING all the same.
    async fn ping(&mut self) -> Result<(), LaneError> {
        let mut commands = Pipeline::new();
        commands.cmd("ROLE");
        let replies = self.ask(&commands).await?;
        match replies.first().and_then(error_of) {
            Some(error) => Err(LaneError::Refused(error)),
            None => require_master(replies.first()),
        }
    }
}

/// Looks at the reply to `ROLE`.
fn require_master(reply: Option<&Value>) -> Result<(), LaneError> {
    if let Some(Value::Array(role)) = reply
        && let Some(Value::BulkString(role)) = role.first()
        && role != b"master"
    {
        let role = String::from_utf8_lossy(role).into_owned();
        return Err(LaneError::NotMaster(role));
    }
    Ok(())
}
