//! `GET /events` and `jackfield tail`: whoever listens is told every event that it wants once and in order, with what became of it;
//! what it cannot be told it is told as a gap; and why it is told no more.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};

use jackfield::simulator::Event;
use serde_json::{Value, json};

use crate::harness::{DEADLINE, Host, Redis, Setup, free_port, jackfield, request, wait_for};
use crate::http::own_address;
use crate::numbered;
use crate::scene::{EVENTS, Scene, quiet_switch};
use crate::why::{filters, malformed, why, why_json};

/// The name of the host's own events.
const OWN: &str = "JACKFIELD";

/// One server-sent event.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: Option<u64>,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

/// A connection that listens, with an HTTP client of its own.
pub(crate) struct Listening {
    reader: BufReader<TcpStream>,
    pub(crate) code: u16,
    /// The newest id that was heard, with or without an event.
    pub(crate) at: u64,
}

impl Listening {
    /// Asks, and waits until it is told its place. `headers` are whole lines, each ended by CR LF.
    pub(crate) fn start(host: SocketAddr, query: &str, headers: &str) -> Listening {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // HTTP/1.0: an answer without an end is not chunked.
        write!(stream, "GET /events?{query} HTTP/1.0\r\n{headers}\r\n").unwrap();
        let mut listening = Listening {
            reader: BufReader::new(stream),
            code: 0,
            at: 0,
        };
        let head = listening.block();
        let status = head[0].split(' ').nth(1).unwrap();
        listening.code = status.parse().unwrap();
        if listening.code == 200 {
            let is_stream = head
                .iter()
                .any(|line| line.to_lowercase() == "content-type: text/event-stream");
            assert!(is_stream, "{head:?}");
            let place = listening.block();
            listening.at = id(&place).expect("its place is told first");
        }
        listening
    }

    /// Lines up to an empty one; none at the end.
    fn block(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = self
                .reader
                .read_line(&mut line)
                .expect("it is told something in time");
            let line = line.trim_end().to_owned();
            if read == 0 || line.is_empty() {
                return lines;
            }
            lines.push(line);
        }
    }

    /// The next event; `None`: the connection ended.
    pub(crate) fn next(&mut self) -> Option<Message> {
        loop {
            let lines = self.block();
            if lines.is_empty() {
                return None;
            }
            let id = id(&lines);
            self.at = id.unwrap_or(self.at);
            let of = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
            if let (Some(kind), Some(data)) = (of("event: "), of("data: ")) {
                let (kind, data) = (kind.to_owned(), serde_json::from_str(data).unwrap());
                return Some(Message { id, kind, data });
            }
        }
    }

    /// All that is told until the end, which gives why.
    fn all(&mut self) -> (Vec<Message>, String) {
        let mut told = Vec::new();
        loop {
            let message = self.next().expect("the end is told");
            if message.kind == "end" {
                assert!(self.next().is_none(), "and then nothing");
                return (told, message.data["why"].as_str().unwrap().to_owned());
            }
            told.push(message);
        }
    }

    /// The rest of an answer that is no stream of events.
    fn text(mut self) -> String {
        let mut text = String::new();
        self.reader.read_to_string(&mut text).unwrap();
        text
    }
}

fn id(lines: &[String]) -> Option<u64> {
    let id = lines.iter().find_map(|line| line.strip_prefix("id: "));
    id.map(|id| id.parse().unwrap())
}

fn listen(host: &Host, query: &str) -> Listening {
    Listening::start(host.http, query, "")
}

fn header<'a>(message: &'a Message, name: &str) -> &'a str {
    message.data["became"][0]["headers"][name].as_str().unwrap()
}

