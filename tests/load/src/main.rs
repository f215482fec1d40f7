//! `make bench`: measures the table of docs/benchmarks.md and writes it there.
//!
//! What is compared takes turns within one run. Each round measures every line once; the table shows the median of the rounds. The
//! program prints each figure as it comes, so that a run that is cut off was not in vain.

mod hosts;
mod lines;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use hdrhistogram::Histogram;
use load::subject::{Built, Subject};
use load::table::{Line, Table, replaced};
use load::{folder, footprint, machine, saturated, steady, steps};

/// Where the table goes, wherever there are marks for it.
const PAGES: [&str; 2] = ["docs/benchmarks.md", "README.md"];

/// How much is measured.
struct Amount {
    rounds: usize,
    seconds: u64,
    /// Events that are sent at once. After some more of them the disk of a rented machine stalls for seconds.
    at_once: u64,
    idle_seconds: u64,
    backlog: u64,
    step_seconds: f64,
}

const FULL: Amount = Amount {
    rounds: 5,
    seconds: 6,
    at_once: 100_000,
    idle_seconds: 8,
    backlog: 10_000_000,
    step_seconds: 1.0,
};
const QUICK: Amount = Amount {
    rounds: 1,
    seconds: 3,
    at_once: 50_000,
    idle_seconds: 4,
    backlog: 1_000_000,
    step_seconds: 0.5,
};
const HOST: &str = "host";
const RELAY: &str = "bare relay";
const PEER: &str = "peer";
const RATE: u64 = 10_000;
const LIVE_RATE: u64 = 1_000;
/// So often is it looked at the memory while the backlog grows.
const STEPS: u64 = 10;
/// What is dropped into the folder: a filter of about 200 KB that takes no settings.
const DROPPED: &str = "dedup";

/// The command line.
struct Asked {
    amount: Amount,
    writes: bool,
    peer: Option<Vec<String>>,
    /// Names of parts; empty for all.
    only: Vec<String>,
}

impl Asked {
    fn read() -> Asked {
        let mut asked = Asked {
            amount: FULL,
            writes: true,
            peer: None,
            only: Vec::new(),
        };
        let mut words: VecDeque<String> = std::env::args().skip(1).collect();
        while let Some(word) = words.pop_front() {
            let mut value = || {
                words
                    .pop_front()
                    .unwrap_or_else(|| panic!("{word} of what?"))
            };
            match word.as_str() {
                "--quick" => (asked.amount, asked.writes) = (QUICK, false),
                "--rounds" => asked.amount.rounds = value().parse().expect("a number of rounds"),
                "--peer" => {
                    let words: Vec<String> = value().split_whitespace().map(Into::into).collect();
                    asked.peer = (!words.is_empty()).then_some(words);
                }
                "--only" => {
                    asked.only = value().split(',').map(Into::into).collect();
                    asked.writes = false;
                }
                other => {
                    panic!("{other} is unknown: --quick, --rounds N, --only PARTS, --peer COMMAND")
                }
            }
        }
        asked
    }
}

/// What is measured, and what it found so far.
struct Bench {
    built: Built,
    asked: Asked,
    table: Table,
}

fn main() {
    let program = std::env::current_exe().expect("a program has a path");
    let asked = Asked::read();
    let mut bench = Bench {
        built: Built::beside(&program),
        asked,
        table: Table::default(),
    };
    let began = Instant::now();
    let rounds = bench.asked.amount.rounds;
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        bench.round(round);
    }
    bench.once();
    let measured = format!(
        "{}. {rounds} rounds, {} minutes.\n\n{}",
        machine::described(),
        began.elapsed().as_secs().div_ceil(60),
        bench.table.markdown()
    );
    println!("{measured}");
    if bench.asked.writes {
        write(&measured);
    }
}

fn write(measured: &str) {
    for page in PAGES {
        let text = std::fs::read_to_string(page).unwrap_or_default();
        if let Some(text) = replaced(&text, measured) {
            std::fs::write(page, text).expect("the page is written");
            eprintln!("written to {page}");
        }
    }
}

impl Bench {
    fn add(&mut self, line: Line, figure: f64) {
        self.add_of("", line, figure);
    }

    /// A line of one of those who are measured.
    fn add_of(&mut self, whose: &str, line: Line, figure: f64) {
        let what = match whose {
            "" => line.what.to_owned(),
            whose => format!("{whose}: {}", line.what),
        };
        eprintln!("  {what}: {figure:.3} {}", line.unit);
        self.table.add(&what, line, figure);
    }

    fn wants(&self, part: &str) -> bool {
        self.asked.only.is_empty() || self.asked.only.iter().any(|name| name == part)
    }

    /// Everything that is measured again and again.
    fn round(&mut self, round: usize) {
        if self.wants("through") {
            self.through(round);
        }
        if self.wants("steps") {
            self.steps();
        }
        if self.wants("latency") {
            self.latency(round);
        }
        if self.wants("drain") {
            let events = self.asked.amount.at_once;
            let drained = saturated::drain(&self.built, &hosts::three(), events, LIVE_RATE);
            self.add(lines::DRAIN, drained);
        }
        if self.wants("swap") {
            self.swap(round);
        }
        if self.wants("folder") {
            let took = folder::drop_in(&self.built, &hosts::three(), DROPPED, round);
            self.add(lines::DROP_IN_FIRST, took.first.as_secs_f64() * 1e3);
            self.add(lines::DROP_IN_CACHED, took.cached.as_secs_f64() * 1e3);
            let took = folder::start(&self.built, &hosts::five());
            self.add(lines::START, took.as_secs_f64() * 1e3);
        }
        if self.wants("idle") {
            let seconds = self.asked.amount.idle_seconds;
            let share = footprint::idle(&self.built, &hosts::three(), seconds);
            self.add(lines::IDLE, share * 100.0);
        }
    }

