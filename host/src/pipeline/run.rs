//! The pipeline's thread: every input is journaled, decided, its decision journaled, and only then handed to the writer.
//!
//! What happens to one input is `decide`; everything else here waits, counts and passes on. The thread owns the journal, so
//! that one order holds for all: what arrived, what was decided, what was acknowledged.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::arrivals::{Arrival, Arrivals, Stop};
use super::calls::{Answered, Calls};
use super::decision::{Became, Decision, encode, event_of, format};
use super::inputs::Inputs;
use super::outbox::Outbox;
use super::past::{Moment, Pairs};
use super::saved::Saved;
use super::seen::{RollBack, Seen};
use crate::clock;
use crate::esl::{RollCall, Subscription};
use crate::event::{Event, Indexer};
use crate::filter::{Chain, Change, Decided, Derived, Engine};
use crate::journal::{Kind, Lsn, Record};
use crate::ledger::{Dropped, Ledger, Settled};
use crate::metrics::{Activity, Metrics};
use crate::route::{Delivery, Origin, Outcome, Routes};

/// Inputs that are decided at once, at most.
const BATCH: usize = 64;
/// Half as many are next after a batch that took longer, and twice as many after a full one that did not: what arrives meanwhile is
/// in memory alone.
const LONG: Duration = Duration::from_millis(5);
/// Arrivals that are journaled at once.
const ARRIVALS: usize = 512;
/// While more arrivals wait than that, they go before decisions for so long: in a flood they leave memory as fast as the disk takes
/// them, and what is in the journal is decided all the same.
const AHEAD: Duration = Duration::from_millis(20);
/// How often what is due is looked at while nothing happens: the mark of what Redis has, old segments, the filters.
const IDLE: Duration = Duration::from_secs(1);
/// How often filters save their state. What came since is run again after a crash, with its outputs discarded.
const SAVE: Duration = Duration::from_secs(10);

/// All that the thread owns and uses.
pub struct Pipeline {
    /// Makes events of inputs.
    pub indexer: Indexer,
    /// The filters.
    pub chain: Chain,
    /// The engine of the chain, whose epochs advance while the thread is busy.
    pub engine: Arc<Engine>,
    /// The route table. It is taken from `settings` between two events.
    pub routes: Arc<Routes>,
    /// The route table of the newest settings.
    pub settings: watch::Receiver<Arc<Routes>>,
    /// The inputs, and the journal.
    pub inputs: Inputs,
    /// The journal's folder, where filters' state is kept too.
    pub dir: PathBuf,
    /// Where inputs come from.
    pub arrivals: Arc<Arrivals>,
    /// Where decisions go.
    pub outbox: Arc<Outbox>,
    /// The accounts.
    pub ledger: Arc<Ledger>,
    /// Latencies and repairs.
    pub metrics: Arc<Metrics>,
    /// What others see.
    pub seen: Arc<Seen>,
    /// Followed by the intake whenever settings or filters want something else.
    pub wanted: watch::Sender<Subscription>,
    /// The name is `FreeSWITCH-Switchname`: an event of another switch ends the host.
    pub learn_name: bool,
    /// Those that are believed alive.
    pub calls: Calls,
}

/// All that can wake the thread.
enum Wake {
    Settings,
    Change(Change),
    RollBacks(Vec<RollBack>),
    /// More arrived than was journaled so far.
    Arrivals,
    Inputs(Vec<Record>),
    LookAfter,
    Save,
    Keep,
    /// Nothing to do before this.
    Idle(Instant),
    End,
}

/// What outlives a turn of the thread.
struct Turn {
    decided: Vec<Decided>,
    payload: Vec<u8>,
    decisions: Vec<Decision>,
    settled: Settled,
    /// The ESL connection whose switch is known.
    connection: u32,
    next_look: Instant,
    next_save: Instant,
    /// When all were asked for their state last, and what was known of calls then.
    saved: Lsn,
    calls: Arc<Calls>,
    /// Some filter is another one since the state was stored last.
    is_changed: bool,
    /// So many inputs are decided next, at most.
    batch: usize,
    /// More arrivals wait than were taken.
    has_more: bool,
    /// When inputs were decided last.
    decided_at: Instant,
    storing: Option<JoinHandle<()>>,
}

impl Turn {
    /// A disk that hangs is not waited for: the state before stays the saved one.
    fn is_storing(&self) -> bool {
        self.storing.as_ref().is_some_and(|one| !one.is_finished())
    }

