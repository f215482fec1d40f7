//! Seeds: whatever a fault test does by chance follows from one number, which it prints.

use std::env;
use std::io::Write;
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long `make soak` repeats each test, in seconds; not set in `make test`.
const SOAK: &str = "SOAK_SECONDS";
/// Repeats one run.
const SEED: &str = "SEED";

/// Random numbers that a seed decides (splitmix64).
pub(crate) struct Dice {
    pub(crate) seed: u64,
    state: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice { seed, state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in this range, which must not be empty.
    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// A time of so many milliseconds.
    pub(crate) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// One of these, which must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[(self.next() % of.len() as u64) as usize]
    }
}

/// The seeds with which a test runs: the given ones, each once; in `make soak` new ones until the time is up; with `SEED` that one.
pub(crate) fn seeds<'a>(test: &str, given: &'a [u64]) -> Box<dyn Iterator<Item = u64> + 'a> {
    let given = given.iter().copied();
    let seeds: Box<dyn Iterator<Item = u64> + 'a> = match (number(SEED), soak()) {
        (Some(seed), _) => Box::new(std::iter::once(seed)),
        (None, Some(time)) => {
            let started = Instant::now();
            let fresh = std::iter::repeat_with(fresh).take_while(move |_| started.elapsed() < time);
            Box::new(given.chain(fresh))
        }
        (None, None) => Box::new(given),
    };
    let again = format!("cargo test -p jackfield-tests --test e2e -- --exact {test}");
    Box::new(seeds.inspect(move |seed| tell(&format!("seed {seed}: {SEED}={seed} {again}"))))
}

/// A line on standard error, past libtest, which keeps what a good test prints to itself.
pub(crate) fn tell(line: &str) {
    let line = format!("{line}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// How long each test is repeated, if this is `make soak`.
pub(crate) fn soak() -> Option<Duration> {
    number(SOAK).map(Duration::from_secs)
}

/// How often a test does something within one run: more in `make soak`.
pub(crate) fn rounds(short: u64, long: u64) -> u64 {
    if soak().is_some() { long } else { short }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} = {text:?}: allowed is a whole number")))
}

fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    // Six digits are easier to copy, and enough.
    Dice::new(now.as_nanos() as u64).next() % 1_000_000
}
