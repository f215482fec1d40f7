//! One batch: the transaction that writes it, and what Redis' replies mean for each entry.
//!
//! A batch is `MULTI`, its `XADD`s, `SET cursor`, `EXEC`, and after that `WATCH cursor`, `GET cursor` for the next one. The watch
//! that guards a batch is armed before it, so a batch that was given up on and executes late finds the cursor moved and
//! does nothing. Entries that failed inside `EXEC` make a second transaction with their dead letters alone. Entries are
//! known by their number in the batch. Pure: no connection, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use redis::Value;

use super::acknowledged::EntryId;
use super::commands::Commands;
use super::cursor::{Cursor, Identity, OWNER_EXPIRES, Place};
use crate::journal::Lsn;
use crate::pipeline::Decision;
use crate::route::{Entry, Routes, Stream};

/// What a dead letter keeps of an event that is too large.
pub(super) const DEAD_BYTES: usize = 64 << 10;

/// Decisions in flight, and what has been learnt about their entries.
#[derive(Debug)]
pub(super) struct Batch {
    decisions: Vec<Arc<Decision>>,
    /// How many of the decisions are written now: fewer while the one that kills its connection is sought.
    size: usize,
    /// What the cursor says once all decisions are in: the last one, or a later input that was dropped.
    end: Lsn,
    altered: BTreeMap<usize, Altered>,
    /// The batch is in Redis but for these entries: their dead letters are to be written.
    letters: Option<BTreeSet<usize>>,
    /// Nothing comes after it.
    is_last: bool,
    /// Connections in a row that were closed on it.
    pub(super) deaths: u32,
    /// The last of them had carried as many bytes before.
    pub(super) is_killer: bool,
}

/// What is done about an entry that Redis does not take as it is.
#[derive(Debug)]
enum Altered {
    /// This dead letter is written instead.
    Letter(Entry),
    /// This is to go to the local file.
    Keep(Entry),
    /// It is in the local file.
    Kept,
    /// Not even that.
    Lost,
    /// The entry is in its stream already.
    There,
}

/// What became of an event, once its batch is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    /// All its entries were there before.
    There,
    Dead,
    Lost,
}

/// What a transaction does about the owner key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerKey {
    Leave,
    Renew,
    Release,
}

/// What became of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Executed {
        ids: Vec<(Arc<Stream>, EntryId)>,
        /// These entries failed by themselves, with Redis' words.
        failed: Vec<(usize, String)>,
    },
    /// Not executed: the cursor had moved.
    Fenced,
    /// Not executed: these entries may not be written, with Redis' words.
    EntriesRefused(Vec<(usize, String)>),
    /// Not executed: Redis refuses to write at all now.
    Refused(String),
}

/// The replies to a batch: what became of it, and where the cursor stands now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) cursor: Result<Cursor, String>,
}

impl Batch {
    /// A batch of these decisions; `passed` may be later than the last one.
    pub(super) fn new(decisions: Vec<Arc<Decision>>, passed: Lsn) -> Batch {
        let last = decisions.last().map_or(0, |decision| decision.lsn);
        Batch {
            size: decisions.len(),
            end: passed.max(last),
            decisions,
            altered: BTreeMap::new(),
            letters: None,
            is_last: false,
            deaths: 0,
            is_killer: false,
        }
    }

    /// The cursor alone, and the owner key released.
    pub(super) fn last(passed: Lsn) -> Batch {
        Batch {
            is_last: true,
            ..Batch::new(Vec::new(), passed)
        }
    }

    /// Nothing comes after it.
    pub(super) fn is_last(&self) -> bool {
        self.is_last
    }

    pub(super) fn decisions(&self) -> &[Arc<Decision>] {
        &self.decisions
    }

    /// What the cursor says once this batch is in.
    pub(super) fn place(&self) -> Place {
        let written = self.written();
        let last = written.last().map_or(self.end, |decision| decision.lsn);
        let all = written.len() == self.decisions.len();
        Place {
            lsn: if all { self.end } else { last },
            letters: self.letters.is_some(),
        }
    }

