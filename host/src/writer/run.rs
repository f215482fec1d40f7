//! The writer's task: takes the lane's steps on a real connection, with real timers.
//!
//! It connects and backs off, moves decisions from the outbox to the lane and tells the accounts what became of them. What to
//! send, and what a reply means, the lane decides.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::acknowledged::Acknowledged;
use super::connection::{Connection, ConnectionError};
use super::cursor::Identity;
use super::lane::{Lane, Origin};
use super::letters::Letters;
use super::settlement::Settled;
use super::standing::{Retained, Why};
use super::step::{Loss, Note, Step};
use super::upkeep::Upkeep;
use crate::clock;
use crate::config;
use crate::journal::{EPOCH, Lsn, Progress};
use crate::ledger::Ledger;
use crate::link::{Backoff, Fault, Link, random};
use crate::metrics::{Activity, Metrics, Stage};
use crate::pipeline::{Decision, Inputs, Outbox, Seen};
use crate::route::{Entry, Routes};

/// The longest delay between two tries before jitter: a Redis that is back is not kept waiting.
const MAX_DELAY: Duration = Duration::from_secs(5);
/// How often the router's name is looked for while it is not known.
const NAME: Duration = Duration::from_millis(100);
/// How often the pipeline is told what Redis has.
const PUBLISH: Duration = Duration::from_millis(100);
/// Redis is asked something at least so often: the key that says who owns the router's name is renewed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// An idle connection is asked for a sign of life this often.
const PING: Duration = Duration::from_secs(1);

/// What the writer knows of the journal.
#[derive(Debug)]
pub struct Source {
    /// The journal's id.
    pub journal: String,
    /// One less than the first LSN that the journal could ever have sent.
    pub begin: Lsn,
    /// The first LSN of this process.
    pub first: Lsn,
    /// What the newest mark says; the default if there is none.
    pub mark: Acknowledged,
    /// Decisions up to here were made by an earlier process.
    pub replayed: Lsn,
    /// What is still in the journal.
    pub progress: Arc<Progress>,
}

impl Source {
    /// What is known at the start.
    pub fn of(inputs: &Inputs) -> Source {
        Source {
            journal: inputs.id().to_owned(),
            begin: EPOCH - 1,
            first: inputs.first(),
            mark: inputs
                .mark()
                .and_then(Acknowledged::decode)
                .unwrap_or_default(),
            replayed: inputs.taken(),
            progress: inputs.progress(),
        }
    }
}

/// How the writer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The outbox is closed, and everything in it is in Redis.
    Drained,
    /// The router's name belongs to another host.
    Foreign {
        /// That host.
        owner: String,
    },
}

/// All that the writer owns and uses.
pub struct Writer {
    /// Where and how to connect.
    pub settings: config::Redis,
    /// How often entries are trimmed by age.
    pub trim_interval: Duration,
    /// This host's name, for the owner key.
    pub host: String,
    /// What is known of the journal.
    pub source: Source,
    /// Streams, and their dead letters; they follow the settings.
    pub routes: watch::Receiver<Arc<Routes>>,
    /// Where decisions come from.
    pub outbox: Arc<Outbox>,
    /// The router's name, for the keys.
    pub seen: Arc<Seen>,
    /// The local dead-letter file.
    pub letters: Letters,
    /// The accounts.
    pub ledger: Arc<Ledger>,
    /// Latencies and counts.
    pub metrics: Arc<Metrics>,
    /// Written here, read by everyone.
    pub link: Arc<Link>,
}

/// What outlives a connection.
struct State {
    /// None until the router's name is known.
    lane: Option<Lane>,
    upkeep: Upkeep,
    /// What Redis last said of an entry that it did not take: it is logged once.
    refusal: Option<String>,
    published: Published,
}

/// What the pipeline was told last of what Redis has, and when.
#[derive(Default)]
struct Published(Option<(Lsn, Instant)>);

