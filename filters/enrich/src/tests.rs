use jackfield_sdk::Filter;
use jackfield_sdk::testing::{Handled, event, filter};

use super::Enrich;

const EXAMPLE: &str = include_str!("../enrich.toml");

fn call(enrich: &mut Enrich, number: &str) -> Handled {
    event("CHANNEL_ANSWER")
        .header("Caller-Destination-Number", number)
        .run(enrich)
}

fn refusal(settings: &str) -> String {
    filter::<Enrich>(settings)
        .err()
        .expect("the settings should be refused")
}

#[test]
fn the_longest_prefix_wins() {
    let mut enrich: Enrich = filter(EXAMPLE).unwrap();
    let berlin = call(&mut enrich, "+49301234567");
    assert_eq!(berlin.get("X-Area"), Some("Berlin"));
    assert_eq!(berlin.get("X-Country"), Some("DE"));
    let germany = call(&mut enrich, "+491701234567");
    assert_eq!(germany.get("X-Area"), None, "entries are not merged");
    assert_eq!(germany.get("X-Country"), Some("DE"));
    assert_eq!(call(&mut enrich, "+49").get("X-Country"), Some("DE"));
}

#[test]
fn what_is_not_in_the_table_gets_the_default_and_is_counted() {
    let mut enrich: Enrich = filter(EXAMPLE).unwrap();
    let after = call(&mut enrich, "+1");
    assert_eq!(after.get("X-Country"), Some("unknown"));
    assert_eq!(after.counts["not_found"], 1);
    assert_eq!(
        call(&mut enrich, "ünknown").get("X-Country"),
        Some("unknown")
    );
}

#[test]
fn an_event_without_the_header_stays_as_it_is() {
    let mut enrich: Enrich = filter(EXAMPLE).unwrap();
    let after = event("CHANNEL_ANSWER").run(&mut enrich);
    assert!(after.edits.is_empty() && after.counts.is_empty());
}

#[test]
fn an_exact_key_is_the_whole_value_and_replaces_what_was_there() {
    let settings = "header = 'Gateway'\n[table.carrier1]\nX-Carrier = 'One'";
    let mut enrich: Enrich = filter(settings).unwrap();
    assert_eq!(enrich.manifest().headers, ["Gateway"]);
    let mut carrier = |gateway: &str| {
        let event = event("CUSTOM").header("Gateway", gateway);
        let after = event.header("X-Carrier", "claimed").run(&mut enrich);
        after.get("X-Carrier").map(str::to_owned)
    };
    assert_eq!(carrier("carrier1").as_deref(), Some("One"));
    assert_eq!(carrier("carrier12").as_deref(), Some("claimed"));
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let cases = [
        (
            "[table.a]\nb = 'c'",
            "`header` is missing or empty: name the header to look up",
        ),
        (
            "header = 'h'",
            "the table is empty: give at least one `[table.\"KEY\"]`",
        ),
        ("header = 'h'\n[table.a]", "table `a`: it sets no header"),
        (
            "header = 'h'\n[table.a]\nEvent-Name = 'x'",
            "table `a`: `Event-Name` stays as it is: routes and filters need it",
        ),
        (
            "header = 'h'\n[table.a]\nb = 'c'\n[default]\n'' = 'd'",
            "default: a header's name is empty",
        ),
        (
            "header = 'h'\nmatch = 'prefix'\n[table.'']\nb = 'c'",
            "table ``: a prefix has 1 to 128 bytes; `[default]` is for what has no other",
        ),
        (
            "match = 'suffix'",
            "settings: `match`: unknown variant `suffix`, expected `exact` or `prefix`",
        ),
        (
            "header = 'h'\n[table.a]\nb = 1",
            "settings: `table.a.b`: invalid type: integer `1`, expected a string",
        ),
    ];
    for (settings, expected) in cases {
        assert_eq!(refusal(settings), expected, "for {settings:?}");
    }
    assert!(refusal("headers = []").contains("unknown field `headers`, expected one of `header`"));
}

#[test]
fn the_example_settings_are_valid() {
    filter::<Enrich>(EXAMPLE).unwrap();
}