    /// It is in Redis, but for dead letters of some entries.
    pub(super) fn awaits_letters(&self) -> bool {
        self.letters.is_some()
    }

    fn written(&self) -> &[Arc<Decision>] {
        self.decisions.get(..self.size).unwrap_or_default()
    }

    /// The entries as they were decided.
    fn entries(&self) -> impl Iterator<Item = (usize, Lsn, &Entry)> {
        let events = self
            .written()
            .iter()
            .flat_map(|decision| decision.events.iter().map(|event| (decision.lsn, event)));
        let entries =
            events.flat_map(|(lsn, event)| event.entries.iter().map(move |one| (lsn, one)));
        let numbered = entries.enumerate();
        numbered.map(|(number, (lsn, entry))| (number, lsn, entry))
    }

    /// The entries that the next transaction writes.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.entries().filter_map(|(number, _, entry)| {
            let awaited = self.letters.as_ref();
            if awaited.is_some_and(|letters| !letters.contains(&number)) {
                return None;
            }
            match self.altered.get(&number) {
                None => Some((number, entry)),
                Some(Altered::Letter(letter)) => Some((number, letter)),
                Some(Altered::Keep(_) | Altered::Kept | Altered::Lost | Altered::There) => None,
            }
        })
    }

    /// Leaves out the entries that their streams have already.
    pub(super) fn pass_over(&mut self, is_there: impl Fn(&str, Lsn) -> bool) {
        let there: Vec<usize> = self
            .entries()
            .filter(|(_, lsn, entry)| is_there(&entry.stream.name, *lsn))
            .map(|(number, _, _)| number)
            .collect();
        let there = there.into_iter().map(|number| (number, Altered::There));
        self.altered.extend(there);
    }

    pub(super) fn commands(&self, identity: &Identity, owner: OwnerKey) -> Commands {
        let bytes: usize = self.lines().map(|(_, entry)| packed_size(entry)).sum();
        let mut commands = Commands::with_capacity(bytes + AROUND);
        commands.add(&[b"MULTI"]);
        for (_, entry) in self.lines() {
            xadd(entry, &mut commands);
        }
        let key = identity.cursor_key();
        let value = identity.cursor(self.place());
        commands.add(&[b"SET", key.as_bytes(), value.as_bytes()]);
        let key = identity.owner_key();
        match owner {
            OwnerKey::Leave => {}
            OwnerKey::Renew => {
                let owner = identity.owner();
                let expires = OWNER_EXPIRES.as_millis().to_string();
                let (owner, expires) = (owner.as_bytes(), expires.as_bytes());
                commands.add(&[b"SET", key.as_bytes(), owner, b"PX", expires]);
            }
            OwnerKey::Release => commands.add(&[b"DEL", key.as_bytes()]),
        }
        commands.add(&[b"EXEC"]);
        identity.arm(&mut commands);
        commands
    }

    /// Reads the replies to [`Batch::commands`].
    pub(super) fn read(&self, identity: &Identity, replies: &[Value]) -> Answer {
        // At the end stand EXEC, WATCH and GET; the rest is what was queued.
        let (queued, end) = replies.split_at(replies.len().saturating_sub(3));
        let cursor = identity.read_armed(end.get(1..));
        let outcome = match end.first() {
            Some(Value::Nil) => Outcome::Fenced,
            Some(Value::Array(results)) => self.executed(results),
            exec => self.aborted(queued, exec),
        };
        Answer { outcome, cursor }
    }

    fn executed(&self, results: &[Value]) -> Outcome {
        let (mut ids, mut failed) = (Vec::new(), Vec::new());
        for ((number, entry), result) in self.lines().zip(results) {
            match result {
                Value::BulkString(id) => {
                    ids.extend(EntryId::parse(id).map(|id| (Arc::clone(&entry.stream), id)));
                }
                other => failed.extend(error_of(other).map(|error| (number, error))),
            }
        }
        Outcome::Executed { ids, failed }
    }

    fn aborted(&self, queued: &[Value], exec: Option<&Value>) -> Outcome {
        let multi = queued.first().and_then(error_of);
        let entries = self.lines().zip(queued.get(1..).unwrap_or_default());
        let failed: Vec<(usize, String)> = entries
            .filter_map(|((number, _), reply)| Some((number, error_of(reply)?)))
            .collect();
        let general = failed.iter().find(|(_, error)| !is_about_key(error));
        if let Some(error) = multi.or_else(|| general.map(|(_, error)| error.clone())) {
            return Outcome::Refused(error);
        }
        if !failed.is_empty() {
            return Outcome::EntriesRefused(failed);
        }
        let error = queued.iter().chain(exec).find_map(error_of);
        Outcome::Refused(error.unwrap_or_else(|| format!("unexpected reply to EXEC: {exec:?}")))
    }

    /// The batch was executed but for these entries: from now on it is their dead letters that are to be written.
    pub(super) fn bury(&mut self, failed: &[(usize, String)], routes: &Routes) {
        self.replace(failed, routes);
        self.letters = Some(failed.iter().map(|(number, _)| *number).collect());
    }

    /// Replaces entries that Redis does not take by their dead letters, and dead letters by a line in the local file.
    pub(super) fn replace(&mut self, refused: &[(usize, String)], routes: &Routes) {
        let reasons: BTreeMap<usize, &str> = refused
            .iter()
            .map(|(number, reason)| (*number, reason.as_str()))
            .collect();
        let mut altered = Vec::new();
        for (number, lsn, entry) in self.entries() {
            let Some(reason) = reasons.get(&number) else {
                continue;
            };
            let now = match self.altered.get(&number) {
                None if routes.is_dead(&entry.stream.name) => Altered::Keep(entry.clone()),
                None => match letter(entry, lsn, reason, routes) {
                    Some(letter) => Altered::Letter(letter),
                    None => Altered::Lost,
                },
                Some(Altered::Letter(letter)) => Altered::Keep(letter.clone()),
                Some(Altered::Keep(_) | Altered::Kept | Altered::Lost | Altered::There) => continue,
            };
            altered.push((number, now));
        }
        self.altered.extend(altered);
    }

    /// Gives up on writing what is left of the batch to Redis: all of it goes to the local file.
    pub(super) fn keep_all(&mut self, reason: &str, routes: &Routes) {
        let lines: BTreeSet<usize> = self.lines().map(|(number, _)| number).collect();
        let altered: Vec<(usize, Altered)> = self
            .entries()
            .filter(|(number, _, _)| lines.contains(number))
            .map(|(number, lsn, entry)| {
                let kept = if routes.is_dead(&entry.stream.name) {
                    Some(entry.clone())
                } else {
                    letter(entry, lsn, reason, routes)
                };
                (number, kept.map_or(Altered::Lost, Altered::Keep))
            })
            .collect();
        self.altered.extend(altered);
    }

    /// What is to go to the local file before the next transaction.
    pub(super) fn to_keep(&self) -> Vec<Entry> {
        let keep = |altered: &Altered| match altered {
            Altered::Keep(entry) => Some(entry.clone()),
            Altered::Letter(_) | Altered::Kept | Altered::Lost | Altered::There => None,
        };
        self.altered.values().filter_map(keep).collect()
    }

    /// What [`Batch::to_keep`] gave is in the local file, or could not be kept.
    pub(super) fn kept(&mut self, kept: bool) {
        for altered in self.altered.values_mut() {
            if matches!(altered, Altered::Keep(_)) {
                *altered = if kept { Altered::Kept } else { Altered::Lost };
            }
        }
    }

    /// Writes half of the decisions; false if there is no half. Of the rest nothing is known any more.
    pub(super) fn halve(&mut self) -> bool {
        if self.size < 2 || self.awaits_letters() {
            return false;
        }
        self.size /= 2;
        let entries = self.entries().count();
        self.altered.retain(|number, _| *number < entries);
        true
    }

    /// [`Batch::halve`] where the whole may still be executed late: what is known of the rest stays known. False also if some of
    /// the rest is in the local file.
    pub(super) fn shrink(&mut self) -> bool {
        if self.size < 2 || self.awaits_letters() {
            return false;
        }
        let whole = self.size;
        self.size /= 2;
        let entries = self.entries().count();
        // What is in the local file must not be taken once more.
        let is_out = |altered: &Altered| !matches!(altered, Altered::Letter(_) | Altered::There);
        if self
            .altered
            .range(entries..)
            .any(|(_, altered)| is_out(altered))
        {
            self.size = whole;
            return false;
        }
        true
    }

    /// How many decisions it writes.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Replaces entries with a value over `max_bytes`, which would make Redis close the connection; a dead letter that is too
    /// large itself is cut short. Gives the reason and whether a dead letter was cut, for each.
    pub(super) fn bound(&mut self, max_bytes: usize, routes: &Routes) -> Vec<(String, bool)> {
        let large: Vec<(usize, usize)> = self
            .lines()
            .map(|(number, entry)| (number, largest(entry)))
            .filter(|(_, bytes)| *bytes > max_bytes)
            .collect();
        let mut done = Vec::new();
        for (number, bytes) in large {
            let reason =
                format!("too large: {bytes} bytes; Redis takes {max_bytes} (proto-max-bulk-len)");
            let line = self.lines().find(|(line, _)| *line == number);
            let dead = line
                .map(|(_, entry)| entry)
                .filter(|entry| routes.is_dead(&entry.stream.name));
            if let Some(mut letter) = dead.cloned() {
                for (_, value) in &mut letter.fields {
                    value.truncate(DEAD_BYTES);
                }
                self.altered.insert(number, Altered::Letter(letter));
                done.push((reason, true));
            } else {
                self.replace(&[(number, reason.clone())], routes);
                done.push((reason, false));
            }
        }
        done
    }

    /// The events of each decision up to `through` and what became of them, once it is executed.
    pub(super) fn fates(&self, through: Lsn) -> impl Iterator<Item = (&Arc<Decision>, Vec<Fate>)> {
        let decisions = self.decisions.iter();
        let mut number = 0;
        decisions
            .take_while(move |decision| decision.lsn <= through)
            .map(move |decision| {
                let fates = decision.events.iter().map(|event| {
                    let entries = number..number + event.entries.len();
                    number = entries.end;
                    let altered: Vec<&Altered> = self
                        .altered
                        .range(entries)
                        .map(|(_, altered)| altered)
                        .collect();
                    fate(event.dead, &altered, event.entries.len())
                });
                (decision, fates.collect())
            })
    }
}

