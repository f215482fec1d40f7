//! The lane's rules one by one, each against the Redis in memory.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::acknowledged::EntryId;
use super::fake::{Client, Server, parse};
use super::host::{BEGIN, DEAD, Fault, Host, entry};
use super::standing::{Claim, Retained, Why};
use super::step::{Loss, Note, Step};

const CURSOR: &str = "jackfield:fs1:cursor";
const OWNER: &str = "jackfield:fs1:owner";

struct Bench {
    server: Server,
    host: Host,
    now: Instant,
}

impl Bench {
    /// A host that has claimed the cursor and written `count` events to stream `a`.
    fn after(count: usize) -> Bench {
        let mut bench = Bench {
            server: Server::new(),
            host: Host::new("A"),
            now: Instant::now(),
        };
        bench.decide(count);
        bench.turns(20);
        assert_eq!(bench.server.entries("a").len(), count, "all is written");
        bench.host.notes.clear();
        bench
    }

    fn decide(&mut self, count: usize) {
        let event = [BTreeSet::from([0])];
        (0..count).for_each(|_| self.host.decide(&event, false));
    }

    fn turns(&mut self, turns: usize) {
        for _ in 0..turns {
            if self.host.end.is_none() {
                self.host.turn(&mut self.server, &mut self.now);
            }
        }
    }

    #[track_caller]
    fn finish(mut self) -> Host {
        self.host.finish(&mut self.server, &mut self.now);
        self.host.check(&self.server);
        self.host
    }
}

fn why(note: &Note) -> Option<&Why> {
    match note {
        Note::Claimed(Claim { why, .. }) => Some(why),
        _ => None,
    }
}

#[test]
fn a_new_lane_claims_the_cursor_and_names_its_owner() {
    let mut bench = Bench::after(0);
    let first = format!("A:{BEGIN}");
    assert_eq!(bench.server.text(CURSOR), Some(first));
    assert_eq!(bench.server.text(OWNER).as_deref(), Some("A host-A"));
    bench.decide(3);
    bench.turns(10);
    assert_eq!(bench.server.text(CURSOR), Some(format!("A:{}", BEGIN + 3)));
}

#[test]
fn an_idle_lane_keeps_its_owner_key_and_commits_what_was_dropped() {
    let mut bench = Bench::after(1);
    bench.host.decide(&[], false);
    // Each turn of an idle lane is up to a second.
    for _ in 0..40 {
        bench.turns(1);
        assert!(
            bench.server.text(OWNER).is_some(),
            "the owner key never expires"
        );
    }
    assert_eq!(bench.server.text(CURSOR), Some(format!("A:{}", BEGIN + 2)));
}

#[test]
fn a_batch_whose_reply_was_lost_is_not_sent_again() {
    let mut bench = Bench::after(1);
    bench.decide(2);
    bench.turns(1);
    bench.host.fault = Some(Fault::DiesAfter(Loss::GivenUp));
    bench.turns(5);
    let through = BEGIN + 3;
    assert!(bench.host.notes.contains(&Note::ExecutedBefore { through }));
    assert_eq!(bench.finish().counts.delivered, 3);
}

/// A batch is sent, given up on and sent again; the first one arrives after that.
fn late(ignores_watch: bool) -> Bench {
    let mut bench = Bench::after(1);
    bench.server.ignores_watch = ignores_watch;
    bench.decide(2);
    bench.turns(1);
    bench.host.fault = Some(Fault::Late(Loss::GivenUp));
    bench.turns(10);
    assert_eq!(bench.server.entries("a").len(), 3, "it was sent again");
    bench.host.execute_late(&mut bench.server);
    bench
}

#[test]
fn a_late_batch_does_nothing_and_only_because_of_the_watch() {
    assert_eq!(late(false).server.entries("a").len(), 3);
    late(false).finish();
    assert_eq!(
        late(true).server.entries("a").len(),
        5,
        "it would be repeated"
    );
}

