use jackfield_sdk::Filter;
use jackfield_sdk::testing::{Handled, event, filter};

use super::Project;

fn run(settings: &str) -> Handled {
    let mut project: Project = filter(settings).unwrap();
    event("CHANNEL_ANSWER")
        .header("Unique-ID", "1")
        .header("Caller-ANI", "100")
        .header("Caller-RDNIS", "200")
        .header("variable_tenant", "acme")
        .run(&mut project)
}

#[track_caller]
fn check(settings: &str, expected: &[(&str, &str)]) {
    let after = run(settings);
    let headers: Vec<_> = after.headers().collect();
    assert_eq!(
        headers[0],
        ("Event-Name", "CHANNEL_ANSWER"),
        "the event's name always stays"
    );
    assert_eq!(headers[1..], *expected);
}

#[test]
fn keep_drops_everything_else() {
    check("keep = ['Unique-ID']", &[("Unique-ID", "1")]);
    check(
        "keep = ['Caller-*', 'absent']",
        &[("Caller-ANI", "100"), ("Caller-RDNIS", "200")],
    );
}

#[test]
fn drop_keeps_everything_else() {
    check(
        "drop = ['Caller-*', 'Unique-ID']",
        &[("variable_tenant", "acme")],
    );
    check("drop = ['*']", &[]);
    check(
        "drop = ['Caller-ANI', 'Caller-RDNIS', 'absent']",
        &[("Unique-ID", "1"), ("variable_tenant", "acme")],
    );
}

#[test]
fn a_renamed_header_stays_under_its_new_name() {
    check(
        "keep = ['Unique-ID']\nrename = { variable_tenant = 'Tenant' }",
        &[("Unique-ID", "1"), ("Tenant", "acme")],
    );
    check(
        "drop = ['*']\nrename = { variable_tenant = 'Tenant' }",
        &[("Tenant", "acme")],
    );
}

#[test]
fn a_new_name_may_be_that_of_a_header_that_goes() {
    check(
        "keep = ['Unique-ID']\nrename = { variable_tenant = 'Caller-ANI' }",
        &[("Unique-ID", "1"), ("Caller-ANI", "acme")],
    );
    check(
        "drop = ['Unique-ID', 'variable_tenant']\nrename = { Caller-ANI = 'Caller-RDNIS', Caller-RDNIS = 'Caller-ANI' }",
        &[("Caller-RDNIS", "100"), ("Caller-ANI", "200")],
    );
}

#[test]
fn only_renamed_headers_are_read() {
    let project: Project = filter("drop = ['a', 'b*']\nrename = { c = 'd' }").unwrap();
    assert_eq!(project.manifest().headers, ["c"]);
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let cases = [
        ("", "nothing to do: give `keep`, `drop` or `rename`"),
        (
            "keep = ['a']\ndrop = ['b']",
            "`keep` and `drop` are both given: `keep` alone drops everything else, so choose one",
        ),
        (
            "keep = ['a*b']",
            "`a*b`: a header's name is allowed, with a `*` at its end or without",
        ),
        (
            "drop = ['']",
            "``: a header's name is allowed, with a `*` at its end or without",
        ),
        (
            "drop = ['Event-Name']",
            "`drop` has `Event-Name`, which always stays: routes and filters need it",
        ),
        (
            "rename = { a = 'Event-Name' }",
            "rename `a` to `Event-Name`: `Event-Name` always stays as it is",
        ),
        ("rename = { a = '' }", "rename `a` to ``: a name is empty"),
        (
            "rename = { 'a*' = 'b' }",
            "rename `a*` to `b`: whole names are allowed, without `*`",
        ),
        (
            "rename = { a = 'a' }",
            "rename `a` to `a`: the names are the same",
        ),
        (
            "rename = { a = 'c', b = 'c' }",
            "rename `a` to `c`: another header gets the same new name",
        ),
        (
            "drop = ['a']\nrename = { a = 'b' }",
            "rename `a` to `b`: it is also in `keep` or `drop`: a renamed header stays, under its new name",
        ),
        (
            "keep = 'a'",
            "settings: `keep`: invalid type: string \"a\", expected a sequence",
        ),
    ];
    for (settings, expected) in cases {
        let error = filter::<Project>(settings).err();
        assert_eq!(error.as_deref(), Some(expected), "for {settings:?}");
    }
    assert!(
        filter::<Project>("keeps = []")
            .err()
            .unwrap()
            .contains("unknown field `keeps`, expected one of `keep`")
    );
}

#[test]
fn the_example_settings_are_valid() {
    filter::<Project>(include_str!("../project.toml")).unwrap();
}