/// All entries in Redis: delivered. Any in the dead letters, there or here: dead. Else lost.
fn fate(dead: bool, altered: &[&Altered], entries: usize) -> Fate {
    let is_there = |one: &&&Altered| matches!(one, Altered::There);
    let there = altered.iter().filter(is_there).count();
    if there > 0 && there == entries {
        return Fate::There;
    }
    let is_letter = |one: &&Altered| !matches!(one, Altered::Lost | Altered::There);
    match altered.len() - there {
        0 if dead => Fate::Dead,
        0 => Fate::Delivered,
        _ if altered.iter().any(is_letter) => Fate::Dead,
        _ => Fate::Lost,
    }
}

fn letter(entry: &Entry, lsn: Lsn, reason: &str, routes: &Routes) -> Option<Entry> {
    routes.refused(entry, lsn, reason, DEAD_BYTES).entries.pop()
}

fn largest(entry: &Entry) -> usize {
    let fields = entry.fields.iter();
    let sizes = fields.map(|(field, value)| field.len().max(value.len()));
    sizes.max().unwrap_or(0)
}

/// Bytes of a batch beside its entries, of an entry beside its texts, and of a text beside itself; ample.
const AROUND: usize = 1 << 10;
const AROUND_ENTRY: usize = 128;
const AROUND_TEXT: usize = 16;

