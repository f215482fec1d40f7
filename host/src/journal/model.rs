//! Properties of the whole journal against a simple account of what it was given, on a disk that crashes and fails.
//!
//! The model plays the pipeline: it keeps what a failed write forgot and appends it again, decides in order, and never looks
//! into the files except through a [`Reader`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};

use crate::config;
use crate::journal::faults::{Call, FaultyDisk};
use crate::journal::format::EPOCH;
use crate::journal::sync::Syncer;
use crate::journal::{Disk, Head, Journal, Kind, Lsn, Reader, Record};

const DIR: &str = "/journal";
const SEGMENT: u64 = 4 << 10;
const MAX_SIZE: u64 = 32 << 10;
const RETAIN: Duration = Duration::from_secs(60);
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

#[derive(Debug, Clone)]
enum Op {
    Append(Kind, usize),
    Decide(usize),
    Mark,
    Write,
    Sync,
    Commit(u64),
    Tidy(u64),
    Look(u64),
    Close,
    Kill,
    KillInWrite(usize),
    CutPower(u64),
    Fail(Call, u32, i32, usize),
}

/// How safe a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Safe {
    /// It may be there or not.
    Perhaps,
    /// A power cut spared it on a disk that has failed, so it may be what a failed write left. It is read like any other, but room may be made of it uncounted: a
    /// later segment says that it has it.
    Stray,
    /// It survives the process.
    Written,
    /// As that, and no sync will ever help it.
    Unsyncable,
    /// It survives a power cut.
    Synced,
}

#[derive(Debug, Clone)]
struct Known {
    head: Head,
    payload: Bytes,
    safe: Safe,
}

struct Model {
    disk: FaultyDisk,
    settings: config::Journal,
    journal: Option<Journal>,
    now: Instant,
    inputs: BTreeMap<Lsn, Known>,
    decisions: BTreeMap<Lsn, Known>,
    mark: Option<Known>,
    /// What failed writes gave back.
    forgotten: Vec<Record>,
    /// What is appended and not written.
    pending: Vec<(Kind, Lsn)>,
    decided: Lsn,
    highest: Lsn,
    committed: Lsn,
    /// A write has failed in this process, so that copies may lie about.
    disowned: bool,
    oldest: Lsn,
    /// Lost by writes that failed then.
    lost: u64,
    /// A process ended after a failed write: what that left half done was nobody's, and its loss is not counted.
    strays: bool,
    /// A write may have stayed half done with a later one behind it, which looks like damage.
    torn: bool,
    /// The disk has failed at least once.
    faulted: bool,
    /// What was not synced then may never be.
    sync_failed: bool,
    serial: u64,
}

impl Model {
    fn new() -> Model {
        let mut model = Model {
            disk: FaultyDisk::default(),
            settings: config::Journal {
                dir: DIR.into(),
                max_size: MAX_SIZE,
                retain: RETAIN,
                sync: config::Sync::Batch,
            },
            journal: None,
            now: Instant::now(),
            inputs: BTreeMap::new(),
            decisions: BTreeMap::new(),
            mark: None,
            forgotten: Vec::new(),
            pending: Vec::new(),
            decided: 0,
            highest: 0,
            committed: 0,
            disowned: false,
            oldest: 0,
            lost: 0,
            strays: false,
            torn: false,
            faulted: false,
            sync_failed: false,
            serial: 0,
        };
        model.reopen();
        model
    }

    fn journal(&mut self) -> &mut Journal {
        self.journal.as_mut().expect("open between the steps")
    }

    fn read(&self, mut reader: Reader) -> Vec<Record> {
        let mut records = Vec::new();
        while let Some(record) = reader.next().expect("the disk reads without fault") {
            records.push(record);
        }
        assert!(self.torn || reader.quarantined() == 0, "nothing is damaged");
        records
    }

