//! The pipeline's thread: what happens to one input is `decide`; everything else here waits, counts and passes on.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use tokio::sync::watch;

use super::backlog::{Backlog, Input, Taken};
use super::outbox::{Decision, Outbox};
use crate::clock;
use crate::esl::Subscription;
use crate::event::Event;
use crate::filter::{Chain, Change, Decided, Engine, FilterStatus};
use crate::ledger::{Dropped, Ledger, Settled};
use crate::metrics::Metrics;
use crate::route::{Delivery, Routed, Routes};

/// Inputs that are taken from the backlog at once.
const BATCH: usize = 64;

/// What others may see of the pipeline, and hand to it.
#[derive(Default)]
pub struct Seen {
    filters: Mutex<Vec<FilterStatus>>,
    change: Mutex<Option<Change>>,
    /// `FreeSWITCH-Switchname` of the first event, unless `router.name` is set: the name in the cursor's key.
    pub router: OnceLock<String>,
}

impl Seen {
    /// The filters as they are.
    pub fn filters(&self) -> Vec<FilterStatus> {
        lock(&self.filters).clone()
    }

    /// A change of the chain, to be made between two events. It holds the whole chain, but a step of the one that it
    /// replaces may say `keep` of a version that never started, so both must be made.
    pub fn change(&self, change: Change) {
        let mut waiting = lock(&self.change);
        *waiting = Some(match waiting.take() {
            Some(before) => before.then(change),
            None => change,
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// All that the thread owns and uses.
pub struct Pipeline {
    /// The filters.
    pub chain: Chain,
    /// The engine of the chain, whose epochs advance while the thread is busy.
    pub engine: Arc<Engine>,
    /// The route table.
    pub routes: Arc<Routes>,
    /// Where inputs come from.
    pub backlog: Arc<Backlog>,
    /// Where decisions go.
    pub outbox: Arc<Outbox>,
    /// The accounts.
    pub ledger: Arc<Ledger>,
    /// Latencies and repairs.
    pub metrics: Arc<Metrics>,
    /// What others see.
    pub seen: Arc<Seen>,
    /// Followed by the intake whenever the filters want something else.
    pub wanted: watch::Sender<Subscription>,
    /// What is wanted whatever the filters want; `None` fixes the subscription.
    pub follow_filters: bool,
}

/// All that can wake the thread.
enum Wake {
    Change(Change),
    Inputs(Vec<Input>),
    Tick,
    End,
}

impl Pipeline {
    /// Runs until the backlog is closed and drained.
    pub fn run(mut self) {
        self.backlog.serve(std::thread::current());
        let mut sequence = 0;
        let mut decided = Vec::new();
        loop {
            match self.next() {
                Wake::Change(change) => self.change(change),
                Wake::Inputs(inputs) => self.inputs(inputs, &mut sequence, &mut decided),
                Wake::Tick => {
                    let now_us = clock::now_us();
                    {
                        let _ticking = self.engine.ticking();
                        self.chain.tick(now_us, &mut decided);
                    }
                    self.show_changes();
                    sequence += 1;
                    let mut settled = Settled::default();
                    let events = self.route(&mut decided, &mut settled);
                    self.hand_on(vec![(sequence, now_us, events)], settled);
                }
                Wake::End => break,
            }
        }
        self.outbox.close();
    }

    fn next(&self) -> Wake {
        loop {
            if let Some(change) = lock(&self.seen.change).take() {
                return Wake::Change(change);
            }
            if self.backlog.is_aborted() {
                return Wake::End;
            }
            let mut due = None;
            if self.outbox.has_room() {
                due = self.chain.next_tick();
                if due.is_some_and(|due| due <= Instant::now()) {
                    return Wake::Tick;
                }
                match self.backlog.take(BATCH) {
                    Taken::Inputs(inputs) => return Wake::Inputs(inputs),
                    Taken::End => return Wake::End,
                    Taken::Nothing => {}
                }
            }
            match due {
                Some(due) => {
                    std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
                }
                None => std::thread::park(),
            }
        }
    }

    /// Between two events: the old version's state goes to the new one, and no event is missing from it.
    pub fn change(&mut self, change: Change) {
        {
            let _ticking = self.engine.ticking();
            self.chain.apply(change, clock::now_us());
        }
        self.show();
        if self.follow_filters {
            let mut wanted = Subscription::new();
            self.routes.subscribe(&mut wanted);
            self.chain.subscribe(&mut wanted);
            self.wanted.send_if_modified(|before| {
                let changed = *before != wanted;
                *before = wanted;
                changed
            });
        }
    }

    fn show_changes(&mut self) {
        if self.chain.changed() {
            self.show();
        }
    }

    fn show(&self) {
        *lock(&self.seen.filters) = self.chain.status();
    }

    fn inputs(&mut self, inputs: Vec<Input>, sequence: &mut u64, decided: &mut Vec<Decided>) {
        let mut settled = Settled::default();
        let mut decisions = Vec::with_capacity(inputs.len());
        let ticking = self.engine.ticking();
        for input in inputs {
            *sequence += 1;
            let received_us = input.received_us;
            let events = self.decide(input, decided, &mut settled);
            decisions.push((*sequence, received_us, events));
        }
        drop(ticking);
        let decided_us = clock::now_us();
        for (_, received_us, _) in &decisions {
            let latency = decided_us.saturating_sub(*received_us);
            self.metrics.reader_latency.observe(latency);
        }
        self.show_changes();
        self.hand_on(decisions, settled);
    }

    /// What happens to one input: it is parsed, filtered, routed.
    fn decide(
        &mut self,
        input: Input,
        decided: &mut Vec<Decided>,
        settled: &mut Settled,
    ) -> Vec<Delivery> {
        let event = match Event::parse(input.format, input.bytes.clone()) {
            Ok(event) => event,
            Err(malformed) => {
                self.metrics.errors.inc();
                tracing::debug!(error = %malformed, bytes = input.bytes.len(), "malformed event dead-lettered");
                return vec![self.routes.malformed(input.bytes, &malformed.to_string())];
            }
        };
        if event.repaired() {
            self.metrics.repaired.inc();
        }
        self.seen.router.get_or_init(|| {
            let name = event
                .get_str("FreeSWITCH-Switchname")
                .unwrap_or_default()
                .into_owned();
            if name.is_empty() {
                "freeswitch".to_owned()
            } else {
                name
            }
        });
        let now_us = event.timestamp().unwrap_or(input.received_us);
        self.chain.handle(event, now_us, decided);
        self.route(decided, settled)
    }

    fn route(&self, decided: &mut Vec<Decided>, settled: &mut Settled) -> Vec<Delivery> {
        let mut events = Vec::with_capacity(decided.len());
        for decided in decided.drain(..) {
            settled.derived += u64::from(decided.derived);
            match self.routes.route(decided) {
                Routed::Deliver(delivery) => events.push(delivery),
                Routed::Dropped { by, reason } => settled.dropped.push(Dropped {
                    by: by.to_string(),
                    reason,
                }),
                Routed::Unrouted => settled.unrouted += 1,
            }
        }
        events
    }

    /// The accounts first, so that what the writer settles is pending by then.
    fn hand_on(&self, decisions: Vec<(u64, u64, Vec<Delivery>)>, settled: Settled) {
        self.ledger.settle(settled);
        let decided_us = clock::now_us();
        let decision = |(sequence, received_us, events)| Decision {
            sequence,
            received_us,
            decided_us,
            events,
        };
        self.outbox.push(
            decisions
                .into_iter()
                .filter(|(_, _, events)| !events.is_empty())
                .map(decision)
                .collect(),
        );
    }
}
