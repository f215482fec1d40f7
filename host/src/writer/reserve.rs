//! How far the slowest consumer group of a stream is from losing entries to trimming.
//!
//! A stream is trimmed by length and age whether or not its consumers have read it, so a group that falls behind loses
//! entries. A survey takes two rounds of commands: [`Survey`] asks for the groups, [`Positions`] for where each stands.
//! [`Alarms`] logs when a stream comes close and when it is well again.
//!
//! Takes and returns values: no connection, no clock. A stream that cannot be read (it does not exist, is of another
//! type, or is not ours to look at) has no reserve, and that is no error.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::commands::Commands;
use crate::route::Stream;

/// A reserve below this is an alarm: at a steady pace four fifths of the way to a loss are gone.
const LOW: f64 = 0.2;
/// An alarm ends above this, so that it does not come and go around one value.
const WELL: f64 = 0.3;

/// What is left to the slowest consumer group of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reserve {
    /// The stream.
    pub(super) stream: Arc<Stream>,
    /// The group that is nearest to losing entries.
    pub(super) group: String,
    /// From 1, nothing is waiting for the group, to 0: what it has not read is being trimmed.
    pub(super) reserve: f64,
    /// Entries that the group was not given or has not acknowledged, where Redis can tell.
    pub(super) unread: Option<u64>,
    /// The age of the oldest of them; zero if there is none.
    pub(super) age: Duration,
}

/// The first round: which groups there are, and what Redis knows of them.
#[derive(Debug)]
pub(super) struct Survey {
    streams: Vec<Arc<Stream>>,
}

/// The second round: the oldest entry that each group still needs.
#[derive(Debug)]
pub(super) struct Positions {
    /// How many entries each stream has, where Redis tells.
    pub(super) lengths: Vec<(Arc<Stream>, Option<u64>)>,
    now_ms: u64,
    groups: Vec<Group>,
}

/// The streams whose reserve is low and was logged.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    low: BTreeSet<Arc<str>>,
}

/// An entry's id; their order is that of the stream.
type Id = (u64, u64);

/// A group as the first round shows it.
#[derive(Debug)]
struct Group {
    stream: Arc<Stream>,
    name: Vec<u8>,
    /// The oldest entry that the stream still has.
    first: Option<Id>,
    delivered: Id,
    unread: Option<u64>,
}

impl Survey {
    /// A survey of these streams.
    pub(super) fn new(streams: Vec<Arc<Stream>>) -> Survey {
        Survey { streams }
    }

    /// Commands for [`Survey::read`].
    pub(super) fn commands(&self) -> Commands {
        let mut commands = Commands::default();
        commands.add(&[b"TIME"]);
        for stream in &self.streams {
            commands.add(&[b"XINFO", b"STREAM", stream.name.as_bytes()]);
            commands.add(&[b"XINFO", b"GROUPS", stream.name.as_bytes()]);
        }
        commands
    }

    /// Reads the replies to [`Survey::commands`].
    pub(super) fn read(self, replies: &[Value]) -> Positions {
        let now_ms = replies.first().and_then(time_ms);
        let pairs = replies.get(1..).unwrap_or_default().chunks(2);
        let length = |pair: &[Value]| number(field(pair.first()?, "length")?);
        let streams = self.streams.iter().map(Arc::clone);
        let lengths = streams.zip(pairs.clone().map(length)).collect();
        let groups = self.streams.iter().zip(pairs).flat_map(|(stream, pair)| {
            let groups = pair.get(1).map_or(&[][..], items);
            let group = |group| Group::read(stream, pair.first()?, group);
            groups.iter().filter_map(group).collect::<Vec<_>>()
        });
        Positions {
            lengths,
            groups: now_ms.map_or_else(Vec::new, |_| groups.collect()),
            now_ms: now_ms.unwrap_or_default(),
        }
    }
}

impl Positions {
    /// Commands for [`Positions::read`]; none if no stream has a group.
    pub(super) fn commands(&self) -> Commands {
        let mut commands = Commands::default();
        for group in &self.groups {
            let (ms, number) = group.delivered;
            let (stream, after) = (group.stream.name.as_bytes(), format!("({ms}-{number}"));
            commands.add(&[b"XPENDING", stream, &group.name]);
            let after = after.as_bytes();
            commands.add(&[b"XRANGE", stream, after, b"+", b"COUNT", b"1"]);
        }
        commands
    }