#[test]
fn a_late_batch_that_comes_first_fences_the_second_one() {
    let mut bench = Bench::after(1);
    bench.decide(2);
    bench.turns(1);
    bench.host.fault = Some(Fault::Late(Loss::GivenUp));
    // The send that is lost, and on a new connection the look and the check of the type.
    bench.turns(3);
    bench.host.execute_late(&mut bench.server);
    bench.turns(5);
    // After the time limit half of it was tried.
    let through = BEGIN + 2;
    assert!(
        bench.host.notes.contains(&Note::Fenced { through }),
        "{:?}",
        bench.host.notes
    );
    let through = BEGIN + 3;
    assert!(
        bench.host.notes.contains(&Note::ExecutedBefore { through }),
        "the whole was there: {:?}",
        bench.host.notes
    );
    bench.finish();
}

#[test]
fn a_redis_that_comes_back_with_less_is_healed() {
    let mut bench = Bench::after(2);
    let before = bench.server.clone();
    bench.decide(3);
    bench.turns(10);
    bench.server = before;
    bench.host.client = None;
    bench.host.lane.lost(Loss::Closed);
    bench.turns(10);
    let (after, through) = (BEGIN + 2, BEGIN + 5);
    assert!(bench.host.notes.contains(&Note::Healing { after, through }));
    let counts = bench.finish().counts;
    assert_eq!(
        (counts.delivered, counts.healed),
        (5, 3),
        "healed counts apart"
    );
}

#[test]
fn what_is_older_than_the_journal_is_reported_as_unhealable() {
    let mut bench = Bench::after(9);
    let retained = Retained {
        oldest: BEGIN + 8,
        is_complete: false,
    };
    bench.host.retained = retained;
    bench.server.set(CURSOR, &format!("A:{}", BEGIN + 3), None);
    bench.host.client = None;
    bench.turns(3);
    let unhealable = Note::Unhealable {
        after: BEGIN + 3,
        before: BEGIN + 8,
        missing: 4,
    };
    assert!(
        bench.host.notes.contains(&unhealable),
        "{:?}",
        bench.host.notes
    );
}

#[test]
fn a_lost_cursor_is_restored_and_a_lost_redis_refilled() {
    let mut bench = Bench::after(4);
    bench.server.delete(CURSOR);
    bench.turns(10);
    assert_eq!(
        bench.host.notes.iter().filter_map(why).next(),
        Some(&Why::Restore)
    );
    assert_eq!(bench.server.entries("a").len(), 4, "nothing is sent again");
    bench.host.notes.clear();
    bench.server.flush();
    bench.turns(20);
    let refill = Why::Refill {
        intact: BTreeSet::new(),
        written: BEGIN + 4,
    };
    assert_eq!(
        bench.host.notes.iter().filter_map(why).next(),
        Some(&refill)
    );
    let counts = bench.finish().counts;
    assert_eq!((counts.delivered, counts.healed), (4, 4));
}

#[test]
fn a_way_that_closes_every_connection_on_a_batch_makes_no_dead_letters() {
    let mut bench = Bench::after(1);
    bench.decide(3);
    // What comes before a batch gets through.
    bench.host.cut_at = 100;
    bench.turns(300);
    assert!(bench.host.notes.contains(&Note::Halved), "it was suspected");
    bench.host.cut_at = usize::MAX;
    let host = bench.finish();
    let kept = host.file.len() as u64;
    assert_eq!((host.counts.delivered, kept), (4, 0));
}

#[test]
fn a_way_that_is_well_again_whenever_it_is_makes_no_dead_letters() {
    for turns in 1..100 {
        let mut bench = Bench::after(1);
        bench.decide(1);
        bench.host.cut_at = 100;
        bench.turns(turns);
        bench.host.cut_at = usize::MAX;
        let host = bench.finish();
        let kept = host.file.len() as u64;
        assert_eq!((host.counts.delivered, kept), (2, 0), "after {turns}");
    }
}

#[test]
fn a_cursor_that_is_lost_before_a_batch_lets_it_be_sent_once() {
    let mut bench = Bench::after(4);
    bench.decide(2);
    // Taken, and not sent: the connection must ask for the type first.
    bench.host.lost(Loss::GivenUp);
    bench.turns(3);
    bench.server.delete(CURSOR);
    bench.turns(20);
    let notes = &bench.host.notes;
    let healing = notes
        .iter()
        .any(|note| matches!(note, Note::Healing { .. }));
    assert!(!healing, "what was not executed is no loss: {notes:?}");
    assert_eq!(bench.finish().counts.delivered, 6);
}

