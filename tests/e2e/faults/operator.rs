//! Somebody else at the same Redis: what an operator takes out of a stream, and what others write to it.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Cmd, Pipeline};

use super::entries::{FOREIGN, foreign, of_entries};
use super::tap::Key;
use crate::harness::Redis;

/// What they did.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    /// What was taken out of each stream is to stay out.
    removed: BTreeMap<String, BTreeSet<Key>>,
    /// What was written is to stay in, in its order.
    written: BTreeMap<&'static str, Vec<String>>,
}

impl Operator {
    /// Does this to a stream, and notes what is not there any more.
    pub(crate) fn take_out(&mut self, redis: &Redis, stream: &str, command: &[&str]) {
        type Entries = Vec<(String, Vec<(String, String)>)>;
        let mut doing = Cmd::new();
        command.iter().for_each(|word| {
            doing.arg(*word);
        });
        // In one transaction: what comes meanwhile is neither before nor after it.
        let mut commands = Pipeline::new();
        commands.atomic();
        let all = |commands: &mut Pipeline| {
            commands.cmd("XRANGE").arg(stream).arg("-").arg("+");
        };
        all(&mut commands);
        commands.add_command(doing).ignore();
        all(&mut commands);
        let (before, after): (Entries, Entries) = commands.query(&mut redis.connection()).unwrap();
        let keys = |entries: Entries| -> BTreeSet<Key> {
            let fields: Vec<_> = entries.into_iter().map(|(_, fields)| fields).collect();
            of_entries(&fields).into_iter().collect()
        };
        let gone = &keys(before) - &keys(after);
        self.note_removed(stream, gone);
    }

    /// These are not in this stream any more, and are to stay out.
    pub(crate) fn note_removed(&mut self, stream: &str, gone: BTreeSet<Key>) {
        let removed = self.removed.entry(stream.to_owned()).or_default();
        removed.extend(gone);
    }

    /// What was removed from this stream is to come back.
    pub(crate) fn comes_back(&mut self, stream: &str) {
        self.removed.remove(stream);
    }

    /// All that is to stay out.
    pub(crate) fn removed(self) -> BTreeSet<Key> {
        self.removed.into_values().flatten().collect()
    }

    /// Writes an entry of somebody else's to a stream, with this id or `*`.
    pub(crate) fn write(&mut self, redis: &Redis, stream: &'static str, id: &str) {
        let written = self.written.entry(stream).or_default();
        let text = format!("entry {} of somebody else", written.len());
        redis.ask::<String>(&["XADD", stream, id, FOREIGN, &text]);
        written.push(text);
    }

    /// What was written to this stream need not be there any more.
    pub(crate) fn forget(&mut self, stream: &str) {
        self.written.remove(stream);
    }

    /// What others wrote is there as they wrote it.
    #[track_caller]
    pub(crate) fn check(&self, redis: &Redis) {
        for (stream, written) in &self.written {
            let found = foreign(redis, stream);
            assert_eq!(&found, written, "{stream}: what others wrote is left alone");
        }
    }
}