impl Published {
    /// Tells it, for the journal's mark: at once what is less than before, the rest now and then.
    fn tell(&mut self, known: &Acknowledged, seen: &Seen) {
        let now = Instant::now();
        let is_due = match self.0 {
            Some((lsn, _)) if lsn == known.lsn => false,
            Some((lsn, at)) => known.lsn < lsn || now.duration_since(at) >= PUBLISH,
            None => true,
        };
        if is_due {
            self.0 = Some((known.lsn, now));
            seen.acknowledge(known.lsn, known.encode());
        }
    }
}

/// All that can wake an idle lane.
enum Wake {
    /// Somebody wants a new connection.
    Again,
    Upkeep,
    Taken(Option<Vec<Arc<Decision>>>),
    Idle,
}

impl Writer {
    /// Runs until the outbox is closed and everything in it is in Redis, or the router's name is another host's.
    pub async fn run(mut self) -> End {
        let mut state = State {
            lane: None,
            upkeep: Upkeep::new(self.trim_interval),
            refusal: None,
            published: Published::default(),
        };
        let mut backoff =
            Backoff::new(Duration::from_secs(1).min(self.settings.timeout), MAX_DELAY);
        let mut delay = backoff.next(random());
        let end = loop {
            self.stage().turn(Activity::Blocked);
            self.link.pause(delay).await;
            self.link.connecting();
            let error = match Connection::open(&self.settings).await {
                Err(error) => error,
                Ok(mut connection) => {
                    let since = Instant::now();
                    match self.serve(&mut connection, &mut state).await {
                        Ok(end) => break end,
                        Err(error) => {
                            if state.lane.as_ref().is_some_and(Lane::has_written) {
                                backoff.worked();
                            }
                            backoff.lost(since.elapsed());
                            error
                        }
                    }
                }
            };
            if let Some(lane) = &mut state.lane {
                lane.lost(match error {
                    ConnectionError::Broken(_) => Loss::Closed,
                    _ => Loss::GivenUp,
                });
            }
            self.metrics.errors.inc();
            delay = match &error {
                ConnectionError::AskedFor => Duration::ZERO,
                _ if state.lane.as_ref().is_some_and(Lane::is_suspicious) => {
                    backoff.steady(random())
                }
                _ => backoff.next(random()),
            };
            self.link.waiting(&error.to_string(), error.fault(), delay);
        };
        if let Some(lane) = &state.lane {
            Published::default().tell(lane.known(), &self.seen);
        }
        self.link.stopped();
        end
    }

    /// Takes the lane's steps until the end, or until the connection fails.
    async fn serve(
        &mut self,
        connection: &mut Connection,
        state: &mut State,
    ) -> Result<End, ConnectionError> {
        self.link.authenticating();
        connection.greet().await?;
        self.stage().turn(Activity::Busy);
        state.refusal = None;
        let mut lane = match state.lane.take() {
            Some(lane) => lane,
            None => match self.make_lane(connection).await? {
                Some(lane) => lane,
                None => return Ok(End::Drained),
            },
        };
        lane.connected(connection.max_bulk);
        let lane = state.lane.insert(lane);
        loop {
            lane.follow(Arc::clone(&self.routes.borrow()));
            let step = match lane.step(Instant::now().into_std()) {
                Step::Take { after, most, until } => {
                    match self
                        .wait(after, most, until.into(), state.upkeep.next())
                        .await
                    {
                        Wake::Again => return Err(ConnectionError::AskedFor),
                        Wake::Upkeep => {
                            let routes = Arc::clone(&self.routes.borrow());
                            let upkeep = &mut state.upkeep;
                            upkeep
                                .run(connection, &routes, &self.metrics, &self.seen)
                                .await?;
                            continue;
                        }
                        Wake::Taken(Some(decisions)) if decisions.is_empty() => {
                            let settled = lane.passed(self.outbox.acknowledged(after));
                            self.account(&settled);
                            continue;
                        }
                        Wake::Taken(decisions) => {
                            let last = decisions.iter().flatten().last();
                            let last = last.map_or(after, |last| last.lsn);
                            lane.taken(decisions, self.outbox.passed(last));
                            continue;
                        }
                        Wake::Idle => {
                            self.link.lag(0);
                            let passed = self.outbox.passed(after);
                            lane.idle(Instant::now().into_std(), passed)
                        }
                    }
                }
                step => step,
            };
            let end = self.act(connection, lane, step).await?;
            state.published.tell(lane.known(), &self.seen);
            for note in lane.notes() {
                self.note(&note, &mut state.refusal);
            }
            if let Some(end) = end {
                return Ok(end);
            }
            if lane.is_ready() && !self.link.is_ready() {
                self.link.ready();
            }
        }
    }

