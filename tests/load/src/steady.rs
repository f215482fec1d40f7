//! A steady load on a fixed schedule: how long an event takes from the time at which it was to be sent to Redis' reply.

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::arrivals::Arrivals;
use crate::hiccups::Hiccups;
use crate::prepared::{CHANNEL_ANSWER, due_us, number};
use crate::schedule::{Clock, latencies, us};
use crate::stand::Stand;
use crate::store::{STREAM, read};
use crate::subject::{Built, Running, Subject, place};

/// What the first part of a load shows is how a subject gets going, which is not asked for.
const GETS_GOING: Duration = Duration::from_secs(1);

/// How much, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub per_second: u64,
    pub seconds: u64,
}

/// What a load showed.
pub struct Shown {
    /// When each event was due, and how long after that Redis had it; both in microseconds.
    pub events: Vec<(u64, u64)>,
    /// How late the sender was.
    pub late: Histogram<u64>,
    /// How late everything on the machine was.
    pub hiccups: Histogram<u64>,
    /// The processor time that the subject took for an event, in microseconds.
    pub cpu_us: f64,
    /// Whether the entries are in the order of the events.
    pub in_order: bool,
}

impl Shown {
    /// The latencies of events that were due from `from_us` to `to_us`.
    pub fn between(&self, from_us: u64, to_us: u64) -> Histogram<u64> {
        let mut found = latencies();
        for &(due, latency) in &self.events {
            if (from_us..to_us).contains(&due) {
                found.saturating_record(latency);
            }
        }
        found
    }

    /// The latencies of all events.
    pub fn latencies(&self) -> Histogram<u64> {
        self.between(0, u64::MAX)
    }

    /// When the last event was due.
    pub fn end_us(&self) -> u64 {
        self.events.last().map_or(0, |&(due, _)| due)
    }
}

/// Puts a load on a subject. `meanwhile` runs beside it.
pub fn load<T: Send>(
    built: &Built,
    subject: &Subject,
    load: Load,
    meanwhile: impl FnOnce(&Running, &Clock) -> T + Send,
) -> (Shown, T) {
    // All entries are kept, to be read at the end.
    let mut stand = Stand::up(built, subject, CHANNEL_ANSWER, 0);
    let before = stand.added();
    let arrivals = Arrivals::watch(&stand.store, stand.clock, STREAM);
    let (hiccups, cpu) = (Hiccups::start(), stand.running.cpu());
    let count = load.per_second * load.seconds;
    let (switch, running, clock) = (&mut stand.switch, &stand.running, stand.clock);
    let (sent, other) = std::thread::scope(|scope| {
        let other = scope.spawn(move || meanwhile(running, &clock));
        let sent = switch.send_paced(count, load.per_second);
        (
            sent.expect("the subject reads"),
            other.join().expect("what runs beside the load ends"),
        )
    });
    stand.wait_for(before + count);
    let cpu = stand.running.cpu().since(&cpu);
    let hiccups = hiccups.stop();
    while arrivals.count() < count {
        std::thread::sleep(Duration::from_millis(1));
    }
    let times = arrivals.stop();
    let mut entries = Vec::new();
    read(&mut stand.store.connect(), STREAM, |entry| {
        let number = number(entry).expect("an entry has its event's number");
        if sent.numbers.contains(&number) {
            entries.push((number, due_us(entry).expect("and its time")));
        }
    });
    assert_eq!(entries.len(), times.len(), "one entry for each event");
    let begins = entries
        .iter()
        .map(|&(_, due)| due)
        .min()
        .unwrap_or_default()
        + us(GETS_GOING);
    let in_order = entries.is_sorted_by(|one, next| one.0 < next.0);
    let paired = entries.iter().zip(times);
    let mut events: Vec<(u64, u64)> = paired
        .map(|(&(_, due), arrived)| (due, arrived.saturating_sub(due)))
        .filter(|&(due, _)| due >= begins)
        .collect();
    events.sort_unstable();
    let shown = Shown {
        events,
        late: sent.late,
        hiccups,
        cpu_us: cpu.as_secs_f64() * 1e6 / count as f64,
        in_order,
    };
    (shown, other)
}

/// What is put into the folder of a running host.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// Other settings of a filter that stays.
    Settings,
    /// A build that was never seen: it has to be compiled first.
    Build,
}

/// What a reload did to the events around it.
pub struct Swap {
    /// In the second in which the new version went live, most of it before: it holds what the swap was prepared with.
    pub during_us: u64,
    /// In the seconds before the change.
    pub steady_us: u64,
    /// From the change to the new version being live.
    pub took: Duration,
}

/// Changes one of the filters of a host under load.
pub fn swap(built: &Built, subject: &Subject, rate: u64, change: Change, round: usize) -> Swap {
    const BEFORE: Duration = Duration::from_secs(4);
    const AFTER: u64 = 3;
    let Subject::Host(setup) = subject else {
        panic!("only a host has filters");
    };
    let &(file, component, settings) = setup.filters.first().expect("a filter");
    let component = built.component(component);
    let (shown, (changed_us, live_us)) = load(
        built,
        subject,
        Load {
            per_second: rate,
            seconds: BEFORE.as_secs() + AFTER + 2,
        },
        |running, clock| {
            std::thread::sleep(BEFORE);
            let before = running.filter_since_us(file);
            let (filters, changed_us) = (running.filters(), clock.now_us());
            match change {
                Change::Build => {
                    let build = format!("swap-{round}-{changed_us}");
                    place(&component, &filters, file, build.as_bytes());
                }
                Change::Settings => replace(&filters, file, settings, round),
            }
            (changed_us, running.wait_for_swap(file, before))
        },
    );
    let second = 1_000_000;
    let part = |from, to| shown.between(from, to).value_at_quantile(0.99);
    Swap {
        during_us: part(live_us - second * 4 / 5, live_us + second / 5),
        steady_us: part(0, changed_us),
        took: Duration::from_micros(live_us - changed_us),
    }
}

fn replace(filters: &Path, file: &str, settings: &str, round: usize) {
    // A comment is another version, too.
    let text = format!("{settings}\n# swap {round}\n");
    let hidden = filters.join(format!(".{file}.new"));
    std::fs::write(&hidden, text).expect("the settings are written");
    std::fs::rename(&hidden, filters.join(format!("{file}.toml"))).expect("they get their name");
}
