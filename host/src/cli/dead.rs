//! `jackfield dead`: looks at the events that could not be handled, and sends them through the running host once more.
//!
//! Letters lie in the dead-letter stream and, where even that refused them, in the local file, whose ids are `local:<n>`.
//! A replay goes through the host, because only the host appends to its journal. A letter is removed after the host has
//! said that it is there: an interruption between the two leaves a letter that was replayed, never one that was lost.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::health::reachable;
use super::{FAILED, Settings, WRONG_CONFIG, print_error};
use crate::config::{Config, Secret};
use crate::writer::dead::{DeadError, DeadLetter, DeadLetters, Id};

/// Ample for a host that answers once the letter is in its journal.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Letters of the stream that are held at once while all are replayed.
const PAGE: usize = 100;

#[derive(Debug, Args)]
pub(super) struct Dead {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the dead letters of Redis and of the local file, the newest of each last.
    #[command(
        after_help = "Examples:\n  jackfield dead list\n  jackfield dead list --limit 1000 --json"
    )]
    List(List),
    /// Show all that a dead letter says.
    #[command(
        after_help = "Examples:\n  jackfield dead show 1700000000000-0\n  jackfield dead show local:3 --json"
    )]
    Show(Show),
    /// Send dead letters through the running host once more, and remove those that are in its journal. Needs http.token.
    #[command(
        after_help = "Examples:\n  jackfield dead replay 1700000000000-0 local:3\n  jackfield dead replay --all"
    )]
    Replay(Replay),
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    settings: Settings,
    /// How many letters of each place are listed.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    settings: Settings,
    /// The letter, as `jackfield dead list` names it.
    id: Id,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Replay {
    #[command(flatten)]
    settings: Settings,
    /// The letters, as `jackfield dead list` names them.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<Id>,
    /// Every letter that is there now.
    #[arg(long)]
    all: bool,
    /// Answer in JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// A replay under way.
struct Replaying {
    places: DeadLetters,
    host: Host,
    json: bool,
    failed: bool,
}

/// The running host.
struct Host {
    address: SocketAddr,
    token: Secret,
}

/// Why a letter is not shown or replayed.
#[derive(Debug, Error)]
enum Failure {
    #[error("its event was cut short and is no JSON object any more, so it cannot be replayed")]
    CutShort,
    #[error("the host answered {status}: {body}")]
    Refused { status: u16, body: String },
    #[error("no answer from http://{address}/dead/replay, so the letter is kept")]
    Host {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("replayed as {lsn}, but not removed, so it would be replayed once more")]
    NotRemoved { lsn: u64, source: DeadError },
    #[error(transparent)]
    Place(#[from] DeadError),
    #[error("{id}")]
    Of { id: Id, source: Box<Failure> },
}

impl Dead {
    pub(super) fn main(self) -> ExitCode {
        match self.command {
            Command::List(list) => list.main(),
            Command::Show(show) => show.main(),
            Command::Replay(replay) => replay.main(),
        }
    }
}

impl List {
    fn main(self) -> ExitCode {
        let mut places = match self.settings.load() {
            Ok(config) => places(&config),
            Err(code) => return code,
        };
        let mut letters = Vec::new();
        let mut total = 0;
        let mut code = ExitCode::SUCCESS;
        // The local file has something above all when Redis is in trouble.
        for listed in [places.newest(self.limit), places.newest_local(self.limit)] {
            match listed {
                Ok(listed) => {
                    letters.extend(listed.letters);
                    total += listed.total;
                    if listed.malformed > 0 {
                        eprintln!(
                            "jackfield: malformed lines of the local dead-letter file, skipped: {}",
                            listed.malformed
                        );
                    }
                }
                Err(error) => {
                    print_error(&error);
                    code = ExitCode::from(FAILED);
                }
            }
        }
        if self.json {
            println!("{:#}", Value::from_iter(letters.iter().map(summary)));
        } else {
            if !letters.is_empty() {
                print_table(&letters);
            }
            println!("{} of {total} dead letters", letters.len());
        }
        code
    }
}

impl Show {
    fn main(self) -> ExitCode {
        let mut places = match self.settings.load() {
            Ok(config) => places(&config),
            Err(code) => return code,
        };
        match places.find(&self.id) {
            Ok(letter) if self.json => println!("{:#}", whole(&letter)),
            Ok(letter) => print_whole(&letter),
            Err(error) => {
                print_error(&Failure::from(error).of(&self.id));
                return ExitCode::from(FAILED);
            }
        }
        ExitCode::SUCCESS
    }
}

impl Replay {
    fn main(self) -> ExitCode {
        let config = match self.settings.load() {
            Ok(config) => config,
            Err(code) => return code,
        };
        if config.http.token.is_empty() {
            eprintln!(
                "http.token: missing; a replay goes through the running host, which asks for its token"
            );
            return ExitCode::from(WRONG_CONFIG);
        }
        let mut replaying = Replaying {
            places: places(&config),
            host: Host {
                address: reachable(config.http.listen),
                token: config.http.token,
            },
            json: self.json,
            failed: false,
        };
        if self.all {
            if let Err(error) = replaying.all() {
                print_error(&error);
                replaying.failed = true;
            }
        } else {
            replaying.these(&self.ids);
        }
        if replaying.failed {
            ExitCode::from(FAILED)
        } else {
            ExitCode::SUCCESS
        }
    }
}

fn places(config: &Config) -> DeadLetters {
    let stream = config.dead_letter.stream.clone();
    DeadLetters::new(config.redis.clone(), stream, config.journal.dir.clone())
}

impl Replaying {
    fn these(&mut self, ids: &[Id]) {
        for id in ids {
            let found = self.places.find(id).map_err(Failure::from);
            let replayed = found.and_then(|letter| self.replay(&letter));
            if !self.report(id, replayed) {
                return;
            }
        }
    }

    /// What is there at the start: a letter that fails once more comes back as a new one.
    fn all(&mut self) -> Result<(), DeadError> {
        let local = self.places.newest_local(usize::MAX)?.letters;
        let last = self.places.newest(1)?.letters.pop();
        if !self.each(&local) {
            return Ok(());
        }
        let Some(DeadLetter { id: last, .. }) = last else {
            return Ok(());
        };
        let mut after = Id::Stream("0-0".to_owned());
        loop {
            let page = self.places.page(&after, &last, PAGE)?;
            let Some(newest) = page.last() else {
                return Ok(());
            };
            after.clone_from(&newest.id);
            if !self.each(&page) {
                return Ok(());
            }
        }
    }

    /// Replays these letters; false if the ones after them would fare no better.
    fn each(&mut self, letters: &[DeadLetter]) -> bool {
        letters.iter().all(|letter| {
            let replayed = self.replay(letter);
            self.report(&letter.id, replayed)
        })
    }

    fn replay(&mut self, letter: &DeadLetter) -> Result<u64, Failure> {
        let lsn = self.host.post(&payload(letter)?)?;
        match self.places.remove(&letter.id) {
            Ok(()) => Ok(lsn),
            Err(source) => Err(Failure::NotRemoved { lsn, source }),
        }
    }

    /// Says what became of a letter; false if the next one would fare no better.
    fn report(&mut self, id: &Id, replayed: Result<u64, Failure>) -> bool {
        match replayed {
            Ok(lsn) if self.json => println!("{}", json!({ "id": id.to_string(), "lsn": lsn })),
            Ok(lsn) => println!("{id} replayed as {lsn}"),
            Err(error) => {
                self.failed = true;
                let goes_on = error.is_about_letter();
                print_error(&error.of(id));
                return goes_on;
            }
        }
        true
    }
}

impl Failure {
    fn of(self, id: &Id) -> Failure {
        Failure::Of {
            id: id.clone(),
            source: Box::new(self),
        }
    }

    /// Whether it concerns this letter alone, not the host or the places.
    fn is_about_letter(&self) -> bool {
        match self {
            Self::CutShort | Self::Place(DeadError::NotFound) => true,
            // Bad request, too large, not to be processed.
            Self::Refused { status, .. } => matches!(status, 400 | 413 | 422),
            _ => false,
        }
    }
}

impl Host {
    /// Gives the letter to the host, and answers with its number in the journal.
    fn post(&self, payload: &Value) -> Result<u64, Failure> {
        let failed = |source| Failure::Host {
            address: self.address,
            source,
        };
        let answer = self.ask(&payload.to_string()).map_err(failed)?;
        let Some((status, body)) = read_answer(&answer) else {
            return Err(failed(io::Error::new(
                io::ErrorKind::InvalidData,
                "what answers there speaks no HTTP",
            )));
        };
        match serde_json::from_str(body) {
            Ok(Taken { lsn }) if status == 200 => Ok(lsn),
            _ => {
                let body = body.trim().to_owned();
                Err(Failure::Refused { status, body })
            }
        }
    }

    fn ask(&self, body: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let head = format!(
            "POST /dead/replay HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            self.token.expose(),
            body.len(),
        );
        let written = stream.write_all(format!("{head}{body}").as_bytes());
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        // A host that refuses may answer before it has read all, and close.
        if answer.is_empty() {
            written?;
            read?;
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// The host's answer to a replay.
#[derive(Deserialize)]
struct Taken {
    lsn: u64,
}

/// The status and the body of an HTTP answer.
fn read_answer(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?;
    Some((status.parse().ok()?, body))
}

/// What the host is asked to take. An event is the text that it is: parsed and written anew, it might be another one.
fn payload(letter: &DeadLetter) -> Result<Value, Failure> {
    match (letter.frame(), letter.event()) {
        (Some(frame), _) => Ok(json!({ "frame": frame })),
        (None, Some(_)) => Ok(json!({ "event": letter.text("event") })),
        (None, None) => Err(Failure::CutShort),
    }
}

/// The `Event-Name`, or why there is none.
fn event_name(letter: &DeadLetter) -> String {
    match (letter.frame(), letter.event()) {
        (Some(_), _) => "(malformed)".to_owned(),
        (None, None) => "(cut short)".to_owned(),
        (None, Some(event)) => {
            let name = event.get("Event-Name").and_then(Value::as_str);
            name.unwrap_or("(no name)").to_owned()
        }
    }
}

/// One of the list.
fn summary(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id.to_string(),
        "time": letter.text("time"),
        "lsn": letter.lsn(),
        "filter": letter.text("filter"),
        "reason": letter.text("reason"),
        "event": event_name(letter),
        "streams": letter.text("streams"),
    })
}

/// Everything: the event as JSON if it is, its number as a number, the rest as text.
fn whole(letter: &DeadLetter) -> Value {
    let mut all = Map::from_iter([("id".to_owned(), Value::from(letter.id.to_string()))]);
    for (name, text) in &letter.fields {
        let parsed = match name.as_str() {
            "event" => letter.event().map(Value::Object),
            "lsn" => letter.lsn().map(Value::from),
            _ => None,
        };
        let value = parsed.unwrap_or_else(|| Value::from(text.as_str()));
        all.insert(name.clone(), value);
    }
    Value::Object(all)
}

/// Everything, a line each, and at the end the event or the frame.
fn print_whole(letter: &DeadLetter) {
    let is_payload = |name: &str| name == "event" || name == "frame";
    println!("{:<8} {}", "id", letter.id);
    for (name, text) in &letter.fields {
        if !is_payload(name) {
            println!("{:<8} {}", printable(name), printable(text));
        }
    }
    let event = letter.event();
    let pretty = event.map(|event| format!("{:#}", Value::Object(event)));
    let payload = pretty.as_deref().or(letter.frame());
    for line in payload.unwrap_or(letter.text("event")).lines() {
        println!("{}", printable(line));
    }
}

/// One line each, in columns; the reason, which may be long, is the last.
fn print_table(letters: &[DeadLetter]) {
    let head = ["ID", "TIME", "LSN", "FILTER", "EVENT", "STREAMS", "REASON"].map(str::to_owned);
    let rows = letters.iter().map(|letter| {
        let text = |name| printable(letter.text(name));
        let event = printable(&event_name(letter));
        let id = letter.id.to_string();
        let streams = text("streams");
        [
            id,
            text("time"),
            text("lsn"),
            text("filter"),
            event,
            streams,
            text("reason"),
        ]
    });
    let rows: Vec<[String; 7]> = [head].into_iter().chain(rows).collect();
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let cells = row.iter().zip(widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        println!("{}", line.join("  ").trim_end());
    }
}

/// What a terminal would obey is escaped: events carry what strangers sent.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn letter(fields: &[(&str, &str)]) -> DeadLetter {
        let fields = fields.iter();
        DeadLetter {
            id: Id::Local(1),
            fields: fields
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn an_event_and_a_frame_are_replayed_as_the_text_that_they_are() {
        let event = r#"{"Event-Name":"DTMF",  "n":1.50}"#;
        let kept = letter(&[("event", event), ("reason", "no digit")]);
        assert_eq!(payload(&kept).unwrap(), json!({ "event": event }));
        assert_eq!(event_name(&kept), "DTMF");

        let malformed = letter(&[("frame", "Event-Name")]);
        assert_eq!(
            payload(&malformed).unwrap(),
            json!({ "frame": "Event-Name" })
        );
        assert_eq!(event_name(&malformed), "(malformed)");
    }

    #[test]
    fn an_event_that_was_cut_short_is_not_replayed() {
        for text in ["{\"Event-Name\":\"DT", "", "[]", "null"] {
            let kept = letter(&[("event", text)]);
            let failure = payload(&kept).unwrap_err();
            assert!(matches!(failure, Failure::CutShort), "{text}: {failure}");
            assert!(failure.is_about_letter(), "the next one may be whole");
            assert_eq!(event_name(&kept), "(cut short)");
        }
    }

    #[test]
    fn everything_is_shown_with_the_event_as_json() {
        let kept = letter(&[("event", "{\"a\":\"b\"}"), ("lsn", "7"), ("other", "x")]);
        let expected = json!({ "id": "local:1", "event": { "a": "b" }, "lsn": 7, "other": "x" });
        assert_eq!(whole(&kept), expected);
        let cut = letter(&[("event", "{\"a"), ("lsn", "?")]);
        let expected = json!({ "id": "local:1", "event": "{\"a", "lsn": "?" });
        assert_eq!(whole(&cut), expected);
    }

    #[test]
    fn a_terminal_obeys_nothing_that_an_event_carries() {
        assert_eq!(printable("a\u{1b}[2J\nb\u{9b}ü"), "a\\u{1b}[2J\\nb\\u{9b}ü");
    }

    /// Asks a host that answers so. Gives back what it was asked.
    fn post(answer: &'static str) -> (Result<u64, Failure>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = Host {
            address: listener.local_addr().unwrap(),
            token: Secret::new("secret"),
        };
        let body = r#"{"event":"{}"}"#;
        let answering = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = BufReader::new(stream.try_clone().unwrap());
            let mut text = String::new();
            while !text.ends_with("\r\n\r\n") {
                asked.read_line(&mut text).unwrap();
            }
            let mut rest = vec![0; body.len()];
            asked.read_exact(&mut rest).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            text + &String::from_utf8(rest).unwrap()
        });
        let answered = host.post(&json!({ "event": "{}" }));
        (answered, answering.join().unwrap())
    }

    #[test]
    fn the_host_is_asked_with_its_token_and_answers_with_a_number() {
        let (lsn, asked) = post("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"lsn\":9}");
        assert_eq!(lsn.unwrap(), 9);
        let lines: Vec<&str> = asked.lines().collect();
        assert_eq!(lines.first(), Some(&"POST /dead/replay HTTP/1.1"));
        assert!(lines.contains(&"Authorization: Bearer secret"), "{asked}");
        assert!(lines.contains(&"Content-Length: 14"), "{asked}");
        assert_eq!(lines.last(), Some(&r#"{"event":"{}"}"#));
    }

    #[test]
    fn anything_but_a_number_is_a_failure_in_the_hosts_words() {
        for (answer, words, goes_on) in [
            (
                "HTTP/1.1 403 Forbidden\r\n\r\nwrong token\n",
                "the host answered 403: wrong token",
                false,
            ),
            (
                "HTTP/1.1 400 Bad Request\r\n\r\nno event",
                "the host answered 400: no event",
                true,
            ),
            (
                "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"lsn\":9}",
                "the host answered 503: {\"lsn\":9}",
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\nok",
                "the host answered 200: ok",
                false,
            ),
        ] {
            let failure = post(answer).0.unwrap_err();
            assert_eq!(failure.to_string(), words);
            assert_eq!(failure.is_about_letter(), goes_on, "{words}");
        }
        for answer in ["", "SSH-2.0-x\r\n\r\n"] {
            let failure = post(answer).0.unwrap_err();
            assert!(matches!(failure, Failure::Host { .. }), "{failure}");
        }
    }
}
