//! The lane against a Redis in memory and an oracle, under random schedules of faults.
//!
//! Each property drives whole lives of a lane: decisions appear, connections die before and after a batch is executed or while
//! it is still on its way, Redis refuses, forgets and comes back with less, the host starts anew. Afterwards every entry must be
//! in exactly one place, in order, and every event in exactly one account.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::collection::{btree_set, vec};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestRunner};

use super::acknowledged::EntryId;
use super::fake::{Key, Server};
use super::host::{DEAD, Fault, Host, PATIENCE, name, pass};
use super::standing::Why;
use super::step::{Loss, Note};

const CURSOR: &str = "jackfield:fs1:cursor";

#[derive(Clone, Debug)]
enum Op {
    /// Inputs: events with their streams, dropped if empty; the flag makes one a killer.
    Decide(Vec<(Vec<BTreeSet<usize>>, bool)>),
    Turns(usize),
    Fail(Fault),
    ExecuteLate,
    Full(bool),
    Forbid(usize),
    Permit,
    Hide(usize),
    Show,
    Flush,
    Snapshot,
    RollBack(usize),
    DeleteCursor,
    /// The cursor and these streams.
    Evict(BTreeSet<usize>),
    Restart(Option<usize>),
}

/// The world of one lane.
struct World {
    server: Server,
    host: Host,
    now: Instant,
    snapshots: Vec<Server>,
    cursor_deleted: bool,
}

impl World {
    fn new() -> World {
        World {
            server: Server::new(),
            host: Host::new("A"),
            now: Instant::now(),
            snapshots: Vec::new(),
            cursor_deleted: false,
        }
    }

    fn apply(&mut self, op: Op) {
        let World { server, host, .. } = self;
        match op {
            Op::Decide(inputs) => inputs
                .iter()
                .for_each(|(events, killer)| host.decide(events, *killer)),
            Op::Turns(turns) => (0..turns).for_each(|_| host.turn(server, &mut self.now)),
            Op::Fail(fault) => host.fault = Some(fault),
            Op::ExecuteLate => host.execute_late(server),
            Op::Full(is_full) => server.is_full = is_full,
            Op::Forbid(stream) => {
                server.forbidden.insert(name(stream));
            }
            Op::Permit => server.forbidden.clear(),
            Op::Hide(stream) => server.hide(&name(stream)),
            Op::Show => (0..4).for_each(|stream| server.show(&name(stream))),
            Op::Flush => server.flush(),
            Op::Snapshot => self.snapshot(),
            Op::RollBack(at) => self.roll_back(at),
            Op::DeleteCursor => self.delete_cursor(),
            Op::Evict(streams) => self.evict(&streams),
            Op::Restart(mark) => self.restart(mark),
        }
    }

    /// A moment to which Redis may come back: not between a batch and the dead letters of it, nor without its cursor.
    fn snapshot(&mut self) {
        let is_whole = self.server.keys.is_empty() || self.server.text(CURSOR).is_some();
        if is_whole && !self.host.lane.awaits_letters() {
            self.snapshots.push(self.server.clone());
        }
    }

    /// Not while dead letters of an executed batch are to be written: a cursor at the same place then tells nothing of which of
    /// two executions it comes from.
    fn roll_back(&mut self, at: usize) {
        if self.host.lane.awaits_letters() {
            return;
        }
        if let Some(before) = self.snapshots.get(at % self.snapshots.len().max(1)) {
            let now_ms = self.server.now_ms;
            self.server = before.clone();
            self.server.now_ms = now_ms;
            // What came later never was, for what comes now.
            self.snapshots.truncate(at % self.snapshots.len() + 1);
            self.host.late.clear();
            self.host.has_doubt = true;
            self.host.lost(Loss::Closed);
        }
    }

    /// Whether all that was sent is known to be there or not, and Redis takes everything.
    fn is_calm(&self) -> bool {
        let text = self.server.text(CURSOR).unwrap_or_default();
        let at = |lsn| text.trim_end_matches("+1") == format!("A:{lsn}");
        let is_known = self.host.client.is_some() && self.host.lane.certain().is_some_and(at);
        let known = self.host.lane.known();
        let is_there = |(stream, id): (&Arc<str>, &EntryId)| match self.server.keys.get(&**stream) {
            Some(Key::Stream { entries, .. }) => {
                *id == EntryId::UNKNOWN || entries.iter().any(|(one, _)| one == id)
            }
            _ => false,
        };
        let exist = !known.ids.is_empty() && known.ids.iter().all(is_there);
        is_known && exist && !self.server.is_full && self.server.forbidden.is_empty()
    }

