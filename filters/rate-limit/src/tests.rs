use jackfield_sdk::testing::{Handled, event, filter, reload};
use jackfield_sdk::{Filter, Verdict};

use super::RateLimit;
use super::settings::Settings;

const SECOND: u64 = 1_000_000;
/// Any time that is not the first second of 1970.
const NOW: u64 = 1_795_221_672_529_642;

fn from(limit: &mut RateLimit, address: &str, now: u64) -> Handled {
    event("CUSTOM")
        .header("network-ip", address)
        .at(now)
        .run(limit)
}

/// How many of so many events at one time pass.
fn passing(limit: &mut RateLimit, address: &str, events: usize, now: u64) -> usize {
    let verdicts = (0..events).map(|_| from(limit, address, now).verdict);
    verdicts.filter(|verdict| *verdict == Verdict::Pass).count()
}

fn refusal(settings: &str) -> String {
    filter::<RateLimit>(settings)
        .err()
        .expect("the settings should be refused")
}

#[test]
fn a_hundred_a_second_pass_and_the_rest_is_dropped() {
    let mut limit: RateLimit = filter("").unwrap();
    assert_eq!(passing(&mut limit, "a", 150, NOW), 100, "a full bucket");
    assert_eq!(
        from(&mut limit, "b", NOW).verdict,
        Verdict::drop("rate limit"),
        "without `by` there is one bucket for all"
    );
    assert_eq!(
        passing(&mut limit, "a", 150, NOW + SECOND / 10),
        10,
        "a tenth of a second brings a tenth of the rate"
    );
    assert_eq!(
        passing(&mut limit, "a", 150, NOW + 60 * SECOND),
        100,
        "and no time more than a bucket holds"
    );
}

#[test]
fn each_key_has_its_bucket() {
    let mut limit: RateLimit = filter("by = ['network-ip']\nrate = 1\nburst = 3").unwrap();
    assert_eq!(passing(&mut limit, "a", 9, NOW), 3);
    assert_eq!(passing(&mut limit, "b", 9, NOW), 3);
    let mut without = || event("CUSTOM").at(NOW).run(&mut limit).verdict == Verdict::Pass;
    let passed = (0..9).filter(|_| without()).count();
    assert_eq!(passed, 3, "events without the header share one");
}

#[test]
fn a_slow_rate_is_kept_exactly() {
    let mut limit: RateLimit = filter("rate = 3\nper = '1m'\nburst = 1").unwrap();
    let passed = (0..600)
        .filter(|second| from(&mut limit, "a", NOW + second * SECOND).verdict == Verdict::Pass);
    assert_eq!(passed.count(), 30, "three a minute in ten minutes");
}

#[test]
fn above_the_limit_an_event_may_also_be_marked_or_dead_lettered() {
    let mut mark: RateLimit = filter("rate = 1\naction = 'mark'").unwrap();
    assert_eq!(from(&mut mark, "a", NOW).get("X-Rate-Limited"), None);
    let above = from(&mut mark, "a", NOW);
    assert_eq!(above.verdict, Verdict::Pass);
    assert_eq!(above.get("X-Rate-Limited"), Some("true"));
    assert_eq!(above.counts["marked"], 1);

    let mut keep: RateLimit = filter("rate = 1\naction = 'dead-letter'").unwrap();
    from(&mut keep, "a", NOW);
    assert_eq!(
        from(&mut keep, "a", NOW).verdict,
        Verdict::dead_letter("rate limit")
    );
}

#[test]
fn late_events_gain_nothing_and_a_clock_set_back_costs_nothing() {
    let mut limit: RateLimit = filter("").unwrap();
    assert_eq!(passing(&mut limit, "a", 200, NOW), 100);
    assert_eq!(passing(&mut limit, "a", 200, NOW - 2 * SECOND), 0);
    assert_eq!(
        passing(&mut limit, "a", 200, NOW - 3_600 * SECOND),
        100,
        "an hour ago the bucket begins anew"
    );
}

#[test]
fn at_its_bound_the_key_used_least_recently_goes() {
    let mut limit: RateLimit = filter("by = ['network-ip']\nrate = 1\nmax_keys = 2").unwrap();
    for address in ["a", "b", "a"] {
        from(&mut limit, address, NOW);
    }
    let evicting = from(&mut limit, "c", NOW);
    assert_eq!(evicting.counts["evicted"], 1);
    assert_eq!(
        passing(&mut limit, "a", 1, NOW),
        0,
        "`a` was used after `b`"
    );
    assert_eq!(passing(&mut limit, "b", 1, NOW), 1, "`b` was forgotten");
    let later = from(&mut limit, "d", NOW + SECOND);
    assert!(
        later.counts.is_empty(),
        "a bucket that is full again is no loss"
    );
}

#[test]
fn a_reload_gives_nobody_a_new_bucket() {
    let mut old: RateLimit = filter("by = ['network-ip']").unwrap();
    assert_eq!(passing(&mut old, "a", 60, NOW), 60);
    let mut new: RateLimit = reload(&old, "by = ['network-ip']").unwrap();
    assert_eq!(passing(&mut new, "a", 60, NOW), 40);
    let mut smaller: RateLimit = reload(&new, "by = ['network-ip']\nburst = 10").unwrap();
    assert_eq!(
        passing(&mut smaller, "a", 60, NOW),
        0,
        "with a smaller burst an empty bucket stays empty"
    );
}

#[test]
fn a_damaged_state_is_left_and_every_bucket_begins_full() {
    for saved in [vec![], vec![2], vec![1; 1 + 23]] {
        let mut limit = RateLimit::new(Settings::default(), Some(saved)).unwrap();
        assert_eq!(limit.save(), [1], "no bucket");
        assert_eq!(passing(&mut limit, "a", 200, NOW), 100);
    }
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let cases = [
        ("rate = 0", "`rate` is 0: allowed are 1 to 100000"),
        ("per = '10ms'", "`per` is 10ms: allowed are 1s to 24h"),
        ("burst = 0", "`burst` is 0: allowed are 1 to 100000"),
        ("max_keys = 0", "`max_keys` is 0: allowed are 1 to 1000000"),
        ("by = ['']", "`by` has an empty name"),
        (
            "action = 'mark'\nmark = ''",
            "`mark` is empty: name the header to set",
        ),
        (
            "action = 'wait'",
            "settings: `action`: unknown variant `wait`, expected one of `drop`, `mark`, `dead-letter`",
        ),
    ];
    for (settings, expected) in cases {
        assert_eq!(refusal(settings), expected, "for {settings:?}");
    }
    assert!(refusal("rates = 1").contains("unknown field `rates`, expected one of `by`, `rate`"));
}

#[test]
fn the_example_settings_are_valid() {
    filter::<RateLimit>(include_str!("../rate-limit.toml")).unwrap();
}
