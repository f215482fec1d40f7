//! Dead letters: what each says, and how an operator lists, shows and replays them with `jackfield dead` beside a running host.

use std::process::Command;

use bytes::Bytes;
use jackfield::simulator::{Event, Simulator};
use serde_json::{Value, json};

use crate::harness::{Host, Redis, Setup, field, jackfield, post};
use crate::numbered::{self, STREAM};
use crate::scene::{DEAD, quiet_switch};

const TOKEN: &str = "token-1234";
/// The filter of these tests dead-letters every event.
const FILTER: &str = "10-dead";
/// Numbers of the first open of a journal begin here.
const FIRST_LSN: u64 = 1 << 40;
/// What a letter says of its event, in the order of their names.
const FIELDS: [&str; 6] = ["event", "filter", "lsn", "reason", "streams", "time"];

type Fields = Vec<(String, String)>;

/// A host with a token.
fn setup(switch: &Simulator, redis: &Redis) -> Setup {
    Setup::new(switch.addr(), redis)
        .env("JACKFIELD_FILTERS_DEADLINE", "1s")
        .env("JACKFIELD_HTTP_TOKEN", TOKEN)
}

fn with_filter(setup: Setup) -> Setup {
    setup.filter(FILTER, "hostile", "attack = \"dead-letter\"\n")
}

/// A ready host whose filter has dead-lettered so many events.
async fn host_with_letters(events: u64) -> (Simulator, Redis, Host) {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let host = with_filter(setup(&switch, &redis)).start();
    host.wait_ready();
    numbered::fire(&switch, 0..events);
    let status = host.wait_settled(events);
    assert_eq!(status["counts"]["dead_lettered"], events, "{status:#}");
    (switch, redis, host)
}

/// A ready host with so many letters in the local file, because Redis takes them in neither stream.
async fn host_with_local_letters(events: u64) -> (Simulator, Redis, Host) {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    redis.ask::<()>(&["MSET", STREAM, "somebody else's", DEAD, "this too"]);
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..events);
    let status = host.wait_settled(events);
    assert_eq!(status["counts"]["dead_lettered"], events, "{status:#}");
    (switch, redis, host)
}

/// Takes the filter away, and waits until it is gone.
#[track_caller]
fn remove_filter(host: &Host) {
    std::fs::remove_file(host.filters.join(format!("{FILTER}.wasm"))).unwrap();
    host.wait_status("the filter is gone", |status| {
        status["filters"] == json!([])
    });
}