    fn healings(&self) -> usize {
        let notes = self.host.notes.iter();
        notes
            .filter(|note| matches!(note, Note::Healing { .. }))
            .count()
    }

    /// An operator's mistake, at a moment when the fate of all that was sent is known.
    fn delete_cursor(&mut self) {
        if self.is_calm() {
            self.server.delete(CURSOR);
            self.cursor_deleted = true;
            self.host.fault = None;
            let healings = self.healings();
            // It is noticed before the next disaster.
            self.apply(Op::Turns(20));
            let is_restore =
                |note: &Note| matches!(note, Note::Claimed(claim) if claim.why == Why::Restore);
            assert!(
                self.host.notes.iter().any(is_restore),
                "restored: {:?}",
                self.host.notes
            );
            assert_eq!(self.healings(), healings, "nothing was lost");
        }
    }

    /// Redis removes keys, at such a moment; there are no dead letters, and all streams that it leaves are known.
    fn evict(&mut self, streams: &BTreeSet<usize>) {
        let known = &self.host.lane.known().ids;
        let is_known = |name: &str| known.get(name).is_some_and(|id| *id != EntryId::UNKNOWN);
        let keys = self.server.keys.keys().map(String::as_str);
        let mut there = keys.filter(|key| !key.starts_with("jackfield:"));
        let are_known = there.all(|key| key != DEAD && is_known(key));
        let evicted: Vec<String> = streams.iter().map(|at| name(*at)).collect();
        let are_evicted = !evicted.is_empty() && evicted.iter().all(|name| is_known(name));
        if !self.is_calm() || !are_known || !are_evicted {
            return;
        }
        evicted.iter().for_each(|name| self.server.delete(name));
        self.server.delete(CURSOR);
        self.host.fault = None;
        let before = self.host.lane.known().lsn;
        // They are filled again before the next disaster.
        for _ in 0..PATIENCE {
            self.apply(Op::Turns(1));
            let is_healed = self.host.lane.certain().is_some();
            if is_healed
                && self.host.lane.known().lsn >= before
                && self.server.text(CURSOR).is_some()
            {
                return;
            }
        }
        panic!("not filled again: {:?}", self.host.lane);
    }

    fn restart(&mut self, mark: Option<usize>) {
        if self.host.lane.awaits_letters() {
            return;
        }
        let marks = self.host.marks.len();
        let is_deleted = self.cursor_deleted && self.server.text(CURSOR).is_none();
        let mark = match mark {
            _ if is_deleted => marks.checked_sub(1),
            Some(at) if marks > 0 => Some(at % marks),
            _ => None,
        };
        self.host.restart(mark);
    }
}

fn run(ops: Vec<Op>) {
    let mut world = World::new();
    for op in ops {
        world.apply(op);
    }
    world.apply(Op::Full(false));
    world.apply(Op::Permit);
    world.apply(Op::Show);
    world.host.fault = None;
    while !world.host.late.is_empty() {
        world.apply(Op::Turns(1));
        world.apply(Op::ExecuteLate);
    }
    world.host.finish(&mut world.server, &mut world.now);
    assert_eq!(world.host.end, Some(None), "drained");
    assert_eq!(
        world.server.text("jackfield:fs1:owner"),
        None,
        "the owner key is released"
    );
    world.host.check(&world.server);
}

/// What two hosts of one router's name do; the flag tells them apart.
#[derive(Clone, Debug)]
enum Rivalry {
    Decide(bool, usize),
    Turns(bool, usize),
    Fail(bool, Fault),
    ExecuteLate(bool),
    /// Nobody does anything for so many seconds.
    Pass(u64),
}

fn rivalry() -> impl Strategy<Value = Rivalry> {
    let fault = prop_oneof![
        loss().prop_map(Fault::DiesBefore),
        loss().prop_map(Fault::DiesAfter),
        loss().prop_map(Fault::Late),
    ];
    prop_oneof![
        3 => (any::<bool>(), 1..5_usize).prop_map(|(which, count)| Rivalry::Decide(which, count)),
        5 => (any::<bool>(), 1..6_usize).prop_map(|(which, turns)| Rivalry::Turns(which, turns)),
        2 => (any::<bool>(), fault).prop_map(|(which, fault)| Rivalry::Fail(which, fault)),
        2 => any::<bool>().prop_map(Rivalry::ExecuteLate),
        1 => (1..20_u64).prop_map(Rivalry::Pass),
    ]
}

