//! One batch: the transaction that writes it, and what Redis' replies mean for each event.
//!
//! A batch is `MULTI`, its `XADD`s, `SET cursor`, `EXEC`, and after that `WATCH cursor`, `GET cursor` for the next one. The watch
//! that guards a batch is armed before it, so a batch that was given up on and executes late finds the cursor moved and
//! does nothing. Pure: no connection, no clock.

use redis::{Pipeline, Value, cmd};

use crate::pipeline::Decision;
use crate::route::{Delivery, Entry, Routes};

/// Decisions in flight, and what has been learnt about their entries.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) decisions: Vec<Decision>,
    /// What the cursor says once this batch is in: no two batches say the same.
    pub(super) position: String,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Executed; these entries failed by themselves, with Redis' words.
    Executed(Vec<(usize, String)>),
    /// Not executed: the cursor had moved.
    Fenced,
    /// Not executed: this entry may not be written, with Redis' words.
    EntryRefused(usize, String),
    /// Not executed: Redis refuses to write at all now.
    Refused(String),
}

/// The replies to a batch: what became of it, and where the cursor stands now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) cursor: Result<Option<String>, String>,
}

impl Batch {
    pub(super) fn new(run: &str, number: u64, decisions: Vec<Decision>) -> Batch {
        Batch {
            decisions,
            position: format!("{run}:{number}"),
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.decisions
            .iter()
            .flat_map(|decision| &decision.events)
            .flat_map(|event| &event.entries)
    }

    pub(super) fn commands(&self, cursor: &str) -> Pipeline {
        let mut commands = Pipeline::with_capacity(self.decisions.len() + 6);
        commands.add_command(cmd("MULTI"));
        for entry in self.entries() {
            commands.add_command(xadd(entry));
        }
        commands.cmd("SET").arg(cursor).arg(&self.position);
        commands.add_command(cmd("EXEC"));
        arm(&mut commands, cursor);
        commands
    }

    /// Reads the replies to [`Batch::commands`].
    pub(super) fn read(&self, replies: &[Value]) -> Answer {
        let entries = self.entries().count();
        let queued = replies.get(1..entries + 1).unwrap_or_default();
        let cursor = read_cursor(replies.get(entries + 4));
        let outcome = match replies.get(entries + 2) {
            Some(Value::Nil) => Outcome::Fenced,
            Some(Value::Array(results)) => {
                Outcome::Executed(failed(results.get(..entries).unwrap_or(results)))
            }
            exec => match failed(queued).into_iter().next() {
                Some((at, error)) if is_about_key(&error) => Outcome::EntryRefused(at, error),
                Some((_, error)) => Outcome::Refused(error),
                None => {
                    let set_or_multi = [replies.first(), replies.get(entries + 1), exec];
                    let error = set_or_multi.into_iter().flatten().find_map(error_of);
                    Outcome::Refused(
                        error.unwrap_or_else(|| format!("unexpected reply to EXEC: {exec:?}")),
                    )
                }
            },
        };
        Answer { outcome, cursor }
    }

    /// Takes the entries that Redis would not take to the dead letters; `failed` are entry numbers in the batch.
    /// Gives the decisions back for the entries that are to be written now, and the number of events that had no dead letter either.
    pub(super) fn bury(
        &self,
        failed: &[(usize, String)],
        routes: &Routes,
        max_bytes: usize,
    ) -> (Vec<Decision>, u64) {
        let mut at = 0;
        let mut lost = 0;
        let mut buried = Vec::new();
        for decision in &self.decisions {
            let mut events = Vec::new();
            for event in &decision.events {
                let range = at..at + event.entries.len();
                at = range.end;
                let errors = failed.iter().filter(|(entry, _)| range.contains(entry));
                let dead = errors.filter_map(|(entry, error)| {
                    Some((event.entries.get(entry - range.start)?, error))
                });
                let (letters, gone): (Vec<_>, Vec<_>) =
                    dead.partition(|(entry, _)| !routes.is_dead(entry));
                if !gone.is_empty() {
                    lost += 1;
                    continue;
                }
                let entries: Vec<Entry> = letters
                    .into_iter()
                    .flat_map(|(entry, error)| routes.refused(entry, error, max_bytes).entries)
                    .collect();
                if !entries.is_empty() {
                    events.push(Delivery {
                        entries,
                        dead: true,
                    });
                }
            }
            if !events.is_empty() {
                buried.push(Decision {
                    events,
                    ..*decision
                });
            }
        }
        (buried, lost)
    }

    /// Replaces one entry that may not be written by its dead letter; false if it is one already.
    pub(super) fn replace(
        &mut self,
        entry: usize,
        error: &str,
        routes: &Routes,
        max_bytes: usize,
    ) -> bool {
        let Some((refused, dead)) = self.entry_mut(entry) else {
            return false;
        };
        if routes.is_dead(refused) {
            return false;
        }
        if let Some(letter) = routes.refused(refused, error, max_bytes).entries.pop() {
            *refused = letter;
            *dead = true;
        }
        true
    }

    /// Cuts the values of an entry that are over `max_bytes`: a dead letter that is too large itself.
    pub(super) fn shorten(&mut self, entry: usize, max_bytes: usize) {
        let fields = self.entry_mut(entry).map(|(entry, _)| &mut entry.fields);
        for (_, value) in fields.into_iter().flatten() {
            value.truncate(max_bytes);
        }
    }

    /// An entry by its number, and whether its event is a dead letter.
    fn entry_mut(&mut self, number: usize) -> Option<(&mut Entry, &mut bool)> {
        let events = self.decisions.iter_mut().flat_map(|one| &mut one.events);
        let mut at = 0;
        for event in events {
            let range = at..at + event.entries.len();
            at = range.end;
            if range.contains(&number) {
                let entry = event.entries.get_mut(number - range.start)?;
                return Some((entry, &mut event.dead));
            }
        }
        None
    }

    /// The first entry with a value over `max_bytes`, which would make Redis close the connection.
    pub(super) fn too_large(&self, max_bytes: usize) -> Option<(usize, usize)> {
        let largest = |entry: &Entry| {
            entry
                .fields
                .iter()
                .map(|(field, value)| field.len().max(value.len()))
                .max()
        };
        self.entries()
            .map(|entry| largest(entry).unwrap_or(0))
            .enumerate()
            .find(|(_, bytes)| *bytes > max_bytes)
    }

    /// Events that are in Redis now, and those of them that are dead letters; the ones in `failed` are neither.
    pub(super) fn count(&self, failed: &[(usize, String)]) -> (u64, u64) {
        let mut at = 0;
        let (mut delivered, mut dead) = (0, 0);
        for event in self.decisions.iter().flat_map(|decision| &decision.events) {
            let range = at..at + event.entries.len();
            at = range.end;
            if failed.iter().any(|(entry, _)| range.contains(entry)) {
                continue;
            }
            if event.dead {
                dead += 1;
            } else {
                delivered += 1;
            }
        }
        (delivered, dead)
    }
}

/// Asks for the cursor and watches it for the batch to come.
pub(super) fn arm(commands: &mut Pipeline, cursor: &str) {
    commands.cmd("WATCH").arg(cursor);
    commands.cmd("GET").arg(cursor);
}

/// The reply to `GET cursor`.
pub(super) fn read_cursor(reply: Option<&Value>) -> Result<Option<String>, String> {
    match reply {
        Some(Value::Nil) => Ok(None),
        Some(Value::BulkString(text)) => Ok(Some(String::from_utf8_lossy(text).into_owned())),
        Some(other) => {
            Err(error_of(other).unwrap_or_else(|| format!("unexpected reply to GET: {other:?}")))
        }
        None => Err("no reply to GET".to_owned()),
    }
}

fn xadd(entry: &Entry) -> redis::Cmd {
    let mut command = cmd("XADD");
    command.arg(&*entry.stream.name);
    if entry.stream.max_len > 0 {
        command.arg("MAXLEN").arg("~").arg(entry.stream.max_len);
    }
    command.arg("*");
    for (field, value) in &entry.fields {
        command.arg(&**field).arg(&**value);
    }
    command
}

fn failed(replies: &[Value]) -> Vec<(usize, String)> {
    replies
        .iter()
        .enumerate()
        .filter_map(|(at, reply)| Some((at, error_of(reply)?)))
        .collect()
}

pub(super) fn error_of(reply: &Value) -> Option<String> {
    let Value::ServerError(error) = reply else {
        return None;
    };
    Some(match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    })
}

