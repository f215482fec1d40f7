//! What is wrong with a host, as sentences that name the stage and the cause: on the page, in `jackfield status`, in `/status` and,
//! counted, in `/metrics`.
//!
//! Pure: a status in, alarms out. Nothing is remembered, so an alarm ends with what it is about; what happened and is over stays for
//! five minutes.

use std::time::Duration;

use serde::Serialize;

use super::status::Status;
use crate::filter::{FilterStatus, Running};
use crate::link::{Level, Snapshot};

/// What happened once is told for so long.
const RECENT: Duration = Duration::from_secs(300);
/// An event that waits for longer than this to be decided or delivered is late,
const LATE: Duration = Duration::from_secs(1);
/// and after this, something is broken.
const BROKEN: Duration = Duration::from_secs(5);
/// Percent of `journal.max_size` that Redis may be behind: at 100 the oldest events are lost.
const FULL: u64 = 70;
/// A disk that takes longer to sync is sick.
const SLOW_SYNC: Duration = Duration::from_millis(250);
/// Of a consumer group's reserve: at a steady pace four fifths of the way to a loss are gone.
const LOW_RESERVE: f64 = 0.2;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Events are late, lost or not handled as meant: a person is needed.
    Error,
    /// It works, and something is not as it should be.
    Warn,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Alarm {
    /// Where: `esl`, `commands`, `redis`, `journal`, `pipeline`, `filter`, `streams`, `dead_letters`, `settings` or `accounts`.
    pub(super) stage: &'static str,
    /// Which filter or stream.
    pub(super) name: Option<String>,
    pub(super) level: Severity,
    /// Why, in a sentence.
    pub(super) cause: String,
    /// Since when, in microseconds since the epoch, where that is known.
    pub(super) since_us: Option<u64>,
}

impl Severity {
    pub(super) fn label(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warn => "warn",
        }
    }
}

impl Alarm {
    fn error(stage: &'static str, cause: String) -> Alarm {
        Alarm {
            stage,
            name: None,
            level: Severity::Error,
            cause,
            since_us: None,
        }
    }

    fn warn(stage: &'static str, cause: String) -> Alarm {
        Alarm {
            level: Severity::Warn,
            ..Alarm::error(stage, cause)
        }
    }

    fn of(self, name: &str) -> Alarm {
        Alarm {
            name: Some(name.to_owned()),
            ..self
        }
    }

    fn since(self, since_us: Option<u64>) -> Alarm {
        Alarm { since_us, ..self }
    }
}

/// All that is wrong, the worst first, else in the order of the data.
pub(super) fn alarms(status: &Status, now_us: u64) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    let links = &status.links;
    for (name, link) in [("esl", &links.esl), ("commands", &links.commands)] {
        alarms.extend(link_alarm(name, link));
    }
    calls(status, &mut alarms);
    journal(status, &mut alarms);
    pipeline(status, now_us, &mut alarms);
    for filter in &status.filters {
        alarms.extend(filter_alarm(filter, now_us));
    }
    if status.filters_ignored > 0 {
        let cause = format!(
            "{} files are beyond the filters that may run",
            status.filters_ignored
        );
        alarms.push(Alarm::warn("filter", cause));
    }
    alarms.extend(link_alarm("redis", &links.redis));
    redis(status, now_us, &mut alarms);
    streams(status, &mut alarms);
    dead_letters(status, now_us, &mut alarms);
    settings(status, &mut alarms);
    accounts(status, &mut alarms);
    alarms.sort_by_key(|alarm| alarm.level);
    alarms
}