#[test]
fn a_stream_that_is_lost_with_the_cursor_is_filled_and_its_neighbor_left_alone() {
    let mut bench = Bench::after(4);
    bench.host.decide(&[BTreeSet::from([1])], false);
    bench.host.decide(&[BTreeSet::from([0, 1])], false);
    bench.turns(20);
    bench.server.delete("b");
    bench.server.delete(CURSOR);
    bench.decide(1);
    bench.turns(20);
    let lengths = ["a", "b"].map(|stream| bench.server.entries(stream).len());
    assert_eq!(lengths, [6, 2]);
    let counts = bench.finish().counts;
    assert_eq!((counts.delivered, counts.healed), (7, 2));
}

#[test]
fn a_stream_deleted_under_an_intact_cursor_is_not_healed() {
    let mut bench = Bench::after(4);
    bench.server.delete("a");
    bench.decide(1);
    bench.turns(10);
    assert_eq!(
        bench.server.entries("a").len(),
        1,
        "the operator's act stands"
    );
}

#[test]
fn a_lane_that_finds_another_id_in_its_cursor_ends() {
    let mut bench = Bench::after(1);
    bench.server.set(CURSOR, "B:7", None);
    bench.server.set(OWNER, "B over-there", None);
    bench.decide(1);
    bench.turns(10);
    assert_eq!(bench.host.end, Some(Some("over-there".to_owned())));
    assert_eq!(bench.server.entries("a").len(), 1, "and writes nothing");
}

#[test]
fn a_lane_whose_cursor_a_copy_of_its_journal_moves_ends() {
    let mut bench = Bench::after(1);
    bench.server.set(CURSOR, &format!("A:{}", BEGIN + 9), None);
    bench.decide(3);
    bench.turns(10);
    let twin = "a host with a copy of this journal".to_owned();
    assert_eq!(bench.host.end, Some(Some(twin)));
    assert_eq!(
        bench.host.counts.delivered, 1,
        "what the twin sent is not ours"
    );
}

#[test]
fn a_journal_that_lost_its_newest_files_sends_what_comes_later() {
    let mut bench = Bench::after(1);
    bench.host.restart(Some(0));
    bench.server.set(CURSOR, &format!("A:{}", BEGIN + 7), None);
    bench.decide(3);
    let host = bench.finish();
    assert_eq!(
        host.counts.delivered, 3,
        "whatever Redis had under these numbers"
    );
    let outdated = Why::Outdated(BEGIN + 7);
    assert!(
        host.notes
            .iter()
            .filter_map(why)
            .any(|why| *why == outdated)
    );
}

#[test]
fn a_dead_owner_is_succeeded_and_a_living_one_is_left_the_name() {
    for (renewed_ms, adopted) in [(15_000, true), (60_000, false)] {
        let mut bench = Bench {
            server: Server::new(),
            host: Host::new("A"),
            now: Instant::now(),
        };
        bench.server.set(CURSOR, "B:7", None);
        let expires = bench.server.now_ms + renewed_ms;
        bench.server.set(OWNER, "B over-there", Some(expires));
        bench.decide(2);
        bench.turns(100);
        let before = "B:7".to_owned();
        let claimed = bench.host.notes.iter().filter_map(why).next() == Some(&Why::Adopt(before));
        assert_eq!(claimed, adopted, "after {renewed_ms} ms");
        let written = if adopted { 2 } else { 0 };
        assert_eq!(bench.server.entries("a").len(), written);
        let end = (!adopted).then(|| Some("over-there".to_owned()));
        assert_eq!(bench.host.end, end);
    }
}

#[test]
fn an_entry_that_kills_its_connection_is_kept_on_disk_and_its_neighbors_are_delivered() {
    let mut bench = Bench::after(0);
    bench.decide(2);
    bench.host.decide(&[BTreeSet::from([0])], true);
    bench.decide(3);
    let host = bench.finish();
    assert_eq!(host.file.len(), 1);
    assert_eq!((host.counts.delivered, host.counts.dead), (5, 1));
}

#[test]
fn what_neither_redis_nor_the_disk_takes_is_lost_and_counted() {
    let mut bench = Bench::after(0);
    bench.host.file_works = false;
    bench.server.hide("a");
    bench.server.hide(DEAD);
    bench.decide(3);
    bench.turns(20);
    let counts = &bench.host.counts;
    assert_eq!((counts.delivered, counts.dead, counts.lost), (0, 0, 3));
    assert_eq!(
        bench.server.text(CURSOR),
        Some(format!("A:{}", BEGIN + 3)),
        "and goes on"
    );
}

