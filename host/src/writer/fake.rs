//! A Redis in memory for the lane's tests: interprets packed commands and gives real replies.
//!
//! It knows streams, text keys that expire, `WATCH`, `MULTI` and `EXEC`, memory that is full, keys that are forbidden, and an
//! entry that makes it close the connection. Nothing is trimmed. It shares no code with what it tests but the entry id.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Value, parse_redis_value};

use super::acknowledged::EntryId;
use super::commands::Commands;

/// A connection is closed on an entry with this in it.
pub(super) const KILLER: &str = "killer";

type Command = Vec<String>;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Key {
    Text {
        value: String,
        expires: Option<u64>,
    },
    Stream {
        entries: Vec<(EntryId, Command)>,
        last: EntryId,
    },
}

/// The server; a clone is a snapshot.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    pub(super) keys: BTreeMap<String, Key>,
    /// Streams that a text key stands in for.
    hidden: BTreeMap<String, Option<Key>>,
    versions: BTreeMap<String, u64>,
    changes: u64,
    pub(super) now_ms: u64,
    pub(super) is_full: bool,
    pub(super) forbidden: BTreeSet<String>,
    /// `EXEC` does not look at what is watched: to see that the tests notice.
    pub(super) ignores_watch: bool,
}

/// One connection, as the server sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    watched: Vec<(String, u64)>,
    queue: Option<Vec<Command>>,
    is_aborted: bool,
}

pub(super) fn parse(commands: &Commands) -> Vec<Command> {
    let packed = commands.packed();
    let mut commands = Vec::new();
    let mut at = 0;
    let number = |at: &mut usize| -> usize {
        let end = *at
            + packed[*at..]
                .iter()
                .position(|byte| *byte == b'\r')
                .unwrap();
        let text = std::str::from_utf8(&packed[*at + 1..end]).unwrap();
        *at = end + 2;
        text.parse().unwrap()
    };
    while at < packed.len() {
        let words = number(&mut at);
        let word = |_| {
            let length = number(&mut at);
            let text = String::from_utf8(packed[at..at + length].to_vec()).unwrap();
            at += length + 2;
            text
        };
        commands.push((0..words).map(word).collect());
    }
    commands
}