    fn inputs_after(&self, lsn: Lsn) -> Vec<Record> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        self.read(Reader::inputs_after(disk, Path::new(DIR), lsn))
    }

    fn decisions_after(&self, lsn: Lsn) -> Vec<Record> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        self.read(Reader::decisions_after(disk, Path::new(DIR), lsn))
    }

    fn payload(&mut self, size: usize) -> Vec<u8> {
        self.serial += 1;
        let mut payload = self.serial.to_le_bytes().to_vec();
        payload.resize(size.max(8), b'x');
        payload
    }

    fn append(&mut self, kind: Kind, size: usize) {
        let payload = self.payload(size);
        self.append_again();
        let at_us = self.serial;
        let lsn = self.journal().append(kind, at_us, 7, at_us, &payload);
        assert!(lsn > self.highest, "{lsn:x} was given before");
        self.highest = lsn;
        let head = Head {
            lsn,
            kind,
            at_us,
            connection: 7,
            offset: at_us,
        };
        let payload = payload.into();
        self.inputs.insert(
            lsn,
            Known {
                head,
                payload,
                safe: Safe::Perhaps,
            },
        );
        self.pending.push((kind, lsn));
    }

    /// As a caller must: what was forgotten comes before anything newer.
    fn append_again(&mut self) {
        for record in std::mem::take(&mut self.forgotten) {
            self.journal().append_again(&record);
            self.pending.push((record.head.kind, record.head.lsn));
        }
    }

    /// Also about an input that is in memory alone.
    fn decide(&mut self, size: usize) {
        let Some((lsn, _)) = self.inputs.range(self.decided + 1..).next() else {
            return;
        };
        let lsn = *lsn;
        self.append_again();
        let payload = self.payload(size);
        self.journal().decide(lsn, lsn, &payload);
        let head = Head {
            lsn,
            kind: Kind::Decision,
            at_us: lsn,
            connection: 0,
            offset: 0,
        };
        let payload = payload.into();
        self.decisions.insert(
            lsn,
            Known {
                head,
                payload,
                safe: Safe::Perhaps,
            },
        );
        self.pending.push((Kind::Decision, lsn));
        self.decided = lsn;
    }

    fn mark(&mut self) {
        self.append_again();
        let (lsn, payload) = (self.committed, self.payload(40));
        self.journal().mark(lsn, 1, &payload);
        let head = Head {
            lsn,
            kind: Kind::Mark,
            at_us: 1,
            connection: 0,
            offset: 0,
        };
        self.mark = Some(Known {
            head,
            payload: payload.into(),
            safe: Safe::Perhaps,
        });
        self.pending.push((Kind::Mark, lsn));
    }

    fn write(&mut self) {
        let taken = self.decided;
        let outcome = self.journal().write(taken);
        let pending = std::mem::take(&mut self.pending);
        match &outcome {
            Ok(_) => {
                for (kind, lsn) in &pending {
                    self.known(*kind, *lsn).safe = Safe::Written;
                }
            }
            Err(error) => {
                let heads = error.forgotten.iter().map(|record| record.head);
                let forgotten = heads.map(|head| (head.kind, head.lsn));
                assert!(forgotten.eq(pending), "all that was appended is given back");
                self.disowned = true;
                self.forgotten.extend(error.forgotten.iter().cloned());
            }
        }
        let oldest = self.journal().oldest();
        self.lost += self.lost_below(oldest, taken);
        self.forget_below(oldest);
        if let Ok(wrote) = outcome {
            assert_eq!(wrote.skip_to, oldest, "where to go on");
            let lost = std::mem::take(&mut self.lost);
            assert!(
                wrote.lost == lost || self.strays && wrote.lost < lost,
                "{} events lost, not {lost}, failed writes' included",
                wrote.lost
            );
        }
    }

    /// Events that were written, are below `oldest`, and were not taken.
    fn lost_below(&self, oldest: Lsn, taken: Lsn) -> u64 {
        let gone = self.inputs.range(..oldest);
        let lost = gone.filter(|(lsn, input)| {
            **lsn > taken.max(self.committed)
                && input.safe != Safe::Perhaps
                && input.head.kind.is_event()
        });
        lost.count() as u64
    }

    fn forget_below(&mut self, oldest: Lsn) {
        if oldest > self.oldest
            && let Some(mark) = &mut self.mark
            && mark.safe == Safe::Synced
        {
            // What is left of it is the copy in a later segment, which may not be synced.
            mark.safe = Safe::Written;
        }
        self.oldest = oldest;
        for (_, known) in self.inputs.range_mut(..oldest) {
            known.safe = Safe::Perhaps;
        }
        for (_, known) in self.decisions.range_mut(..oldest) {
            known.safe = Safe::Perhaps;
        }
    }

    fn known(&mut self, kind: Kind, lsn: Lsn) -> &mut Known {
        match kind {
            Kind::Decision => self.decisions.get_mut(&lsn).expect("appended"),
            Kind::Mark => self.mark.as_mut().expect("appended"),
            _ => self.inputs.get_mut(&lsn).expect("appended"),
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Known> {
        let records = self.inputs.values_mut().chain(self.decisions.values_mut());
        records.chain(self.mark.as_mut())
    }

    fn sync(&mut self) {
        let before = self.journal().progress().poisoned();
        self.journal().sync_now();
        let failed = self.journal().progress().poisoned() > before;
        self.sync_failed |= failed;
        let now = if failed {
            Safe::Unsyncable
        } else {
            Safe::Synced
        };
        for known in self.all().filter(|known| known.safe == Safe::Written) {
            known.safe = now;
        }
        assert!(
            !self.disk.synced_after_failure(),
            "a poisoned file is left alone"
        );
    }

    fn commit(&mut self, permille: u64) {
        let decided: Vec<Lsn> = self.decisions.keys().copied().collect();
        let at = decided.len() as u64 * permille / 1000;
        self.committed = decided
            .get(at as usize)
            .copied()
            .unwrap_or(self.decided)
            .min(self.decided);
        let committed = self.committed;
        self.journal().committed(committed);
    }

    fn tidy(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        let (now, before) = (self.now, self.journal().oldest());
        self.journal().tidy(now);
        let oldest = self.journal().oldest();
        let gone = self.inputs.range(before..oldest);
        for (lsn, _) in gone.filter(|(_, input)| input.safe != Safe::Perhaps) {
            assert!(*lsn <= self.committed, "{lsn:x} went uncommitted");
        }
        self.forget_below(oldest);
    }

    /// What a reader gives after `lsn` is what was written: everything that must be there, nothing else, in order, once.
    fn look(&self, permille: u64) {
        let given: Vec<Lsn> = self.inputs.keys().copied().collect();
        let at = given.len() as u64 * permille / 1000;
        let after = given.get(at as usize).map_or(0, |lsn| lsn - permille % 2);
        check(
            &self.inputs_after(after),
            &self.inputs,
            after,
            Safe::Written,
        );
        check(
            &self.decisions_after(after),
            &self.decisions,
            after,
            Safe::Written,
        );
    }

    fn reopen(&mut self) {
        self.crash(Safe::Written);
    }

    /// A new process after the end of the old one, which spared what was at least this safe.
    fn crash(&mut self, spared: Safe) {
        self.journal = None;
        self.disk.revive();
        self.pending.clear();
        self.forgotten.clear();
        let disk = Arc::new(self.disk.clone());
        let (mut journal, found) = Journal::open_synced(disk, &self.settings, None, |shared| {
            Ok(Some(Syncer::by_hand(shared)))
        })
        .expect("no damage keeps a journal from opening");
        journal.hurry(SEGMENT);
        assert!(journal.first() > self.highest, "a new epoch");
        assert_eq!(journal.first() % EPOCH, 0);
        self.highest = journal.first() - 1;
        self.journal = Some(journal);

        let (inputs, decisions) = (self.inputs_after(0), self.decisions_after(0));
        check(&inputs, &self.inputs, 0, spared);
        check(&decisions, &self.decisions, 0, spared);
        let last = inputs.last().map_or(0, |record| record.head.lsn);
        let decided = decisions.last().map_or(0, |record| record.head.lsn);
        assert!(found.last <= last, "no input was found that is not there");
        // After a power cut the newest may lie in an older segment, where its first write failed half way.
        if !self.disowned && !self.strays && !self.torn {
            assert_eq!(found.last, last, "the last input");
            assert!(
                decided == 0 || found.decided == decided,
                "the last decision"
            );
        }
        self.check_mark(found.mark, spared);
        self.strays |= self.disowned;
        let now = match spared {
            Safe::Synced if self.faulted => Safe::Stray,
            _ if self.sync_failed => Safe::Unsyncable,
            _ => Safe::Synced,
        };
        settle(&mut self.inputs, &inputs, now);
        settle(&mut self.decisions, &decisions, now);
        self.decided = found.decided;
        self.disowned = false;
        self.lost = 0;
        let committed = self.committed.min(self.decided);
        self.committed = committed;
        self.journal().committed(committed);
    }

    fn check_mark(&mut self, found: Option<Record>, spared: Safe) {
        if let Some(mark) = &self.mark
            && at_least(mark.safe, spared)
        {
            let found = found.as_ref().expect("a mark that was written is found");
            assert_eq!(found.payload, mark.payload, "the newest mark");
        }
        self.mark = found.map(|record| Known {
            head: record.head,
            payload: record.payload,
            safe: if self.sync_failed {
                Safe::Unsyncable
            } else {
                Safe::Synced
            },
        });
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Append(kind, size) => self.append(kind, size),
            Op::Decide(size) => self.decide(size),
            Op::Mark => self.mark(),
            Op::Write => self.write(),
            Op::Sync => self.sync(),
            Op::Commit(permille) => self.commit(permille),
            Op::Tidy(seconds) => self.tidy(seconds),
            Op::Look(permille) => self.look(permille),
            Op::Close => {
                let journal = self.journal.take().expect("open");
                let progress = journal.progress();
                let before = progress.poisoned();
                journal.close();
                self.sync_failed |= progress.poisoned() > before;
                self.reopen();
            }
            Op::Kill => self.reopen(),
            Op::KillInWrite(partial) => {
                self.disk.die_in_write(partial);
                self.write();
                self.reopen();
            }
            Op::CutPower(seed) => {
                self.journal = None;
                self.disk.cut_power(seed);
                self.torn = true;
                self.crash(Safe::Synced);
            }
            Op::Fail(call, calls, code, partial) => {
                self.faulted = true;
                self.disk.fail(call, calls, code, partial);
            }
        }
    }
}

