use jackfield_sdk::testing::{event, filter};
use jackfield_sdk::{Filter, Verdict};

use super::Validate;

const EXAMPLE: &str = include_str!("../validate.toml");
const ID: &str = "6fedf11d-0a31-422f-9395-44217280da00";

fn verdict(validate: &mut Validate, headers: &[(&str, &str)]) -> Verdict {
    let add = |event: jackfield_sdk::testing::Incoming, (name, value): &(&str, &str)| {
        event.header(*name, *value)
    };
    let event = headers.iter().fold(event("CHANNEL_ANSWER"), add);
    event.run(validate).verdict
}

fn refusal(settings: &str) -> String {
    filter::<Validate>(settings)
        .err()
        .expect("the settings should be refused")
}

fn refused_rule(rule: &str) -> String {
    refusal(&format!("[[rule]]\n{rule}"))
}

#[test]
fn an_event_that_fails_is_dead_lettered_with_what_is_wrong() {
    let mut validate: Validate = filter(EXAMPLE).unwrap();
    let good = [
        ("Unique-ID", ID),
        ("Caller-Destination-Number", "+49301234567"),
    ];
    assert_eq!(verdict(&mut validate, &good), Verdict::Pass);
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&good[..1], "Caller-Destination-Number: missing"),
        (&good[1..], "Unique-ID: missing"),
        (
            &[("Unique-ID", "7"), good[1]],
            "Unique-ID: not of type uuid",
        ),
        (
            &[good[0], ("Caller-Destination-Number", "030")],
            "Caller-Destination-Number: not like its pattern",
        ),
    ];
    for (headers, reason) in cases {
        assert_eq!(
            verdict(&mut validate, headers),
            Verdict::dead_letter(reason)
        );
    }
}

#[test]
fn a_header_that_is_not_required_may_be_absent_but_not_wrong() {
    let rule = "[[rule]]\nevent = '*'\nheader = 'a'\nrequired = false\ntype = 'integer'";
    let mut validate: Validate = filter(&format!("action = 'drop'\n{rule}")).unwrap();
    assert_eq!(verdict(&mut validate, &[]), Verdict::Pass);
    assert_eq!(verdict(&mut validate, &[("a", "1")]), Verdict::Pass);
    assert_eq!(
        verdict(&mut validate, &[("a", "x")]),
        Verdict::drop("a: not of type integer")
    );
}

#[test]
fn a_mark_has_all_that_is_wrong() {
    let rules = "[[rule]]\nevent = '*'\nheader = 'a'\n[[rule]]\nevent = '*'\nheader = 'b'\ntype = 'number'\n";
    let mut validate: Validate = filter(&format!("action = 'mark'\n{rules}")).unwrap();
    let after = event("X").header("b", "?").run(&mut validate);
    assert_eq!(after.verdict, Verdict::Pass);
    assert_eq!(
        after.get("X-Invalid"),
        Some("a: missing; b: not of type number")
    );
    assert_eq!(after.counts["marked"], 1);
    let good = event("X")
        .header("a", "")
        .header("b", "1")
        .run(&mut validate);
    assert_eq!(good.get("X-Invalid"), None);
}

#[test]
fn a_rule_looks_at_its_own_events() {
    let rule = "[[rule]]\nevent = 'CUSTOM sofia::register'\nheader = 'from-user'";
    let mut validate: Validate = filter(rule).unwrap();
    assert_eq!(validate.manifest().events, ["CUSTOM sofia::register"]);
    let mut custom = |subclass: &str| {
        let event = event("CUSTOM").header("Event-Subclass", subclass);
        event.run(&mut validate).verdict
    };
    assert_eq!(
        custom("sofia::register"),
        Verdict::dead_letter("from-user: missing")
    );
    assert_eq!(custom("sofia::unregister"), Verdict::Pass);
    let both = "[[rule]]\nevent = 'A'\nheader = 'a'\n[[rule]]\nevent = '*'\nheader = 'b'";
    let mut validate: Validate = filter(both).unwrap();
    assert!(validate.manifest().events.is_empty());
    let other = event("B").header("b", "1").run(&mut validate);
    assert_eq!(other.verdict, Verdict::Pass, "the first rule is for `A`");
}

#[test]
fn mistakes_in_the_settings_are_named() {
    assert_eq!(
        refusal(""),
        "no rule: give at least one `[[rule]]`, or remove the filter"
    );
    let mark = refusal("action = 'mark'\nmark = ''\n[[rule]]\nevent = '*'\nheader = 'a'");
    assert_eq!(mark, "`mark` is empty: name the header to set");
    let cases = [
        (
            "event = 'A*'\nheader = 'a'",
            "rule 1: `event` is `A*`: a whole name is allowed, or `*` alone for every event",
        ),
        (
            "event = '*'\nheader = ''",
            "rule 1: `header` has 0 bytes: allowed are 1 to 100",
        ),
        (
            "event = '*'\nheader = 'a'\nrequired = false",
            "rule 1: it checks nothing: a header that is not `required` needs a `type` or a `pattern`",
        ),
        (
            "event = '*'\nheader = 'a'\npattern = 'b\\'",
            "rule 1: `pattern` is `b\\`: nothing follows the backslash at its end",
        ),
        (
            "event = '*'\nheader = 'a'\ntype = 'date'",
            "settings: `rule[0].type`: unknown variant `date`, expected one of `integer`, `number`, `uuid`, `time`",
        ),
        ("event = '*'", "settings: `rule[0]`: missing field `header`"),
    ];
    for (rule, expected) in cases {
        assert_eq!(refused_rule(rule), expected, "for {rule:?}");
    }
    assert!(
        refused_rule("events = 'A'").contains("unknown field `events`, expected one of `event`")
    );
}

#[test]
fn the_example_settings_are_valid() {
    filter::<Validate>(EXAMPLE).unwrap();
}
