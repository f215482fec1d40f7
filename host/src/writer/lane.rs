//! The lane as a pure state machine: what to do next, given what Redis has answered so far.
//!
//! The driver takes a step, does what it says, and tells the outcome. After any doubt (a lost connection, a fence, a reply
//! that was not expected) the lane looks at the cursor, and only what it says decides what is sent next. There is no limit on
//! tries: transport faults never drop events. Knows no sockets, reads no clock, writes no log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;

use super::acknowledged::Acknowledged;
use super::batch::{Answer, Batch, Outcome, OwnerKey};
use super::commands::Commands;
use super::cursor::{Cursor, Identity, Owner, Place};
use super::probe::{self, Found};
use super::settlement::{Settled, Settlement};
use super::standing::{Claim, Retained, Standing, Verdict, Why};
use super::step::{Loss, Note, Step};
use crate::journal::Lsn;
use crate::pipeline::Decision;
use crate::route::Routes;

/// Decisions in one batch. What is ready goes at once; a larger batch only forms while one is in flight.
const BATCH: usize = 64;
/// Decisions in one batch while a backlog is drained: more would only delay the reply.
const BATCH_OF_BACKLOG: usize = 512;
/// An idle lane commits what was dropped, or asks for a sign of life, this often.
const QUIET: Duration = Duration::from_secs(1);
/// A third of the time after which the owner key expires.
const RENEW: Duration = Duration::from_secs(5);
/// So many connections in a row that are closed on a batch are no chance.
const DEATHS: u32 = 3;
/// Streams whose type is remembered on a connection; asking again is all that happens beyond.
const MAX_CHECKED: usize = 1_000;
/// Who moves a cursor of ours to where we never were.
const TWIN: &str = "a host with a copy of this journal";
/// What is echoed at once to see whether a connection carries as much as a batch, and the most of it altogether: an entry that Redis
/// closes the connection on is larger than that, or is no matter of size.
const ECHO: usize = 8 << 10;
const MOST_ECHOED: usize = 1 << 20;
/// Why an entry that kills its connection is a dead letter.
const KILLER: &str = "connection closed by Redis three times";

/// Where the lane stands on its connection.
#[derive(Debug)]
enum Stage {
    /// Nothing is known of the cursor.
    Look,
    /// Another's, who is there.
    Wait {
        owner: String,
        until: Instant,
    },
    /// The cursor is gone; nothing is known of the streams.
    Probe,
    /// The cursor is to be written.
    Claim(Claim),
    /// The cursor is ours, and watched.
    Armed,
    Refused(String),
    Drained,
    Foreign {
        owner: String,
    },
}

/// What the replies to come answer.
#[derive(Debug)]
enum Question {
    Look,
    Probe,
    Claim(Batch),
    /// The type of these streams.
    Types(Vec<Box<str>>),
    /// Whether the connection carries as many bytes as the batch that seems to kill it.
    Echo,
    Batch(OwnerKey),
}

/// What a lane is made with.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) identity: Identity,
    /// Before the first LSN that the journal could ever have sent.
    pub(super) begin: Lsn,
    /// The first LSN of this process.
    pub(super) first: Lsn,
    /// The journal's newest mark.
    pub(super) mark: Acknowledged,
    /// Up to here, decisions were made by an earlier process.
    pub(super) replayed: Lsn,
}

/// The state of a lane; it outlives its connections.
#[derive(Debug)]
pub(super) struct Lane {
    identity: Identity,
    /// The most decisions that a batch may have: fewer after one that took too long, slowly more after those that did not.
    ceiling: usize,
    routes: Arc<Routes>,
    replayed: Lsn,
    standing: Standing,
    stage: Stage,
    question: Option<Question>,
    /// Sent; whether it was executed is not known.
    claim: Option<Claim>,
    /// The highest LSN that this process may have written into the cursor.
    sent: Lsn,
    in_flight: Option<Batch>,
    settlement: Option<Settlement>,
    /// Streams of this connection that were seen to be streams, or nothing yet.
    checked: BTreeSet<Box<str>>,
    /// The largest value that this Redis takes.
    max_bulk: usize,
    /// Decisions in the next batch.
    most: usize,
    quiet_since: Option<Instant>,
    /// When the owner key was last written on this connection.
    renewed: Option<Instant>,
    /// This connection carries as much as the batch in flight.
    carries: bool,
    notes: Vec<Note>,
}

