use jackfield_sdk::testing::{Handled, event, filter, reload};
use jackfield_sdk::{Filter, Verdict};

use super::Dedup;
use super::settings::Settings;

const SECOND: u64 = 1_000_000;

fn sequence(dedup: &mut Dedup, number: u64, now: u64) -> Handled {
    event("CHANNEL_ANSWER")
        .header("Core-UUID", "core")
        .header("Event-Sequence", number.to_string())
        .at(now)
        .run(dedup)
}

fn passes(dedup: &mut Dedup, number: u64, now: u64) -> bool {
    let verdict = sequence(dedup, number, now).verdict;
    assert!(verdict == Verdict::Pass || verdict == Verdict::drop("duplicate"));
    verdict == Verdict::Pass
}

fn refusal(settings: &str) -> String {
    filter::<Dedup>(settings)
        .err()
        .expect("the settings should be refused")
}

#[test]
fn an_event_that_came_within_the_window_is_dropped() {
    let mut dedup: Dedup = filter("").unwrap();
    assert!(passes(&mut dedup, 1, 0));
    assert!(passes(&mut dedup, 2, 0));
    assert!(!passes(&mut dedup, 1, 5 * SECOND));
    assert!(
        passes(&mut dedup, 1, 5 * SECOND + 1),
        "the window counts from the first"
    );
    assert!(
        !passes(&mut dedup, 1, 6 * SECOND),
        "and begins anew with the one that passed"
    );
}

#[test]
fn all_key_headers_count() {
    let mut dedup: Dedup = filter("by = ['Unique-ID', 'Event-Name']").unwrap();
    let mut verdict = |name: &str, id: &str| {
        let event = event(name).header("Unique-ID", id);
        event.run(&mut dedup).verdict
    };
    assert_eq!(verdict("CHANNEL_ANSWER", "1"), Verdict::Pass);
    assert_eq!(verdict("CHANNEL_ANSWER", "2"), Verdict::Pass);
    assert_eq!(verdict("CHANNEL_HANGUP", "1"), Verdict::Pass);
    assert_eq!(verdict("CHANNEL_ANSWER", "1"), Verdict::drop("duplicate"));
}

#[test]
fn an_event_without_a_key_passes_and_is_counted() {
    let mut dedup: Dedup = filter("").unwrap();
    for _ in 0..2 {
        let after = event("X").header("Core-UUID", "core").run(&mut dedup);
        assert_eq!(after.verdict, Verdict::Pass);
        assert_eq!(after.counts["without_key"], 1);
    }
}

#[test]
fn a_late_event_takes_nothing_away() {
    let mut dedup: Dedup = filter("").unwrap();
    let hour = 3_600 * SECOND;
    assert!(passes(&mut dedup, 1, hour));
    assert!(passes(&mut dedup, 2, 0), "such as a replayed dead letter");
    assert!(!passes(&mut dedup, 1, hour));
    assert!(
        passes(&mut dedup, 1, 0),
        "seen an hour later is not seen within the window"
    );
}

#[test]
fn at_its_bound_it_forgets_the_oldest_and_counts() {
    let mut dedup: Dedup = filter("max_keys = 2").unwrap();
    assert!(passes(&mut dedup, 1, 0));
    assert!(passes(&mut dedup, 2, 0));
    assert_eq!(sequence(&mut dedup, 3, 0).counts["evicted"], 1);
    assert!(!passes(&mut dedup, 2, 0));
    assert!(passes(&mut dedup, 1, 0), "the oldest is gone");
    assert_eq!(dedup.save().len(), 1 + 2 * 24);
}

#[test]
fn a_reload_repeats_nothing() {
    let mut old: Dedup = filter("").unwrap();
    for number in 0..10 {
        assert!(passes(&mut old, number, 0));
    }
    let mut new: Dedup = reload(&old, "").unwrap();
    for number in 0..10 {
        assert!(!passes(&mut new, number, SECOND));
    }
    assert!(passes(&mut new, 10, SECOND));
    let mut smaller: Dedup = reload(&old, "max_keys = 2").unwrap();
    assert!(!passes(&mut smaller, 9, SECOND), "the newest stay");
    assert!(passes(&mut smaller, 7, SECOND));
    let mut shorter: Dedup = reload(&old, "window = '500ms'").unwrap();
    assert!(passes(&mut shorter, 9, SECOND));
}

#[test]
fn a_damaged_state_is_left_and_the_memory_begins_empty() {
    for saved in [vec![], vec![2], vec![1; 1 + 23], vec![1; 1 + 25]] {
        let mut dedup = Dedup::new(Settings::default(), Some(saved)).unwrap();
        assert_eq!(dedup.save(), [1], "an empty memory");
        assert!(passes(&mut dedup, 1, 0));
    }
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let cases = [
        (
            "window = '0s'",
            "`window` is 0ns: allowed is more than zero, up to 24h",
        ),
        (
            "window = '25h'",
            "`window` is 90000s: allowed is more than zero, up to 24h",
        ),
        (
            "window = 5",
            "settings: `window`: invalid type: integer `5`, expected a duration such as `300ms`, `5s` or `1h30m`",
        ),
        ("max_keys = 0", "`max_keys` is 0: allowed are 1 to 1000000"),
        (
            "by = []",
            "`by` is empty: name the headers that make an event the same",
        ),
        ("by = ['']", "`by` has an empty name"),
    ];
    for (settings, expected) in cases {
        assert_eq!(refusal(settings), expected, "for {settings:?}");
    }
    assert!(
        refusal("windows = '5s'").contains("unknown field `windows`, expected one of `window`")
    );
}

#[test]
fn the_example_settings_are_valid() {
    filter::<Dedup>(include_str!("../dedup.toml")).unwrap();
}
