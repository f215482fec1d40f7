use jackfield_sdk::testing::{event, filter};

use super::Redact;

const SALT: &str = "salt = \"0123456789abcdef\"";

fn refusal(settings: &str) -> String {
    filter::<Redact>(settings)
        .err()
        .expect("the settings should be refused")
}

#[test]
fn a_masked_header_shows_its_last_characters() {
    let mut redact: Redact =
        filter("mask = ['Caller-ANI', 'Caller-Callee-ID-Number', 'Caller-RDNIS']").unwrap();
    let after = event("CHANNEL_ANSWER")
        .header("Caller-ANI", "0301234567")
        .header("Caller-Callee-ID-Number", "42")
        .header("Caller-Username", "1000")
        .run(&mut redact);
    assert_eq!(after.get("Caller-ANI"), Some("********67"));
    assert_eq!(
        after.get("Caller-Callee-ID-Number"),
        Some("**"),
        "a value no longer than `keep` is hidden whole"
    );
    assert_eq!(
        after.get("Caller-Username"),
        Some("1000"),
        "only the named headers change"
    );
    assert_eq!(after.edits.len(), 2, "an absent header is not added");
}

#[test]
fn a_mask_counts_characters_not_bytes() {
    let mut redact: Redact = filter("mask = ['Caller-Caller-ID-Name']\nkeep = 4").unwrap();
    let after = event("CHANNEL_ANSWER")
        .header("Caller-Caller-ID-Name", "Jürgen Müßig")
        .run(&mut redact);
    assert_eq!(after.get("Caller-Caller-ID-Name"), Some("********üßig"));
}

#[test]
fn equal_values_have_equal_hashes_in_any_header() {
    let mut redact: Redact = filter(&format!("hash = ['a', 'b', 'c']\n{SALT}")).unwrap();
    let after = event("X")
        .header("a", "0301")
        .header("b", "0301")
        .header("c", "0302")
        .run(&mut redact);
    assert_eq!(after.get("a"), after.get("b"));
    assert_ne!(after.get("a"), after.get("c"));
    assert_eq!(after.get("a").map(str::len), Some(32));

    let mut other: Redact = filter("hash = ['a']\nsalt = 'another secret salt'").unwrap();
    assert_ne!(
        event("X").header("a", "0301").run(&mut other).get("a"),
        after.get("a"),
        "the salt is the key"
    );
}

#[test]
fn a_prefix_takes_every_header_that_an_exact_name_does_not() {
    let settings = format!("mask = ['variable_sip_*', '*-ANI*']\n{SALT}");
    assert_eq!(
        refusal(&settings),
        "`*-ANI*`: a `*` may only stand at the end of a name"
    );

    let mut redact: Redact = filter(&format!(
        "mask = ['variable_sip_*', 'E*']\nhash = ['variable_sip_from']\n{SALT}"
    ))
    .unwrap();
    let after = event("X")
        .header("variable_sip_to", "100")
        .header("variable_sip_from", "200")
        .header("variable_other", "300")
        .run(&mut redact);
    assert_eq!(after.get("variable_sip_to"), Some("*00"));
    assert_eq!(
        after.get("variable_sip_from").map(str::len),
        Some(32),
        "the exact name goes before the prefix"
    );
    assert_eq!(after.get("variable_other"), Some("300"));
    assert_eq!(after.get("Event-Name"), Some("X"), "routes need it");
}

#[test]
fn only_the_chosen_events_change() {
    let mut redact: Redact = filter("mask = ['a']\nevents = ['CHANNEL_ANSWER']").unwrap();
    assert_eq!(
        event("CHANNEL_ANSWER")
            .header("a", "123")
            .run(&mut redact)
            .get("a"),
        Some("*23")
    );
    assert_eq!(
        event("DTMF").header("a", "123").run(&mut redact).get("a"),
        Some("123")
    );
}

#[test]
fn mistakes_in_the_settings_are_named() {
    assert_eq!(
        refusal(""),
        "nothing to redact: name headers in `mask`, in `hash`, or in both"
    );
    assert_eq!(
        refusal(&format!("mask = ['a']\nhash = ['a']\n{SALT}")),
        "`a`: named twice; a header is masked or hashed, once"
    );
    assert_eq!(
        refusal("hash = ['a']\nsalt = 'short'"),
        "`salt` has 5 bytes: `hash` needs a secret of at least 16, or numbers could be guessed"
    );
    assert_eq!(
        refusal("mask = ['Event-Name']"),
        "`Event-Name`: always stays, because routes and filters need it"
    );
    assert_eq!(
        refusal("mask = ['']"),
        "``: a header's name is allowed, with a `*` at its end or without"
    );
    assert_eq!(
        refusal("mask = 'Caller-ANI'"),
        "settings: `mask`: invalid type: string \"Caller-ANI\", expected a sequence"
    );
    assert!(
        refusal("masks = []").contains("unknown field `masks`, expected one of `mask`, `keep`")
    );
    assert!(refusal("mask = ['a']\nkeep = -1").contains("`keep`: invalid value: integer `-1`"));
}

#[test]
fn the_example_settings_are_valid() {
    filter::<Redact>(include_str!("../redact.toml")).unwrap();
}