    fn through(&mut self, round: usize) {
        let events = self.asked.amount.at_once;
        let alone = saturated::redis_alone(events);
        self.add(lines::REDIS_ALONE, alone);
        for (name, subject) in self.subjects(round) {
            let through = saturated::through(&self.built, &subject, events);
            self.add_of(name, lines::EVENTS_A_SECOND, through.per_second);
            self.add_of(name, lines::CPU_AT_ONCE, through.cpu_us);
            if name == HOST {
                self.add(lines::CPU, through.cpu_us);
                self.add(lines::THROUGH, through.per_second / alone);
            }
        }
    }

    fn steps(&mut self) {
        let steps = steps::Steps::run(self.asked.amount.step_seconds);
        let us = |step: &str| steps.ns("event", step) / 1e3;
        self.add(lines::INDEX, us("frame to event, json"));
        self.add(lines::ENTRY_UNEDITED, us("event to entry, unedited"));
        self.add(lines::ENTRY_EDITED, us("event to entry, edited"));
        // A call is what it adds to a chain without filters.
        let bare = steps.ns("filter", "no filter");
        let more = |chain: &str| steps.ns("filter", chain) - bare;
        self.add(lines::CALL, more("reads 4, sets 2, routes") / 1e3);
        self.add(lines::CALL_IDLE, more("does nothing"));
        self.add(lines::UNSUBSCRIBED_NS, more("not subscribed"));
        let alone = |call: &str| steps.ns("wasmtime alone", call);
        self.add(lines::CALL_ALONE, alone("reads 4, sets 2, routes") / 1e3);
        self.add(lines::CALL_IDLE_ALONE, alone("does nothing"));
    }

    fn latency(&mut self, round: usize) {
        let load = steady::Load {
            per_second: RATE,
            seconds: self.asked.amount.seconds,
        };
        let mut found = BTreeMap::new();
        for (name, subject) in self.subjects(round) {
            let (shown, ()) = steady::load(&self.built, &subject, load, |_, _| ());
            let [p50, p99] = [0.5, 0.99].map(|quantile| ms(&shown.latencies(), quantile));
            self.add_of(name, lines::P50_MS, p50);
            self.add_of(name, lines::P99_MS, p99);
            self.add_of(name, lines::CPU_STEADY, shown.cpu_us);
            self.add(lines::LATE, ms(&shown.late, 0.99));
            self.add(lines::HICCUPS, ms(&shown.hiccups, 0.99));
            if !shown.in_order {
                eprintln!("  {name}: the entries are NOT in the order of the events");
            }
            found.insert(name, (p50, p99));
        }
        let (host, relay) = (found[HOST], found[RELAY]);
        self.add(lines::P50, host.0 / relay.0);
        self.add(lines::P99, host.1 / relay.1);
    }

    fn swap(&mut self, round: usize) {
        for (change, line) in [
            (steady::Change::Settings, lines::SWAP_SETTINGS),
            (steady::Change::Build, lines::SWAP_BUILD),
        ] {
            let swap = steady::swap(&self.built, &hosts::three(), RATE, change, round);
            eprintln!(
                "  {}: {} / {} µs, live after {:?}",
                line.what, swap.during_us, swap.steady_us, swap.took
            );
            self.add(line, swap.during_us as f64 / swap.steady_us as f64);
        }
    }

    /// What would be the same each time, or takes long.
    fn once(&mut self) {
        if self.wants("bytes") {
            let raw = footprint::entry_bytes(&self.built, &Subject::Relay, None);
            let fields = footprint::entry_bytes(&self.built, &hosts::fields(), None);
            self.add(lines::FIELDS, fields / raw);
            self.add(lines::RAW_BYTES, raw);
            self.add(lines::FIELDS_BYTES, fields);
            let fields = footprint::entry_bytes(&self.built, &hosts::fields(), Some(65_536));
            self.add(lines::FIELDS_LARGE_NODES, fields);
        }
        if self.wants("calls") {
            let (host, file) = hosts::with_others();
            let calls = footprint::calls(&self.built, &host, file);
            self.add(lines::UNSUBSCRIBED_CALLS, calls);
        }
        if self.wants("memory") {
            self.memory();
        }
    }

    fn memory(&mut self) {
        let backlog = self.asked.amount.backlog;
        let found = footprint::memory(&self.built, &hosts::five(), STEPS, backlog);
        for memory in &found {
            eprintln!(
                "  {} waiting: {} KiB resident, {} KiB of it allocated",
                memory.backlog,
                memory.resident >> 10,
                memory.anonymous >> 10
            );
        }
        let mib = |memory: &footprint::Memory| memory.resident as f64 / f64::from(1 << 20);
        // The most that it ever was, not what it ended with.
        let most = found.iter().map(mib).fold(0.0, f64::max);
        self.add(lines::MEMORY, most);
        if let Some(empty) = found.first() {
            self.add(lines::MEMORY_EMPTY, mib(empty));
        }
    }

    /// The host and what it stands beside. Who comes first in one round comes last in the next.
    fn subjects(&self, round: usize) -> Vec<(&'static str, Subject)> {
        let mut subjects = vec![(HOST, hosts::three()), (RELAY, Subject::Relay)];
        let peer = self.asked.peer.clone();
        subjects.extend(peer.map(|words| (PEER, Subject::Peer(words))));
        if !round.is_multiple_of(2) {
            subjects.reverse();
        }
        subjects
    }
}

fn ms(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}