fn at_least(safe: Safe, spared: Safe) -> bool {
    match spared {
        Safe::Synced => safe == Safe::Synced,
        _ => !matches!(safe, Safe::Perhaps | Safe::Stray),
    }
}

/// Nothing but what was appended, in order, once; and everything that was spared.
fn check(read: &[Record], known: &BTreeMap<Lsn, Known>, after: Lsn, spared: Safe) {
    let mut last = after;
    for record in read {
        let lsn = record.head.lsn;
        assert!(lsn > last, "{lsn:x} after {last:x}");
        last = lsn;
        let known = known.get(&lsn).expect("only what was appended is read");
        assert_eq!(record.head, known.head);
        if known.head.kind.is_input() {
            assert_eq!(record.payload, known.payload, "payload of {lsn:x}");
        }
    }
    for (lsn, known) in known.range(after + 1..) {
        let is_read = read.iter().any(|record| record.head.lsn == *lsn);
        assert!(
            is_read || !at_least(known.safe, spared),
            "{:?} {lsn:x} is missing, which was {:?}",
            known.head.kind,
            known.safe
        );
    }
}

/// What is on disk now is as safe as an open can make it; the rest may come back at most.
fn settle(known: &mut BTreeMap<Lsn, Known>, read: &[Record], now: Safe) {
    for (lsn, known) in known {
        let is_there = read.iter().any(|record| record.head.lsn == *lsn);
        known.safe = match (is_there, known.safe) {
            (false, _) => Safe::Perhaps,
            (true, before @ (Safe::Synced | Safe::Stray)) => before,
            (true, _) => now,
        };
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Json),
        Just(Kind::Plain),
        Just(Kind::Tick),
        Just(Kind::RollCall),
        Just(Kind::Internal),
        Just(Kind::Replay),
    ]
}

