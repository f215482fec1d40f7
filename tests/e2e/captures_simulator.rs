//! The simulated FreeSWITCH against what a real one sent: same frames, same headers, and both formats say the same.
//!
//! Also keeps the corpus of the repository, which the simulator makes: two sessions of the same calls, one in each format.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jackfield::simulator::{Event, Load, Settings, Simulator, Value as Held};
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::reading::{self, Capture};

const DEADLINE: Duration = Duration::from_secs(20);
/// Set it to write the corpus anew after a change of the simulator.
const REWRITE: &str = "JACKFIELD_REWRITE_CORPUS";
/// A seed whose first calls have much in them: a bridge, DTMF, a conference, duplicated core headers, arrays, invalid UTF-8.
const CORPUS_SEED: u64 = 63;
const CORPUS_EVENTS: u64 = 400;
const CORPUS_CALLS_AT_ONCE: usize = 4;

type Headers = BTreeMap<String, BTreeSet<Vec<String>>>;

/// Connects, sends the commands, and reads until the server closes.
async fn listen(addr: SocketAddr, commands: impl AsRef<[u8]>) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr)
        .await
        .expect("the simulator listens");
    stream
        .write_all(commands.as_ref())
        .await
        .expect("commands are taken");
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .await
        .expect("the server closes");
    bytes
}

/// A session in each format over the same events, from login to the notice at the end.
async fn sessions(settings: Settings, load: Load, fired: Vec<Event>) -> (Vec<u8>, Vec<u8>) {
    let simulator = Simulator::start(settings).await.expect("a free port");
    let happen = async {
        let subscribed = simulator.wait_for_subscribers(2, DEADLINE).await;
        assert!(subscribed, "both clients subscribe");
        simulator.place_calls(load).await;
        for event in fired {
            simulator.fire(event);
        }
        simulator.shut_down_notice().await;
    };
    let (json, plain, ()) = tokio::join!(
        listen(simulator.addr(), "auth ClueCon\n\nevent json ALL\n\n"),
        listen(simulator.addr(), "auth ClueCon\n\nevent plain ALL\n\n"),
        happen,
    );
    simulator.stop().await;
    (json, plain)
}

fn text<'a>(event: &'a Map<String, Value>, name: &str) -> &'a str {
    event.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The sorted header names of each kind of event.
fn header_sets(captures: &[Capture]) -> Headers {
    let mut sets = Headers::new();
    for event in captures
        .iter()
        .flat_map(|capture| reading::events(&capture.bytes))
    {
        let kind = format!(
            "{} {}",
            text(&event, "Event-Name"),
            text(&event, "Event-Subclass")
        );
        let mut names: Vec<String> = event.keys().cloned().collect();
        names.sort_unstable();
        sets.entry(kind).or_default().insert(names);
    }
    sets
}

/// The header sets of a real FreeSWITCH: from its captures, and where they are not at hand, as kept in the corpus.
fn known_header_sets() -> Headers {
    let path = reading::corpus_folder().join("headers.jsonl.gz");
    let real = reading::real_captures();
    if real.is_empty() {
        let kept = reading::unpacked(&path);
        let lines = kept.lines();
        let mut sets = Headers::new();
        for line in lines {
            let (kind, names) = serde_json::from_str(line).expect("a kind and its names");
            sets.entry(kind).or_default().insert(names);
        }
        return sets;
    }
    let sets = header_sets(&real);
    let each = sets.iter();
    let each = each.flat_map(|(kind, sets)| sets.iter().map(move |names| (kind, names)));
    let lines = each.map(|entry| serde_json::to_string(&entry).expect("text") + "\n");
    let lines: String = lines.collect();
    if std::env::var_os(REWRITE).is_some() {
        write_packed(&path, lines.as_bytes());
    }
    let same = reading::unpacked(&path) == lines;
    assert!(
        same,
        "the captures have other headers than the corpus; set {REWRITE}=1"
    );
    sets
}

fn write_packed(path: &Path, bytes: &[u8]) {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(bytes).expect("memory");
    std::fs::write(path, packer.finish().expect("memory")).expect("a writable corpus");
}

#[test]
fn every_capture_is_read_to_its_end() {
    for capture in reading::captures() {
        let (frames, rest) = reading::frames(&capture.bytes);
        let whole = rest.is_empty() || capture.name == "kill9_cut";
        assert!(
            whole,
            "{}: {} bytes are left over",
            capture.name,
            rest.len()
        );
        assert!(!frames.is_empty(), "{}: no frames", capture.name);
        for event in frames.iter().filter_map(reading::Frame::event) {
            assert!(
                event.contains_key("Event-Name"),
                "{}: {event:?}",
                capture.name
            );
            assert!(
                event.contains_key("Event-Sequence"),
                "{}: {event:?}",
                capture.name
            );
        }
    }
}

