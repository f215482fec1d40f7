//! Everything that `/status` shows, at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::alarms::Alarm;
use crate::filter::FilterStatus;
use crate::ledger::{Accounts, Balance};
use crate::link::{LinksStatus, Overall};
use crate::metrics::{Percentiles, StageStatus};
use crate::pipeline::{CallsStatus, JournalStatus, LastDead, StreamStatus};
use crate::settings::SettingsStatus;

/// The host at one moment.
#[derive(Serialize)]
pub(super) struct Status {
    pub(super) version: &'static str,
    /// The router's name, once it is known.
    pub(super) router: Option<String>,
    pub(super) uptime_s: u64,
    pub(super) ready: bool,
    pub(super) health: Overall,
    /// What is wrong, the worst first.
    pub(super) alarms: Vec<Alarm>,
    pub(super) links: LinksStatus,
    pub(super) calls: CallsStatus,
    pub(super) settings: SettingsStatus,
    pub(super) stages: BTreeMap<&'static str, StageStatus>,
    pub(super) journal: Journal,
    pub(super) lane: Lane,
    pub(super) streams: Vec<Written>,
    pub(super) dead_letters: DeadLetters,
    pub(super) listeners: usize,
    pub(super) filters: Vec<FilterStatus>,
    /// Files beyond those that may run.
    pub(super) filters_ignored: usize,
    pub(super) counts: Counts,
    pub(super) latency: Latencies,
}

#[derive(Serialize)]
pub(super) struct Journal {
    #[serde(flatten)]
    pub(super) now: JournalStatus,
    /// `journal.max_size`.
    pub(super) max_bytes: u64,
    /// How long forcing it to the disk takes, in microseconds: one in a hundred takes longer.
    pub(super) sync_p99_us: u64,
}

/// The way to Redis.
#[derive(Serialize)]
pub(super) struct Lane {
    /// Up to here Redis has everything; 0 while that is not known.
    pub(super) cursor: u64,
    /// Inputs that are decided and wait for Redis' reply, as far as memory holds them.
    pub(super) waiting: usize,
    /// When the oldest of them was received, in microseconds since the epoch.
    pub(super) oldest_us: Option<u64>,
    /// Transactions that Redis executed.
    pub(super) batches: u64,
    /// Decisions that Redis lost and the journal no longer has.
    pub(super) unhealable: u64,
}

/// A stream, and what this process wrote to it.
#[derive(Serialize)]
pub(super) struct Written {
    #[serde(flatten)]
    pub(super) stream: StreamStatus,
    /// Entries.
    pub(super) entries: u64,
}

#[derive(Serialize)]
pub(super) struct DeadLetters {
    /// `dead_letter.stream`.
    pub(super) stream: String,
    /// How many letters it has; `None`: that is not known.
    pub(super) length: Option<u64>,
    /// Letters in the local file that were not replayed.
    pub(super) local: u64,
    /// The newest one of this process.
    pub(super) last: Option<LastDead>,
}

/// The accounts.
#[derive(Serialize)]
pub(super) struct Counts {
    inputs: u64,
    derived: u64,
    replayed: u64,
    #[serde(flatten)]
    balance: Balance,
    balanced: bool,
    dropped_by: Vec<DroppedBy>,
    lost_by: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct DroppedBy {
    by: String,
    reason: String,
    events: u64,
}

#[derive(Serialize)]
pub(super) struct Latencies {
    pub(super) reader: Percentiles,
    pub(super) writer: Percentiles,
    pub(super) total: Percentiles,
}

impl Status {
    /// How long the oldest event waits that has not reached its end.
    pub(super) fn oldest_pending(&self, now_us: u64) -> Duration {
        let waiting = [self.journal.now.oldest_us, self.lane.oldest_us];
        let oldest = waiting.into_iter().flatten().min();
        Duration::from_micros(oldest.map_or(0, |oldest| now_us.saturating_sub(oldest)))
    }
}

impl Counts {
    pub(super) fn of(accounts: Accounts) -> Counts {
        let balance = accounts.balance();
        let dropped = accounts.dropped.into_iter();
        let dropped_by = dropped.map(|(key, events)| DroppedBy {
            by: key.by,
            reason: key.reason,
            events,
        });
        Counts {
            inputs: accounts.inputs,
            derived: accounts.derived,
            replayed: accounts.replayed,
            balance,
            balanced: balance.holds(),
            dropped_by: dropped_by.collect(),
            lost_by: accounts.lost,
        }
    }

    /// Events that were lost, by cause; none if all is well.
    pub(super) fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let lost = self.lost_by.iter();
        lost.map(|(cause, events)| (*cause, *events))
            .filter(|(_, events)| *events > 0)
    }

    /// The accounts where they do not add up.
    pub(super) fn imbalance(&self) -> Option<String> {
        let Balance {
            received,
            delivered,
            dropped,
            dead_lettered,
            lost,
            pending,
        } = self.balance;
        (!self.balanced).then(|| {
            format!(
                "received {received} is not delivered {delivered} + dropped {dropped} + dead-lettered {dead_lettered} + lost {lost} + pending {pending}"
            )
        })
    }

    pub(super) fn dead_lettered(&self) -> u64 {
        self.balance.dead_lettered
    }
}