impl Lane {
    pub(super) fn new(origin: Origin, routes: Arc<Routes>) -> Lane {
        Lane {
            ceiling: BATCH_OF_BACKLOG,
            identity: origin.identity,
            routes,
            replayed: origin.replayed,
            standing: Standing::new(origin.begin, origin.first, origin.mark),
            stage: Stage::Look,
            question: None,
            claim: None,
            sent: 0,
            in_flight: None,
            settlement: None,
            checked: BTreeSet::new(),
            max_bulk: usize::MAX,
            most: BATCH,
            quiet_since: None,
            renewed: None,
            carries: false,
            notes: Vec::new(),
        }
    }

    /// New settings: what is decided stays as it is, what Redis refuses from now on goes where they say.
    pub(super) fn follow(&mut self, routes: Arc<Routes>) {
        self.routes = routes;
    }

    /// What is known to be in Redis.
    pub(super) fn known(&self) -> &Acknowledged {
        &self.standing.acknowledged
    }

    /// The cursor is ours, and Redis takes what we write.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Armed) && self.has_written()
    }

    /// A transaction was executed on this connection. A Redis that refuses to write answers all that comes before it.
    pub(super) fn has_written(&self) -> bool {
        self.renewed.is_some()
    }

    /// A batch is in Redis, but for dead letters of some of its entries.
    #[cfg(test)]
    pub(super) fn awaits_letters(&self) -> bool {
        self.in_flight.as_ref().is_some_and(Batch::awaits_letters)
    }

    /// Where the cursor must be, if nothing is sent whose fate is not known.
    #[cfg(test)]
    pub(super) fn certain(&self) -> Option<Lsn> {
        let is_certain = matches!(self.stage, Stage::Armed) && self.settlement.is_none();
        let half_written = self.in_flight.as_ref().filter(|one| one.awaits_letters());
        let position = self.standing.position();
        is_certain.then(|| half_written.map_or(position, |batch| batch.place().lsn))
    }

    /// What happened since this was last asked.
    pub(super) fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// A new connection is up and takes transactions.
    pub(super) fn connected(&mut self, max_bulk: usize) {
        self.stage = Stage::Look;
        self.question = None;
        self.checked.clear();
        self.max_bulk = max_bulk;
        self.quiet_since = None;
        self.renewed = None;
        self.carries = false;
    }

    /// The connection is gone. What was in flight stays in flight.
    pub(super) fn lost(&mut self, loss: Loss) {
        let question = self.question.take();
        self.renewed = None;
        if let Some(batch) = &mut self.in_flight {
            match (question, loss) {
                (Some(Question::Batch(_)), Loss::Closed) => {
                    batch.deaths += 1;
                    batch.is_killer = self.carries;
                }
                (Some(Question::Batch(_)), Loss::GivenUp) => {
                    batch.deaths = 0;
                    // It may be more than this connection carries in the time allowed.
                    if batch.shrink() {
                        self.ceiling = batch.size();
                    }
                }
                // It is the way that takes nothing.
                (Some(Question::Echo), _) => batch.deaths = 0,
                _ => {}
            }
        }
        // A cursor without decisions is made anew when it is due.
        self.in_flight.take_if(|batch| batch.decisions().is_empty());
    }

    /// Whether the batch in flight may be what ends connections.
    pub(super) fn is_suspicious(&self) -> bool {
        self.in_flight
            .as_ref()
            .is_some_and(|batch| batch.deaths > 0)
    }

    /// What to do next.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if let Some(settlement) = &self.settlement {
            return Step::Acknowledge(settlement.through);
        }
        match &self.stage {
            Stage::Wait { owner, until } if now < *until => Step::Pause {
                owner: owner.clone(),
                until: *until,
            },
            Stage::Look | Stage::Wait { .. } => {
                let mut commands = Commands::default();
                self.identity.arm(&mut commands);
                commands.add(&[b"GET", self.identity.owner_key().as_bytes()]);
                self.ask(Question::Look, commands)
            }
            Stage::Probe => {
                let commands = probe::commands(&self.standing.acknowledged);
                self.ask(Question::Probe, commands)
            }
            Stage::Claim(claim) => {
                let batch = Batch::new(Vec::new(), claim.at);
                let commands = batch.commands(&self.identity, OwnerKey::Renew);
                self.claim = Some(claim.clone());
                self.ask(Question::Claim(batch), commands)
            }
            Stage::Armed => self.write(now),
            Stage::Refused(error) => Step::Refused(error.clone()),
            Stage::Drained => Step::Drained,
            Stage::Foreign { owner } => Step::Foreign {
                owner: owner.clone(),
            },
        }
    }

    fn ask(&mut self, question: Question, commands: Commands) -> Step {
        self.question = Some(question);
        Step::Send(commands)
    }

    /// Brings the batch in flight one step further, or asks for one.
    fn write(&mut self, now: Instant) -> Step {
        let Some(batch) = &mut self.in_flight else {
            return self.take(now);
        };
        if batch.deaths >= DEATHS {
            if batch.halve() {
                self.notes.push(Note::Halved);
                batch.deaths = 0;
            } else if batch.is_killer {
                let lsn = batch.place().lsn;
                batch.keep_all(KILLER, &self.routes);
                self.notes.push(Note::Killer { lsn });
                batch.deaths = 0;
            } else if !self.carries {
                let batch = batch.commands(&self.identity, OwnerKey::Renew);
                return self.ask(Question::Echo, echoes(batch.packed().len()));
            }
        }
        for (reason, cut) in batch.bound(self.max_bulk, &self.routes) {
            self.notes.push(Note::TooLarge { reason, cut });
        }
        let letters = batch.to_keep();
        if !letters.is_empty() {
            return Step::Keep(letters);
        }
        if batch.awaits_letters() && batch.lines().next().is_none() {
            let through = batch.place().lsn;
            self.settle(through);
            return Step::Acknowledge(through);
        }
        let unchecked: BTreeSet<&str> = batch
            .lines()
            .map(|(_, entry)| &*entry.stream.name)
            .filter(|stream| !self.checked.contains(*stream))
            .collect();
        if !unchecked.is_empty() {
            let streams: Vec<Box<str>> = unchecked.into_iter().map(Box::from).collect();
            let mut commands = Commands::default();
            for stream in &streams {
                commands.add(&[b"TYPE", stream.as_bytes()]);
            }
            return self.ask(Question::Types(streams), commands);
        }
        let owner = if batch.is_last() {
            OwnerKey::Release
        } else if self.renewed.is_none_or(|renewed| now >= renewed + RENEW) {
            OwnerKey::Renew
        } else {
            OwnerKey::Leave
        };
        let commands = batch.commands(&self.identity, owner);
        self.sent = self.sent.max(batch.place().lsn);
        self.ask(Question::Batch(owner), commands)
    }

    /// When the owner key is due; at once on a new connection.
    fn renewal_after(&self, now: Instant) -> Instant {
        self.renewed.map_or(now, |renewed| renewed + RENEW)
    }

    fn take(&mut self, now: Instant) -> Step {
        let quiet_until = *self.quiet_since.get_or_insert(now) + QUIET;
        Step::Take {
            after: self.standing.position(),
            most: self.most,
            until: quiet_until.min(self.renewal_after(now)),
        }
    }

    /// The decisions that the outbox had, and how far it is through with what comes after them; none: there will be no more.
    pub(super) fn taken(&mut self, decisions: Option<Vec<Arc<Decision>>>, passed: Lsn) {
        self.quiet_since = None;
        let passed = passed.max(self.standing.position());
        let Some(decisions) = decisions else {
            self.in_flight = Some(Batch::last(passed));
            return;
        };
        let is_full = decisions.len() >= self.most;
        self.most = match is_full {
            true => (self.most * 2).min(self.ceiling),
            false => BATCH.min(self.ceiling),
        };
        let mut batch = Batch::new(decisions, passed);
        batch.pass_over(|stream, lsn| {
            // A dead letter is where dead letters went at its time.
            let is_dead = self.routes.is_dead(stream);
            let mut dead = self.routes.dead_letters().filter(|_| is_dead);
            self.standing.has(stream, lsn) || dead.any(|dead| self.standing.has(dead, lsn))
        });
        self.in_flight = Some(batch);
    }

    /// The outbox had nothing until the time that was asked for. Gives the step to take now.
    pub(super) fn idle(&mut self, now: Instant, passed: Lsn) -> Step {
        self.quiet_since = None;
        self.most = BATCH.min(self.ceiling);
        let position = self.standing.position();
        if passed <= position && now < self.renewal_after(now) {
            return Step::Ping;
        }
        self.in_flight = Some(Batch::new(Vec::new(), passed.max(position)));
        self.write(now)
    }

    /// The letters of [`Step::Keep`] are in the local file, or could not be kept.
    pub(super) fn kept(&mut self, kept: bool) {
        if let Some(batch) = &mut self.in_flight {
            batch.kept(kept);
        }
    }

    /// What the outbox gave back for [`Step::Acknowledge`]: what that means for the accounts.
    pub(super) fn acknowledged(&mut self, given_back: Vec<Arc<Decision>>) -> Settled {
        let settlement = self.settlement.take();
        settlement.map_or_else(Settled::default, |settlement| {
            settlement.account(given_back, self.replayed)
        })
    }

    /// What the outbox gave back of what Redis had already when this process decided it.
    pub(super) fn passed(&self, given_back: Vec<Arc<Decision>>) -> Settled {
        let settlement = Settlement {
            through: self.standing.position(),
            batch: None,
            high: self.standing.high,
        };
        settlement.account(given_back, self.replayed)
    }

    /// The replies to [`Step::Send`].
    pub(super) fn replied(&mut self, now: Instant, retained: Retained, replies: &[Value]) {
        match self.question.take() {
            None => {}
            Some(Question::Look) => {
                let owner = self.identity.read_owner(replies.get(2));
                match self.identity.read_armed(replies.get(..2)) {
                    Ok(cursor) => self.found(now, retained, cursor, owner),
                    Err(error) => self.stage = Stage::Refused(error),
                }
            }
            Some(Question::Probe) => self.probed(retained, replies),
            Some(Question::Claim(batch)) => {
                let answer = batch.read(&self.identity, replies);
                self.after_claim(now, retained, answer);
            }
            Some(Question::Types(streams)) => self.read_types(&streams, replies),
            Some(Question::Echo) => self.carries = true,
            Some(Question::Batch(owner)) => {
                let Some(batch) = &mut self.in_flight else {
                    return;
                };
                batch.deaths = 0;
                let answer = batch.read(&self.identity, replies);
                self.after_batch(now, retained, owner, answer);
            }
        }
    }

    fn found(&mut self, now: Instant, retained: Retained, cursor: Cursor, owner: Owner) {
        let is_first = !self.standing.held;
        self.stage = match self.standing.judge(now, cursor, owner) {
            Verdict::Held(place) => return self.hold(retained, place, is_first),
            Verdict::Claim(claim) => Stage::Claim(claim),
            Verdict::Probe => Stage::Probe,
            Verdict::Wait { owner, until } => Stage::Wait { owner, until },
            Verdict::Foreign { owner } => Stage::Foreign { owner },
        };
    }

    /// The cursor is gone: heal if the streams are behind, else put it back.
    fn probed(&mut self, retained: Retained, replies: &[Value]) {
        let half_written = self
            .in_flight
            .as_ref()
            .filter(|batch| batch.awaits_letters());
        let position = self.standing.position();
        let written = half_written.map_or(position, |batch| batch.place().lsn);
        let claim = match probe::read(&self.standing.acknowledged, replies) {
            Found::Intact => Claim {
                at: written,
                why: Why::Restore,
            },
            Found::Behind { mut intact } => {
                let ids = &self.standing.acknowledged.ids;
                let is_gone = |dead| ids.contains_key(dead) && !intact.contains(dead);
                if self.routes.dead_letters().any(is_gone) {
                    // What is in no stream because it was a dead letter is nowhere.
                    intact.clear();
                }
                Claim {
                    at: retained.oldest.saturating_sub(1).min(position),
                    why: Why::Refill { intact, written },
                }
            }
        };
        self.stage = Stage::Claim(claim);
    }

    /// The cursor is ours, for the first time in this process or again: what it says about what was sent.
    fn hold(&mut self, retained: Retained, place: Place, is_first: bool) {
        self.stage = Stage::Armed;
        if let Some(claim) = self.claim.take().filter(|claim| claim.at == place.lsn) {
            let why = claim.why.clone();
            self.notes.push(Note::Claimed(claim));
            if let Why::Refill { intact, written } = why {
                self.give_up_in_flight(place.lsn);
                self.note_unhealable(retained, self.standing.begin);
                self.standing.refill(place.lsn, &intact, written);
            }
        }
        let position = self.standing.position();
        if !is_first && place.lsn >= self.standing.first && place.lsn > self.sent {
            let owner = TWIN.to_owned();
            self.stage = Stage::Foreign { owner };
            return;
        }
        if is_first && (position..self.replayed).contains(&place.lsn) {
            // What an earlier process decided and the journal gave up before it could be sent.
            self.note_unhealable(retained, place.lsn);
        }
        if place.lsn < position {
            self.note_unhealable(retained, place.lsn);
            self.heal(place.lsn);
        } else if place.lsn > position {
            self.catch_up(place);
        } else if self.in_flight.as_ref().is_some_and(Batch::awaits_letters) {
            // Redis came back without the batch that the letters belong to: it is taken and sent again.
            self.in_flight = None;
        }
    }

    /// Redis came back with less.
    fn heal(&mut self, after: Lsn) {
        self.give_up_in_flight(after);
        self.standing.rewind(after);
    }

    /// It will be made again with all that comes after `after`.
    fn give_up_in_flight(&mut self, after: Lsn) {
        let through = self.standing.position();
        self.notes.push(Note::Healing { after, through });
        self.in_flight = None;
    }

    fn note_unhealable(&mut self, retained: Retained, after: Lsn) {
        let missing = retained.missing_after(after);
        if missing > 0 {
            let before = retained.oldest;
            self.notes.push(Note::Unhealable {
                after,
                before,
                missing,
            });
        }
    }

    /// Redis has more than was known: what was in flight was executed, and its reply lost.
    fn catch_up(&mut self, place: Place) {
        if let Some(batch) = &self.in_flight {
            let only_letters_left = Place {
                letters: false,
                ..batch.place()
            };
            let is_unfinished = place == only_letters_left || !batch.to_keep().is_empty();
            if batch.awaits_letters() && is_unfinished {
                return;
            }
            for (_, entry) in batch.lines() {
                let stream = &*entry.stream.name;
                self.standing.acknowledged.remember_stream(stream);
            }
            if !batch.decisions().is_empty() {
                let through = place.lsn;
                self.notes.push(Note::ExecutedBefore { through });
            }
        }
        self.settle(place.lsn);
    }

    /// Everything up to `through` is in Redis.
    fn settle(&mut self, through: Lsn) {
        let batch = self.in_flight.take();
        let high = self.standing.high;
        self.standing.acknowledge(through);
        let settlement = self.settlement.get_or_insert(Settlement {
            through,
            batch,
            high,
        });
        settlement.through = through;
    }

    /// Nothing of what is in flight was sent with a claim.
    fn after_claim(&mut self, now: Instant, retained: Retained, answer: Answer) {
        match answer.outcome {
            Outcome::Executed { .. } => {
                self.notes.push(Note::Executed);
                self.renewed = Some(now);
            }
            // It has no entries that could be refused.
            Outcome::Fenced | Outcome::EntriesRefused(_) => {}
            Outcome::Refused(error) => {
                self.stage = Stage::Refused(error);
                return;
            }
        }
        self.read_cursor(now, retained, answer.cursor);
    }

    fn after_batch(&mut self, now: Instant, retained: Retained, owner: OwnerKey, answer: Answer) {
        match answer.outcome {
            Outcome::Executed { ids, failed } => {
                self.notes.push(Note::Executed);
                if owner == OwnerKey::Renew {
                    self.renewed = Some(now);
                }
                for (stream, id) in ids {
                    self.standing.acknowledged.remember(&stream.name, id);
                }
                self.executed(&failed);
                if owner == OwnerKey::Release {
                    self.stage = Stage::Drained;
                    return;
                }
            }
            Outcome::Fenced => {
                if let Some(batch) = &self.in_flight {
                    let through = batch.place().lsn;
                    self.notes.push(Note::Fenced { through });
                }
            }
            Outcome::EntriesRefused(refused) => self.replace(&refused),
            Outcome::Refused(error) => {
                self.stage = Stage::Refused(error);
                return;
            }
        }
        self.read_cursor(now, retained, answer.cursor);
    }

    /// What the cursor says after a transaction.
    fn read_cursor(&mut self, now: Instant, retained: Retained, cursor: Result<Cursor, String>) {
        match cursor {
            Ok(Cursor::Ours(place)) => {
                self.found(now, retained, Cursor::Ours(place), Owner::Us);
            }
            // Whose it is, the owner key tells.
            Ok(Cursor::Missing | Cursor::Foreign(_)) => self.stage = Stage::Look,
            Err(error) => self.stage = Stage::Refused(error),
        }
    }

    /// The batch in flight is in Redis, but for the entries in `failed`.
    fn executed(&mut self, failed: &[(usize, String)]) {
        let Some(batch) = &mut self.in_flight else {
            return;
        };
        if batch.size() >= self.ceiling {
            let more = (self.ceiling / 8).max(1);
            self.ceiling = (self.ceiling + more).min(BATCH_OF_BACKLOG);
        }
        if failed.is_empty() {
            let through = batch.place().lsn;
            self.settle(through);
        } else {
            batch.bury(failed, &self.routes);
            self.note_refused(failed);
        }
    }

    fn replace(&mut self, refused: &[(usize, String)]) {
        if let Some(batch) = &mut self.in_flight {
            batch.replace(refused, &self.routes);
            self.note_refused(refused);
        }
    }

    fn note_refused(&mut self, refused: &[(usize, String)]) {
        if let Some((_, error)) = refused.first() {
            self.notes.push(Note::Refused {
                error: error.clone(),
                entries: refused.len(),
            });
        }
    }

    /// Entries of a key that is no stream would fail inside `EXEC`, which does not undo the cursor.
    fn read_types(&mut self, streams: &[Box<str>], replies: &[Value]) {
        if self.checked.len() >= MAX_CHECKED {
            self.checked.clear();
        }
        let mut refused = Vec::new();
        for (stream, reply) in streams.iter().zip(replies) {
            match reply {
                Value::SimpleString(kind) if kind != "stream" && kind != "none" => {
                    let reason = format!("WRONGTYPE {stream} is a {kind}, not a stream");
                    let lines = self.in_flight.iter().flat_map(Batch::lines);
                    let lines = lines.filter(|(_, entry)| *entry.stream.name == **stream);
                    refused.extend(lines.map(|(number, _)| (number, reason.clone())));
                }
                // An error is no evidence: the batch itself will tell.
                _ => {
                    self.checked.insert(stream.clone());
                }
            }
        }
        self.replace(&refused);
    }
}

/// At least so many bytes that mean nothing, in pieces that no limit refuses.
fn echoes(bytes: usize) -> Commands {
    let piece = "x".repeat(ECHO);
    let mut commands = Commands::default();
    for _ in 0..bytes.min(MOST_ECHOED).div_ceil(ECHO) {
        commands.add(&[b"ECHO", piece.as_bytes()]);
    }
    commands
}