fn work() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (kind(), 8..700_usize).prop_map(|(kind, size)| Op::Append(kind, size)),
        1 => (3000..9000_usize).prop_map(|size| Op::Append(Kind::Json, size)),
        6 => (8..300_usize).prop_map(Op::Decide),
        1 => Just(Op::Mark),
        8 => Just(Op::Write),
        2 => Just(Op::Sync),
        2 => (0..1000_u64).prop_map(Op::Commit),
        1 => (0..90_u64).prop_map(Op::Tidy),
        2 => (0..1000_u64).prop_map(Op::Look),
    ]
}

fn ends() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => Just(Op::Close),
        2 => Just(Op::Kill),
        3 => (0..3000_usize).prop_map(Op::KillInWrite),
        4 => any::<u64>().prop_map(Op::CutPower),
    ]
}

fn faults() -> impl Strategy<Value = Op> {
    let call = prop_oneof![
        2 => Just(Call::Create),
        4 => Just(Call::Write),
        2 => Just(Call::Sync),
        1 => Just(Call::Remove),
    ];
    let code = prop_oneof![Just(ENOSPC), Just(EIO)];
    (call, 1..4_u32, code, 0..2000_usize)
        .prop_map(|(call, calls, code, partial)| Op::Fail(call, calls, code, partial))
}

fn run(ops: Vec<Op>) {
    let mut model = Model::new();
    for op in ops {
        model.step(op);
    }
    model.reopen();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn what_was_written_survives_every_end(
        ops in prop::collection::vec(prop_oneof![12 => work(), 1 => ends()], 1..200)
    ) {
        run(ops);
    }

    #[test]
    fn a_failing_disk_costs_nothing_that_the_caller_keeps(
        ops in prop::collection::vec(prop_oneof![14 => work(), 1 => ends(), 1 => faults()], 1..200)
    ) {
        run(ops);
    }
}