    /// Reads the replies to [`Positions::commands`]: each stream that has groups, once, with its slowest.
    pub(super) fn read(&self, replies: &[Value]) -> Vec<Reserve> {
        let pairs = replies.chunks(2);
        let reserves = self.groups.iter().zip(pairs).filter_map(|(group, pair)| {
            let [pending, undelivered] = pair else {
                return None;
            };
            group.reserve(self.now_ms, pending, undelivered)
        });
        reserves.fold(Vec::new(), |mut slowest: Vec<Reserve>, reserve| {
            match slowest.last_mut() {
                Some(last) if last.stream == reserve.stream => {
                    if reserve.is_slower_than(last) {
                        *last = reserve;
                    }
                }
                _ => slowest.push(reserve),
            }
            slowest
        })
    }
}

impl Group {
    /// `stream_info` and `info` are what XINFO says of the stream and of the group.
    fn read(stream: &Arc<Stream>, stream_info: &Value, info: &Value) -> Option<Group> {
        let delivered = id(field(info, "last-delivered-id")?)?;
        let pending = number(field(info, "pending")?)?;
        // Redis 6.2 has no lag, and a newer one cannot always tell.
        let lag = field(info, "lag").and_then(number);
        let undelivered = lag.or_else(|| undelivered(stream_info, delivered));
        Some(Group {
            stream: Arc::clone(stream),
            first: first(stream_info),
            name: bytes(field(info, "name")?)?.to_vec(),
            delivered,
            unread: undelivered.map(|undelivered| undelivered.saturating_add(pending)),
        })
    }

    /// `pending` is the reply to XPENDING, `undelivered` the first entry that the group was not given.
    fn reserve(&self, now_ms: u64, pending: &Value, undelivered: &Value) -> Option<Reserve> {
        let (Value::Array(pending), Value::Array(undelivered)) = (pending, undelivered) else {
            return None;
        };
        let pending = pending.get(1).and_then(id);
        let first = |entry: &Value| id(items(entry).first()?);
        let undelivered = undelivered.first().and_then(first);
        let oldest = [pending, undelivered].into_iter().flatten().min();
        let age = oldest.map_or(0, |(ms, _)| now_ms.saturating_sub(ms));
        let age = Duration::from_millis(age);
        let unread = oldest.map_or(Some(0), |_| self.unread);
        let is_gone = |pending| self.first.is_some_and(|first| pending < first);
        let reserve = if pending.is_some_and(is_gone) {
            0.0
        } else {
            reserve_of(&self.stream, unread, age)
        };
        let group = String::from_utf8_lossy(&self.name).into_owned();
        Some(Reserve {
            stream: Arc::clone(&self.stream),
            group,
            reserve,
            unread,
            age,
        })
    }
}

impl Reserve {
    fn is_slower_than(&self, other: &Reserve) -> bool {
        let by_reserve = self.reserve.total_cmp(&other.reserve);
        by_reserve.then(other.age.cmp(&self.age)).is_lt()
    }
}

impl Alarms {
    /// Logs the streams whose reserve has become low or well. One that is not surveyed any more has no alarm.
    pub(super) fn watch(&mut self, reserves: &[Reserve]) {
        let surveyed = |name: &Arc<str>| reserves.iter().any(|one| one.stream.name == *name);
        self.low.retain(surveyed);
        for one in reserves {
            let Some(change) = self.change(one) else {
                continue;
            };
            let age_ms = u64::try_from(one.age.as_millis()).unwrap_or(u64::MAX);
            let (stream, group) = (&*one.stream.name, &*one.group);
            let (reserve, unread) = (one.reserve, one.unread);
            match change {
                Change::Low => tracing::error!(
                    stream,
                    group,
                    reserve,
                    unread,
                    age_ms,
                    "consumers are about to lose entries to trimming"
                ),
                Change::Well => tracing::info!(
                    stream,
                    group,
                    reserve,
                    unread,
                    age_ms,
                    "consumers have caught up"
                ),
            }
        }
    }