fn reply(text: &str) -> Value {
    parse_redis_value(format!("{text}\r\n").as_bytes()).unwrap()
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

impl Server {
    pub(super) fn new() -> Server {
        Server {
            now_ms: 1_000,
            ..Server::default()
        }
    }

    /// Executes all commands; none if the connection is closed on them.
    pub(super) fn ask(&mut self, client: &mut Client, commands: &[Command]) -> Option<Vec<Value>> {
        if commands.iter().flatten().any(|word| word.contains(KILLER)) {
            return None;
        }
        Some(
            commands
                .iter()
                .map(|one| self.command(client, one))
                .collect(),
        )
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        match self.keys.get(key) {
            Some(Key::Text { value, expires }) if expires.is_none_or(|at| at > self.now_ms) => {
                Some(value.clone())
            }
            _ => None,
        }
    }

    /// The values of the first field of each entry.
    pub(super) fn entries(&self, stream: &str) -> Vec<String> {
        match (self.hidden.get(stream), self.keys.get(stream)) {
            (Some(Some(Key::Stream { entries, .. })), _)
            | (None, Some(Key::Stream { entries, .. })) => entries
                .iter()
                .map(|(_, fields)| fields[1].clone())
                .collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn flush(&mut self) {
        let keys: Vec<String> = self.keys.keys().cloned().collect();
        keys.iter().for_each(|key| self.touch(key));
        self.keys.clear();
        self.hidden.clear();
    }

    pub(super) fn delete(&mut self, key: &str) {
        if self.keys.remove(key).is_some() {
            self.touch(key);
        }
    }

    /// A text key takes the place of a stream.
    pub(super) fn hide(&mut self, stream: &str) {
        if !self.hidden.contains_key(stream) {
            let value = "somebody else's".to_owned();
            let text = Key::Text {
                value,
                expires: None,
            };
            let before = self.keys.insert(stream.to_owned(), text);
            self.hidden.insert(stream.to_owned(), before);
            self.touch(stream);
        }
    }

    /// The stream is back.
    pub(super) fn show(&mut self, stream: &str) {
        if let Some(before) = self.hidden.remove(stream) {
            self.keys.remove(stream);
            self.keys.extend(before.map(|key| (stream.to_owned(), key)));
            self.touch(stream);
        }
    }

    pub(super) fn set(&mut self, key: &str, value: &str, expires: Option<u64>) {
        let value = value.to_owned();
        self.keys
            .insert(key.to_owned(), Key::Text { value, expires });
        self.touch(key);
    }

    fn touch(&mut self, key: &str) {
        self.changes += 1;
        self.versions.insert(key.to_owned(), self.changes);
    }

    fn version(&self, key: &str) -> u64 {
        self.versions.get(key).copied().unwrap_or(0)
    }

    fn command(&mut self, client: &mut Client, words: &Command) -> Value {
        match words[0].as_str() {
            "MULTI" => {
                client.queue = Some(Vec::new());
                client.is_aborted = false;
                return Value::Okay;
            }
            "EXEC" => return self.exec(client),
            _ => {}
        }
        if let Some(error) = self.refusal(words) {
            client.is_aborted = true;
            return reply(&error);
        }
        if let Some(queue) = &mut client.queue {
            queue.push(words.clone());
            return reply("+QUEUED");
        }
        if words[0] == "WATCH" {
            let version = self.version(&words[1]);
            client.watched.push((words[1].clone(), version));
            return Value::Okay;
        }
        self.execute(words)
    }

    fn exec(&mut self, client: &mut Client) -> Value {
        let queue = client.queue.take().unwrap();
        let watched = std::mem::take(&mut client.watched);
        if client.is_aborted {
            return reply("-EXECABORT Transaction discarded because of previous errors.");
        }
        let is_dirty = watched
            .iter()
            .any(|(key, version)| self.version(key) != *version);
        if is_dirty && !self.ignores_watch {
            return Value::Nil;
        }
        Value::Array(queue.iter().map(|words| self.execute(words)).collect())
    }

    fn refusal(&self, words: &Command) -> Option<String> {
        let key = if words[0] == "XINFO" {
            &words[2]
        } else {
            &words[1]
        };
        if self.forbidden.contains(key) {
            return Some("-NOPERM No permissions to access a key".to_owned());
        }
        let writes = words[0] == "SET" || words[0] == "XADD";
        (self.is_full && writes).then(|| "-OOM command not allowed".to_owned())
    }

    fn execute(&mut self, words: &Command) -> Value {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["GET", key] => self.text(key).map_or(Value::Nil, |text| bulk(&text)),
            ["SET", key, value] => {
                self.set(key, value, None);
                Value::Okay
            }
            ["SET", key, value, "PX", ms] => {
                let expires = self.now_ms + ms.parse::<u64>().unwrap();
                self.set(key, value, Some(expires));
                Value::Okay
            }
            ["ECHO", text] => bulk(text),
            ["DEL", key] => {
                self.delete(key);
                Value::Int(1)
            }
            ["TYPE", key] => reply(match self.keys.get(key) {
                None => "+none",
                Some(Key::Text { .. }) => "+string",
                Some(Key::Stream { .. }) => "+stream",
            }),
            ["XADD", stream, "*", ref fields @ ..] => self.add(stream, fields),
            ["XINFO", "STREAM", stream] => self.info(stream),
            ["XRANGE", stream, from, _] => self.entry(stream, from),
            ref other => panic!("the fake does not know {other:?}"),
        }
    }

    fn add(&mut self, stream: &str, fields: &[&str]) -> Value {
        let new = Key::Stream {
            entries: Vec::new(),
            last: EntryId::default(),
        };
        let now_ms = self.now_ms;
        let Key::Stream { entries, last } = self.keys.entry(stream.to_owned()).or_insert(new)
        else {
            return reply("-WRONGTYPE Operation against a key holding the wrong kind of value");
        };
        *last = if now_ms > last.ms {
            EntryId {
                ms: now_ms,
                sequence: 0,
            }
        } else {
            EntryId {
                sequence: last.sequence + 1,
                ..*last
            }
        };
        let id = *last;
        entries.push((id, fields.iter().map(|&field| field.to_owned()).collect()));
        self.touch(stream);
        bulk(&id.to_string())
    }

    fn info(&self, stream: &str) -> Value {
        match self.keys.get(stream) {
            None => reply("-ERR no such key"),
            Some(Key::Text { .. }) => reply("-WRONGTYPE Operation against a key"),
            Some(Key::Stream { entries, last }) => {
                let count = Value::Int(entries.len().try_into().unwrap());
                Value::Array(vec![
                    bulk("length"),
                    count.clone(),
                    bulk("last-generated-id"),
                    bulk(&last.to_string()),
                    bulk("entries-added"),
                    count,
                ])
            }
        }
    }

    fn entry(&self, stream: &str, id: &str) -> Value {
        match self.keys.get(stream) {
            None => Value::Array(Vec::new()),
            Some(Key::Text { .. }) => reply("-WRONGTYPE Operation against a key"),
            Some(Key::Stream { entries, .. }) => {
                let found = entries.iter().filter(|(one, _)| one.to_string() == id);
                Value::Array(found.map(|_| Value::Array(vec![bulk(id)])).collect())
            }
        }
    }
}
