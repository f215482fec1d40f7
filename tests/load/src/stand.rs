//! A subject between a switch and a Redis of its own, warmed up: what every measurement begins with.

use std::time::{Duration, Instant};

use redis::Connection;

use crate::schedule::Clock;
use crate::store::{STREAM, Store, added};
use crate::subject::{Built, Running, Subject, Wires};
use crate::switch::Switch;

/// Ample for anything to arrive.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at what has arrived.
const LOOK: Duration = Duration::from_millis(2);
/// Events that go through before anything is measured.
const WARM_UP: u64 = 2_000;
const WARM_UP_A_SECOND: u64 = 2_000;

/// What is measured, and both of its ends.
pub struct Stand {
    // Ends before what it is connected to.
    pub running: Running,
    pub switch: Switch,
    pub store: Store,
    pub clock: Clock,
    connection: Connection,
}

impl Stand {
    /// Starts everything, and returns once events have gone through. `max_len`: how many entries Redis keeps, 0 for all.
    pub fn up(built: &Built, subject: &Subject, json: &str, max_len: u64) -> Stand {
        let (clock, store) = (Clock::start(), Store::start());
        let switch = Switch::start(clock, json);
        let wires = Wires {
            esl: switch.addr,
            redis: store.address(),
            max_len,
        };
        let running = built.start(subject, &wires);
        let mut stand = Stand {
            running,
            switch,
            connection: store.connect(),
            store,
            clock,
        };
        stand.warm_up();
        if let Subject::Host(setup) = subject {
            stand.running.check_filters(setup);
        }
        stand
    }

    fn warm_up(&mut self) {
        assert!(
            self.switch.wait_for_listener(LIMIT),
            "nobody subscribes to the events"
        );
        let sent = self.switch.send_paced(WARM_UP, WARM_UP_A_SECOND);
        sent.expect("the subject reads");
        self.wait_for(WARM_UP);
    }

    /// How many entries were ever added.
    pub fn added(&mut self) -> u64 {
        added(&mut self.connection, STREAM)
    }

    /// Waits until so many entries were ever added, and fails where they do not come: every event makes exactly one.
    pub fn wait_for(&mut self, entries: u64) {
        let started = Instant::now();
        loop {
            let added = self.added();
            assert!(added <= entries, "{added} entries of {entries} events");
            if added == entries {
                return;
            }
            assert!(
                started.elapsed() < LIMIT,
                "{added} entries of {entries} events after {LIMIT:?}"
            );
            std::thread::sleep(LOOK);
        }
    }

    /// After an outage Redis is another process.
    pub fn connect_again(&mut self) {
        self.connection = self.store.connect();
    }
}