    /// Waits for the router's name on an idle connection; `None` if there will be nothing to write.
    async fn make_lane(
        &self,
        connection: &mut Connection,
    ) -> Result<Option<Lane>, ConnectionError> {
        self.link.ready();
        self.stage().turn(Activity::Starved);
        let mut next_ping = Instant::now() + PING;
        let router = loop {
            if let Some(router) = self.seen.router.get() {
                break router.clone();
            }
            if self.outbox.is_finished() {
                return Ok(None);
            }
            tokio::select! {
                () = sleep(NAME) => {}
                () = self.link.asked_again() => return Err(ConnectionError::AskedFor),
            }
            if next_ping <= Instant::now() {
                connection.ping().await?;
                next_ping = Instant::now() + PING;
            }
        };
        let origin = Origin {
            identity: Identity {
                router,
                journal: self.source.journal.clone(),
                host: self.host.clone(),
            },
            begin: self.source.begin,
            first: self.source.first,
            mark: self.source.mark.clone(),
            replayed: self.source.replayed,
        };
        let routes = Arc::clone(&self.routes.borrow());
        Ok(Some(Lane::new(origin, routes)))
    }

    async fn wait(&self, after: Lsn, most: usize, until: Instant, upkeep: Instant) -> Wake {
        self.stage().turn(Activity::Starved);
        let wake = tokio::select! {
            biased;
            () = self.link.asked_again() => Wake::Again,
            () = sleep_until(upkeep) => Wake::Upkeep,
            taken = self.outbox.next(after, most) => Wake::Taken(taken),
            () = sleep_until(until) => Wake::Idle,
        };
        self.stage().turn(Activity::Busy);
        wake
    }

    fn stage(&self) -> &Stage {
        &self.metrics.stages.writer
    }

    /// Does what the step says and tells the lane; an end if there is one.
    async fn act(
        &mut self,
        connection: &mut Connection,
        lane: &mut Lane,
        step: Step,
    ) -> Result<Option<End>, ConnectionError> {
        match step {
            Step::Send(commands) => {
                let asked = Instant::now();
                let replies = connection.ask(&commands).await?;
                self.link.round_trip(asked.elapsed());
                self.link.heartbeat(SIGN_OF_LIFE);
                let retained = Retained {
                    oldest: self.source.progress.oldest(),
                    is_complete: self.source.progress.is_complete(),
                };
                lane.replied(Instant::now().into_std(), retained, &replies);
            }
            Step::Acknowledge(through) => {
                let settled = lane.acknowledged(self.outbox.acknowledged(through));
                self.account(&settled);
            }
            Step::Keep(letters) => {
                let kept = self.keep(&letters);
                lane.kept(kept);
            }
            Step::Ping => connection.ping().await?,
            // The caller takes; there is nothing to do here.
            Step::Take { .. } => {}
            Step::Pause { owner, until } => {
                let until = Instant::from_std(until);
                let router = self.seen.router.get().map_or("", String::as_str);
                let error =
                    format!("router name {router:?} is held by {owner} (jackfield:{router}:owner)");
                let delay = until.saturating_duration_since(Instant::now());
                self.link.waiting(&error, Fault::Peer, delay);
                self.stage().turn(Activity::Blocked);
                sleep_until(until).await;
            }
            Step::Refused(error) => return Err(ConnectionError::Refused(error)),
            Step::Drained => return Ok(Some(End::Drained)),
            Step::Foreign { owner } => {
                tracing::error!(owner, "router name is held by another host");
                return Ok(Some(End::Foreign { owner }));
            }
        }
        Ok(None)
    }

