//! The two keys by which Redis tells where a router stands and whose it is.
//!
//! `jackfield:<router>:cursor` is `<journal id>:<LSN>`: everything up to that LSN is in Redis. It lies in the same database as
//! the streams and moves in the same transactions, so a Redis that comes back with less also says so. A `+1` after the LSN
//! says that the dead letters of that batch's failed entries are in as well. `jackfield:<router>:owner` is
//! `<journal id> <host name>` and expires. Pure.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use redis::Value;

use super::batch::error_of;
use super::commands::Commands;
use crate::journal::Lsn;

/// An owner that is not heard of for so long is gone: three renewals may fail.
pub(super) const OWNER_EXPIRES: Duration = Duration::from_secs(15);

/// Who writes, and under which keys.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) router: String,
    pub(super) journal: String,
    pub(super) host: String,
}

/// A place in the journal, as the cursor tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) lsn: Lsn,
    /// The dead letters of the batch that ended there were written, too.
    pub(super) letters: bool,
}

/// What the cursor key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cursor {
    Missing,
    Ours(Place),
    /// Another journal's, or nothing that this version understands.
    Foreign(String),
}

/// What the owner key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Nobody,
    Us,
    /// Another host, by name: with another journal, or with a copy of ours.
    Other(String),
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let letters = if self.letters { "+1" } else { "" };
        write!(f, "{}{letters}", self.lsn)
    }
}

impl Identity {
    pub(super) fn cursor_key(&self) -> String {
        format!("jackfield:{}:cursor", self.router)
    }

    pub(super) fn owner_key(&self) -> String {
        format!("jackfield:{}:owner", self.router)
    }

    pub(super) fn cursor(&self, place: Place) -> String {
        format!("{}:{place}", self.journal)
    }

    pub(super) fn owner(&self) -> String {
        format!("{} {}", self.journal, self.host)
    }

    /// Watches the cursor for the transaction to come, and asks for it.
    pub(super) fn arm(&self, commands: &mut Commands) {
        let key = self.cursor_key();
        commands.add(&[b"WATCH", key.as_bytes()]);
        commands.add(&[b"GET", key.as_bytes()]);
    }

    /// Reads the replies to [`Identity::arm`]; the error is Redis' words.
    pub(super) fn read_armed(&self, replies: Option<&[Value]>) -> Result<Cursor, String> {
        let Some([watch, get]) = replies else {
            return Err("no reply to WATCH and GET".to_owned());
        };
        if let Some(error) = error_of(watch) {
            return Err(error);
        }
        Ok(match text(get)? {
            Some(text) => self.read_cursor(text),
            None => Cursor::Missing,
        })
    }

    fn read_cursor(&self, text: String) -> Cursor {
        let place = text
            .strip_prefix(&self.journal)
            .and_then(|rest| rest.strip_prefix(':'))
            .and_then(read_place);
        place.map_or(Cursor::Foreign(text), Cursor::Ours)
    }

    /// Reads the reply to `GET owner`. Where it may not be read, nobody is known to be there.
    pub(super) fn read_owner(&self, reply: Option<&Value>) -> Owner {
        match reply.map(text) {
            Some(Ok(Some(owner))) => {
                if owner == self.owner() {
                    return Owner::Us;
                }
                let (_, host) = owner.split_once(' ').unwrap_or((&owner, &owner));
                Owner::Other(host.to_owned())
            }
            _ => Owner::Nobody,
        }
    }
}

fn read_place(text: &str) -> Option<Place> {
    let (lsn, letters) = match text.strip_suffix("+1") {
        Some(lsn) => (lsn, true),
        None => (text, false),
    };
    // `parse` alone would take a sign.
    let digits = lsn.bytes().all(|byte| byte.is_ascii_digit());
    let lsn = lsn.parse().ok().filter(|_| digits)?;
    Some(Place { lsn, letters })
}

/// A reply that is text or nothing.
fn text(reply: &Value) -> Result<Option<String>, String> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(text) => Ok(Some(String::from_utf8_lossy(text).into_owned())),
        other => {
            Err(error_of(other).unwrap_or_else(|| format!("unexpected reply to GET: {other:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::{Cursor, Identity, Owner, Place};

    fn identity() -> Identity {
        Identity {
            router: "fs1".to_owned(),
            journal: "0a1b".to_owned(),
            host: "here".to_owned(),
        }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[track_caller]
    fn check(text: &str, expected: Option<(u64, bool)>) {
        let read = identity().read_armed(Some(&[Value::Okay, bulk(text)]));
        let expected = match expected {
            Some((lsn, letters)) => Cursor::Ours(Place { lsn, letters }),
            None => Cursor::Foreign(text.to_owned()),
        };
        assert_eq!(read, Ok(expected), "{text:?}");
    }

    #[test]
    fn a_cursor_is_ours_only_if_all_of_it_is_understood() {
        check("0a1b:17", Some((17, false)));
        check("0a1b:17+1", Some((17, true)));
        check("0a1b:18446744073709551615", Some((u64::MAX, false)));
        for foreign in [
            "",
            ":",
            "0a1b",
            "0a1b:",
            "0a1b:+1",
            "0a1b:+17",
            "0a1b:-1",
            "0a1b:17+2",
            "0a1c:17",
            "0a1b2:17",
            "0a1b:18446744073709551616",
            "0a1b: 17",
        ] {
            check(foreign, None);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for letters in [false, true] {
            let place = Place {
                lsn: 1 << 40,
                letters,
            };
            let text = identity().cursor(place);
            check(&text, Some((1 << 40, letters)));
        }
        let owner = |text: &str| identity().read_owner(Some(&bulk(text)));
        assert_eq!(owner(&identity().owner()), Owner::Us);
        for other in ["0a1c over there", "0a1b over there"] {
            assert_eq!(owner(other), Owner::Other("over there".to_owned()));
        }
        assert_eq!(identity().read_owner(Some(&Value::Nil)), Owner::Nobody);
    }
}
