//! Whether streams are behind what is remembered of them: asked when the cursor is gone, to tell a lost key from a lost Redis.
//!
//! A stream is behind if it is missing, if Redis never gave an id as high as the one remembered, or if the remembered entry is
//! not there although nothing was ever removed. What may not be read is no evidence. Pure.

use redis::{Pipeline, Value};

use super::acknowledged::{Acknowledged, EntryId};
use super::batch::error_of;

/// Asks for every remembered stream.
pub(super) fn commands(remembered: &Acknowledged) -> Pipeline {
    let mut commands = Pipeline::with_capacity(2 * remembered.ids.len());
    for (stream, id) in &remembered.ids {
        let id = id.to_string();
        commands.cmd("XINFO").arg("STREAM").arg(&**stream);
        commands.cmd("XRANGE").arg(&**stream).arg(&id).arg(&id);
    }
    commands
}

/// Reads the replies to [`commands`].
pub(super) fn is_any_behind(remembered: &Acknowledged, replies: &[Value]) -> bool {
    let ids = remembered.ids.values();
    ids.zip(replies.chunks(2))
        .any(|(id, replies)| is_behind(*id, replies))
}

fn is_behind(id: EntryId, replies: &[Value]) -> bool {
    let [stream, entry] = replies else {
        return false;
    };
    let Value::Array(stream) = stream else {
        return error_of(stream).is_some_and(|error| error.contains("no such key"));
    };
    if let Some(Value::BulkString(last)) = field(stream, "last-generated-id")
        && EntryId::parse(last).is_some_and(|last| last < id)
    {
        return true;
    }
    let absent = matches!(entry, Value::Array(found) if found.is_empty());
    // Redis before 7.0 does not tell how many there ever were.
    let added = field(stream, "entries-added");
    let nothing_removed = added.is_some() && added == field(stream, "length");
    id != EntryId::UNKNOWN && absent && nothing_removed
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
    use redis::{Value, parse_redis_value};

    use super::{EntryId, is_behind};

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

    #[track_caller]
    fn check(stream: &str, entry: &str, expected: bool, why: &str) {
        let replies: Vec<Value> = [stream, entry]
            .map(|reply| parse_redis_value(reply.as_bytes()).unwrap())
            .to_vec();
        let id = EntryId { ms: 5, sequence: 1 };
        assert_eq!(is_behind(id, &replies), expected, "{why}");
    }

    #[test]
    fn a_stream_is_behind_only_on_evidence() {
        check("-ERR no such key\r\n", ABSENT, true, "missing");
        check("-NOPERM no\r\n", "-NOPERM no\r\n", false, "not readable");
        check(&info(3, Some(3), "5-1"), PRESENT, false, "as remembered");
        check(
            &info(3, Some(3), "9-0"),
            PRESENT,
            false,
            "others wrote after us",
        );
        check(
            &info(2, Some(2), "4-9"),
            ABSENT,
            true,
            "older than remembered",
        );
        check(
            &info(3, Some(3), "9-0"),
            ABSENT,
            true,
            "our entry never was there",
        );
        check(
            &info(3, Some(4), "9-0"),
            ABSENT,
            false,
            "our entry was trimmed",
        );
        check(
            &info(3, None, "9-0"),
            ABSENT,
            false,
            "before 7.0 it may have been trimmed",
        );
        let unknown = [
            parse_redis_value(info(3, Some(3), "9-0").as_bytes()).unwrap(),
            parse_redis_value(ABSENT.as_bytes()).unwrap(),
        ];
        assert!(
            !is_behind(EntryId::UNKNOWN, &unknown),
            "it exists, more is not known"
        );
    }
}
