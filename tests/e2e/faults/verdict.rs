//! The verdict on a trial: nothing lost, nothing twice, every stream in order, and accounts that say the same.
//!
//! It compares what the tap saw FreeSWITCH send with what is in Redis, in the dead letters and in the journal. That it notices what it
//! should, the tests at the end show.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use serde_json::Value;

use super::tap::{Key, Sent, key};
use super::trial::{DEAD, EVENTS, JOBS, Plan};
use super::watch::Peak;
use crate::harness::{Redis, Setup, jackfield};

/// What may be missing at the end, and is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Nothing: the host heard all that was sent.
    Nothing,
    /// What was sent while it did not listen, or what a power cut took from the journal before it was in Redis, in at most so many
    /// pieces; everything in the journal is there.
    Unheard(usize),
    /// What was sent while it did not listen, in at most so many pieces, of which each may have left a dead letter that is no event.
    Garbled(usize),
    /// What was sent while it did not listen, or was swallowed by what said that it was large: so many counted as lost.
    Swallowed { pieces: usize, too_large: usize },
    /// So many events that were too large; each was counted as lost.
    TooLarge(usize),
}

/// What came out of a trial.
pub(crate) struct Verdict {
    pub(crate) sent: Vec<Sent>,
    /// The events of each stream; with the dead letters are those of the local file.
    pub(crate) found: BTreeMap<&'static str, Vec<Key>>,
    /// What an operator took out of them.
    pub(super) removed: BTreeSet<Key>,
    /// Dead letters that are no events.
    pub(crate) malformed: usize,
    /// What the journal still has, in its order.
    pub(crate) journaled: Vec<Key>,
    /// The last `/status`, and log, of the last host.
    pub(crate) status: Value,
    pub(crate) log: String,
    pub(crate) peak: Peak,
    pub(crate) redis: Redis,
}

impl Verdict {
    #[track_caller]
    pub(super) fn check(&self, missing: Missing) {
        let (too_large, malformed, pieces) = match missing {
            Missing::Nothing => (0, 0, 0),
            Missing::Unheard(pieces) => (0, 0, pieces),
            Missing::Garbled(pieces) => (0, pieces, pieces),
            Missing::Swallowed { pieces, too_large } => (too_large, pieces, pieces),
            Missing::TooLarge(events) => (events, 0, events),
        };
        let counts = &self.status["counts"];
        assert_eq!(counts["lost"], too_large, "{:#}", self.status);
        assert!(
            self.malformed <= malformed,
            "{} dead letters are no events",
            self.malformed
        );
        let mut lost = 0;
        let journaled: BTreeSet<&Key> = self.journaled.iter().collect();
        let dead: BTreeSet<&Key> = self.found[DEAD].iter().collect();
        assert_eq!(
            dead.len(),
            self.found[DEAD].len(),
            "each dead letter is there once"
        );
        for stream in [EVENTS, JOBS] {
            let sent: Vec<&Key> = self
                .sent
                .iter()
                .filter(|one| one.stream == stream)
                .map(|one| &one.key)
                .collect();
            let found: Vec<&Key> = self.found[stream].iter().collect();
            assert!(found.len() > 10, "{stream}: only {} entries", found.len());
            check_order(stream, &sent, &found);
            let out: BTreeSet<&Key> = dead.iter().copied().chain(&self.removed).collect();
            let twice = found.iter().find(|key| out.contains(*key));
            assert!(
                twice.is_none(),
                "{stream}: {twice:?} is a dead letter or was taken out, and is there"
            );
            let there: BTreeSet<&Key> = found.into_iter().chain(out).collect();
            let gone: Vec<bool> = sent.iter().map(|key| !there.contains(key)).collect();
            let gaps = gaps(&gone);
            let count = gone.iter().filter(|gone| **gone).count();
            assert!(
                gaps <= pieces,
                "{stream}: {count} of {} are missing in {gaps} pieces, the first at {:?}\n{:#}",
                sent.len(),
                gone.iter().position(|gone| *gone),
                self.status,
            );
            lost += count;
            let mut kept = sent
                .iter()
                .zip(&gone)
                .filter(|(key, gone)| **gone && journaled.contains(*key));
            assert!(
                kept.next().is_none(),
                "{stream}: in the journal, and not in Redis"
            );
        }
        if let Missing::TooLarge(events) = missing {
            assert_eq!(lost, events, "what is missing is what was too large");
            assert_eq!(counts["lost_by"]["too_large"], events, "{:#}", self.status);
        }
    }
}

/// How many runs of missing ones there are.
fn gaps(gone: &[bool]) -> usize {
    let begins = |(place, is_gone): (usize, &bool)| *is_gone && (place == 0 || !gone[place - 1]);
    gone.iter().enumerate().filter(|one| begins(*one)).count()
}

/// What was found was sent, and comes in the order of its sending, each once.
#[track_caller]
fn check_order(stream: &str, sent: &[&Key], found: &[&Key]) {
    let places: HashMap<&Key, usize> = sent
        .iter()
        .enumerate()
        .map(|(place, key)| (*key, place))
        .collect();
    let mut last: Option<(usize, &Key)> = None;
    for (entry, key) in found.iter().enumerate() {
        let place = places.get(key);
        let place =
            *place.unwrap_or_else(|| panic!("{stream}, entry {entry}: {key:?} was never sent"));
        if let Some((before, other)) = last {
            assert!(
                place > before,
                "{stream}, entry {entry}: {key:?}, sent as number {place}, after {other:?}, sent as number {before}"
            );
        }
        last = Some((place, key));
    }
}

/// The events of a journal, as `jackfield journal export` tells.
pub(super) fn journaled(setup: &Setup) -> Vec<Key> {
    let mut export = Command::new(jackfield());
    export
        .args(["journal", "export", "--json"])
        .arg(setup.journal());
    let output = export.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let records = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    records
        .filter_map(|record| record["event"].as_object().map(key))
        .collect()
}

/// The verdict on a good trial that somebody has meddled with.
async fn meddled(meddle: fn(&Redis, &str, &str)) -> String {
    let trial = Plan::new(1).start().await;
    trial.hold_calls();
    trial.host().wait_settled(0);
    type Entries = Vec<(String, Vec<(String, String)>)>;
    let entries: Entries = trial.redis.ask(&["XRANGE", JOBS, "-", "+"]);
    let (id, fields) = &entries[entries.len() / 2];
    meddle(&trial.redis, id, &fields[0].1);
    let judge = AssertUnwindSafe(|| drop(trial.verdict(Missing::Nothing)));
    let noticed = catch_unwind(judge).expect_err("it is noticed");
    noticed
        .downcast_ref::<String>()
        .cloned()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_gone_is_noticed() {
    let said = meddled(|redis, id, _| redis.ask(&["XDEL", JOBS, id])).await;
    assert!(
        said.contains("1 of") && said.contains("are missing in 1 pieces"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_there_twice_is_noticed() {
    let said = meddled(|redis, _, event| redis.ask(&["XADD", JOBS, "*", "event", event])).await;
    assert!(said.contains("sent as number"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_in_another_place_is_noticed() {
    let said = meddled(|redis, id, event| {
        redis.ask::<()>(&["XDEL", JOBS, id]);
        redis.ask::<()>(&["XADD", JOBS, "*", "event", event]);
    });
    let said = said.await;
    assert!(said.contains("sent as number"), "{said}");
}