    fn store(&mut self, saved: Saved, dir: PathBuf) {
        self.is_changed = false;
        self.storing = Some(tokio::task::spawn_blocking(move || store(&saved, &dir)));
    }
}

impl Pipeline {
    /// Loads the filters with what they saved, and shows them what came since again with their outputs discarded.
    pub fn prepare(&mut self, change: Change) {
        let taken = self.inputs.taken();
        let saved = Saved::load(&self.dir, self.inputs.id()).filter(|saved| {
            let newest = saved.newest();
            if newest > taken {
                // Inputs that it knows are decided again: a filter would take them for their own repetition.
                tracing::warn!(
                    lsn = newest,
                    "saved state is newer than the journal: filters start anew"
                );
            }
            newest <= taken
        });
        let calls_know = saved.as_ref().map_or(taken, |saved| saved.lsn);
        let (filters, calls) =
            saved.map_or_else(Default::default, |saved| (saved.filters, saved.calls));
        self.chain.restore(filters, taken);
        self.calls = Arc::unwrap_or_clone(calls);
        self.change(change);
        self.warm_up(calls_know);
        // From here on a crash finds a state of these very filters.
        let state = self.state();
        store(&state, &self.dir);
    }

    /// Each filter, and the calls, is behind by as much as came since it was saved. What a filter is shown is what it saw then: as
    /// the filters before it had left it, whatever runs in their places now.
    fn warm_up(&mut self, calls_know: Lsn) {
        let kept = self.chain.kept();
        let to = self.inputs.taken();
        let from = kept.iter().map(|kept| kept.lsn).fold(calls_know, Lsn::min);
        if from == to {
            return;
        }
        let (disk, dir) = self.inputs.place();
        let mut past = Pairs::after(&disk, &dir, from);
        let _ticking = self.engine.ticking();
        let mut events = 0_u64;
        self.chain.warm_up(true);
        self.calls.warm_up(true);
        loop {
            match past.next_pair() {
                Ok(Some((input, decision))) if input.head.lsn <= to => {
                    events += u64::from(input.head.kind.is_event());
                    let moment = Moment::new(&input, decision.as_ref());
                    if input.head.lsn > calls_know {
                        self.recall(&input, moment.event());
                    }
                    for kept in kept.iter().filter(|kept| kept.lsn < input.head.lsn) {
                        for occasion in moment.seen_by(&kept.file, true) {
                            self.chain.show_again(&kept.file, occasion);
                        }
                    }
                }
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "journal cannot be read: filters miss what came since they saved their state");
                    break;
                }
            }
        }
        self.chain.warm_up(false);
        self.calls.warm_up(false);
        if events > 0 {
            tracing::info!(events, from, to, "filters warmed up");
        }
    }

    /// What an input says of calls; filters see the rest.
    fn recall(&mut self, input: &Record, event: Option<&Event>) {
        match (input.head.kind, event) {
            (Kind::RollCall, _) => drop(self.roll_call(input)),
            // A dead letter that is sent again says nothing of now.
            (Kind::Json | Kind::Plain, Some(event)) => self.calls.note(event, input.head.at_us),
            _ => {}
        }
    }

    /// Runs until it is told to end.
    pub fn run(mut self) {
        self.arrivals.serve(std::thread::current());
        self.metrics.stages.pipeline.turn(Activity::Busy);
        let mut turn = Turn {
            decided: Vec::new(),
            payload: Vec::new(),
            decisions: Vec::new(),
            settled: Settled::default(),
            connection: 0,
            next_look: Instant::now(),
            next_save: Instant::now() + SAVE,
            saved: self.inputs.taken(),
            calls: Arc::new(self.calls.clone()),
            is_changed: false,
            batch: 1,
            has_more: false,
            decided_at: Instant::now(),
            storing: None,
        };
        loop {
            let stop = self.record(&mut turn);
            match self.next(stop, &turn) {
                Wake::Settings => {
                    self.routes = Arc::clone(&self.settings.borrow_and_update());
                    self.subscribe();
                }
                Wake::Change(change) => {
                    self.change(change);
                    // A filter that came now has not seen what is before.
                    turn.is_changed = true;
                }
                Wake::RollBacks(roll_backs) => {
                    self.roll_back(roll_backs);
                    turn.is_changed = true;
                }
                Wake::Arrivals => {}
                Wake::Inputs(inputs) => self.inputs(&inputs, &mut turn),
                Wake::LookAfter => self.look_after(&mut turn),
                Wake::Save => self.save(&mut turn),
                Wake::Keep => self.keep(&mut turn),
                Wake::Idle(until) => self.idle(until),
                Wake::End => break,
            }
        }
        self.end(&turn);
    }

    /// Nothing comes, or what waits to be decided waits for the writer.
    fn idle(&self, until: Instant) {
        let stage = &self.metrics.stages.pipeline;
        stage.turn(match self.inputs.is_empty() {
            true => Activity::Starved,
            false => Activity::Blocked,
        });
        std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
        stage.turn(Activity::Busy);
    }

    fn next(&mut self, stop: Stop, turn: &Turn) -> Wake {
        if stop == Stop::Now || self.seen.other_switch.get().is_some() {
            return Wake::End;
        }
        // No error: whoever has the settings ends after this thread, or has no more of them.
        if self.settings.has_changed().unwrap_or(false) {
            return Wake::Settings;
        }
        if let Some(change) = self.seen.take_change() {
            return Wake::Change(change);
        }
        let roll_backs = self.seen.take_roll_backs();
        if !roll_backs.is_empty() {
            return Wake::RollBacks(roll_backs);
        }
        let now = Instant::now();
        if turn.next_look <= now && !self.chain.is_empty() {
            return Wake::LookAfter;
        }
        // Whatever was decided is in the journal by now: what filters keep is never ahead of it.
        if turn.is_changed && !turn.is_storing() {
            return Wake::Keep;
        }
        let mut until = now + IDLE;
        if turn.saved != self.inputs.taken() {
            if turn.next_save <= now {
                return Wake::Save;
            }
            until = until.min(turn.next_save);
        }
        let is_ahead = turn.has_more && now < turn.decided_at + AHEAD;
        if is_ahead && self.inputs.trouble().is_none() {
            return Wake::Arrivals;
        }
        if self.outbox.has_room() {
            let (inputs, gone) = self.inputs.take(turn.batch);
            self.ledger.lost("journal_damaged", gone);
            if !inputs.is_empty() {
                return Wake::Inputs(inputs);
            }
            if self.inputs.is_empty() {
                // No tick is on its way: one that a filter still waits for went with what was lost.
                self.chain.rearm(now);
            }
            if stop == Stop::Drained {
                self.outbox.close();
            }
            let due = self.chain.next_tick().filter(|_| stop == Stop::No);
            until = due.map_or(until, |due| until.min(due));
        }
        match turn.has_more {
            true => Wake::Arrivals,
            false => Wake::Idle(until),
        }
    }

    /// Writes to the journal what was decided, what arrived and what was acknowledged; then the decisions may go out.
    fn record(&mut self, turn: &mut Turn) -> Stop {
        let has_room = self.outbox.has_room();
        self.inputs.retry();
        // While the disk takes nothing, memory is bounded where it arrives: only what can be decided soon is taken from there.
        let most = match self.inputs.trouble().is_some() {
            false => ARRIVALS,
            true if has_room && self.inputs.has_memory() => BATCH,
            true => 0,
        };
        let (arrivals, stop, left) = self.arrivals.take(most);
        turn.has_more = most > 0 && left > 0;
        for arrival in arrivals {
            self.arrive(arrival, turn);
        }
        let now = Instant::now();
        if has_room
            && stop == Stop::No
            && let Some(names) = self.chain.due_ticks(now)
        {
            self.inputs.arrive(Arrival::tick(names));
        }
        if let Some(acknowledged) = self.seen.take_acknowledged() {
            let journal = self.inputs.journal();
            journal.mark(acknowledged.lsn, clock::now_us(), &acknowledged.mark);
            self.inputs.acknowledged(acknowledged.lsn);
            self.seen
                .show_journal(|shown| shown.acknowledged = acknowledged.lsn);
        }
        let lost = self.inputs.write();
        self.ledger.lost("journal_full", lost);
        self.inputs.journal().tidy(now);
        self.show_journal(left as u64);
        let decisions = std::mem::take(&mut turn.decisions);
        self.outbox.push(decisions, self.inputs.taken());
        self.seen.show_queue(self.outbox.queue());
        stop
    }

    /// One arrival gets its number, unless it comes from another FreeSWITCH than the journal's.
    fn arrive(&mut self, arrival: Arrival, turn: &mut Turn) {
        if self.learn_name && arrival.connection > turn.connection {
            let switch = switch_name(&arrival);
            if let Some(name) = switch.filter(|name| !name.is_empty()) {
                turn.connection = arrival.connection;
                let known = self.seen.router.get_or_init(|| name.clone());
                if *known != name {
                    self.seen.other_switch.get_or_init(|| name);
                } else if self.inputs.journal().router().is_none() {
                    self.inputs.journal().name_router(&name);
                }
            }
        }
        if self.seen.other_switch.get().is_some() {
            let lost = u64::from(arrival.kind.is_event());
            self.ledger.lost("other_switch", lost);
        } else {
            self.inputs.arrive(arrival);
        }
    }

    /// `arrivals` are not in the journal yet.
    fn show_journal(&mut self, arrivals: u64) {
        let trouble = self.inputs.trouble().map(str::to_owned);
        self.outbox.show_broken(trouble.is_some());
        let waiting = self.inputs.waiting();
        let bytes = self.inputs.journal().size();
        let oldest_us = self.inputs.oldest_us();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let metrics = &self.metrics;
        metrics.reader_size.set(gauge(waiting + arrivals));
        let is_behind = waiting > 0 || self.outbox.queue().oldest_us.is_some();
        let undelivered_bytes = match is_behind {
            true => self.inputs.journal().uncommitted(),
            false => 0,
        };
        metrics.journal.bytes.set(gauge(bytes));
        metrics
            .journal
            .undelivered_bytes
            .set(gauge(undelivered_bytes));
        metrics.journal.broken.set(i64::from(trouble.is_some()));
        let quarantined = self.inputs.quarantined();
        let poisoned = self.inputs.progress().poisoned();
        metrics.journal.quarantined.set(gauge(quarantined));
        metrics.journal.poisoned.set(gauge(poisoned));
        let age_us = oldest_us.map_or(0, |oldest| clock::now_us().saturating_sub(oldest));
        metrics.journal.age.set(gauge(age_us / 1_000_000));
        self.seen.show_alive(self.calls.len() as u64);
        self.seen.show_journal(|shown| {
            shown.trouble = trouble;
            shown.bytes = bytes;
            shown.undelivered_bytes = undelivered_bytes;
            shown.quarantined = quarantined;
            shown.poisoned = poisoned;
            shown.last = self.inputs.last();
            shown.decided = self.inputs.taken();
            shown.waiting = waiting;
            shown.oldest_us = oldest_us;
        });
    }

    /// Between two events: the old version's state goes to the new one, and no event is missing from it.
    fn change(&mut self, change: Change) {
        {
            let _ticking = self.engine.ticking();
            self.chain.apply(change, clock::now_us());
        }
        self.seen
            .show_filters(self.chain.status(), self.chain.ignored());
        self.subscribe();
    }

    fn subscribe(&mut self) {
        let mut wanted = Subscription::new();
        self.routes.subscribe(&mut wanted);
        self.chain.subscribe(&mut wanted);
        wanted.add_what_calls_need();
        if let Some(mut fixed) = self.routes.asked_for() {
            // FreeSWITCH is asked for what the settings say; the host's own events are no matter of it.
            fixed.set_own(&wanted);
            wanted = fixed;
        }
        let follows = wanted.follows_calls();
        self.calls.follow(follows);
        self.seen.show_calls(|shown| shown.followed = follows);
        self.wanted.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
    }

    fn inputs(&mut self, inputs: &[Record], turn: &mut Turn) {
        let (at_us, started) = (clock::now_us(), Instant::now());
        let ticking = self.engine.ticking();
        for input in inputs {
            self.decide(input, at_us, turn);
        }
        drop(ticking);
        let decided_us = clock::now_us();
        turn.decided_at = Instant::now();
        turn.batch = match turn.decided_at.saturating_duration_since(started) > LONG {
            true => (turn.batch / 2).max(1),
            false if inputs.len() == turn.batch => (turn.batch * 2).min(BATCH),
            false => turn.batch,
        };
        let events = inputs.iter().filter(|input| input.head.kind.is_event());
        let latencies = events
            .clone()
            .map(|input| decided_us.saturating_sub(input.head.at_us));
        self.metrics.reader_latency.observe(latencies);
        self.metrics.stages.pipeline.did(events.count() as u64);
        // The accounts before the decisions go out, so that what the writer settles is pending by then.
        self.ledger.settle(std::mem::take(&mut turn.settled));
        self.judge(at_us, turn);
        if self.chain.changed() {
            self.seen
                .show_filters(self.chain.status(), self.chain.ignored());
        }
    }

    /// Versions that do badly go, and the loader hears of it.
    fn judge(&mut self, at_us: u64, turn: &mut Turn) {
        let _ticking = self.engine.ticking();
        self.chain
            .look_after(self.inputs.waiting(), Instant::now(), at_us);
        let reports = self.chain.take_reports();
        if !reports.is_empty() {
            self.seen.report(reports);
            // Another version may want other events, and has another state.
            self.subscribe();
            turn.is_changed = true;
        }
    }

    /// What is due without an event, and what the filters did since.
    fn look_after(&mut self, turn: &mut Turn) {
        turn.next_look = Instant::now() + IDLE;
        self.judge(clock::now_us(), turn);
        self.seen
            .show_filters(self.chain.status(), self.chain.ignored());
    }

    fn roll_back(&mut self, roll_backs: Vec<RollBack>) {
        // Who does not wait any more was told that it cannot be done.
        let waited_for = |one: &RollBack| !one.done.is_closed();
        for RollBack { file, done } in roll_backs.into_iter().filter(waited_for) {
            let ticking = self.engine.ticking();
            let rolled_back = self.chain.roll_back(&file, clock::now_us());
            drop(ticking);
            // Shown before it is answered.
            self.seen.report(self.chain.take_reports());
            self.seen
                .show_filters(self.chain.status(), self.chain.ignored());
            // Whoever asked may have gone.
            let _told = done.send(rolled_back);
        }
        self.subscribe();
    }

    /// What happens to one input: it is parsed, filtered, routed; its decision goes to the journal and, as entries, to the outbox.
    fn decide(&mut self, input: &Record, at_us: u64, turn: &mut Turn) {
        let lsn = input.head.lsn;
        let origin = Origin { lsn, at_us };
        let mut events = Vec::new();
        let became = match self.filter(input, &mut turn.decided) {
            Ok(()) => self.route(turn, origin, &mut events),
            Err(malformed) => {
                self.metrics.errors.inc();
                tracing::debug!(error = malformed, lsn, "malformed event dead-lettered");
                self.seen.show_dead("routes", &malformed, at_us);
                events.push(
                    self.routes
                        .malformed(input.payload.clone(), &malformed, origin),
                );
                vec![Became {
                    derived: None,
                    steps: Vec::new(),
                    outcome: Outcome::Malformed(malformed),
                }]
            }
        };
        turn.payload.clear();
        match encode(&became, std::mem::take(&mut turn.payload)) {
            Ok(payload) => {
                self.inputs.journal().decide(lsn, at_us, &payload);
                turn.payload = payload;
            }
            // Nothing in a decision can fail to encode; if it does, a crash right now would decide this input again.
            Err(error) => tracing::error!(%error, lsn, "decision is not journaled"),
        }
        if !events.is_empty() {
            turn.decisions.push(Decision {
                lsn,
                received_us: input.head.at_us,
                decided_us: at_us,
                events,
            });
        }
    }

    /// Runs the filters over an input; an error says why it is no event.
    fn filter(&mut self, input: &Record, decided: &mut Vec<Decided>) -> Result<(), String> {
        if input.head.kind == Kind::RollCall {
            self.answer(input, decided);
            return Ok(());
        }
        let Some(format) = format(input.head.kind) else {
            let names = String::from_utf8_lossy(&input.payload);
            self.chain
                .tick(&names, input.head.lsn, input.head.at_us, decided);
            return Ok(());
        };
        let event = self
            .indexer
            .parse(format, input.payload.clone())
            .map_err(|error| error.to_string())?;
        if event.repaired() {
            self.metrics.repaired.inc();
        }
        self.recall(input, Some(&event));
        let now_us = event.timestamp().unwrap_or(input.head.at_us);
        self.chain.handle(event, input.head.lsn, now_us, decided);
        Ok(())
    }

    /// What FreeSWITCH says of its calls becomes events where it is news, and where somebody wants them.
    fn answer(&mut self, input: &Record, decided: &mut Vec<Decided>) {
        let Some((roll, answered)) = self.roll_call(input) else {
            return;
        };
        let made = {
            let wanted = self.wanted.borrow();
            let events = answered.events.into_iter();
            let listed = events.filter(|own| wanted.wants_own(own.subclass));
            listed.map(Derived::own).collect()
        };
        let lsn = input.head.lsn;
        self.chain.own(made, lsn, roll.asked_us, decided);
    }

    /// Sets the calls against what FreeSWITCH says of them. Nothing if that cannot be read.
    fn roll_call(&mut self, input: &Record) -> Option<(RollCall, Answered)> {
        let lsn = input.head.lsn;
        let roll = RollCall::decode(&input.payload)
            .inspect_err(|error| tracing::error!(%error, lsn, "roll call cannot be read"))
            .ok()?;
        let answered = self.calls.answer(&roll);
        self.show_answer(&roll, &answered);
        Some((roll, answered))
    }

    /// What a whole roll call showed. One that is run again after a crash was counted before.
    fn show_answer(&self, roll: &RollCall, answered: &Answered) {
        let alive = self.calls.len() as u64;
        let core_uuid = self.calls.core_uuid().map(str::to_owned);
        let counts = u64::from(!self.calls.is_warming());
        self.seen.show_calls(|shown| {
            shown.core_uuid = core_uuid;
            shown.restarts += counts * u64::from(answered.restarted);
            let unknown = roll.calls.as_ref().err();
            if answered.whole.is_some() || unknown.is_some() {
                shown.asked_us = Some(roll.asked_us);
                shown.alive = alive;
                shown.unknown = unknown.cloned();
            }
            if let Some(missed) = answered.whole {
                shown.answers += counts;
                shown.lost += counts * missed.lost;
                shown.found += counts * missed.found;
            }
        });
    }

    fn route(
        &mut self,
        turn: &mut Turn,
        origin: Origin,
        events: &mut Vec<Delivery>,
    ) -> Vec<Became> {
        let mut became = Vec::with_capacity(turn.decided.len());
        for decided in turn.decided.drain(..) {
            turn.settled.derived += u64::from(decided.derived.is_some());
            let outcome = self.routes.decide(&decided);
            match &outcome {
                Outcome::Dropped { by, reason } => turn.settled.dropped.push(Dropped {
                    by: by.to_string(),
                    reason: reason.clone(),
                }),
                Outcome::Unrouted => turn.settled.unrouted += 1,
                _ => events.extend(self.routes.deliver(&decided.event, &outcome, origin)),
            }
            if let Outcome::Dead { by, reason, .. } = &outcome {
                self.seen.show_dead(by, reason, origin.at_us);
            }
            self.indexer.take_back(decided.event);
            became.push(Became {
                derived: decided.derived,
                steps: decided.steps,
                outcome,
            });
        }
        became
    }

    /// The filters' state as it is between two inputs.
    fn state(&mut self) -> Saved {
        let ticking = self.engine.ticking();
        self.chain.save(clock::now_us());
        drop(ticking);
        self.kept(Arc::new(self.calls.clone()), self.inputs.taken())
    }

    /// The state of each filter as it was when it was asked last, and these calls.
    fn kept(&self, calls: Arc<Calls>, lsn: Lsn) -> Saved {
        Saved {
            journal: self.inputs.id().to_owned(),
            filters: self.chain.kept(),
            calls,
            lsn,
        }
    }

    fn save(&mut self, turn: &mut Turn) {
        turn.next_save = Instant::now() + SAVE;
        if !turn.is_storing() {
            let saved = self.state();
            (turn.saved, turn.calls) = (saved.lsn, Arc::clone(&saved.calls));
            turn.store(saved, self.dir.clone());
        }
    }

    /// Some filter is another one now. The others are not asked for their state: that takes time, in which no event goes on.
    fn keep(&self, turn: &mut Turn) {
        let kept = self.kept(Arc::clone(&turn.calls), turn.saved);
        turn.store(kept, self.dir.clone());
    }

    /// Everything that came is in the journal, or counted as lost where the disk took nothing.
    fn end(mut self, turn: &Turn) {
        self.outbox.close();
        let trouble = self.inputs.trouble().is_some();
        let left = if trouble { self.arrivals.events() } else { 0 };
        let unkept = self.inputs.unkept();
        let held = unkept.map_or(0, |(first, last)| self.outbox.held(first, last));
        self.ledger
            .lost("shutdown", left + self.inputs.unjournaled() + held);
        // A disk that hangs is not waited for.
        let is_new = turn.is_changed || turn.saved != self.inputs.taken();
        if is_new && !turn.is_storing() {
            store(&self.state(), &self.dir);
        }
        self.inputs.close();
    }
}

fn store(saved: &Saved, dir: &std::path::Path) {
    if let Err(error) = saved.store(dir) {
        tracing::warn!(%error, "state of the filters cannot be saved: after a restart they begin with the one before");
    }
}

fn switch_name(arrival: &Arrival) -> Option<String> {
    let event = event_of(arrival.kind, arrival.bytes.clone())?;
    Some(event.get_str("FreeSWITCH-Switchname")?.into_owned())
}