/// `NOPERM` about a key belongs to the entry; about a command, to the connection. The words before "to" may be a user's name.
fn is_about_key(error: &str) -> bool {
    error.starts_with("NOPERM") && error.contains("to access")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use redis::{Value, parse_redis_value};

    use super::{Answer, Batch, Outcome};
    use crate::config::{Sources, StreamFormat, load};
    use crate::pipeline::Decision;
    use crate::route::{Delivery, Entry, Routes, Stream};

    fn routes() -> Routes {
        let config = load(Sources::default()).unwrap();
        Routes::new(&config.streams, &config.routes, &config.dead_letter)
    }

    fn entry(stream: &str) -> Entry {
        let stream = Stream {
            name: stream.into(),
            max_len: 5,
            expire: None,
            format: StreamFormat::Json,
        };
        Entry {
            stream: Arc::new(stream),
            fields: vec![(Bytes::from_static(b"event"), Bytes::from_static(b"{}"))],
        }
    }

    /// Two inputs; the first has a derived event, the second goes to two streams: four entries.
    fn batch() -> Batch {
        let delivery = |streams: &[&str]| Delivery {
            entries: streams.iter().map(|s| entry(s)).collect(),
            dead: false,
        };
        let decision = |sequence, events| Decision {
            sequence,
            received_us: 0,
            decided_us: 0,
            events,
        };
        Batch::new(
            "run",
            9,
            vec![
                decision(7, vec![delivery(&["a"]), delivery(&["a"])]),
                decision(9, vec![delivery(&["b", "c"])]),
            ],
        )
    }

    fn read(replies: &[&str]) -> Answer {
        let replies: Vec<Value> = replies
            .iter()
            .map(|reply| parse_redis_value(format!("{reply}\r\n").as_bytes()).unwrap())
            .collect();
        batch().read(&replies)
    }

    const QUEUED: &str = "+QUEUED";

    #[test]
    fn a_batch_is_one_transaction_that_moves_the_cursor_and_arms_the_next() {
        let packed = String::from_utf8(batch().commands("cursor").get_packed_pipeline()).unwrap();
        let words: Vec<&str> = packed
            .split("\r\n")
            .filter(|word| !word.starts_with(['*', '$']) || *word == "*")
            .collect();
        assert_eq!(words.first(), Some(&"MULTI"));
        assert_eq!(words.iter().filter(|word| **word == "XADD").count(), 4);
        let end = words.iter().position(|word| *word == "SET").unwrap();
        assert_eq!(
            words[end..],
            [
                "SET", "cursor", "run:9", "EXEC", "WATCH", "cursor", "GET", "cursor", ""
            ]
        );
    }

    #[test]
    fn replies_tell_executed_fenced_and_refused_apart() {
        let head = ["+OK", QUEUED, QUEUED, QUEUED, QUEUED, QUEUED];
        let with = |exec: &str| {
            [head.as_slice(), &[exec, "+OK", "$5\r\nrun:9"]]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let read_owned =
            |replies: Vec<String>| read(&replies.iter().map(String::as_str).collect::<Vec<_>>());
        let answer = read_owned(with(
            "*5\r\n$1\r\n1\r\n$1\r\n2\r\n-WRONGTYPE not a stream\r\n$1\r\n4\r\n+OK",
        ));
        assert_eq!(
            answer.outcome,
            Outcome::Executed(vec![(2, "WRONGTYPE not a stream".to_owned())])
        );
        assert_eq!(answer.cursor, Ok(Some("run:9".to_owned())));
        assert_eq!(read_owned(with("*-1")).outcome, Outcome::Fenced);
        let oom = [
            "+OK",
            "-OOM command not allowed",
            QUEUED,
            QUEUED,
            QUEUED,
            QUEUED,
            "-EXECABORT x",
            "+OK",
            "$-1",
        ];
        assert_eq!(
            read(&oom).outcome,
            Outcome::Refused("OOM command not allowed".to_owned())
        );
        assert_eq!(read(&oom).cursor, Ok(None));
        let key = [
            "+OK",
            QUEUED,
            QUEUED,
            "-NOPERM No permissions to access a key",
            QUEUED,
            QUEUED,
            "-EXECABORT x",
            "+OK",
            "$-1",
        ];
        assert_eq!(
            read(&key).outcome,
            Outcome::EntryRefused(2, "NOPERM No permissions to access a key".to_owned())
        );
        let command = [
            "-NOPERM User monkey has no permissions to run the 'multi' command",
            "$1\r\n1",
            "$1\r\n1",
            "$1\r\n1",
            "$1\r\n1",
            "+OK",
            "-ERR EXEC without MULTI",
            "+OK",
            "$-1",
        ];
        assert!(
            matches!(read(&command).outcome, Outcome::Refused(error) if error.contains("multi"))
        );
    }

    #[test]
    fn what_redis_would_not_take_is_buried_by_event() {
        let failed = vec![(1, "WRONGTYPE x".to_owned()), (3, "WRONGTYPE y".to_owned())];
        assert_eq!(
            batch().count(&failed),
            (1, 0),
            "an event with a failed entry is not delivered"
        );
        let (buried, lost) = batch().bury(&failed, &routes(), 1_000);
        let streams: Vec<Vec<String>> = buried
            .iter()
            .map(|decision| {
                decision
                    .events
                    .iter()
                    .flat_map(|e| &e.entries)
                    .map(|e| e.stream.name.to_string())
                    .collect()
            })
            .collect();
        assert_eq!(
            streams,
            [["freeswitch:telephony:dead"], ["freeswitch:telephony:dead"]]
        );
        assert_eq!(lost, 0);
        assert!(
            buried
                .iter()
                .all(|decision| decision.events.iter().all(|event| event.dead))
        );
    }

    #[test]
    fn an_entry_that_may_not_be_written_is_replaced_in_place() {
        let mut batch = batch();
        assert!(batch.replace(2, "NOPERM key", &routes(), 1_000));
        assert_eq!(batch.count(&[]), (2, 1));
        assert!(
            !batch.replace(2, "NOPERM key", &routes(), 1_000),
            "a dead letter has no dead letter"
        );
    }
}
