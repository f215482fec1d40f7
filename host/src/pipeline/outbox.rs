//! The queue between the pipeline and the writer: decided, not yet acknowledged by Redis.
//!
//! It holds the newest decisions in memory, within bounds; a full one makes the pipeline wait, and the waiting shows in the
//! journal. What is older, after a restart or because Redis came back with less, it makes again from the journal.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::arrivals::Arrivals;
use super::decision::Decision;
use super::inputs::Inputs;
use super::refill::{Refill, Refilled, Source};
use super::seen::Queue;
use crate::config;
use crate::journal::{Lsn, Progress};
use crate::metrics::Metrics;
use crate::route::Routes;

/// Decisions that may wait in memory.
const MAX_DECISIONS: usize = 1_024;
/// Bytes of entries that may wait in memory; one decision more may go over it.
const MAX_BYTES: usize = 8 << 20;
/// Bytes of entries that are taken at once; one decision more may go over it.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// How long to wait before a journal that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// The queue of decisions.
#[derive(Debug)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    refill: tokio::sync::Mutex<Refill>,
    arrivals: Arc<Arrivals>,
    progress: Arc<Progress>,
    sync: config::Sync,
    /// The disk takes nothing, so there is nothing to wait for.
    broken: AtomicBool,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// All that were decided after `from`, as far as they have entries and are not acknowledged.
    decisions: VecDeque<Arc<Decision>>,
    from: Lsn,
    /// The journal has no entries between these two.
    clear: (Lsn, Lsn),
    /// Everything up to here is decided.
    decided: Lsn,
    bytes: usize,
    closed: bool,
    /// When the oldest decision that memory does not hold, and Redis does not have, was received.
    older_us: Option<u64>,
}

impl Waiting {
    fn has_room(&self) -> bool {
        self.decisions.len() < MAX_DECISIONS && self.bytes < MAX_BYTES
    }

    /// Where to look for what follows `after`.
    fn start(&self, after: Lsn) -> Lsn {
        let (from, through) = self.clear;
        if (from..through).contains(&after) {
            through
        } else {
            after
        }
    }

    /// Nothing between the two has entries.
    fn pass(&mut self, after: Lsn, through: Lsn) {
        self.clear = match self.clear {
            (from, end) if end == after => (from, through),
            _ => (after, through),
        };
    }

    fn after(&self, after: Lsn) -> impl Iterator<Item = &Arc<Decision>> {
        let start = self.decisions.partition_point(|one| one.lsn <= after);
        self.decisions.range(start..)
    }
}