/// `jackfield dead` in the host's folder with a token: exit code, standard output, standard error.
fn dead_with(token: &str, host: &Host, redis: &Redis, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(jackfield())
        .arg("dead")
        .args(args)
        .current_dir(host.dir())
        .env_clear()
        .env("REDIS_REMOTE_ADDR", format!("127.0.0.1:{}", redis.port))
        .env("JACKFIELD_HTTP_LISTEN", host.http.to_string())
        .env("JACKFIELD_HTTP_TOKEN", token)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

/// The same with the right token, which must succeed: standard output.
#[track_caller]
fn dead(host: &Host, redis: &Redis, args: &[&str]) -> String {
    let (code, out, err) = dead_with(TOKEN, host, redis, args);
    assert_eq!((code, &*err), (0, ""), "jackfield dead {args:?}: {out}");
    out
}

/// The ids of the letters, as the list tells.
#[track_caller]
fn listed(host: &Host, redis: &Redis) -> Vec<String> {
    ids(&dead(host, redis, &["list", "--json"]))
}

fn ids(list: &str) -> Vec<String> {
    let list: Vec<Value> = serde_json::from_str(list).unwrap();
    let id = |letter: &Value| letter["id"].as_str().unwrap().to_owned();
    list.iter().map(id).collect()
}

/// The letters of the dead-letter stream.
fn letters(redis: &Redis) -> Vec<Fields> {
    redis.entries(DEAD)
}

fn lsn(letter: &Fields) -> u64 {
    field(letter, "lsn").parse().unwrap()
}

fn number(event: &str) -> Value {
    serde_json::from_str::<Value>(event).unwrap()["Number"].clone()
}

/// The host's time now, as its letters write it.
fn now(host: &Host) -> String {
    let health: Value = serde_json::from_str(&host.get("/health").1).unwrap();
    health["data"]["last_check"].as_str().unwrap().to_owned()
}

/// Fires one event, and checks its letter but for the filter and the reason, which it gives.
#[track_caller]
fn fire_and_check(switch: &Simulator, redis: &Redis, host: &Host) -> (String, String) {
    let before = now(host);
    switch.fire(numbered::event(7));
    let last = host.wait_settled(1)["journal"]["last"].clone();
    let letter = letters(redis).remove(0);
    let mut names: Vec<&str> = letter.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, FIELDS, "all that a letter says");
    assert_eq!(number(field(&letter, "event")), "7", "the whole event");
    assert_eq!(field(&letter, "streams"), STREAM, "where it was to go");
    assert!(lsn(&letter) >= FIRST_LSN, "{letter:?}");
    assert_eq!(last, lsn(&letter), "its number in the journal");
    let time = field(&letter, "time").to_owned();
    assert!(
        before <= time && time <= now(host),
        "between {before} and now: {time}"
    );
    let text = |name| field(&letter, name).to_owned();
    (text("filter"), text("reason"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_letter_of_a_filter_says_who_why_when_and_which() {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let host = with_filter(setup(&switch, &redis)).start();
    host.wait_ready();
    let (filter, reason) = fire_and_check(&switch, &redis, &host);
    assert_eq!((&*filter, &*reason), (FILTER, "told to"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_letter_of_what_redis_refused_says_why_when_and_which() {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    redis.ask::<()>(&["SET", STREAM, "somebody else's"]);
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    let (filter, reason) = fire_and_check(&switch, &redis, &host);
    assert_eq!(filter, "", "it was no filter");
    assert!(reason.starts_with("WRONGTYPE"), "Redis' words: {reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_and_shown() {
    let (_switch, redis, host) = host_with_letters(3).await;
    let letters = letters(&redis);
    let table = dead(&host, &redis, &["list"]);
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    let head = ["ID", "TIME", "LSN", "FILTER", "EVENT", "STREAMS", "REASON"];
    assert_eq!(lines[0], head, "{table}");
    for (line, letter) in lines[1..].iter().zip(&letters) {
        let expected = [
            field(letter, "time"),
            field(letter, "lsn"),
            FILTER,
            "CUSTOM",
            STREAM,
        ];
        assert_eq!(line[1..6], expected, "{table}");
        assert_eq!(line[6..], ["told", "to"], "{table}");
    }
    assert_eq!(lines[4..], [["3", "of", "3", "dead", "letters"]], "{table}");

    let list: Value = serde_json::from_str(&dead(&host, &redis, &["list", "--json"])).unwrap();
    let ids = ids(&list.to_string());
    assert_eq!(ids[1], lines[2][0], "the same ids in both");
    let second = json!({
        "id": &ids[1],
        "time": field(&letters[1], "time"),
        "lsn": lsn(&letters[1]),
        "filter": FILTER,
        "reason": "told to",
        "event": "CUSTOM",
        "streams": STREAM,
    });
    assert_eq!(list[1], second);
    let newest = dead(&host, &redis, &["list", "--limit", "1"]);
    assert!(newest.contains(&ids[2]), "the newest: {newest}");
    assert!(newest.ends_with("\n1 of 3 dead letters\n"), "{newest}");

    let shown: Value =
        serde_json::from_str(&dead(&host, &redis, &["show", &ids[1], "--json"])).unwrap();
    assert_eq!(shown["event"]["Number"], "1", "{shown:#}");
    assert_eq!(shown["lsn"], lsn(&letters[1]), "{shown:#}");
    let text = dead(&host, &redis, &["show", &ids[1]]);
    for part in [&*ids[1], FILTER, "told to", "\"Number\": \"1\""] {
        assert!(text.contains(part), "{part} is shown: {text}");
    }
    let (code, out, err) = dead_with(TOKEN, &host, &redis, &["show", "1-1"]);
    let expected = "jackfield: 1-1: there is no such dead letter\n";
    assert_eq!((code, &*out, &*err), (1, "", expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_letter_is_a_new_input_that_filters_and_routes_decide_about() {
    let (_switch, redis, host) = host_with_letters(3).await;
    let before = listed(&host, &redis);
    let first = letters(&redis).remove(0);
    // The filter is still there, so the event fails once more: as a new letter, the old one is gone.
    let out = dead(&host, &redis, &["replay", &before[0]]);
    let status = host.wait_settled(4);
    let again = letters(&redis).remove(2);
    assert_eq!(out, format!("{} replayed as {}\n", before[0], lsn(&again)));
    assert!(lsn(&again) > lsn(&first), "a new number");
    assert_eq!(field(&again, "event"), field(&first, "event"));
    assert_eq!(status["counts"]["inputs"], 4, "it is an input: {status:#}");
    assert_eq!(status["counts"]["dead_lettered"], 4, "{status:#}");
    assert_eq!(listed(&host, &redis)[..2], before[1..]);

    remove_filter(&host);
    let out = dead(&host, &redis, &["replay", &before[1]]);
    assert!(out.starts_with(&format!("{} replayed as ", before[1])));
    let status = host.wait_settled(5);
    assert_eq!(status["counts"]["inputs"], 5, "{status:#}");
    assert_eq!(status["counts"]["delivered"], 1, "{status:#}");
    numbered::check(&redis, STREAM, [1]);
    numbered::check(&redis, DEAD, [2, 0]);

    let out = dead(&host, &redis, &["replay", "--all", "--json"]);
    let replayed: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(replayed[0]["id"], before[2], "the oldest first: {out}");
    assert!(replayed[1]["lsn"].as_u64() > replayed[0]["lsn"].as_u64());
    let status = host.wait_settled(7);
    assert_eq!(status["counts"]["delivered"], 3, "{status:#}");
    numbered::check(&redis, STREAM, [1, 2, 0]);
    let none = dead(&host, &redis, &["list"]);
    assert_eq!(none, "0 of 0 dead letters\n");
    assert_eq!(
        dead(&host, &redis, &["replay", "--all"]),
        "",
        "nothing left"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_needs_the_right_token_and_keeps_the_letters_without_it() {
    let (_switch, redis, host) = host_with_letters(2).await;
    let ids = listed(&host, &redis);
    for args in [&["replay", &*ids[0], &*ids[1]][..], &["replay", "--all"]] {
        let (code, out, err) = dead_with("", &host, &redis, args);
        assert_eq!((code, &*out), (2, ""), "{err}");
        assert!(err.starts_with("http.token: missing"), "{err}");
        let (code, out, err) = dead_with("token-1235", &host, &redis, args);
        assert_eq!((code, &*out), (1, ""), "{err}");
        let refused = format!(
            "jackfield: {}: the host answered 403: replaying needs the token of http.token (Authorization: Bearer …)\n",
            ids[0]
        );
        assert_eq!(err, refused, "once: the next letter would fare no better");
    }
    assert_eq!(listed(&host, &redis), ids, "nothing is deleted");
    assert_eq!(host.count("inputs"), 2, "nothing is replayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_letter_of_a_malformed_frame_replays_to_a_letter_again() {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    // The router's name, which Redis' keys need, comes with the first event that is one.
    numbered::fire(&switch, 0..1);
    let malformed = "Content-Length: 10\nContent-Type: text/event-json\n\nno event\u{1b}!";
    switch.write_raw(Bytes::from(malformed)).await;
    host.wait_settled(2);
    let before = listed(&host, &redis);
    let list = dead(&host, &redis, &["list"]);
    assert!(list.contains("  (malformed)  "), "{list}");
    let shown = dead(&host, &redis, &["show", &before[0]]);
    let escaped = "\nno event\\u{1b}!\n";
    assert!(shown.ends_with(escaped), "no terminal obeys it: {shown}");
    let first = letters(&redis).remove(0);
    dead(&host, &redis, &["replay", &before[0]]);
    let status = host.wait_settled(3);
    assert_eq!(status["counts"]["dead_lettered"], 2, "{status:#}");
    let again = letters(&redis);
    assert_eq!(again.len(), 1, "in place of the old one: {again:?}");
    assert_eq!(field(&again[0], "frame"), "no event\u{1b}!");
    assert_eq!(field(&again[0], "reason"), field(&first, "reason"));
    assert!(lsn(&again[0]) > lsn(&first), "a new number");
    assert_ne!(listed(&host, &redis), before, "a new letter");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_was_cut_short_is_not_replayed_and_keeps_no_other_from_it() {
    let (switch, redis) = (
        quiet_switch().await,
        Redis::start_with(&["--proto-max-bulk-len", "1mb"]),
    );
    let host = with_filter(setup(&switch, &redis)).start();
    host.wait_ready();
    // Cut, because it is larger than what Redis takes.
    switch.fire(Event::new("DTMF").body("x".repeat(2 << 20)));
    numbered::fire(&switch, 0..1);
    host.wait_settled(2);
    let ids = listed(&host, &redis);
    remove_filter(&host);
    let sentence = format!(
        "jackfield: {}: its event was cut short and is no JSON object any more, so it cannot be replayed\n",
        ids[0]
    );
    let (code, out, err) = dead_with(TOKEN, &host, &redis, &["replay", "--all"]);
    assert_eq!((code, &*err), (1, &*sentence), "{out}");
    assert!(
        out.starts_with(&format!("{} replayed as ", ids[1])),
        "{out}"
    );
    host.wait_settled(3);
    numbered::check(&redis, STREAM, 0..1);
    assert_eq!(listed(&host, &redis), ids[..1], "it is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_the_local_file_are_replayed_once_redis_takes_them() {
    let (_switch, redis, host) = host_with_local_letters(3).await;
    let (code, out, err) = dead_with(TOKEN, &host, &redis, &["list", "--json"]);
    assert_eq!(ids(&out), ["local:1", "local:2", "local:3"]);
    assert_eq!(code, 1, "the stream cannot be read: {err}");
    assert!(err.contains("WRONGTYPE"), "and that is said: {err}");
    redis.ask::<()>(&["DEL", STREAM, DEAD]);
    let out = dead(&host, &redis, &["replay", "local:2"]);
    assert!(out.starts_with("local:2 replayed as "), "{out}");
    host.wait_settled(4);
    numbered::check(&redis, STREAM, [1]);
    assert_eq!(listed(&host, &redis), ["local:1", "local:3"]);
    let (code, _, err) = dead_with(TOKEN, &host, &redis, &["replay", "local:2"]);
    let gone = "jackfield: local:2: there is no such dead letter\n";
    assert_eq!((code, &*err), (1, gone), "not twice");
    dead(&host, &redis, &["replay", "--all"]);
    let status = host.wait_settled(6);
    assert_eq!(status["counts"]["delivered"], 3, "{status:#}");
    numbered::check(&redis, STREAM, [1, 0, 2]);
    assert_eq!(listed(&host, &redis), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_the_local_file_are_listed_and_shown_while_redis_is_away() {
    let (_switch, mut redis, host) = host_with_local_letters(2).await;
    redis.kill();
    let (code, out, err) = dead_with(TOKEN, &host, &redis, &["list"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("Connection refused"), "what is missing: {err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[1].starts_with("local:1  "), "{out}");
    assert!(lines[2].starts_with("local:2  "), "{out}");
    assert_eq!(lines[3..], ["2 of 2 dead letters"], "{out}");
    let shown = dead(&host, &redis, &["show", "local:2", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["event"]["Number"], "1", "{shown:#}");
    assert!(shown["lsn"].as_u64() >= Some(FIRST_LSN), "{shown:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_replays_for_nobody_without_its_token() {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let tokenless = Setup::new(switch.addr(), &redis).start();
    let event = "{\"event\":\"{}\"}";
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    let ask =
        |host: &Host, headers: &str, body| post(host.http, "/dead/replay", headers, body).unwrap();
    let names_it = "replaying needs a token: set http.token\n";
    for headers in ["", "Authorization: Bearer \r\n", &right] {
        let answer = ask(&tokenless, headers, event);
        assert_eq!(answer, (403, names_it.to_owned()), "{headers:?}");
    }
    tokenless.stop();

    let host = setup(&switch, &redis).start();
    let refused = "replaying needs the token of http.token (Authorization: Bearer …)\n";
    for headers in ["", "Authorization: Bearer token-1235\r\n"] {
        let answer = ask(&host, headers, event);
        assert_eq!(answer, (403, refused.to_owned()), "even on loopback");
    }
    for body in ["", "{", "[]", "{}", "{\"event\":1}", "{\"letter\":\"{}\"}"] {
        let (code, why) = ask(&host, &right, body);
        assert_eq!(code, 400, "{body:?}: {why}");
        assert!(why.contains("allowed is {\"event\": "), "{body:?}: {why}");
    }
    assert_eq!(host.get("/dead/replay").0, 405);
    assert_eq!(host.count("inputs"), 0, "none of this was taken");
}

#[test]
fn help_has_examples() {
    for command in ["list", "show", "replay"] {
        let asked = Setup::default().instead(&["dead", command, "--help"]);
        let (code, out, _) = asked.run();
        assert_eq!(code, 0, "{out}");
        let example = format!("\n  jackfield dead {command}");
        let examples = out.split_once("Examples:").expect("examples").1;
        assert!(examples.contains(&example), "{out}");
    }
}