fn link_alarm(name: &'static str, link: &Snapshot) -> Option<Alarm> {
    if let Some(error) = link.last_error.as_ref().filter(|_| !link.state.is_up()) {
        let peer = &link.peer;
        let tries = match link.attempts {
            0 => String::new(),
            1 => ", 1 failed try".to_owned(),
            tries => format!(", {tries} failed tries"),
        };
        let cause = format!("no connection to {peer}{tries}: {error}");
        let alarm = match link.required {
            true => Alarm::error(name, cause),
            false => Alarm::warn(name, cause),
        };
        let lost_us = link.last_loss.as_ref().map(|loss| loss.at_us);
        return Some(alarm.since(lost_us.or(Some(link.since_us))));
    }
    if link.health.level == Level::Green {
        return None;
    }
    let minus = link.health.minus;
    let terms = [
        (minus.not_ready, "is not ready"),
        (minus.missed_heartbeats, "misses heartbeats"),
        (minus.losses, "was lost lately"),
        (minus.lag, "is behind by more than 5 s"),
    ];
    let terms = terms.into_iter().filter(|(points, _)| *points > 0);
    let terms: Vec<String> = terms
        .map(|(points, what)| format!("{what} (−{points})"))
        .collect();
    // A link that was never tried has nothing to say yet.
    let was_up = link.connects > 0;
    was_up.then(|| {
        let cause = format!("health {}: {}", link.health.value, terms.join(", "));
        Alarm::warn(name, cause)
    })
}

fn calls(status: &Status, alarms: &mut Vec<Alarm>) {
    let calls = &status.calls;
    if let Some(why) = calls.unknown.as_ref().filter(|_| calls.followed) {
        let cause = format!("which calls are alive is unknown: {why}");
        alarms.push(Alarm::warn("esl", cause).since(calls.asked_us));
    }
}

fn journal(status: &Status, alarms: &mut Vec<Alarm>) {
    let journal = &status.journal;
    if let Some(trouble) = &journal.now.trouble {
        alarms.push(Alarm::error("journal", trouble.clone()));
    }
    let used = journal.now.undelivered_bytes.saturating_mul(100);
    let used = used.checked_div(journal.max_bytes).unwrap_or_default();
    if used >= FULL {
        let cause = format!(
            "{used} % of journal.max_size hold what Redis does not have; at 100 % the oldest events are lost"
        );
        alarms.push(Alarm::error("journal", cause));
    }
    if journal.now.poisoned > 0 {
        let cause = format!(
            "{} syncs failed: a power cut may cost what was written",
            journal.now.poisoned
        );
        alarms.push(Alarm::error("journal", cause));
    }
    if journal.now.quarantined > 0 {
        let cause = format!(
            "{} damaged places were skipped; `jackfield journal verify` shows them",
            journal.now.quarantined
        );
        alarms.push(Alarm::warn("journal", cause));
    }
    let sync = Duration::from_micros(journal.sync_p99_us);
    if sync > SLOW_SYNC {
        let cause = format!("the disk takes {} ms to sync (p99)", sync.as_millis());
        alarms.push(Alarm::warn("journal", cause));
    }
}

fn pipeline(status: &Status, now_us: u64, alarms: &mut Vec<Alarm>) {
    let journal = &status.journal.now;
    let Some(age) = age(journal.oldest_us, now_us).filter(|age| *age > LATE) else {
        return;
    };
    // While the queue to it is full, it is Redis that is waited for.
    if !status.links.redis.state.is_up() {
        return;
    }
    let slowest = status.filters.iter().max_by_key(|filter| filter.p50_ns);
    let slowest = slowest.filter(|filter| filter.p50_ns > 0);
    let slowest = slowest.map_or(String::new(), |filter| {
        let (file, us) = (&filter.file, filter.p50_ns / 1_000);
        format!("; the slowest filter is {file} with {us} µs a call")
    });
    let cause = format!(
        "{} events wait to be decided, the oldest for {}{slowest}",
        journal.waiting,
        seconds(age)
    );
    alarms.push(late("pipeline", cause, age).since(journal.oldest_us));
}

fn redis(status: &Status, now_us: u64, alarms: &mut Vec<Alarm>) {
    let lane = &status.lane;
    let is_up = status.links.redis.state.is_up();
    if let Some(age) = age(lane.oldest_us, now_us).filter(|age| is_up && *age > LATE) {
        let cause = format!(
            "decided events wait for Redis, the oldest for {}",
            seconds(age)
        );
        alarms.push(late("redis", cause, age).since(lane.oldest_us));
    }
    if lane.unhealable > 0 {
        let cause = format!(
            "{} decisions are gone: Redis lost them, and the journal no longer has them",
            lane.unhealable
        );
        alarms.push(Alarm::error("redis", cause));
    }
}

