//! What it means for the accounts that Redis has everything up to some LSN.
//!
//! Every event is counted once in the life of a process: when the outbox gives its decision back, or, for one that an
//! earlier process made, when it is first acknowledged. Sent again to heal, it counts as healed only. Pure.

use std::sync::Arc;

use super::batch::{Batch, Fate};
use crate::journal::Lsn;
use crate::pipeline::Decision;
use crate::route::Entry;

/// What has been acknowledged, and not accounted for yet.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) through: Lsn,
    /// What was in flight, whole or in part.
    pub(super) batch: Option<Batch>,
    /// The highest LSN that was acknowledged before.
    pub(super) high: Lsn,
}

/// Events that reached their end, by what became of them.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// All entries are in Redis.
    pub(super) delivered: u64,
    /// In the dead letters, in Redis or in the local file.
    pub(super) dead: u64,
    /// Not even there.
    pub(super) lost: u64,
    /// Acknowledged before, and sent again because Redis came back with less.
    pub(super) healed: u64,
    /// As `delivered`, decided by an earlier process.
    pub(super) replayed_delivered: u64,
    /// As `dead`, decided by an earlier process.
    pub(super) replayed_dead: u64,
    /// As `lost`, decided by an earlier process.
    pub(super) replayed_lost: u64,
    /// Entries that are in Redis, by stream.
    pub(super) entries: Vec<(Arc<str>, u64)>,
    /// The decisions of this process among them, for their latencies.
    pub(super) decisions: Vec<Arc<Decision>>,
}

impl Settlement {
    /// Counts; `given_back` is what the outbox still held, `replayed` the LSN up to which an earlier process decided.
    pub(super) fn account(self, given_back: Vec<Arc<Decision>>, replayed: Lsn) -> Settled {
        // Both are in order, as all decisions are.
        let is_held = |lsn: Lsn| given_back.binary_search_by_key(&lsn, |one| one.lsn).is_ok();
        let mut settled = Settled::default();
        let mut counted = Vec::with_capacity(given_back.len());
        let fates = self
            .batch
            .iter()
            .flat_map(|batch| batch.fates(self.through));
        for (decision, fates) in fates {
            if decision.lsn > self.high || is_held(decision.lsn) {
                counted.push(decision.lsn);
                settled.count(decision, &fates, replayed);
            } else {
                let sent = fates.iter().filter(|fate| **fate != Fate::There);
                settled.healed += sent.count() as u64;
            }
        }
        for decision in given_back {
            if counted.binary_search(&decision.lsn).is_err() {
                let events = decision.events.iter();
                let fates = events.map(|event| {
                    if event.dead {
                        Fate::Dead
                    } else {
                        Fate::Delivered
                    }
                });
                let fates: Vec<Fate> = fates.collect();
                settled.count(&decision, &fates, replayed);
            }
        }
        settled
    }
}

impl Settled {
    fn count(&mut self, decision: &Arc<Decision>, fates: &[Fate], replayed: Lsn) {
        let is_replayed = decision.lsn <= replayed;
        for fate in fates {
            *match (fate, is_replayed) {
                (Fate::Delivered | Fate::There, false) => &mut self.delivered,
                (Fate::Dead, false) => &mut self.dead,
                (Fate::Lost, false) => &mut self.lost,
                (Fate::Delivered | Fate::There, true) => &mut self.replayed_delivered,
                (Fate::Dead, true) => &mut self.replayed_dead,
                (Fate::Lost, true) => &mut self.replayed_lost,
            } += 1;
        }
        for (event, fate) in decision.events.iter().zip(fates) {
            if matches!(fate, Fate::Delivered | Fate::There) {
                event.entries.iter().for_each(|entry| self.wrote(entry));
            }
        }
        if !is_replayed {
            self.decisions.push(Arc::clone(decision));
        }
    }

    fn wrote(&mut self, entry: &Entry) {
        let stream = &entry.stream.name;
        let mut known = self.entries.iter_mut();
        match known.find(|(known, _)| Arc::ptr_eq(known, stream)) {
            Some((_, entries)) => *entries += 1,
            None => self.entries.push((Arc::clone(stream), 1)),
        }
    }
}
