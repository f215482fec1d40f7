//! Whether streams are behind what is remembered of them: asked when the cursor is gone, to tell a lost key from a lost Redis.
//!
//! A stream is behind if it is missing, if Redis never gave an id as high as the one remembered, or if the remembered entry is
//! not there although nothing was ever removed. What may not be read is no evidence, and without any evidence Redis is taken
//! to have lost everything: rather twice than not at all. Where some streams are behind, those that have the remembered entry
//! are not. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::Value;

use super::acknowledged::{Acknowledged, EntryId};
use super::batch::error_of;
use super::commands::Commands;

/// Asks for every remembered stream.
pub(super) fn commands(remembered: &Acknowledged) -> Commands {
    let mut commands = Commands::default();
    for (stream, id) in &remembered.ids {
        let id = id.to_string();
        let (stream, id) = (stream.as_bytes(), id.as_bytes());
        commands.add(&[b"XINFO", b"STREAM", stream]);
        commands.add(&[b"XRANGE", stream, id, id]);
    }
    commands
}

/// What the streams are like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// As remembered, as far as they can be read.
    Intact,
    /// Some are behind; these are certainly not.
    Behind { intact: BTreeSet<Arc<str>> },
}

/// Reads the replies to [`commands`].
pub(super) fn read(remembered: &Acknowledged, replies: &[Value]) -> Found {
    let pairs = remembered.ids.iter().zip(replies.chunks(2));
    let known = pairs
        .clone()
        .filter_map(|((_, id), replies)| is_behind(*id, replies));
    let known: Vec<bool> = known.collect();
    if !known.is_empty() && !known.contains(&true) {
        return Found::Intact;
    }
    let intact = pairs.filter(|(_, replies)| has_entry(replies));
    Found::Behind {
        intact: intact.map(|((stream, _), _)| Arc::clone(stream)).collect(),
    }
}

/// Whether the remembered entry is there.
fn has_entry(replies: &[Value]) -> bool {
    matches!(replies, [_, Value::Array(found)] if !found.is_empty())
}

/// `None` if the stream may not be read.
fn is_behind(id: EntryId, replies: &[Value]) -> Option<bool> {
    let [stream, entry] = replies else {
        return None;
    };
    let Value::Array(stream) = stream else {
        // A key of another type is no stream either.
        let error = error_of(stream)?;
        let gone = error.contains("no such key") || error.starts_with("WRONGTYPE");
        return gone.then_some(true);
    };
    if let Some(Value::BulkString(last)) = field(stream, "last-generated-id")
        && EntryId::parse(last).is_some_and(|last| last < id)
    {
        return Some(true);
    }
    let absent = matches!(entry, Value::Array(found) if found.is_empty());
    // Redis before 7.0 does not tell how many there ever were.
    let added = field(stream, "entries-added");
    let nothing_removed = added.is_some() && added == field(stream, "length");
    Some(id != EntryId::UNKNOWN && absent && nothing_removed)
}

/// A value of a reply that is a list of names and values.
fn field<'a>(reply: &'a [Value], name: &str) -> Option<&'a Value> {
    reply.chunks(2).find_map(|pair| match pair {
        [Value::BulkString(found), value] if found == name.as_bytes() => Some(value),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::{Acknowledged, EntryId, Found, read};

    const ABSENT: &str = "*0\r\n";
    const PRESENT: &str = "*1\r\n*2\r\n$3\r\n5-1\r\n*0\r\n";

    fn info(length: u64, added: Option<u64>, last: &str) -> String {
        let mut parts = vec![
            "$6\r\nlength\r\n".to_owned(),
            format!(":{length}\r\n"),
            "$17\r\nlast-generated-id\r\n".to_owned(),
            format!("${}\r\n{last}\r\n", last.len()),
        ];
        if let Some(added) = added {
            parts.push("$13\r\nentries-added\r\n".to_owned());
            parts.push(format!(":{added}\r\n"));
        }
        format!("*{}\r\n{}", parts.len(), parts.concat())
    }

    /// Whether a Redis that answers so for the one remembered stream is intact.
    #[track_caller]
    fn check(id: EntryId, stream: &str, entry: &str, expected: bool, why: &str) {
        let mut remembered = Acknowledged::default();
        remembered.remember("s", id);
        let replies = [stream, entry].map(|reply| parse_redis_value(reply.as_bytes()).unwrap());
        let is_intact = read(&remembered, &replies) == Found::Intact;
        assert_eq!(is_intact, expected, "{why}");
    }

    #[test]
    fn streams_are_intact_only_on_evidence() {
        let id = EntryId { ms: 5, sequence: 1 };
        let check = |stream: &str, entry, expected, why| check(id, stream, entry, expected, why);
        check("-ERR no such key\r\n", ABSENT, false, "missing");
        check("-WRONGTYPE x\r\n", "-WRONGTYPE x\r\n", false, "replaced");
        check("-NOPERM no\r\n", "-NOPERM no\r\n", false, "not readable");
        check(&info(3, Some(3), "5-1"), PRESENT, true, "as remembered");
        check(
            &info(3, Some(3), "9-0"),
            PRESENT,
            true,
            "others wrote after us",
        );
        check(
            &info(2, Some(2), "4-9"),
            ABSENT,
            false,
            "older than remembered",
        );
        check(
            &info(3, Some(3), "9-0"),
            ABSENT,
            false,
            "our entry never was there",
        );
        check(
            &info(3, Some(4), "9-0"),
            ABSENT,
            true,
            "our entry was trimmed",
        );
        check(
            &info(3, None, "9-0"),
            ABSENT,
            true,
            "before 7.0 it may have been trimmed",
        );
    }

    #[test]
    fn a_stream_whose_entries_are_not_known_need_only_be_there() {
        let info = info(3, Some(3), "9-0");
        check(EntryId::UNKNOWN, &info, ABSENT, true, "it is there");
        check(
            EntryId::UNKNOWN,
            "-ERR no such key\r\n",
            ABSENT,
            false,
            "it is not",
        );
    }

    #[test]
    fn one_readable_stream_speaks_for_those_that_are_not() {
        let mut remembered = Acknowledged::default();
        remembered.remember("a", EntryId { ms: 5, sequence: 1 });
        remembered.remember("b", EntryId { ms: 5, sequence: 1 });
        let info = info(3, Some(3), "5-1");
        let replies = ["-NOPERM a\r\n", "-NOPERM a\r\n", &info, PRESENT];
        let replies = replies.map(|reply| parse_redis_value(reply.as_bytes()).unwrap());
        assert_eq!(
            read(&remembered, &replies),
            Found::Intact,
            "b is as remembered"
        );
        assert_eq!(
            read(&Acknowledged::default(), &[]),
            Found::Behind { intact: [].into() },
            "nothing is known"
        );
    }

    #[test]
    fn a_stream_is_only_left_alone_where_its_remembered_entry_is() {
        let mut remembered = Acknowledged::default();
        for stream in ["a", "b", "c"] {
            remembered.remember(stream, EntryId { ms: 5, sequence: 1 });
        }
        let info = info(3, Some(4), "9-0");
        let gone = ["-ERR no such key\r\n", ABSENT];
        let replies = [gone, [&info, ABSENT], [&info, PRESENT]].concat();
        let replies: Vec<_> = replies
            .iter()
            .map(|reply| parse_redis_value(reply.as_bytes()).unwrap())
            .collect();
        let intact = ["c".into()].into();
        assert_eq!(read(&remembered, &replies), Found::Behind { intact });
    }
}