    fn keep(&mut self, letters: &[Entry]) -> bool {
        let letters: Vec<&Entry> = letters.iter().collect();
        let kept = self.letters.keep(&letters);
        if let Err(error) = &kept {
            let entries = letters.len();
            tracing::error!(%error, entries, "dead letters could not be kept on disk");
        }
        kept.is_ok()
    }

    fn account(&self, settled: &Settled) {
        let now_us = clock::now_us();
        let since = |us: u64| now_us.saturating_sub(us);
        let decisions = &settled.decisions;
        let decided = decisions.iter().map(|one| since(one.decided_us));
        self.metrics.writer_latency.observe(decided);
        let received = decisions.iter().map(|one| since(one.received_us));
        self.metrics.total_latency.observe(received);
        if let Some(newest) = settled.decisions.last() {
            self.link.lag(now_us.saturating_sub(newest.received_us));
        }
        for (stream, entries) in &settled.entries {
            self.metrics.streams.wrote(stream, *entries);
        }
        let ended = settled.delivered + settled.dead + settled.lost;
        self.stage().did(
            ended + settled.replayed_delivered + settled.replayed_dead + settled.replayed_lost,
        );
        let delivered = settled.delivered + settled.replayed_delivered;
        self.metrics.processed.inc_by(delivered);
        self.metrics.healed.inc_by(settled.healed);
        self.ledger.written(settled.delivered, settled.dead);
        self.ledger
            .replayed(settled.replayed_delivered, settled.replayed_dead);
        self.ledger.received(settled.replayed_lost);
        let lost = settled.lost + settled.replayed_lost;
        self.ledger.lost("dead_letter_refused", lost);
    }

    fn note(&self, note: &Note, refusal: &mut Option<String>) {
        match note {
            Note::Executed => {
                self.metrics.batches.inc();
            }
            Note::Claimed(claim) => self.note_claim(claim.at, &claim.why),
            Note::Healing { after, through } => {
                tracing::warn!(after, through, "healing: Redis came back with less");
            }
            Note::Unhealable {
                after,
                before,
                missing,
            } => {
                self.metrics.unhealable.inc_by(*missing);
                tracing::error!(
                    after,
                    before,
                    missing,
                    "Redis lost what the journal no longer has"
                );
            }
            Note::ExecutedBefore { through } => {
                tracing::info!(through, "batch was executed before the connection broke");
            }
            Note::Fenced { through } => {
                tracing::warn!(through, "batch fenced by the cursor");
            }
            Note::Refused { error, entries } => {
                let entries = *entries;
                self.metrics
                    .errors
                    .inc_by(u64::try_from(entries).unwrap_or(u64::MAX));
                self.seen.show_dead("redis", error, clock::now_us());
                if refusal.as_ref() != Some(error) {
                    tracing::error!(error, entries, "entries refused by Redis: dead-lettered");
                    *refusal = Some(error.clone());
                }
            }
            Note::TooLarge { reason, cut: true } => {
                tracing::warn!(reason, "dead letter cut short");
            }
            Note::TooLarge { reason, cut: false } => {
                self.seen.show_dead("redis", reason, clock::now_us());
                tracing::warn!(reason, "entry dead-lettered");
            }
            Note::Halved => tracing::warn!("batch kills its connection: trying half of it"),
            Note::Killer { lsn } => {
                tracing::error!(lsn, "event kills its connection: kept on disk");
            }
        }
    }

    fn note_claim(&self, lsn: Lsn, why: &Why) {
        match why {
            Why::First => tracing::info!(lsn, "cursor claimed"),
            Why::Adopt(before) => {
                self.metrics.adopted.inc();
                tracing::warn!(lsn, before, "cursor of another host adopted");
            }
            Why::Restore => {
                self.metrics.restored.inc();
                tracing::error!(lsn, "cursor was lost and is restored");
            }
            Why::Refill { .. } => tracing::warn!(lsn, "cursor and entries were lost"),
            Why::Outdated(before) => {
                self.metrics.outdated.inc();
                tracing::error!(
                    lsn,
                    before,
                    "journal is older than Redis: its newest files are gone"
                );
            }
        }
    }
}