#[test]
fn a_type_that_changes_under_a_batch_makes_dead_letters_in_a_second_transaction() {
    let mut bench = Bench::after(1);
    bench.server.hide("a");
    bench.decide(2);
    bench.turns(10);
    assert_eq!(bench.server.entries(DEAD).len(), 2);
    bench.server.show("a");
    let counts = bench.finish().counts;
    assert_eq!((counts.delivered, counts.dead), (1, 2));
}

#[test]
fn a_full_redis_ends_the_connection_and_loses_nothing() {
    let mut bench = Bench::after(1);
    bench.server.is_full = true;
    bench.decide(2);
    bench.turns(2);
    let step = bench.host.lane.step(bench.now);
    assert!(
        matches!(&step, Step::Refused(error) if error.starts_with("OOM")),
        "{step:?}"
    );
    bench.turns(10);
    bench.server.is_full = false;
    assert_eq!(bench.finish().counts.delivered, 3);
}

#[test]
fn a_value_that_is_too_large_is_a_dead_letter_cut_short() {
    let mut bench = Bench::after(0);
    let lane = &mut bench.host.lane;
    lane.connected(10);
    let mut client = Client::default();
    let decision = crate::pipeline::Decision {
        lsn: BEGIN + 1,
        received_us: 0,
        decided_us: 0,
        events: vec![crate::route::Delivery {
            entries: vec![entry("a", "x".repeat(100_000))],
            dead: false,
        }],
    };
    let mut offered = Some(vec![decision.into()]);
    for _ in 0..6 {
        match lane.step(bench.now) {
            Step::Send(commands) => {
                let replies = bench.server.ask(&mut client, &parse(&commands)).unwrap();
                lane.replied(bench.now, bench.host.retained, &replies);
            }
            Step::Take { .. } => {
                if let Some(decisions) = offered.take() {
                    lane.taken(Some(decisions), 0);
                }
            }
            Step::Acknowledge(_) => assert_eq!(lane.acknowledged(Vec::new()).dead, 1),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        bench.server.entries(DEAD)[0].len(),
        64 << 10,
        "its beginning is kept"
    );
}

#[test]
fn batches_grow_while_a_backlog_is_drained() {
    let mut bench = Bench::after(0);
    let lane = &mut bench.host.lane;
    let most = |lane: &mut super::lane::Lane, now| match lane.step(now) {
        Step::Take { most, .. } => most,
        other => panic!("{other:?}"),
    };
    assert_eq!(most(lane, bench.now), 64);
    let full: Vec<_> = (1..=64_u64)
        .map(|number| {
            let events = vec![crate::route::Delivery {
                entries: vec![entry("a", number.to_string())],
                dead: false,
            }];
            crate::pipeline::Decision {
                lsn: BEGIN + number,
                received_us: 0,
                decided_us: 0,
                events,
            }
            .into()
        })
        .collect();
    lane.taken(Some(full), 0);
    let mut client = Client::default();
    let mut taken = None;
    for _ in 0..9 {
        match lane.step(bench.now) {
            Step::Send(commands) => {
                let replies = bench.server.ask(&mut client, &parse(&commands)).unwrap();
                lane.replied(bench.now, bench.host.retained, &replies);
            }
            Step::Acknowledge(_) => assert_eq!(lane.acknowledged(Vec::new()).delivered, 64),
            Step::Take { most, .. } => taken = Some(most),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(taken, Some(128), "a full take means that there is more");
    lane.idle(bench.now + Duration::from_secs(1), 0);
    assert_eq!(
        most(lane, bench.now + Duration::from_secs(1)),
        64,
        "and an idle lane starts small"
    );
}

#[test]
fn an_acknowledged_entry_is_remembered_by_its_id() {
    let bench = Bench::after(2);
    let known = bench.host.lane.known();
    assert_eq!(known.lsn, BEGIN + 2);
    let id = known.ids.get("a").copied();
    assert!(id.is_some_and(|id| id > EntryId::UNKNOWN), "{known:?}");
}
