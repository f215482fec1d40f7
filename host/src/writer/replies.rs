//! Redis' replies (RESP2), read from what has come so far. Pure.

use std::io;

use redis::{Value, parse_redis_value};

/// Nothing that this host asks is answered with deeper lists.
const DEEPEST: usize = 16;
/// Elements of a list that room is made for before they are there.
const AT_ONCE: usize = 1_024;

/// The reply at the beginning of `bytes` and how long it is; `None` while its end has not come.
///
/// # Errors
/// These bytes are no reply of Redis.
pub(super) fn read(bytes: &[u8]) -> io::Result<Option<(Value, usize)>> {
    let mut rest = bytes;
    match value(&mut rest, DEEPEST) {
        Ok(value) => Ok(Some((value, bytes.len() - rest.len()))),
        Err(Stop::Short) => Ok(None),
        Err(Stop::Bad) => {
            let shown = bytes.get(..32).unwrap_or(bytes).escape_ascii();
            let text = format!("\"{shown}\" is no reply of Redis");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}

/// Why there is no value.
enum Stop {
    /// The bytes end in it.
    Short,
    /// It is none.
    Bad,
}

fn value(rest: &mut &[u8], depth: usize) -> Result<Value, Stop> {
    let all = *rest;
    let line = line(rest)?;
    let (kind, line) = line.split_first().ok_or(Stop::Bad)?;
    Ok(match kind {
        b'+' if line == b"OK" => Value::Okay,
        b'+' => Value::SimpleString(String::from_utf8_lossy(line).into_owned()),
        // Seldom, and only the crate can make its error.
        b'-' => {
            let line = all.get(..all.len() - rest.len()).unwrap_or_default();
            parse_redis_value(line).map_err(|_| Stop::Bad)?
        }
        b':' => Value::Int(number(line)?),
        b'$' => match length(line)? {
            None => Value::Nil,
            Some(length) => {
                let (text, after) = rest.split_at_checked(length).ok_or(Stop::Short)?;
                let (end, after) = after.split_at_checked(2).ok_or(Stop::Short)?;
                if end != b"\r\n" {
                    return Err(Stop::Bad);
                }
                *rest = after;
                Value::BulkString(text.to_vec())
            }
        },
        b'*' => match length(line)? {
            None => Value::Nil,
            Some(length) => {
                let depth = depth.checked_sub(1).ok_or(Stop::Bad)?;
                let mut values = Vec::with_capacity(length.min(AT_ONCE));
                for _ in 0..length {
                    values.push(value(rest, depth)?);
                }
                Value::Array(values)
            }
        },
        _ => return Err(Stop::Bad),
    })
}

/// The next line, without its end.
fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Stop> {
    let end = memchr::memchr(b'\n', rest).ok_or(Stop::Short)?;
    let (line, after) = rest.split_at(end + 1);
    *rest = after;
    line.strip_suffix(b"\r\n").ok_or(Stop::Bad)
}

fn number(digits: &[u8]) -> Result<i64, Stop> {
    let text = std::str::from_utf8(digits).map_err(|_| Stop::Bad)?;
    text.parse().map_err(|_| Stop::Bad)
}

/// `None`: what it would be the length of is not there at all.
fn length(digits: &[u8]) -> Result<Option<usize>, Stop> {
    match number(digits)? {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| Stop::Bad),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
    use redis::parse_redis_value;

    use super::read;

    /// Replies as Redis writes them.
    fn reply() -> impl Strategy<Value = Vec<u8>> {
        let bulk = any::<Vec<u8>>().prop_map(|text| {
            let head = format!("${}\r\n", text.len()).into_bytes();
            [head, text, b"\r\n".to_vec()].concat()
        });
        let leaf = prop_oneof![
            Just(b"+OK\r\n".to_vec()),
            "[A-Za-z ]{0,12}".prop_map(|text| format!("+{text}\r\n").into_bytes()),
            "[A-Z]{1,9}( [a-z ']{0,20})?".prop_map(|text| format!("-{text}\r\n").into_bytes()),
            any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
            Just(b"$-1\r\n".to_vec()),
            Just(b"*-1\r\n".to_vec()),
            bulk,
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            prop::collection::vec(inner, 0..5).prop_map(|all| {
                let head = format!("*{}\r\n", all.len()).into_bytes();
                [vec![head], all].concat().concat()
            })
        })
    }

    proptest! {
        #[test]
        fn they_are_what_the_redis_crate_reads(reply in reply(), more in any::<Vec<u8>>()) {
            let whole = read(&[&*reply, &*more].concat()).unwrap();
            prop_assert_eq!(whole, Some((parse_redis_value(&reply).unwrap(), reply.len())));
        }

        #[test]
        fn a_part_of_one_is_waited_for(reply in reply(), cut in any::<prop::sample::Index>()) {
            prop_assert_eq!(read(&reply[..cut.index(reply.len())]).unwrap(), None);
        }

        #[test]
        fn anything_may_come(bytes in any::<Vec<u8>>()) {
            let _read = read(&bytes);
        }
    }

    #[test]
    fn what_is_no_reply_is_shown() {
        let check = |bytes: &[u8], shown: &str| {
            let error = read(bytes).unwrap_err().to_string();
            assert_eq!(error, format!("\"{shown}\" is no reply of Redis"));
        };
        check(
            b"HTTP/1.1 400 Bad Request\r\n",
            r"HTTP/1.1 400 Bad Request\r\n",
        );
        check(b"+OK\n", r"+OK\n");
        check(b":\r\n", r":\r\n");
        check(b"$-2\r\n", r"$-2\r\n");
        check(b"$1\r\nabc", r"$1\r\nabc");
        check(b"\r\n", r"\r\n");
        let deep = b"*1\r\n".repeat(17);
        assert!(read(&deep).is_err());
    }
}