/// The `Number` of each event, which are all that was told.
#[track_caller]
fn numbers(told: &[Message]) -> Vec<u64> {
    let number = |message: &Message| {
        assert_eq!(message.kind, "event", "{message:?}");
        assert_eq!(message.id, message.data["lsn"].as_u64(), "{message:?}");
        header(message, "Number").parse().unwrap()
    };
    told.iter().map(number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_is_told_what_it_asked_for_from_now_on_or_from_a_number() {
    let mut scene = Scene::start(|setup| setup).await;
    scene.fire(3);
    scene.settle();
    let mut live = listen(&scene.host, "event=CHANNEL_ANSWER&limit=3");
    let mut named = listen(
        &scene.host,
        "event=CUSTOM%20sofia::*&event=HEARTBEAT&limit=2",
    );
    let mut seventh = listen(
        &scene.host,
        "header=Number:*7&header=Event-Name:CHANNEL_ANSWER&limit=1",
    );
    wait_for("they are counted", || {
        (scene.host.status()["listeners"] == 3).then_some(())
    });
    assert_eq!(scene.host.metric("jackfield_listeners"), Some(3.0));
    scene.fire(6);
    for subclass in [
        "sofia::register",
        "conference::maintenance",
        "sofia::expire",
    ] {
        scene
            .switch
            .fire(Event::new("CUSTOM").header("Event-Subclass", subclass));
    }
    let (told, why) = live.all();
    assert_eq!((numbers(&told), why.as_str()), (vec![3, 4, 5], "limit"));
    let (told, why) = seventh.all();
    assert_eq!((numbers(&told), why.as_str()), (vec![7], "limit"));
    let (told, why) = named.all();
    let subclasses: Vec<&str> = told
        .iter()
        .map(|one| header(one, "Event-Subclass"))
        .collect();
    assert_eq!(
        (subclasses, why.as_str()),
        (vec!["sofia::register", "sofia::expire"], "limit")
    );

    let mut from_start = listen(&scene.host, "since=0&event=CHANNEL_ANSWER&limit=9");
    let told = from_start.all().0;
    assert_eq!(numbers(&told), (0..9).collect::<Vec<u64>>());
    let third = told[2].id.unwrap();
    let mut from_third = listen(
        &scene.host,
        &format!("since={third}&event=CHANNEL_*&limit=2"),
    );
    assert_eq!(numbers(&from_third.all().0), [3, 4]);
    let mut timed = listen(&scene.host, "since=0&event=CHANNEL_*&timeout=3s");
    let (told, why) = timed.all();
    assert_eq!((numbers(&told).len(), why.as_str()), (9, "timeout"));
    wait_for("they are counted out", || {
        (scene.host.status()["listeners"] == 0).then_some(())
    });
    let ended = |why: &str| {
        scene
            .host
            .metric(&format!("jackfield_listeners_ended_total{{why=\"{why}\"}}"))
    };
    assert_eq!((ended("limit"), ended("timeout")), (Some(5.0), Some(1.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_what_became_of_an_event_in_the_words_of_why() {
    let scene = Scene::start(filters).await;
    let mut listening = listen(&scene.host, "");
    let mut derived = listen(&scene.host, "event=HOSTILE_DERIVED&limit=1");
    for name in ["CHANNEL_ANSWER", "DTMF", "CHANNEL_HOLD", "CODEC"] {
        scene
            .switch
            .fire(Event::new(name).header("Caller-ANI", "0301234567"));
    }
    scene.switch.write_raw(malformed()).await;
    // The host may say something of its links and of calls meanwhile.
    let is_fired =
        |one: &Message| one.data["event"] != OWN && one.data["became"][0]["derived"].is_null();
    let all = std::iter::from_fn(|| listening.next());
    let told: Vec<Message> = all.filter(is_fired).take(5).collect();
    let dir = scene.host.journal();
    for message in &told {
        let lsn = message.id.unwrap().to_string();
        assert_eq!(message.data, why_json(&[&lsn], &dir)[0]);
    }
    let outcomes: Vec<&Value> = told
        .iter()
        .map(|one| &one.data["became"][0]["outcome"])
        .collect();
    assert_eq!(
        outcomes[0],
        &json!({ "streams": [{ "stream": "freeswitch:routed", "format": "json" }] }),
        "{told:#?}"
    );
    assert_eq!(
        outcomes[1],
        &json!({ "dropped": { "by": "20-route", "reason": "noise" } })
    );
    assert_eq!(outcomes[2]["dead"]["by"], "40-trap");
    assert_eq!(outcomes[3], "unrouted");
    assert!(outcomes[4]["malformed"].is_string(), "{outcomes:?}");
    assert_eq!(
        header(&told[0], "Caller-ANI"),
        "********67",
        "after all edits"
    );
    assert_eq!(
        told[4].data["became"][0]["headers"],
        Value::Null,
        "there is no event"
    );
    scene.settle();
    let written = &scene.redis.events("freeswitch:routed")[0];
    assert_eq!(
        &told[0].data["became"][0]["headers"], written,
        "as it went to Redis"
    );
    let made = derived.all().0;
    assert_eq!(
        made[0].id, told[0].id,
        "an input is told once, for any event that it became"
    );
    assert_eq!(
        made[0].data["became"][1]["headers"]["Event-Name"],
        "HOSTILE_DERIVED"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_comes_back_with_its_last_id_misses_and_repeats_nothing() {
    let mut scene = Scene::start(|setup| setup.env("ESL_RECONNECT_DELAY", "50ms")).await;
    let (mut told, mut last) = (Vec::new(), String::new());
    for round in 0..6 {
        let mut listening =
            Listening::start(scene.host.http, "since=0&event=CHANNEL_ANSWER", &last);
        let firing = scene.fire_steadily();
        let target = told.len() + 150;
        while told.len() < target {
            let message = listening.next().unwrap();
            told.extend(numbers(&[message]));
        }
        last = format!("Last-Event-ID: {}\r\n", listening.at);
        scene.stop(firing);
        wait_for("Redis has all", || {
            let length: u64 = scene.redis.ask(&["XLEN", EVENTS]);
            (length == scene.fired()).then_some(())
        });
        if round % 2 == 1 {
            // The listener is told, too, when it has heard the rest.
            scene = scene.restart(Setup::start);
            let message = std::iter::from_fn(|| listening.next()).last().unwrap();
            assert_eq!(
                (message.kind.as_str(), &message.data["why"]),
                ("end", &json!("stopping"))
            );
        }
    }
    let mut rest = Listening::start(scene.host.http, "event=CHANNEL_ANSWER&timeout=3s", &last);
    told.extend(numbers(&rest.all().0));
    assert_eq!(told, (0..scene.fired()).collect::<Vec<u64>>());
    // The journal that it knows is gone: all of this one is new to it.
    let unknown = format!("Last-Event-ID: {}\r\n", u64::MAX);
    let mut other = Listening::start(scene.host.http, "event=CHANNEL_ANSWER&limit=1", &unknown);
    assert_eq!(numbers(&other.all().0), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_journal_has_no_longer_is_told_as_a_gap() {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let host = Setup::new(switch.addr(), &redis)
        .config("[journal]\nmax_size = \"16MiB\"\nretain = \"1ms\"\n")
        .start();
    host.wait_ready();
    let long = "x".repeat(16 << 10);
    let fire = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            switch.fire(numbered::event(number).header("Long", &*long));
        }
    };
    let mut first = listen(&host, "event=CUSTOM&limit=1");
    fire(0..1_000);
    let begin = first.all().0[0].id.unwrap();
    host.wait_settled(1_000);
    let kept = |host: &Host| host.status()["journal"]["bytes"].as_u64().unwrap();
    wait_for("old segments are deleted", || {
        (kept(&host) < 8 << 20).then_some(())
    });
    for since in [0, begin] {
        let mut listening = listen(&host, &format!("since={since}&event=CUSTOM&timeout=5s"));
        let told = listening.all().0;
        let (gap, rest) = told.split_first().unwrap();
        let (next, rest) = (rest[0].id, numbers(rest));
        assert_eq!(gap.kind, "gap", "{gap:?}");
        let first = if since == 0 { 1 << 40 } else { since + 1 };
        assert_eq!(gap.data["from"], first, "nothing is below the first LSN");
        let to = gap.data["to"].as_u64().unwrap();
        assert_eq!(next, Some(to + 1), "it ends right before what is there");
        assert_eq!(rest, (rest[0]..1_000).collect::<Vec<u64>>());
        assert_eq!(
            gap.id,
            Some(to),
            "whoever goes on there misses nothing more"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_listener_is_told_everything_from_the_journal() {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let host = Setup::new(switch.addr(), &redis).start();
    host.wait_ready();
    let slow: Vec<Listening> = (0..5)
        .map(|_| listen(&host, "event=CUSTOM&limit=8000"))
        .collect();
    let mut fast = listen(&host, "header=Number:7999&limit=1");
    // Several times what sockets and shared pages hold.
    let long = "x".repeat(4_000);
    for number in 0..8_000 {
        switch.fire(numbered::event(number).header("Long", &*long));
    }
    assert_eq!(
        numbers(&fast.all().0),
        [7_999],
        "nobody waits for the slow ones"
    );
    host.wait_settled(8_000);
    let expected: Vec<u64> = (0..8_000).collect();
    for mut slow in slow {
        assert!(numbers(&slow.all().0) == expected, "each once and in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_hears_that_the_disk_takes_nothing_and_what_it_missed() {
    let (switch, redis) = (quiet_switch().await, Redis::start());
    let host = Setup::new(switch.addr(), &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    host.wait_settled(10);
    let mut listening = listen(&host, "");
    limit(&host, "--fsize=4096:unlimited");
    numbered::fire(&switch, 10..20);
    let gap = listening.next().unwrap();
    assert_eq!((gap.kind.as_str(), &gap.data["to"]), ("gap", &Value::Null));
    let why = gap.data["why"].as_str().unwrap();
    assert!(
        why.starts_with("journal: cannot be written: File too large"),
        "{why}"
    );
    host.wait_settled(20);
    limit(&host, "--fsize=unlimited:unlimited");
    host.wait_status("the disk takes events again", |status| {
        status["ready"] == true
    });
    numbered::fire(&switch, 20..21);
    // What Redis has is not written again, so it is missing; what it has not, is told.
    let mut from = gap.data["from"].as_u64().unwrap();
    assert_eq!(from, listening.at + 1);
    let mut told = Vec::new();
    while told.last() != Some(&20) {
        let message = listening.next().unwrap();
        match message.kind.as_str() {
            "gap" => {
                assert_eq!(message.data["from"], from);
                from = message.id.unwrap() + 1;
            }
            _ => {
                assert_eq!(
                    message.id,
                    Some(from),
                    "what is missing is said: {message:?}"
                );
                from += 1;
                if message.data["event"] != OWN {
                    told.extend(numbers(&[message]));
                }
            }
        }
    }
}

/// Sets a limit of the running host.
fn limit(host: &Host, limit: &str) {
    let pid = host.pid().to_string();
    let done = Command::new("prlimit")
        .args(["--pid", &pid, limit])
        .status();
    assert!(
        done.expect("prlimit is missing: apt-get install util-linux")
            .success()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_listen_or_asks_for_nonsense_is_told_why() {
    let port = free_port();
    let prepare = |setup: Setup| {
        setup
            .env("HEALTH_PORT", &port.to_string())
            .env("JACKFIELD_HTTP_TOKEN", "secret")
    };
    let mut scene = Scene::start(prepare).await;
    let refused = |query: &str, headers: &str, code: u16| {
        let listening = Listening::start(scene.host.http, query, headers);
        assert_eq!(listening.code, code, "{query}");
        listening.text()
    };
    assert_eq!(
        refused("event=A&sinse=1&limit=x", "", 400),
        "sinse: \"1\": allowed is event, header, since, limit or timeout as a key\n\
         limit: \"x\": allowed is a number of events, once\n"
    );
    let future = refused("since=18446744073709551615", "", 400);
    assert!(
        future
            .starts_with("since: 18446744073709551615: allowed is an event's LSN; the newest is "),
        "{future}"
    );
    if let Some(own) = own_address() {
        let address = SocketAddr::new(own, port);
        let why = "events is for loopback peers, or for the token of http.token (Authorization: Bearer …)\n";
        for headers in ["", "Authorization: Bearer wrong\r\n"] {
            let (code, _, text) = request(address, "GET", "/events", headers).unwrap();
            assert_eq!((code, text.as_str()), (403, why));
        }
        let headers = "Authorization: Bearer secret\r\n";
        let mut allowed = Listening::start(address, "event=CHANNEL_ANSWER&limit=1", headers);
        scene.fire(1);
        assert_eq!(numbers(&allowed.all().0), [0]);
    }
    // Half of what the process may open.
    limit(&scene.host, "--nofile=80");
    let few: Vec<Listening> = (0..40).map(|_| listen(&scene.host, "")).collect();
    let too_many = Listening::start(scene.host.http, "", "");
    assert_eq!(too_many.code, 503);
    assert_eq!(
        too_many.text(),
        "there are 40 listeners, which is the most\n"
    );
    drop(few);
    wait_for("others may listen when these are gone", || {
        (Listening::start(scene.host.http, "", "").code == 200).then_some(())
    });
}

/// `jackfield tail` with further words, until it ends.
fn tail(host: &Host, words: &[&str]) -> Output {
    let listen = format!("http.listen={}", host.http);
    let mut command = Command::new(jackfield());
    command.args(["tail", "--set", &listen]).args(words);
    command
        .env_clear()
        .current_dir(host.dir())
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_prints_what_the_host_tells_and_its_code_says_how_it_ended() {
    let scene = Scene::start(filters).await;
    for name in ["CHANNEL_ANSWER", "DTMF", "CHANNEL_HOLD", "CODEC"] {
        scene
            .switch
            .fire(Event::new(name).header("Caller-ANI", "0301234567"));
    }
    scene.settle();
    let dir = scene.host.journal();
    let names = ["CHANNEL_ANSWER", "DTMF", "CHANNEL_HOLD", "CODEC"];
    let mut words = vec!["--since", "0", "--limit", "4", "--json"];
    words.extend(names.iter().flat_map(|name| ["--event", name]));
    let output = tail(&scene.host, &words);
    let lines = String::from_utf8(output.stdout).unwrap();
    let told: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((output.status.code(), told.len()), (Some(0), 4), "{lines}");
    let lsns: Vec<String> = told.iter().map(|one| one["lsn"].to_string()).collect();
    for (one, lsn) in told.iter().zip(&lsns) {
        assert_eq!(*one, why_json(&[lsn], &dir)[0]);
    }
    let words = [
        "--since",
        &lsns[0],
        "--event",
        "DTMF",
        "--event",
        "CODEC",
        "--header",
        "Caller-ANI:*67",
        "--timeout",
        "3s",
    ];
    let output = tail(&scene.host, &words);
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = why(&[&lsns[1]], &dir) + &why(&[&lsns[3]], &dir);
    assert_eq!((output.status.code(), text), (Some(0), expected));

    let wrong = tail(&scene.host, &["--timeout", "5"]);
    let expected = "jackfield: 400 Bad Request: timeout: \"5\": allowed is a duration such as 300ms, 5s or 1h30m, once\n";
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!((wrong.status.code(), error.as_str()), (Some(1), expected));
    let (http, root) = (scene.host.http, scene.host.dir().to_owned());
    let ended = std::thread::spawn(move || {
        let listen = format!("http.listen={http}");
        let mut command = Command::new(jackfield());
        command
            .args(["tail", "--set", &listen])
            .env_clear()
            .current_dir(root)
            .output()
            .unwrap()
    });
    wait_for("it listens", || {
        (scene.host.status()["listeners"] == 1).then_some(())
    });
    let _stopped = scene.host.stop();
    let output = ended.join().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), error.as_str()),
        (Some(1), "jackfield: the host ended it: stopping\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_change_nothing_of_what_is_delivered() {
    let mut scene = Scene::start(|setup| setup).await;
    let listening: Vec<Listening> = (0..20).map(|_| listen(&scene.host, "")).collect();
    scene.fire(500);
    drop(listening);
    scene.fire(500);
    scene.all_delivered();
    assert_eq!(scene.redis.events(EVENTS).len(), 1_000);
    wait_for("all are gone", || {
        (scene.host.status()["listeners"] == 0).then_some(())
    });
    assert_eq!(
        scene
            .host
            .metric("jackfield_listeners_ended_total{why=\"gone\"}"),
        Some(20.0)
    );
}