/// Both hosts live through the schedule; then both are left in peace until each has ended.
fn rival(ops: Vec<Rivalry>) {
    let (mut server, mut now) = (Server::new(), Instant::now());
    let mut hosts = [Host::new("A"), Host::new("B")];
    for op in ops {
        match op {
            Rivalry::Decide(which, count) => {
                let event = [BTreeSet::from([0])];
                (0..count).for_each(|_| hosts[usize::from(which)].decide(&event, false));
            }
            Rivalry::Turns(which, turns) => {
                let host = &mut hosts[usize::from(which)];
                for _ in 0..turns {
                    if host.end.is_none() {
                        host.turn(&mut server, &mut now);
                    }
                }
            }
            Rivalry::Fail(which, fault) => hosts[usize::from(which)].fault = Some(fault),
            Rivalry::ExecuteLate(which) => hosts[usize::from(which)].execute_late(&mut server),
            Rivalry::Pass(seconds) => pass(&mut server, &mut now, Duration::from_secs(seconds)),
        }
    }
    for host in &mut hosts {
        host.fault = None;
        host.finish(&mut server, &mut now);
        while !host.late.is_empty() {
            host.execute_late(&mut server);
        }
    }
    for host in &hosts {
        if host.end == Some(None) {
            host.check(&server);
        } else {
            host.check_beginning(&server);
        }
    }
}

fn inputs() -> impl Strategy<Value = Op> {
    let streams = prop_oneof![
        8 => btree_set(0..3_usize, 1..3),
        1 => Just(BTreeSet::from([3_usize])),
    ];
    let killer = proptest::bool::weighted(0.02);
    vec((vec(streams, 0..3), killer), 1..6).prop_map(Op::Decide)
}

fn loss() -> impl Strategy<Value = Loss> {
    prop_oneof![Just(Loss::Closed), Just(Loss::GivenUp)]
}

/// Faults of the network alone.
fn network() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => inputs(),
        8 => (1..8_usize).prop_map(Op::Turns),
        2 => loss().prop_map(|loss| Op::Fail(Fault::DiesBefore(loss))),
        2 => loss().prop_map(|loss| Op::Fail(Fault::DiesAfter(loss))),
        3 => loss().prop_map(|loss| Op::Fail(Fault::Late(loss))),
        3 => Just(Op::ExecuteLate),
    ]
}

/// Redis does not take everything.
fn refusals() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => network(),
        1 => any::<bool>().prop_map(Op::Full),
        1 => (0..4_usize).prop_map(Op::Forbid),
        1 => Just(Op::Permit),
        2 => (0..4_usize).prop_map(Op::Hide),
        1 => Just(Op::Show),
    ]
}

/// Redis forgets, and so do we.
fn amnesia() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => refusals(),
        1 => Just(Op::Flush),
        2 => Just(Op::Snapshot),
        1 => any::<usize>().prop_map(Op::RollBack),
        2 => Just(Op::DeleteCursor),
        2 => btree_set(0..3_usize, 1..3).prop_map(Op::Evict),
        1 => any::<Option<usize>>().prop_map(Op::Restart),
    ]
}

/// Runs random schedules; the one that fails is shrunk and shown.
fn check<T: std::fmt::Debug>(ops: impl Strategy<Value = T>, cases: u32, run: fn(Vec<T>)) {
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&vec(ops, 1..60), |ops| {
        run(ops);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn whatever_the_network_does_every_entry_is_written_once_and_in_order() {
    check(network(), 1_500, run);
}

#[test]
fn whatever_redis_refuses_every_entry_is_in_its_stream_or_in_the_dead_letters() {
    check(refusals(), 1_500, run);
}

#[test]
fn whatever_redis_forgets_the_streams_are_complete_again() {
    check(amnesia(), 1_500, run);
}

#[test]
fn two_hosts_of_one_name_never_write_by_turns() {
    check(rivalry(), 1_000, rival);
}

#[test]
fn an_intact_redis_is_never_healed() {
    let restart = any::<Option<usize>>().prop_map(Op::Restart);
    let ops = prop_oneof![10 => network(), 1 => restart];
    check(ops, 500, |ops| {
        let mut world = World::new();
        ops.into_iter().for_each(|op| world.apply(op));
        world.host.fault = None;
        world.host.finish(&mut world.server, &mut world.now);
        assert!(!world.host.has_healed(), "{:?}", world.host.notes);
        let claimed = |note: &Note| matches!(note, Note::Claimed(claim) if claim.why != Why::First);
        assert!(
            !world.host.notes.iter().any(claimed),
            "{:?}",
            world.host.notes
        );
    });
}
