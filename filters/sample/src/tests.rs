use jackfield_sdk::testing::{event, filter};
use jackfield_sdk::{Filter, Verdict};

use super::Sample;

fn refusal(settings: &str) -> String {
    filter::<Sample>(settings)
        .err()
        .expect("the settings should be refused")
}

/// How many of a thousand calls are kept.
fn kept(settings: &str) -> usize {
    let mut sample: Sample = filter(settings).unwrap();
    let mut is_kept = |call: &usize| {
        let event = event("CHANNEL_ANSWER").header("Unique-ID", call.to_string());
        let verdict = event.run(&mut sample).verdict;
        assert!(verdict == Verdict::Pass || verdict == Verdict::drop("not in the sample"));
        verdict == Verdict::Pass
    };
    (0..1_000).filter(|call| is_kept(call)).count()
}

#[test]
fn about_the_share_of_the_calls_is_kept() {
    assert!((70..130).contains(&kept("one_in = 10")));
    assert_eq!(kept("one_in = 10"), kept("share = 0.1"), "the same calls");
    assert!((220..280).contains(&kept("share = 0.25")));
    assert_eq!(kept("one_in = 1"), 1_000);
    assert_eq!(kept("share = 1.0"), 1_000);
}

#[test]
fn all_events_of_a_call_and_of_its_second_leg_stay_or_go_together() {
    let mut sample: Sample = filter("share = 0.5").unwrap();
    for call in 0..100 {
        let (first, second) = (format!("first-{call}"), format!("second-{call}"));
        let events = [
            event("CHANNEL_CREATE").header("Unique-ID", &first),
            event("CHANNEL_OUTGOING")
                .header("Unique-ID", &second)
                .header("Other-Type", "originator")
                .header("Other-Leg-Unique-ID", &first),
            event("CHANNEL_BRIDGE")
                .header("Unique-ID", &first)
                .header("Other-Type", "originatee")
                .header("Other-Leg-Unique-ID", &second),
        ];
        let mut verdicts: Vec<Verdict> = events
            .into_iter()
            .map(|event| event.run(&mut sample).verdict)
            .collect();
        verdicts.dedup();
        assert_eq!(verdicts.len(), 1, "call {call}");
    }
}

#[test]
fn chosen_headers_decide_in_place_of_the_call() {
    let mut sample: Sample = filter("share = 0.5\nby = ['tenant']").unwrap();
    assert_eq!(sample.manifest().headers, ["tenant"]);
    let mut verdict = |tenant: &str, call: usize| {
        let event = event("CHANNEL_ANSWER").header("tenant", tenant);
        event
            .header("Unique-ID", call.to_string())
            .run(&mut sample)
            .verdict
    };
    let of = |verdict: &mut dyn FnMut(&str, usize) -> Verdict, tenant: &str| {
        let mut verdicts: Vec<Verdict> = (0..50).map(|call| verdict(tenant, call)).collect();
        verdicts.dedup();
        verdicts
    };
    let tenants = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|tenant| of(&mut verdict, tenant));
    assert!(tenants.iter().all(|verdicts| verdicts.len() == 1));
    let kept = tenants
        .iter()
        .filter(|verdicts| **verdicts == [Verdict::Pass]);
    assert!((1..8).contains(&kept.count()), "some of eight tenants");
}

#[test]
fn an_event_of_no_call_passes_and_is_counted() {
    let mut sample: Sample = filter("share = 0.000001").unwrap();
    let after = event("HEARTBEAT").run(&mut sample);
    assert_eq!(after.verdict, Verdict::Pass);
    assert_eq!(after.counts["without_key"], 1);
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let cases = [
        (
            "",
            "nothing says how much to keep: give `one_in = 10` or `share = 0.1`",
        ),
        (
            "one_in = 2\nshare = 0.5",
            "it has `one_in` and `share`: choose one",
        ),
        (
            "one_in = 0",
            "`one_in` is 0: allowed is 1, which keeps all, or more",
        ),
        (
            "share = 1.5",
            "`share` is 1.5: allowed is more than 0, up to 1, which keeps all",
        ),
        ("share = 0.0", "`share` is 0: allowed is more than 0"),
        ("one_in = 2\nby = ['']", "`by` has an empty name"),
    ];
    for (settings, expected) in cases {
        let error = refusal(settings);
        assert!(error.starts_with(expected), "{settings:?}: {error}");
    }
    assert!(
        refusal("rate = 1").contains("unknown field `rate`, expected one of `one_in`, `share`")
    );
}

#[test]
fn the_example_settings_are_valid() {
    filter::<Sample>(include_str!("../sample.toml")).unwrap();
}
