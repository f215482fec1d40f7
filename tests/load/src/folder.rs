//! What a start and a new file take: from the process to its first delivered event, from a file's name to its filter being live.

use std::time::{Duration, Instant};

use crate::arrivals::Arrivals;
use crate::prepared::CHANNEL_ANSWER;
use crate::stand::{LIMIT, Stand};
use crate::store::STREAM;
use crate::subject::{Built, MAX_LEN, Subject, Wires, place};

/// The same filter, put into the folder of a running host twice.
#[derive(Debug, Clone, Copy)]
pub struct DropIn {
    /// A component that was never seen.
    pub first: Duration,
    /// One that was compiled before.
    pub cached: Duration,
}

/// Puts a filter into the folder of a host that has others.
pub fn drop_in(built: &Built, subject: &Subject, component: &str, round: usize) -> DropIn {
    const FILE: &str = "90-dropped-in";
    let stand = Stand::up(built, subject, CHANNEL_ANSWER, MAX_LEN);
    let (running, clock) = (&stand.running, stand.clock);
    let filters = running.filters();
    let build = format!("drop-in-{round}-{}", clock.now_us());
    let put = || {
        let dropped = clock.now_us();
        place(
            &built.component(component),
            &filters,
            FILE,
            build.as_bytes(),
        );
        let live = running.wait_for_swap(FILE, None);
        Duration::from_micros(live.saturating_sub(dropped))
    };
    let first = put();
    std::fs::remove_file(filters.join(format!("{FILE}.wasm"))).expect("it is there");
    let removed = Instant::now();
    while running.filter_since_us(FILE).is_some() {
        assert!(removed.elapsed() < LIMIT, "{FILE} does not go");
        std::thread::sleep(Duration::from_millis(10));
    }
    DropIn {
        first,
        cached: put(),
    }
}

/// From the start of a process to its first entry in Redis, with components that were compiled in a run before. The switch has an
/// event for it as soon as it listens.
pub fn start(built: &Built, subject: &Subject) -> Duration {
    let stand = Stand::up(built, subject, CHANNEL_ANSWER, MAX_LEN);
    let Stand {
        running,
        mut switch,
        store,
        clock,
        ..
    } = stand;
    let dir = running.stop();
    switch.forget();
    let wires = Wires {
        esl: switch.addr,
        redis: store.address(),
        max_len: MAX_LEN,
    };
    let arrivals = Arrivals::watch(&store, clock, STREAM);
    let started_us = clock.now_us();
    let started = Instant::now();
    let _running = built.start_in(dir, subject, &wires);
    assert!(switch.wait_for_listener(LIMIT), "it connects again");
    while arrivals.count() == 0 {
        assert!(started.elapsed() < LIMIT, "no event arrives");
        switch.send_at_once(1).expect("the subject reads");
        std::thread::sleep(Duration::from_millis(1));
    }
    let first = arrivals.stop().first().copied().unwrap_or_default();
    Duration::from_micros(first - started_us)
}