fn late(stage: &'static str, cause: String, age: Duration) -> Alarm {
    match age > BROKEN {
        true => Alarm::error(stage, cause),
        false => Alarm::warn(stage, cause),
    }
}

fn filter_alarm(filter: &FilterStatus, now_us: u64) -> Option<Alarm> {
    let error = filter.last_error.as_deref().unwrap_or_default();
    let alarm = match filter.state {
        Running::Failing => Alarm::error("filter", format!("keeps failing and rests: {error}")),
        Running::Refused => Alarm::error("filter", format!("no version can run: {error}")),
        // The text says which.
        Running::Quarantined | Running::Suspended => Alarm::error("filter", error.to_owned()),
        Running::Running => {
            let refused = filter.attempts.back();
            let refusal = refused.and_then(|attempt| attempt.refusal.as_ref());
            match refusal {
                Some(why) => {
                    let version = &filter.version;
                    Alarm::warn(
                        "filter",
                        format!("its newest file was refused, {version} goes on: {why}"),
                    )
                }
                None => {
                    age(filter.last_error_us, now_us).filter(|age| *age <= RECENT)?;
                    Alarm::warn("filter", error.to_owned())
                }
            }
        }
        Running::Absent => return None,
    };
    Some(alarm.of(&filter.file).since(filter.last_error_us))
}

fn streams(status: &Status, alarms: &mut Vec<Alarm>) {
    for written in &status.streams {
        let reserve = written.stream.reserve.as_ref();
        let Some(low) = reserve.filter(|reserve| reserve.ratio < LOW_RESERVE) else {
            continue;
        };
        let unread = low
            .unread
            .map_or("entries".to_owned(), |unread| format!("{unread} entries"));
        let cause = format!(
            "consumer group {} is about to lose entries to trimming: {unread} unread, the oldest {} s old",
            low.group, low.age_s
        );
        alarms.push(Alarm::error("streams", cause).of(&written.stream.name));
    }
}

fn dead_letters(status: &Status, now_us: u64, alarms: &mut Vec<Alarm>) {
    let dead = &status.dead_letters;
    if let Some(last) = &dead.last
        && age(Some(last.at_us), now_us).is_some_and(|age| age <= RECENT)
    {
        let cause = format!(
            "{} events were dead-lettered since the start, the last one by {}: {}",
            status.counts.dead_lettered(),
            last.by,
            last.reason
        );
        let alarm = Alarm::error("dead_letters", cause).of(&dead.stream);
        alarms.push(alarm.since(Some(last.at_us)));
    }
    if dead.local > 0 {
        let cause = format!(
            "{} letters that Redis refused lie in dead-letters.jsonl beside the journal",
            dead.local
        );
        alarms.push(Alarm::error("dead_letters", cause));
    }
}

fn settings(status: &Status, alarms: &mut Vec<Alarm>) {
    let settings = &status.settings;
    let refusal = settings.last_refusal.as_ref();
    if let Some(refusal) = refusal.filter(|refusal| refusal.at_us > settings.loaded_us) {
        let cause = format!(
            "the old ones stay in force: {}",
            refusal.mistakes.join("; ")
        );
        alarms.push(Alarm::warn("settings", cause).since(Some(refusal.at_us)));
    }
}

fn accounts(status: &Status, alarms: &mut Vec<Alarm>) {
    if let Some(imbalance) = status.counts.imbalance() {
        alarms.push(Alarm::error("accounts", imbalance));
    }
    for (cause, events) in status.counts.losses() {
        alarms.push(Alarm::error(
            "accounts",
            format!("{events} events are lost: {cause}"),
        ));
    }
}

fn age(at_us: Option<u64>, now_us: u64) -> Option<Duration> {
    at_us.map(|at_us| Duration::from_micros(now_us.saturating_sub(at_us)))
}

fn seconds(age: Duration) -> String {
    format!("{:.1} s", age.as_secs_f64())
}
