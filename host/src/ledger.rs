//! The accounts of what became of every event:
//! `received = delivered + dropped + dead-lettered + lost + pending`, at every instant.
//!
//! Every change moves events from `pending` to exactly one outcome under one lock, a batch at a time, so that a reader
//! never sees half of it. `pending` is what the stages hold: a stage that forgets an event leaves it there for all to see.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::Serialize;

/// Different reasons that are told apart for each filter or rule; more are summed up as `other`.
const MAX_REASONS: usize = 32;

/// Who dropped, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dropped {
    /// A filter's file, or `routes`.
    pub by: String,
    /// The filter's words, or `unrouted`.
    pub reason: String,
}

/// The accounts at one moment.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// Events from the socket, replayed dead letters, and what an earlier run left undecided in the journal.
    pub inputs: u64,
    /// Events that filters made.
    pub derived: u64,
    /// Events that an earlier run of the host had decided and this one delivered.
    pub replayed: u64,
    /// All entries are in Redis (or printed).
    pub delivered: u64,
    /// On purpose.
    pub dropped: BTreeMap<Dropped, u64>,
    /// Kept with a reason.
    pub dead_lettered: u64,
    /// Gone, by cause.
    pub lost: BTreeMap<&'static str, u64>,
    /// Held by some stage.
    pub pending: u64,
}

/// The accounts as one line of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Inputs, derived events, and what an earlier run had decided.
    pub received: u64,
    /// In Redis.
    pub delivered: u64,
    /// On purpose.
    pub dropped: u64,
    /// Kept with a reason.
    pub dead_lettered: u64,
    /// Gone.
    pub lost: u64,
    /// Held by some stage.
    pub pending: u64,
}

impl Balance {
    /// Whether every event received is in exactly one account.
    pub fn holds(&self) -> bool {
        self.received
            == self.delivered + self.dropped + self.dead_lettered + self.lost + self.pending
    }
}

impl Accounts {
    /// The sums.
    pub fn balance(&self) -> Balance {
        Balance {
            received: self.inputs + self.derived + self.replayed,
            delivered: self.delivered,
            dropped: self.dropped.values().sum(),
            dead_lettered: self.dead_lettered,
            lost: self.lost.values().sum(),
            pending: self.pending,
        }
    }
}

/// What one batch of the pipeline settled.
#[derive(Debug, Default)]
pub struct Settled {
    /// Events that filters made.
    pub derived: u64,
    /// Events no route wanted.
    pub unrouted: u64,
    /// Events that filters dropped.
    pub dropped: Vec<Dropped>,
}

/// The shared accounts.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Accounts>);

impl Ledger {
    /// The accounts as they are.
    pub fn accounts(&self) -> Accounts {
        self.lock().clone()
    }

    /// Their sums.
    pub fn balance(&self) -> Balance {
        self.lock().balance()
    }

    /// Inputs came in.
    pub fn received(&self, inputs: u64) {
        let mut accounts = self.lock();
        accounts.inputs += inputs;
        accounts.pending += inputs;
    }

    /// The pipeline is through with a batch; what it handed on is still pending.
    pub fn settle(&self, settled: Settled) {
        let mut accounts = self.lock();
        accounts.derived += settled.derived;
        accounts.pending += settled.derived;
        if settled.unrouted > 0 {
            drop_events(
                &mut accounts,
                Dropped {
                    by: "routes".to_owned(),
                    reason: "unrouted".to_owned(),
                },
                settled.unrouted,
            );
        }
        for dropped in settled.dropped {
            drop_events(&mut accounts, dropped, 1);
        }
    }

    /// Redis has acknowledged a batch.
    pub fn written(&self, delivered: u64, dead_lettered: u64) {
        let mut accounts = self.lock();
        accounts.delivered += delivered;
        accounts.dead_lettered += dead_lettered;
        take(&mut accounts, delivered + dead_lettered);
    }

    /// Redis has acknowledged what an earlier run of the host had decided: received and settled in one.
    pub fn replayed(&self, delivered: u64, dead_lettered: u64) {
        let mut accounts = self.lock();
        accounts.replayed += delivered + dead_lettered;
        accounts.delivered += delivered;
        accounts.dead_lettered += dead_lettered;
    }

    /// Events are gone.
    pub fn lost(&self, cause: &'static str, events: u64) {
        if events > 0 {
            let mut accounts = self.lock();
            *accounts.lost.entry(cause).or_default() += events;
            take(&mut accounts, events);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Accounts> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn drop_events(accounts: &mut Accounts, dropped: Dropped, events: u64) {
    let known = accounts.dropped.contains_key(&dropped);
    let reasons = accounts
        .dropped
        .keys()
        .filter(|other| other.by == dropped.by)
        .count();
    let key = if known || reasons < MAX_REASONS {
        dropped
    } else {
        Dropped {
            reason: "other".to_owned(),
            ..dropped
        }
    };
    *accounts.dropped.entry(key).or_default() += events;
    take(accounts, events);
}

fn take(accounts: &mut Accounts, events: u64) {
    debug_assert!(accounts.pending >= events, "an event was settled twice");
    accounts.pending = accounts.pending.saturating_sub(events);
}

#[cfg(test)]
mod tests {
    use super::{Dropped, Ledger, Settled};

    #[test]
    fn every_event_is_in_one_account() {
        let ledger = Ledger::default();
        ledger.received(10);
        let dropped = vec![Dropped {
            by: "10-a".to_owned(),
            reason: "noise".to_owned(),
        }];
        ledger.settle(Settled {
            derived: 2,
            unrouted: 3,
            dropped,
        });
        ledger.written(4, 1);
        ledger.lost("buffer_full", 1);
        ledger.replayed(3, 1);
        let balance = ledger.balance();
        assert!(balance.holds(), "{balance:?}");
        assert_eq!(
            (balance.received, balance.dropped, balance.pending),
            (16, 4, 2)
        );
    }

    #[test]
    fn reasons_are_bounded() {
        let ledger = Ledger::default();
        ledger.received(100);
        for number in 0..100 {
            let dropped = vec![Dropped {
                by: "10-a".to_owned(),
                reason: number.to_string(),
            }];
            ledger.settle(Settled {
                dropped,
                ..Settled::default()
            });
        }
        assert_eq!(ledger.accounts().dropped.len(), 33);
        assert!(ledger.balance().holds());
    }
}
