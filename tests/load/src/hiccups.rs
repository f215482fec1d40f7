//! What the machine itself does to whoever waits: a thread that sleeps a millisecond and notes how late it wakes.
//!
//! A latency below these times says nothing about a subject: everything on the machine was held up as long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::schedule::{latencies, us};

const SLEEP: Duration = Duration::from_millis(1);

/// A running meter.
pub struct Hiccups {
    stop: Arc<AtomicBool>,
    metering: JoinHandle<Histogram<u64>>,
}

impl Hiccups {
    /// Begins to measure.
    pub fn start() -> Hiccups {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let metering = std::thread::spawn(move || {
            let mut late = latencies();
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(SLEEP);
                late.saturating_record(us(began.elapsed().saturating_sub(SLEEP)));
            }
            late
        });
        Hiccups { stop, metering }
    }

    /// How late it woke, in microseconds.
    pub fn stop(self) -> Histogram<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.metering.join().expect("the meter ends")
    }
}