    fn change(&mut self, one: &Reserve) -> Option<Change> {
        let name = &one.stream.name;
        if one.reserve < LOW {
            return self.low.insert(Arc::clone(name)).then_some(Change::Low);
        }
        (one.reserve > WELL && self.low.remove(name)).then_some(Change::Well)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    Low,
    Well,
}

/// Entries after `delivered`, as the stream's ends tell: all, none, or in between the share that its place in time has, as if
/// entries came evenly.
fn undelivered(stream_info: &Value, delivered: Id) -> Option<u64> {
    let last = id(field(stream_info, "last-generated-id")?)?;
    if delivered >= last {
        return Some(0);
    }
    let length = number(field(stream_info, "length")?)?;
    let first = first(stream_info)?;
    let span = u128::from(last.0.saturating_sub(first.0));
    if delivered < first || span == 0 {
        return Some(length);
    }
    let rest = u128::from(last.0.saturating_sub(delivered.0));
    u64::try_from((u128::from(length) * rest).div_ceil(span)).ok()
}

fn first(stream_info: &Value) -> Option<Id> {
    id(items(field(stream_info, "first-entry")?).first()?)
}

/// What is left of the limit that is nearer. A stream without limits is never trimmed.
fn reserve_of(stream: &Stream, unread: Option<u64>, age: Duration) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share of a limit need not be exact"
    )]
    let by_length = match unread {
        Some(unread) if stream.max_len > 0 => unread as f64 / stream.max_len as f64,
        _ => 0.0,
    };
    let by_age = stream
        .expire
        .map_or(0.0, |expire| age.div_duration_f64(expire));
    (1.0 - by_length.max(by_age)).clamp(0.0, 1.0)
}

/// The items of an array; of anything else, an error above all, none.
fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

/// A field of what XINFO answers: names and values in turn.
fn field<'a>(info: &'a Value, name: &str) -> Option<&'a Value> {
    let mut pairs = items(info).chunks(2);
    let pair = pairs.find(|pair| pair.first().and_then(bytes) == Some(name.as_bytes()))?;
    pair.get(1)
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn id(value: &Value) -> Option<Id> {
    let (ms, number) = std::str::from_utf8(bytes(value)?).ok()?.split_once('-')?;
    Some((ms.parse().ok()?, number.parse().ok()?))
}