fn packed_size(entry: &Entry) -> usize {
    let texts = entry.fields.iter();
    let texts = texts.map(|(field, value)| field.len() + value.len() + 2 * AROUND_TEXT);
    AROUND_ENTRY + entry.stream.name.len() + texts.sum::<usize>()
}

fn xadd(entry: &Entry, commands: &mut Commands) {
    let stream = &entry.stream;
    let trims = stream.max_len > 0;
    commands.begin(3 + 3 * usize::from(trims) + 2 * entry.fields.len());
    commands.word(b"XADD");
    commands.word(stream.name.as_bytes());
    if trims {
        commands.word(b"MAXLEN");
        commands.word(b"~");
        commands.word(stream.max_len.to_string().as_bytes());
    }
    commands.word(b"*");
    for (field, value) in &entry.fields {
        commands.word(field);
        commands.word(value);
    }
}

/// Redis' words, if the reply is an error.
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
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use redis::{Value, parse_redis_value};

    use super::{Answer, Batch, Fate, Outcome, OwnerKey};
    use crate::pipeline::Decision;
    use crate::route::Delivery;
    use crate::writer::cursor::{Cursor, Identity, Place};
    use crate::writer::fake::parse;
    use crate::writer::host::{DEAD, entry, routes};

    fn identity() -> Identity {
        Identity {
            router: "fs1".to_owned(),
            journal: "j".to_owned(),
            host: "here".to_owned(),
        }
    }

    /// Two inputs; the first has a derived event, the second goes to two streams: four entries.
    fn batch() -> Batch {
        let delivery = |streams: &[&str]| Delivery {
            entries: streams
                .iter()
                .map(|one| entry(one, "{}".to_owned()))
                .collect(),
            dead: false,
        };
        let decision = |lsn, events| {
            Arc::new(Decision {
                lsn,
                received_us: 0,
                decided_us: 0,
                events,
            })
        };
        let first = decision(7, vec![delivery(&["a"]), delivery(&["a"])]);
        Batch::new(vec![first, decision(9, vec![delivery(&["b", "c"])])], 11)
    }

    fn words(batch: &Batch, owner: OwnerKey) -> Vec<String> {
        let commands = parse(&batch.commands(&identity(), owner));
        commands.iter().map(|words| words.join(" ")).collect()
    }

    fn read(replies: &[&str]) -> Answer {
        let replies: Vec<Value> = replies
            .iter()
            .map(|reply| parse_redis_value(format!("{reply}\r\n").as_bytes()).unwrap())
            .collect();
        batch().read(&identity(), &replies)
    }

    const QUEUED: &str = "+QUEUED";

    #[test]
    fn a_batch_is_one_transaction_that_moves_the_cursor_and_arms_the_next() {
        let (cursor, owner) = ("jackfield:fs1:cursor", "jackfield:fs1:owner");
        let watch = [format!("WATCH {cursor}"), format!("GET {cursor}")];
        let words_of = |owner| words(&batch(), owner);
        let leave = words_of(OwnerKey::Leave);
        assert_eq!(leave[..2], ["MULTI", "XADD a * event {}"]);
        assert_eq!(
            leave[5..7],
            [format!("SET {cursor} j:11"), "EXEC".to_owned()]
        );
        assert_eq!(leave[7..], watch);
        let renew = format!("SET {owner} j here PX 15000");
        assert_eq!(words_of(OwnerKey::Renew)[6..8], [renew, "EXEC".to_owned()]);
        let release = format!("DEL {owner}");
        assert_eq!(
            words_of(OwnerKey::Release)[6..8],
            [release, "EXEC".to_owned()]
        );
    }

    #[test]
    fn replies_tell_executed_from_fenced() {
        let with = |exec| {
            let head = ["+OK", QUEUED, QUEUED, QUEUED, QUEUED, QUEUED];
            read(&[head.as_slice(), &[exec, "+OK", "$4\r\nj:11"]].concat())
        };
        let answer =
            with("*5\r\n$3\r\n1-1\r\n$3\r\n1-2\r\n-WRONGTYPE not a stream\r\n$3\r\n1-4\r\n+OK");
        let Outcome::Executed { ids, failed } = answer.outcome else {
            panic!("{answer:?}")
        };
        assert_eq!(failed, [(2, "WRONGTYPE not a stream".to_owned())]);
        let ids = ids
            .iter()
            .map(|(stream, id)| format!("{} {id}", stream.name));
        assert_eq!(ids.collect::<Vec<_>>(), ["a 1-1", "a 1-2", "c 1-4"]);
        let place = Place {
            lsn: 11,
            letters: false,
        };
        assert_eq!(answer.cursor, Ok(Cursor::Ours(place)));
        assert_eq!(with("*-1").outcome, Outcome::Fenced);
    }

    #[test]
    fn a_refused_entry_is_told_from_a_redis_that_refuses_to_write() {
        let key = "-NOPERM No permissions to access a key";
        let with = |queued: [&str; 6]| {
            let end = ["-EXECABORT x", "+OK", "$-1"];
            read(&[queued.as_slice(), &end].concat()).outcome
        };
        let oom = with(["+OK", "-OOM not allowed", key, QUEUED, QUEUED, QUEUED]);
        assert_eq!(oom, Outcome::Refused("OOM not allowed".to_owned()));
        let keys = with(["+OK", QUEUED, key, key, QUEUED, QUEUED]);
        let error = key.trim_start_matches('-').to_owned();
        assert_eq!(
            keys,
            Outcome::EntriesRefused(vec![(1, error.clone()), (2, error.clone())])
        );
        let cursor = with(["+OK", QUEUED, QUEUED, QUEUED, QUEUED, key]);
        assert_eq!(
            cursor,
            Outcome::Refused(error),
            "the cursor's key is no entry's"
        );
        let multi = "-NOPERM User monkey has no permissions to run the 'multi' command";
        let one = "$3\r\n1-1";
        let outcome = with([multi, one, one, one, one, "+OK"]);
        assert!(
            matches!(&outcome, Outcome::Refused(error) if error.contains("multi")),
            "{outcome:?}"
        );
    }

    #[test]
    fn an_entry_goes_to_the_dead_letters_and_then_to_the_file() {
        let (mut batch, routes) = (batch(), routes());
        let refused = [(2, "NOPERM x".to_owned())];
        batch.replace(&refused, &routes);
        let streams: Vec<_> = batch
            .lines()
            .map(|(_, entry)| entry.stream.name.clone())
            .collect();
        assert_eq!(streams, ["a", "a", DEAD, "c"].map(std::sync::Arc::from));
        batch.replace(&refused, &routes);
        assert_eq!((batch.lines().count(), batch.to_keep().len()), (3, 1));
        batch.kept(true);
        assert!(batch.to_keep().is_empty());
        let fates: Vec<Fate> = batch.fates(11).flat_map(|(_, fates)| fates).collect();
        let expected = [Fate::Delivered, Fate::Delivered, Fate::Dead];
        assert_eq!(fates, expected, "the event of two streams is dead");
    }

    #[test]
    fn what_failed_inside_exec_is_all_that_the_second_transaction_writes() {
        let mut batch = batch();
        batch.bury(&[(1, "WRONGTYPE x".to_owned())], &routes());
        let lines: BTreeSet<usize> = batch.lines().map(|(number, _)| number).collect();
        assert_eq!(lines, BTreeSet::from([1]));
        assert_eq!(
            words(&batch, OwnerKey::Leave)[2],
            "SET jackfield:fs1:cursor j:11+1"
        );
        assert!(!batch.halve(), "the rest of it is in Redis already");
    }

    #[test]
    fn half_a_batch_moves_the_cursor_half_the_way() {
        let mut batch = batch();
        assert!(batch.halve());
        assert_eq!((batch.place().lsn, batch.lines().count()), (7, 2));
        assert!(!batch.halve(), "there is no half of one decision");
        assert_eq!(
            batch.fates(11).count(),
            2,
            "all of it is known if it was executed whole"
        );
    }
}
