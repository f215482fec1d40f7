//! A journal that was damaged while nobody looked: turned bits, cut files, files that are gone, an older copy of the folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jackfield::simulator::{Settings, Simulator};

use super::dice::{Dice, rounds, seeds};
use crate::harness::{Host, Redis, Setup};
use crate::numbered::{self, STREAM};

const EVENTS: u64 = 20;

struct Bench {
    switch: Arc<Simulator>,
    redis: Redis,
    /// None while the host runs.
    setup: Option<Setup>,
}

impl Bench {
    async fn new() -> Bench {
        let (switch, redis) = (
            Simulator::start(Settings::default()).await.unwrap(),
            Redis::start(),
        );
        let setup = Setup::new(switch.addr(), &redis).env("EVENTS_MAX_LEN", "0");
        let setup = Some(
            setup
                .env("ESL_RECONNECT_DELAY", "50ms")
                .env("REDIS_REMOTE_WRITE_TIMEOUT", "1s"),
        );
        Bench {
            switch: Arc::new(switch),
            redis,
            setup,
        }
    }

    fn start(&mut self) -> Host {
        let host = self.setup.take().unwrap().start();
        host.wait_status("FreeSWITCH is there", |status| {
            status["links"]["esl"]["state"] == "ready"
        });
        host
    }

    /// A journal of these events that Redis does not have; the host is gone.
    fn pile_up(&mut self) {
        self.redis.kill();
        let host = self.start();
        host.wait_redis_away();
        numbered::fire(&self.switch, 0..EVENTS);
        // Each life of a host counts from a number of its own.
        host.wait_status("all is decided", |status| {
            let decided = status["journal"]["decided"].as_u64().unwrap();
            decided % (1 << 40) >= EVENTS && status["journal"]["waiting"] == 0
        });
        self.setup = Some(host.kill());
        self.redis.up();
    }

    fn journal(&self) -> PathBuf {
        self.setup.as_ref().unwrap().journal()
    }

    /// Runs the host with the journal as it is, on an empty Redis. What is in the stream then, and how many damaged places were
    /// counted.
    fn deliver(&mut self) -> (Vec<u64>, f64) {
        self.redis.ask::<()>(&["FLUSHALL"]);
        let host = self.start();
        host.wait_ready();
        // What comes now comes after all that can still be read.
        numbered::fire(&self.switch, EVENTS..EVENTS + 1);
        crate::harness::wait_for("the newest event is in Redis", || {
            let numbers = numbered::in_stream(&self.redis, STREAM);
            numbers.ends_with(&[EVENTS]).then_some(())
        });
        host.wait_settled(0);
        let quarantined = host.metric("jackfield_journal_quarantined").unwrap();
        self.setup = Some(host.kill());
        (numbered::in_stream(&self.redis, STREAM), quarantined)
    }
}

/// What the folder of filters holds in there is none of the journal's.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.is_file());
    paths
}

/// A copy of a folder's files, to begin with again.
struct Copy(Vec<(PathBuf, Vec<u8>)>);

impl Copy {
    fn of(dir: &Path) -> Copy {
        let files = files(dir).into_iter();
        Copy(
            files
                .map(|path| (path.clone(), fs::read(path).unwrap()))
                .collect(),
        )
    }

    fn put_back(&self, dir: &Path) {
        for path in files(dir) {
            fs::remove_file(path).unwrap();
        }
        for (path, bytes) in &self.0 {
            fs::write(path, bytes).unwrap();
        }
    }

    /// The segment with the events: the largest in use.
    fn segment(&self) -> (&Path, &[u8]) {
        let segments = self
            .0
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|end| end == "jnl"));
        let (path, bytes) = segments.max_by_key(|(_, bytes)| used(bytes)).unwrap();
        (path, bytes)
    }
}

/// Up to the last byte that is not zero.
fn used(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

/// Where the records of a segment begin, by `docs/journal.md` alone.
fn records(segment: &[u8]) -> Vec<usize> {
    let number = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().unwrap()) as usize;
    let mut at = number(12);
    let mut records = Vec::new();
    while segment.get(at..at + 4) == Some(&[0xf5, 0x4a, 0x52, 0x00]) {
        records.push(at);
        at += (48 + number(at + 4)).next_multiple_of(8);
    }
    records
}

fn with_bit_turned(bytes: &[u8], at: usize, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << dice.within(0..8);
    bytes
}

