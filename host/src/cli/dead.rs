//! `jackfield dead`: looks at the events that could not be handled, and sends them through the running host once more.
//!
//! Letters lie in the dead-letter stream and, where even that refused them, in the local file, whose ids are `local:<n>`.
//! A replay goes through the host, because only the host appends to its journal. A letter is removed after the host has
//! said that it is there: an interruption between the two leaves a letter that was replayed, never one that was lost.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::http::{Answer, Host, NoAnswer};
use super::{FAILED, Settings, WRONG_CONFIG, print_error, printable};
use crate::config::Config;
use crate::writer::dead::{DeadError, DeadLetter, DeadLetters, Id};

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

/// Why a letter is not shown or replayed.
#[derive(Debug, Error)]
enum Failure {
    #[error("its event was cut short and is no JSON object any more, so it cannot be replayed")]
    CutShort,
    #[error("the host answered {status}: {body}")]
    Refused { status: u16, body: String },
    #[error("the letter is kept")]
    Host(#[from] NoAnswer),
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
            println!(
                "{:#}",
                Value::from_iter(letters.iter().map(DeadLetter::summary))
            );
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
        let host = Host::of(&config);
        if !host.has_token() {
            eprintln!(
                "http.token: missing; a replay goes through the running host, which asks for its token"
            );
            return ExitCode::from(WRONG_CONFIG);
        }
        let mut replaying = Replaying {
            places: places(&config),
            host,
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
        let lsn = number(
            self.host
                .post("/dead/replay", &payload(letter)?.to_string())?,
        )?;
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

/// The letter's number in the journal, or why it is not there.
fn number(answer: Answer) -> Result<u64, Failure> {
    let status = answer.status.as_u16();
    match serde_json::from_str(&answer.body) {
        Ok(Taken { lsn }) if status == 200 => Ok(lsn),
        _ => Err(Failure::Refused {
            status,
            body: answer.body.trim().to_owned(),
        }),
    }
}

/// The host's answer to a replay.
#[derive(Deserialize)]
struct Taken {
    lsn: u64,
}

/// What the host is asked to take.
fn payload(letter: &DeadLetter) -> Result<Value, Failure> {
    let text = letter.again().ok_or(Failure::CutShort)?;
    let what = letter.frame().map_or("event", |_| "frame");
    Ok(json!({ what: text }))
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
        let event = printable(&letter.event_name());
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

#[cfg(test)]
mod tests {
    use ureq::http::StatusCode;

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
        assert_eq!(kept.event_name(), "DTMF");

        let malformed = letter(&[("frame", "Event-Name")]);
        assert_eq!(
            payload(&malformed).unwrap(),
            json!({ "frame": "Event-Name" })
        );
        assert_eq!(malformed.event_name(), "(malformed)");
    }

    #[test]
    fn an_event_that_was_cut_short_is_not_replayed() {
        for text in ["{\"Event-Name\":\"DT", "", "[]", "null"] {
            let kept = letter(&[("event", text)]);
            let failure = payload(&kept).unwrap_err();
            assert!(matches!(failure, Failure::CutShort), "{text}: {failure}");
            assert!(failure.is_about_letter(), "the next one may be whole");
            assert_eq!(kept.event_name(), "(cut short)");
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
    fn anything_but_a_number_is_a_failure_in_the_hosts_words() {
        for (status, words, goes_on) in [
            (403, "wrong token\n", false),
            (400, "no event", true),
            (503, "{\"lsn\":9}", false),
            (200, "ok", false),
        ] {
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                body: words.to_owned(),
            };
            let failure = number(answer).unwrap_err();
            let expected = format!("the host answered {status}: {}", words.trim());
            assert_eq!(failure.to_string(), expected);
            assert_eq!(failure.is_about_letter(), goes_on, "{words}");
        }
    }
}