impl Outbox {
    /// An empty queue, which goes on after the journal's decisions. Room in it wakes the pipeline that takes from `arrivals`.
    pub fn new(
        arrivals: Arc<Arrivals>,
        inputs: &Inputs,
        routes: watch::Receiver<Arc<Routes>>,
        sync: config::Sync,
        metrics: Arc<Metrics>,
    ) -> Outbox {
        let decided = inputs.taken();
        let waiting = Waiting {
            from: decided,
            decided,
            older_us: inputs.oldest_undelivered_us(),
            ..Waiting::default()
        };
        let (disk, dir) = inputs.place();
        let source = Source {
            disk,
            dir,
            routes,
            metrics: Arc::clone(&metrics),
        };
        Outbox {
            waiting: Mutex::new(waiting),
            filled: Notify::new(),
            refill: tokio::sync::Mutex::new(Refill::new(source)),
            arrivals,
            progress: inputs.progress(),
            sync,
            broken: AtomicBool::new(false),
            metrics,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.lock().has_room()
    }

    /// Adds decisions; everything up to `decided` is decided now.
    pub(super) fn push(&self, decisions: Vec<Decision>, decided: Lsn) {
        let mut waiting = self.lock();
        waiting.decided = waiting.decided.max(decided);
        let some = !decisions.is_empty();
        for decision in decisions {
            waiting.bytes += decision.bytes();
            waiting.decisions.push_back(Arc::new(decision));
        }
        self.show(&waiting);
        drop(waiting);
        if some {
            self.filled.notify_one();
        }
    }

    /// What waits for Redis.
    pub(super) fn queue(&self) -> Queue {
        let waiting = self.lock();
        let newer = waiting.decisions.front().map(|oldest| oldest.received_us);
        Queue {
            waiting: waiting.decisions.len(),
            oldest_us: waiting.older_us.or(newer),
        }
    }

    /// Nothing more comes.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// More may be on stable storage now.
    pub fn wake(&self) {
        self.filled.notify_one();
    }

    /// Whether the disk takes nothing: then decisions are handed out without waiting for it.
    pub(super) fn show_broken(&self, broken: bool) {
        if self.broken.swap(broken, Ordering::AcqRel) != broken {
            self.filled.notify_one();
        }
    }

    /// The highest number that may be handed out.
    fn durable(&self) -> Lsn {
        match self.sync {
            config::Sync::Batch if !self.broken.load(Ordering::Acquire) => self.progress.durable(),
            _ => Lsn::MAX,
        }
    }

    /// Decisions after `after`, in order, at most `most` and some megabytes, from memory or, what memory does not hold, from the
    /// journal. They stay until they are acknowledged. Waits while there are none; `None`: there will be none. An empty list:
    /// there are some at or below `after`, to be acknowledged. Safe to cancel.
    pub async fn next(&self, after: Lsn, most: usize) -> Option<Vec<Arc<Decision>>> {
        loop {
            let (start, from) = {
                let waiting = self.lock();
                let is_stale = |oldest: &Arc<Decision>| oldest.lsn <= after;
                if waiting.decisions.front().is_some_and(is_stale) {
                    return Some(Vec::new());
                }
                (waiting.start(after), waiting.from)
            };
            if start < from {
                let mut refill = self.refill.lock().await;
                match refill.next(start, from, most, MAX_BATCH_BYTES).await {
                    Ok(Refilled::Decisions(decisions)) => {
                        let oldest = decisions.first().map(|oldest| oldest.received_us);
                        self.lock().older_us = oldest;
                        return Some(decisions);
                    }
                    Ok(Refilled::Passed(through)) => self.lock().pass(start, through),
                    Err(error) => {
                        tracing::error!(%error, after, "journal cannot be read now");
                        tokio::time::sleep(READ_AGAIN).await;
                    }
                }
                continue;
            }
            if let Some(taken) = self.take(after, most) {
                return (!taken.is_empty()).then_some(taken);
            }
            self.filled.notified().await;
        }
    }

    /// Nothing more comes, and nothing is here.
    pub fn is_finished(&self) -> bool {
        let waiting = self.lock();
        waiting.closed && waiting.decisions.is_empty()
    }

    /// `None`: nothing yet; empty: nothing any more.
    fn take(&self, after: Lsn, most: usize) -> Option<Vec<Arc<Decision>>> {
        let waiting = self.lock();
        let durable = self.durable();
        let mut bytes = 0;
        let mut taken = Vec::new();
        for decision in waiting.after(after).take(most) {
            if bytes >= MAX_BATCH_BYTES || decision.lsn > durable {
                break;
            }
            bytes += decision.bytes();
            taken.push(Arc::clone(decision));
        }
        let ended = waiting.closed && waiting.after(after).next().is_none();
        (ended || !taken.is_empty()).then_some(taken)
    }

    /// The highest number such that everything up to it is decided and no entry lies between `after` and it.
    pub fn passed(&self, after: Lsn) -> Lsn {
        let waiting = self.lock();
        let start = waiting.start(after);
        if start < waiting.from {
            return start;
        }
        let next = waiting.after(after).next();
        next.map_or(waiting.decided, |next| next.lsn - 1).max(after)
    }

    /// Everything up to here is in Redis: forgets it, and gives back what was still held in memory.
    pub fn acknowledged(&self, through: Lsn) -> Vec<Arc<Decision>> {
        let mut waiting = self.lock();
        let had_room = waiting.has_room();
        let count = waiting.decisions.partition_point(|one| one.lsn <= through);
        let gone: Vec<Arc<Decision>> = waiting.decisions.drain(..count).collect();
        waiting.bytes -= gone.iter().map(|decision| decision.bytes()).sum::<usize>();
        if through >= waiting.from {
            waiting.older_us = None;
        }
        waiting.from = waiting.from.max(through.min(waiting.decided));
        self.show(&waiting);
        let makes_room = !had_room && waiting.has_room();
        drop(waiting);
        if makes_room {
            self.arrivals.wake();
        }
        gone
    }

    /// How many events of the decisions from `first` up to `last` are still held in memory.
    pub(super) fn held(&self, first: Lsn, last: Lsn) -> u64 {
        let waiting = self.lock();
        let held = waiting.after(first.saturating_sub(1));
        held.take_while(|decision| decision.lsn <= last)
            .map(|decision| decision.events.len() as u64)
            .sum()
    }

    fn show(&self, waiting: &Waiting) {
        self.metrics
            .writer_size
            .set(i64::try_from(waiting.decisions.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_oneof, proptest};
    use tempfile::TempDir;
    use tokio::sync::watch;

    use super::{Inputs, Lsn, Metrics, Outbox};
    use crate::config::{Config, Sources, StreamFormat, Sync, load};
    use crate::ledger::Ledger;
    use crate::pipeline::arrivals::{Arrival, Arrivals};
    use crate::pipeline::decision::{Became, Decision, encode, event_of};
    use crate::route::{Origin, Outcome, Routes, Target};

    const EVENT: &[u8] = br#"{"Event-Name":"CUSTOM"}"#;

    #[derive(Clone, Debug)]
    enum Step {
        /// So many inputs are decided; every n-th has entries.
        Decide(u64, u64),
        /// The writer takes so many and Redis has them.
        Write(usize),
        /// Redis came back with less: this share of what it had.
        Rewind(prop::sample::Index),
        /// The host is started again.
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u64..300, 1_u64..4).prop_map(|(inputs, nth)| Step::Decide(inputs, nth)),
            6 => (1_usize..200).prop_map(Step::Write),
            1 => any::<prop::sample::Index>().prop_map(Step::Rewind),
            1 => proptest::prelude::Just(Step::Restart),
        ]
    }

    /// A pipeline and a writer without sockets, and what must come out.
    struct Scene {
        config: Config,
        inputs: Inputs,
        outbox: Outbox,
        routes: Arc<Routes>,
        /// The inputs with entries.
        expected: Vec<Lsn>,
        /// Up to here Redis has everything.
        at: Lsn,
        _dir: TempDir,
    }

    fn target(stream: &str) -> Target {
        Target {
            stream: stream.into(),
            format: StreamFormat::Json,
        }
    }

    fn open(config: &Config, routes: &Arc<Routes>) -> (Inputs, Outbox) {
        let inputs = Inputs::open(&config.journal, None).unwrap();
        let ledger = Arc::new(Ledger::default());
        let metrics = Metrics::new(
            &config.limits,
            Arc::clone(&ledger),
            Arc::default(),
            crate::pipeline::Seen::default().calls(),
        );
        let (arrivals, metrics) = (Arc::new(Arrivals::new(10, ledger)), Arc::new(metrics));
        let (_, routes) = watch::channel(Arc::clone(routes));
        let outbox = Outbox::new(arrivals, &inputs, routes, Sync::Never, metrics);
        (inputs, outbox)
    }

    impl Scene {
        fn new() -> Scene {
            let dir = tempfile::tempdir().unwrap();
            let mut config = load(Sources::default()).unwrap();
            config.journal.dir = dir.path().join("journal");
            config.journal.sync = Sync::Never;
            let routes = Routes::new(&config.streams, &config.routes, &config.dead_letter);
            let routes = Arc::new(routes);
            let (inputs, outbox) = open(&config, &routes);
            Scene {
                config,
                inputs,
                outbox,
                routes,
                expected: Vec::new(),
                at: 0,
                _dir: dir,
            }
        }

        fn decide(&mut self, count: u64, nth: u64) {
            for _ in 0..count {
                self.inputs.arrive(Arrival::new(
                    crate::journal::Kind::Replay,
                    Bytes::from_static(EVENT),
                ));
            }
            self.inputs.write();
            let mut decisions = Vec::new();
            while self.inputs.waiting() > 0 {
                for input in self.inputs.take(64).0 {
                    let has_entries = input.head.lsn % nth == 0;
                    let outcome = match has_entries {
                        true => Outcome::Streams(vec![target("stream")]),
                        false => Outcome::Unrouted,
                    };
                    let became = Became {
                        derived: None,
                        steps: Vec::new(),
                        outcome,
                    };
                    let payload = encode(std::slice::from_ref(&became), Vec::new()).unwrap();
                    self.inputs.journal().decide(input.head.lsn, 1, &payload);
                    if has_entries {
                        self.expected.push(input.head.lsn);
                        let event = event_of(input.head.kind, input.payload);
                        let (lsn, at_us) = (input.head.lsn, 1);
                        let origin = Origin { lsn, at_us };
                        let event = event.unwrap();
                        let delivery = self.routes.deliver(&event, &became.outcome, origin);
                        decisions.push(Decision {
                            lsn: input.head.lsn,
                            received_us: 0,
                            decided_us: 1,
                            events: delivery.into_iter().collect(),
                        });
                    }
                }
            }
            self.inputs.write();
            self.outbox.push(decisions, self.inputs.taken());
        }

        async fn write(&mut self, most: usize) {
            let follows: Vec<Lsn> = self
                .expected
                .iter()
                .copied()
                .filter(|lsn| *lsn > self.at)
                .collect();
            let taken = self.outbox.next(self.at, most);
            if follows.is_empty() {
                // It waits for ever, and finds out meanwhile that all else was dropped.
                let passed = async {
                    while self.outbox.passed(self.at) < self.inputs.taken() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                let given = tokio::select! {
                    taken = taken => Some(taken),
                    passed = tokio::time::timeout(Duration::from_secs(10), passed) => passed.ok().map(|()| None),
                };
                assert!(
                    given.is_some_and(|taken| taken.is_none()),
                    "nothing follows"
                );
                return;
            }
            let taken = tokio::time::timeout(Duration::from_secs(10), taken).await;
            let taken = taken.expect("decisions are given");
            let taken: Vec<Lsn> = taken.unwrap().iter().map(|decision| decision.lsn).collect();
            assert!(
                !taken.is_empty() && taken.len() <= most,
                "{} of {most}",
                taken.len()
            );
            assert_eq!(taken, follows[..taken.len()], "the next ones, in order");
            self.at = *taken.last().unwrap();
            let passed = self.outbox.passed(self.at);
            let next = follows.get(taken.len()).copied().unwrap_or(Lsn::MAX);
            assert!(
                self.at <= passed && passed < next,
                "nothing with entries is passed over"
            );
            self.outbox.acknowledged(self.at);
        }
    }

    /// Journals decisions that send what is there to `stream`, but not the one about input `lost`.
    fn decide_to(inputs: &mut Inputs, stream: &str, lost: Option<Lsn>) {
        for input in inputs.take(64).0 {
            let became = Became {
                derived: None,
                steps: Vec::new(),
                outcome: Outcome::Streams(vec![target(stream)]),
            };
            let payload = encode(&[became], Vec::new()).unwrap();
            if lost != Some(input.head.lsn) {
                inputs.journal().decide(input.head.lsn, 1, &payload);
            }
        }
        assert_eq!(inputs.write(), 0);
    }

    #[tokio::test]
    async fn what_was_decided_again_is_sent_again_as_it_was_decided_last() {
        let Scene {
            config,
            mut inputs,
            outbox,
            routes,
            _dir,
            ..
        } = Scene::new();
        drop(outbox);
        for _ in 0..10 {
            inputs.arrive(Arrival::new(
                crate::journal::Kind::Replay,
                Bytes::from_static(EVENT),
            ));
        }
        assert_eq!(inputs.write(), 0);
        let first = inputs.taken().max(1 << 40);
        decide_to(&mut inputs, "before", Some(first + 3));
        inputs.close();
        let (mut inputs, outbox) = open(&config, &routes);
        assert_eq!(inputs.taken(), first + 2, "from the hole on it is open");
        drop(outbox);
        decide_to(&mut inputs, "after", None);
        inputs.close();
        let (inputs, outbox) = open(&config, &routes);
        assert_eq!(inputs.taken(), first + 2, "the hole is still there");
        drop(outbox);
        drop(inputs);
        // As the writer sees it when Redis lost all: everything up to the end is decided.
        let (_, outbox) = open(&config, &routes);
        outbox.lock().from = first + 9;
        outbox.lock().decided = first + 9;
        let given = outbox.next(first - 1, 64).await.unwrap();
        let given: Vec<(Lsn, String)> = given
            .iter()
            .map(|one| {
                (
                    one.lsn - first,
                    one.events[0].entries[0].stream.name.to_string(),
                )
            })
            .collect();
        let expected = (0..10).map(|at| (at, if at < 3 { "before" } else { "after" }.to_owned()));
        assert_eq!(given, expected.collect::<Vec<_>>());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_follows_is_given_in_order_whatever_redis_forgets(steps in prop::collection::vec(step(), 1..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut scene = Scene::new();
                for step in steps {
                    match step {
                        Step::Decide(count, nth) => scene.decide(count, nth),
                        Step::Write(most) => scene.write(most).await,
                        Step::Rewind(to) => {
                            let had = scene.expected.iter().filter(|lsn| **lsn <= scene.at).count();
                            scene.at = match to.index(had + 1) {
                                0 => 0,
                                kept => scene.expected[kept - 1],
                            };
                        }
                        Step::Restart => {
                            let Scene { config, routes, inputs, .. } = &mut scene;
                            let (config, routes) = (config.clone(), Arc::clone(routes));
                            // Two journals on one folder exclude each other.
                            let elsewhere = tempfile::tempdir().unwrap();
                            let mut other = config.journal.clone();
                            other.dir = elsewhere.path().join("journal");
                            std::mem::replace(inputs, Inputs::open(&other, None).unwrap()).close();
                            let (reopened, outbox) = open(&config, &routes);
                            std::mem::replace(inputs, reopened).close();
                            scene.outbox = outbox;
                        }
                    }
                }
                while scene.expected.last().is_some_and(|last| *last > scene.at) {
                    scene.write(64).await;
                }
            });
        }
    }
}