/// Fields of what begins at a byte of a segment: their names, and from where to where they reach.
type Fields<'a> = &'a [(&'a str, std::ops::Range<u64>)];

/// Turns a bit in each of these fields, each time in the same journal. `begins` chooses where the fields begin; `check` is given
/// what arrived, how many damaged places were counted, and what was done.
async fn turn_bits(
    test: &str,
    fields: Fields<'_>,
    begins: impl Fn(&[u8], &mut Dice) -> usize,
    check: impl Fn(&[u64], f64, &str),
) {
    for seed in seeds(test, &[1]) {
        let (mut dice, mut bench) = (Dice::new(seed), Bench::new().await);
        bench.pile_up();
        let copy = Copy::of(&bench.journal());
        let (path, bytes) = copy.segment();
        for (field, range) in fields {
            for _ in 0..rounds(1, 8) {
                copy.put_back(&bench.journal());
                let at = begins(bytes, &mut dice) + dice.within(range.clone()) as usize;
                fs::write(path, with_bit_turned(bytes, at, &mut dice)).unwrap();
                let (numbers, damaged) = bench.deliver();
                let what = format!("{field}, byte {at}: {numbers:?}, {damaged} damaged places");
                check(&numbers, damaged, &what);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turned_bit_in_any_field_of_a_record_costs_that_event_at_most() {
    let test = "faults::damage::a_turned_bit_in_any_field_of_a_record_costs_that_event_at_most";
    let fields = [
        ("magic", 0..4),
        ("length", 4..8),
        ("checksum", 8..12),
        ("kind", 12..13),
        ("zeros", 13..16),
        ("LSN", 16..24),
        ("time", 24..32),
        ("connection", 32..36),
        ("offset", 40..48),
        ("payload", 48..148),
    ];
    let a_record = |bytes: &[u8], dice: &mut Dice| {
        // Not the last one: what is damaged there counts as a write that was not finished.
        let places = records(bytes);
        *dice.pick(&places[..places.len() - 1])
    };
    let check = |numbers: &[u64], damaged: f64, what: &str| {
        let in_order = numbers.is_sorted_by(|one, next| one < next);
        assert!(in_order, "each once, in order: {what}");
        let enough = numbers.len() as u64 >= EVENTS;
        assert!(enough, "one is gone at most: {what}");
        assert!(damaged >= 1.0, "it is counted: {what}");
    };
    turn_bits(test, &fields, a_record, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turned_bit_in_any_field_of_a_header_costs_nothing() {
    let test = "faults::damage::a_turned_bit_in_any_field_of_a_header_costs_nothing";
    let fields = [
        ("magic", 0..8),
        ("version", 8..12),
        ("length", 12..16),
        ("journal id", 16..32),
        ("first LSN", 32..40),
        ("decided LSN", 40..48),
        ("time", 48..56),
        ("name", 56..60),
    ];
    let check = |numbers: &[u64], _: f64, what: &str| {
        let all = numbers.iter().copied().eq(0..=EVENTS);
        assert!(all, "all, each once, in order: {what}");
    };
    turn_bits(test, &fields, |_, _| 0, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_cut_at_any_byte_of_its_last_records_costs_what_was_cut() {
    for seed in seeds(
        "faults::damage::a_file_cut_at_any_byte_of_its_last_records_costs_what_was_cut",
        &[1],
    ) {
        let (mut dice, mut bench) = (Dice::new(seed), Bench::new().await);
        bench.pile_up();
        let copy = Copy::of(&bench.journal());
        let (path, bytes) = copy.segment();
        let places = records(bytes);
        let half = places[places.len() / 2];
        for _ in 0..rounds(10, 300) {
            copy.put_back(&bench.journal());
            let end = dice.within(half as u64..used(bytes) as u64) as usize;
            fs::write(path, &bytes[..end]).unwrap();
            let (numbers, _) = bench.deliver();
            let (last, before) = numbers.split_last().unwrap();
            let kept = before.len() as u64;
            assert!(
                before.iter().copied().eq(0..kept) && *last == EVENTS,
                "cut at {end}: {numbers:?}"
            );
            assert!(
                kept >= EVENTS / 2 - 2,
                "cut at {end}: what was before it is there: {numbers:?}"
            );
        }
    }
}

/// Two lives of a host whose events are all in Redis; then `damage` is done to its folder; the third life must bring what is new.
async fn goes_on_after(damage: impl Fn(&Path, &Copy)) -> Host {
    let mut bench = Bench::new().await;
    let host = bench.start();
    host.wait_ready();
    numbered::fire(&bench.switch, 0..100);
    host.wait_settled(100);
    bench.setup = Some(host.stop());
    let first = Copy::of(&bench.journal());
    let host = bench.start();
    host.wait_ready();
    numbered::fire(&bench.switch, 100..200);
    host.wait_settled(100);
    bench.setup = Some(host.kill());
    damage(&bench.journal(), &first);
    let host = bench.start();
    host.wait_ready();
    numbered::fire(&bench.switch, 200..300);
    host.wait_settled(100);
    numbered::check(&bench.redis, STREAM, 0..300);
    host
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths = files(dir);
    paths.retain(|path| path.extension().is_some_and(|end| end == "jnl"));
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_name_of_the_newest_file_costs_no_event_that_comes_later() {
    goes_on_after(|dir, _| fs::remove_file(segments(dir).pop().unwrap()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_name_of_the_oldest_file_costs_no_event_that_comes_later() {
    goes_on_after(|dir, _| fs::remove_file(segments(dir).remove(0)).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_put_back_from_an_older_copy_costs_no_event_that_comes_later() {
    let host = goes_on_after(|dir, first| first.put_back(dir)).await;
    host.wait_log("journal is older than Redis");
}