#[tokio::test]
async fn simulated_events_have_the_headers_of_real_ones() {
    let known = known_header_sets();
    let load = Load {
        rate: 0.0,
        events: Some(6_000),
        calls_at_once: 40,
    };
    let settings = Settings {
        heartbeat: Duration::from_millis(20),
        ..Settings::default()
    };
    let (json, plain) = sessions(settings, load, Vec::new()).await;
    for (format, bytes) in [("json", json), ("plain", plain)] {
        let simulated = header_sets(&[Capture {
            name: format.to_owned(),
            bytes,
        }]);
        assert!(
            simulated.len() > 30,
            "{format}: only {:?}",
            simulated.keys()
        );
        for (kind, sets) in simulated {
            let known = known
                .get(&kind)
                .unwrap_or_else(|| panic!("{format}: no {kind} is known"));
            for set in &sets {
                assert!(
                    known.contains(set),
                    "{format}: {kind} never had just these headers: {set:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn both_formats_say_the_same() {
    let odd = Event::new("CUSTOM")
        .header("Event-Subclass", "test::odd")
        .header("X-Percent", "100% %41%42%0A%25 %3d")
        .header("X-Text", "Größe +49 \"q\" \\ \t\u{1}\u{7f} 李雷")
        .header("X-Bad", b"caf\xE9 \xFF\xFE".to_vec())
        .header("X-Array", Held::Array(vec![b"a b".to_vec(), b"%".to_vec()]))
        .header("X Odd:name", "v")
        .body("first\n\nContent-Length: 3\n\nlast %41");
    let load = Load {
        rate: 0.0,
        events: Some(3_000),
        calls_at_once: 20,
    };
    let settings = Settings {
        seed: 7,
        ..Settings::default()
    };
    let (json, plain) = sessions(settings, load, vec![odd]).await;
    let (json, plain) = (reading::events(&json), reading::events(&plain));
    assert!(json.len() > 3_000, "the fired event came too");
    assert_eq!(json.len(), plain.len(), "both listeners get every event");
    for (json, plain) in json.into_iter().zip(plain) {
        let sequence = text(&json, "Event-Sequence").to_owned();
        let as_plain: Map<String, Value> = json
            .into_iter()
            .map(|(name, value)| match (name.as_str(), value) {
                ("_body", value) => (name, value),
                (_, value) => (name, through_plain(value)),
            })
            .collect();
        for (name, value) in &as_plain {
            assert_eq!(
                plain.get(name),
                Some(value),
                "header {name} of event {sequence}"
            );
        }
        assert_eq!(
            as_plain.len(),
            plain.len(),
            "event {sequence} has the same headers"
        );
    }
}

/// The replies in a stream, UUIDs aside: Content-Type and Reply-Text.
fn replies(bytes: &[u8]) -> Vec<(String, String)> {
    let (frames, _) = reading::frames(bytes);
    let replies = frames.iter().filter(|frame| {
        frame.content_type() == "command/reply" || frame.content_type() == "api/response"
    });
    let text = |frame: &reading::Frame| match frame.header("Reply-Text") {
        Some(text) if text.starts_with("+OK Job-UUID: ") => "+OK Job-UUID: ".to_owned(),
        text => text.unwrap_or_default().to_owned(),
    };
    replies
        .map(|frame| (frame.content_type().to_owned(), text(frame)))
        .collect()
}

/// The commands that a client sent, one for each reply. None of those looked at has a body.
fn commands(sent: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(sent).replace('\r', "");
    let commands = text
        .split("\n\n")
        .map(|command| command.trim_start_matches('\n'));
    commands
        .filter(|command| !command.is_empty())
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn conversations_go_as_they_went_with_a_real_one() {
    // What the simulator does not do, or tells differently on purpose.
    const DIFFERENT: [&str; 4] = [
        "event xml",
        "myevents",
        "noevents x", // It ends what `myevents` began.
        "api status",
    ];
    let looked_at = [
        "auth_ok",
        "auth_bad",
        "auth_before",
        "userauth_bad",
        "nixevent",
        "filter",
        "garbage",
        "bgapi",
        "log_interleaved",
    ];
    let simulator = Simulator::start(Settings::default())
        .await
        .expect("a free port");
    for capture in reading::real_captures() {
        if !looked_at.contains(&capture.name.as_str()) {
            continue;
        }
        let sent = reading::sent_by_client(&capture.name);
        let commands = commands(&sent);
        let real = replies(&capture.bytes);
        let simulated = replies(&listen(simulator.addr(), &sent).await);
        assert_eq!(
            real.len(),
            commands.len(),
            "{}: a reply for each command",
            capture.name
        );
        assert_eq!(
            real.len(),
            simulated.len(),
            "{}: as many replies",
            capture.name
        );
        for ((command, real), simulated) in commands.iter().zip(real).zip(simulated) {
            if !DIFFERENT
                .iter()
                .any(|different| command.starts_with(different))
            {
                assert_eq!(simulated, real, "{}: {command:?}", capture.name);
            }
        }
    }
    simulator.stop().await;
}

#[tokio::test]
async fn logins_are_the_same_to_the_byte() {
    for (name, acl_reject) in [
        ("auth_ok", false),
        ("auth_bad", false),
        ("userauth_bad", false),
        ("acl_reject", true),
    ] {
        let Some(capture) = reading::real_captures()
            .into_iter()
            .find(|capture| capture.name == name)
        else {
            continue;
        };
        let settings = Settings {
            acl_reject,
            ..Settings::default()
        };
        let simulator = Simulator::start(settings).await.expect("a free port");
        let simulated = listen(simulator.addr(), reading::sent_by_client(name)).await;
        assert_eq!(
            String::from_utf8_lossy(&simulated),
            String::from_utf8_lossy(&capture.bytes),
            "{name}"
        );
        simulator.stop().await;
    }
}

#[tokio::test]
async fn live_channels_are_listed_with_the_columns_of_a_real_one() {
    let simulator = Simulator::start(Settings::default())
        .await
        .expect("a free port");
    simulator
        .place_calls(Load {
            rate: 0.0,
            events: Some(2_000),
            calls_at_once: 100,
        })
        .await;
    let bytes = listen(
        simulator.addr(),
        "auth ClueCon\n\napi show channels as json\n\nexit\n\n",
    )
    .await;
    simulator.stop().await;
    let columns = |bytes: &[u8]| {
        let (frames, _) = reading::frames(bytes);
        let mut bodies = frames.into_iter().map(|frame| frame.body);
        let listing =
            bodies.find(|body| body.starts_with(b"{\"row_count\":") && body.ends_with(b"]}"))?;
        let listing: Value = serde_json::from_slice(&listing).expect("JSON");
        let rows = listing["rows"].as_array().expect("rows");
        assert_eq!(listing["row_count"], rows.len(), "every row is counted");
        let columns: Vec<String> = rows[0]
            .as_object()
            .expect("a row")
            .keys()
            .cloned()
            .collect();
        Some(columns)
    };
    let simulated = columns(&bytes).expect("channels are up");
    for capture in reading::real_captures() {
        if capture.name == "api_cmds" {
            assert_eq!(Some(simulated), columns(&capture.bytes));
            return;
        }
    }
}

/// What becomes of an exact value in the plain format: text that looks percent-encoded in upper case is decoded by the reader.
fn through_plain(value: Value) -> Value {
    let decoded = |text: &str| {
        let bytes = text.as_bytes();
        let is_digit = |place: usize| {
            bytes
                .get(place)
                .is_some_and(|byte| b"0123456789ABCDEF".contains(byte))
        };
        let mut protected = Vec::new();
        for (place, byte) in bytes.iter().enumerate() {
            let looks_encoded = *byte == b'%' && is_digit(place + 1) && is_digit(place + 2);
            let encoded: &[u8] = if *byte == b'%' && !looks_encoded {
                b"%25"
            } else {
                &[*byte]
            };
            protected.extend_from_slice(encoded);
        }
        String::from_utf8_lossy(&reading::percent_decoded(&protected)).into_owned()
    };
    match value {
        Value::String(text) => Value::String(decoded(&text)),
        Value::Array(elements) => elements
            .iter()
            .map(|element| decoded(element.as_str().expect("text")))
            .map(Value::String)
            .collect(),
        other => other,
    }
}

#[tokio::test]
async fn the_same_seed_makes_the_corpus_again() {
    let settings = || Settings {
        seed: CORPUS_SEED,
        heartbeat: Duration::ZERO,
        ..Settings::default()
    };
    let load = Load {
        rate: 0.0,
        events: Some(CORPUS_EVENTS),
        calls_at_once: CORPUS_CALLS_AT_ONCE,
    };
    let (json, plain) = sessions(settings(), load, Vec::new()).await;
    for (name, bytes) in [("session_json", json), ("session_plain", plain)] {
        let path = reading::corpus_folder().join(format!("{name}.bin.gz"));
        if std::env::var_os(REWRITE).is_some() {
            write_packed(&path, &bytes);
        }
        let corpus = reading::captures()
            .into_iter()
            .find(|capture| capture.name == name);
        let corpus = corpus
            .unwrap_or_else(|| panic!("{} is missing; set {REWRITE}=1 to make it", path.display()));
        let (now, then) = (timeless(&bytes), timeless(&corpus.bytes));
        assert_eq!(
            now.len(),
            then.len(),
            "{name}: as many events; if meant, set {REWRITE}=1"
        );
        for (place, (now, then)) in now.iter().zip(&then).enumerate() {
            assert_eq!(
                now, then,
                "{name}: event {place}; if meant, set {REWRITE}=1"
            );
        }
    }
}

/// The events without what the clock puts into them.
fn timeless(bytes: &[u8]) -> Vec<Map<String, Value>> {
    const CLOCKS: [&str; 7] = [
        "Date", "-Time", "Runtime", "epoch", "stamp", "duration", "sec",
    ];
    let mut events = reading::events(bytes);
    for event in &mut events {
        for (name, value) in event.iter_mut() {
            let has_time = value.as_str().is_some_and(|text| {
                text.split(|c: char| !c.is_ascii_digit())
                    .any(|run| run.len() >= 10)
            });
            if has_time || CLOCKS.iter().any(|clock| name.contains(clock)) {
                *value = Value::Null;
            }
        }
    }
    events
}