/// The reply to TIME (seconds, and microseconds of the second) in milliseconds.
pub(super) fn time_ms(reply: &Value) -> Option<u64> {
    let part = |at: usize| {
        let text = std::str::from_utf8(bytes(items(reply).get(at)?)?).ok()?;
        text.parse::<u64>().ok()
    };
    Some(
        part(0)?
            .saturating_mul(1_000)
            .saturating_add(part(1)? / 1_000),
    )
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;
    use crate::config::StreamFormat;

    fn stream(max_len: u64, expire_s: u64) -> Arc<Stream> {
        Arc::new(Stream {
            name: "s".into(),
            max_len,
            expire: Some(Duration::from_secs(expire_s)).filter(|age| !age.is_zero()),
            format: StreamFormat::Json,
        })
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn array(items: &[Value]) -> Value {
        Value::Array(items.to_vec())
    }

    /// The time of every survey here: a million milliseconds.
    fn time() -> Value {
        array(&[text("1000"), text("499")])
    }

    fn entry(id: &str) -> Value {
        array(&[text(id), array(&[text("event"), text("{}")])])
    }

    /// What Redis says of a stream of this many entries, the part that both versions share.
    fn stream_info(length: i64, first: &str, last: &str) -> Value {
        array(&[
            text("length"),
            Value::Int(length),
            text("radix-tree-keys"),
            Value::Int(1),
            text("last-generated-id"),
            text(last),
            text("groups"),
            Value::Int(1),
            text("first-entry"),
            entry(first),
            text("last-entry"),
            entry(last),
        ])
    }

    /// A group as redis-server 6.2 shows it.
    fn group(name: &str, pending: i64, delivered: &str) -> Value {
        array(&[
            text("name"),
            text(name),
            text("consumers"),
            Value::Int(1),
            text("pending"),
            Value::Int(pending),
            text("last-delivered-id"),
            text(delivered),
        ])
    }

    /// A group as redis-server 7.0 shows it.
    fn group_with_lag(name: &str, pending: i64, delivered: &str, lag: Value) -> Value {
        let Value::Array(mut fields) = group(name, pending, delivered) else {
            panic!("a group is an array");
        };
        fields.extend([text("entries-read"), Value::Nil, text("lag"), lag]);
        Value::Array(fields)
    }

    fn pending(count: i64, first: &str) -> Value {
        let of_consumer = array(&[text("c"), text("1")]);
        array(&[
            Value::Int(count),
            text(first),
            text("999-0"),
            array(&[of_consumer]),
        ])
    }

    fn nothing_pending() -> Value {
        array(&[Value::Int(0), Value::Nil, Value::Nil, Value::Nil])
    }

    fn error(line: &str) -> Value {
        parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap()
    }

    /// Surveys one stream.
    fn survey(
        stream: &Arc<Stream>,
        info: Value,
        groups: &[Value],
        second: &[Value],
    ) -> Vec<Reserve> {
        let survey = Survey::new(vec![Arc::clone(stream)]);
        let positions = survey.read(&[time(), info, array(groups)]);
        assert_eq!(
            positions.commands().len(),
            second.len(),
            "a reply for each command"
        );
        positions.read(second)
    }

    #[track_caller]
    fn check(found: &[Reserve], group: &str, reserve: f64, unread: Option<u64>, age_ms: u64) {
        let [found] = found else {
            panic!("expected one reserve, not {found:?}");
        };
        assert_eq!(found.group, group);
        assert!(
            (found.reserve - reserve).abs() < 1e-9,
            "expected a reserve of {reserve}: {found:?}"
        );
        assert_eq!(found.unread, unread);
        assert_eq!(found.age, Duration::from_millis(age_ms));
    }

    #[test]
    fn the_nearer_limit_decides() {
        let by = |max_len, expire_s| {
            survey(
                &stream(max_len, expire_s),
                stream_info(500, "800000-0", "999000-0"),
                &[group_with_lag("g", 0, "900000-0", Value::Int(250))],
                &[nothing_pending(), array(&[entry("940000-7")])],
            )
        };
        check(&by(1_000, 600), "g", 0.75, Some(250), 60_000);
        check(&by(1_000, 100), "g", 0.4, Some(250), 60_000);
        check(&by(0, 100), "g", 0.4, Some(250), 60_000);
        check(&by(1_000, 0), "g", 0.75, Some(250), 60_000);
        check(&by(0, 0), "g", 1.0, Some(250), 60_000);
        check(&by(100, 10), "g", 0.0, Some(250), 60_000);
    }

    #[test]
    fn a_group_that_has_everything_is_far_from_a_loss() {
        for group in [
            group("g", 0, "999000-0"),
            group_with_lag("g", 0, "999000-0", Value::Int(0)),
            group_with_lag("g", 0, "999000-0", Value::Nil),
        ] {
            let info = stream_info(10_000, "1-0", "999000-0");
            let second = [nothing_pending(), array(&[])];
            let found = survey(&stream(10_000, 600), info, &[group], &second);
            check(&found, "g", 1.0, Some(0), 0);
        }
    }

    #[test]
    fn what_was_delivered_and_not_acknowledged_counts_too() {
        let found = survey(
            &stream(1_000, 600),
            stream_info(500, "600000-0", "999000-0"),
            &[group_with_lag("g", 2, "980000-0", Value::Int(98))],
            &[pending(2, "700000-0"), array(&[entry("985000-0")])],
        );
        check(&found, "g", 0.5, Some(100), 300_000);
    }

    #[test]
    fn a_pending_entry_that_is_gone_leaves_no_reserve() {
        let found = survey(
            &stream(1_000, 0),
            stream_info(1_000, "600000-0", "999000-0"),
            &[group_with_lag("g", 1, "999000-0", Value::Int(0))],
            &[pending(1, "599999-9"), array(&[])],
        );
        check(&found, "g", 0.0, Some(1), 400_001);
    }

    #[test]
    fn without_a_lag_the_ends_of_the_stream_tell_how_much_is_unread() {
        let unread = |delivered| {
            let found = survey(
                &stream(1_000, 0),
                stream_info(400, "600000-0", "999000-0"),
                &[group("g", 0, delivered)],
                &[nothing_pending(), array(&[entry("900000-0")])],
            );
            found.first().map(|one| (one.unread, one.reserve))
        };
        assert_eq!(unread("0-0"), Some((Some(400), 0.6)), "all of it");
        assert_eq!(unread("700000-0"), Some((Some(300), 0.7)), "about");
    }

    #[test]
    fn the_slowest_group_stands_for_its_stream() {
        let fast = group_with_lag("fast", 0, "999000-0", Value::Int(0));
        let slow = group_with_lag("slow", 0, "900000-0", Value::Int(900));
        let other = group_with_lag("other", 0, "990000-0", Value::Int(10));
        let found = survey(
            &stream(1_000, 0),
            stream_info(1_000, "1-0", "999000-0"),
            &[fast, slow, other],
            &[
                nothing_pending(),
                array(&[]),
                nothing_pending(),
                array(&[entry("910000-0")]),
                nothing_pending(),
                array(&[entry("991000-0")]),
            ],
        );
        check(&found, "slow", 0.1, Some(900), 90_000);
    }

    #[test]
    fn a_stream_that_tells_nothing_has_no_reserve_and_hides_no_other() {
        let names = ["gone", "hash", "secret", "unused", "good"];
        let named = |name: &&str| {
            Arc::new(Stream {
                name: (*name).into(),
                max_len: 10,
                expire: None,
                format: StreamFormat::Json,
            })
        };
        let survey = Survey::new(names.iter().map(named).collect());
        assert_eq!(survey.commands().len(), 11, "TIME and two for each stream");
        let no_key = error("ERR no such key");
        let wrong = error("WRONGTYPE Operation against a key holding the wrong kind of value");
        let denied = error("NOPERM No permissions to access a key");
        let info = stream_info(10, "1-0", "999000-0");
        let groups = [group("left", 0, "1-0"), group("g", 0, "999000-0")];
        let positions = survey.read(&[
            time(),
            no_key.clone(),
            no_key,
            wrong.clone(),
            wrong,
            denied.clone(),
            denied,
            info.clone(),
            array(&[]),
            info,
            array(&groups),
        ]);
        let no_group = error("NOGROUP No such key 'good' or consumer group 'left'");
        let empty = array(&[]);
        let found = positions.read(&[no_group, empty.clone(), nothing_pending(), empty]);
        check(&found, "g", 1.0, Some(0), 0);
    }

    #[test]
    fn replies_that_make_no_sense_give_nothing() {
        let one = || Survey::new(vec![stream(1, 1)]);
        for replies in [
            vec![],
            vec![error("LOADING Redis is loading the dataset in memory")],
            vec![
                Value::Nil,
                stream_info(1, "1-0", "1-0"),
                array(&[group("g", 0, "0-0")]),
            ],
            vec![
                time(),
                Value::Nil,
                array(&[text("g"), Value::Int(3), array(&[])]),
            ],
        ] {
            let positions = one().read(&replies);
            assert_eq!(positions.commands().len(), 0, "{replies:?}");
            assert_eq!(positions.read(&replies), []);
        }
    }

    #[test]
    fn an_alarm_comes_once_and_ends_well_above_where_it_came() {
        let mut alarms = Alarms::default();
        let mut change = |reserve| {
            alarms.change(&Reserve {
                stream: stream(1, 1),
                group: "g".to_owned(),
                reserve,
                unread: None,
                age: Duration::ZERO,
            })
        };
        assert_eq!(change(0.25), None, "not low yet");
        assert_eq!(change(0.19), Some(Change::Low));
        assert_eq!(change(0.0), None, "it was said already");
        assert_eq!(change(0.29), None, "not well yet");
        assert_eq!(change(0.31), Some(Change::Well));
        assert_eq!(change(0.25), None);
        assert_eq!(change(0.1), Some(Change::Low), "once more");
    }

    #[test]
    fn a_stream_without_groups_has_no_alarm_any_more() {
        let mut alarms = Alarms::default();
        let low = Reserve {
            stream: stream(1, 1),
            group: "g".to_owned(),
            reserve: 0.0,
            unread: Some(1),
            age: Duration::ZERO,
        };
        alarms.watch(std::slice::from_ref(&low));
        assert_eq!(alarms.change(&low), None, "it is in alarm");
        alarms.watch(&[]);
        assert_eq!(alarms.change(&low), Some(Change::Low), "it begins anew");
    }
}
