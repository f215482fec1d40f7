//! How a version does: what it did so far, beside the version before it, and whether it stays.
//!
//! Pure: counts and times in, judgments out.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Failures that are more than an accident.
const FAILURES: u64 = 10;
/// So many of its calls, in percent, may fail beyond what failed before.
const FAILING_POINTS: f64 = 1.0;
/// Events over which the fuse compares a version with the one before it.
const FUSE_EVENTS: u64 = 1_000;
/// Events without which the version before says nothing.
pub(super) const COMPARABLE_EVENTS: u64 = 100;
/// By so many percentage points its share of drops or reroutes may differ from that of the one before: while it runs upward alone,
/// in a rehearsal in both directions, as a filter that does nothing any more is as suspicious.
const FUSE_POINTS: f64 = 20.0;
/// Calls after which the mean cost means something.
const COST_CALLS: u64 = 1_000;
/// A version that takes so many times as long as the one before it is too slow,
const COST_FACTOR: u64 = 5;
/// unless a call is still faster than this: what is cheap may become less so.
const COST_NS: u64 = 50_000;

/// What a version did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Events that came by, as far as it or the version before it subscribed to them.
    pub events: u64,
    /// Calls of `handle` and `tick`.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Events that it dropped or dead-lettered.
    pub drops: u64,
    /// Events that it routed.
    pub reroutes: u64,
    /// Time of all calls, in nanoseconds.
    pub took_ns: u64,
}

impl Tally {
    /// Share of events that it dropped, in percent.
    fn dropped(&self) -> f64 {
        percent(self.drops, self.events)
    }

    /// Share of events that it routed, in percent.
    fn rerouted(&self) -> f64 {
        percent(self.reroutes, self.events)
    }

    fn failing(&self) -> f64 {
        percent(self.failures, self.calls)
    }

    /// Time of a call, in nanoseconds.
    pub fn mean_ns(&self) -> u64 {
        self.took_ns.checked_div(self.calls).unwrap_or_default()
    }

    /// What it does far more than `before` did.
    fn excess(&self, before: &Tally) -> Option<Complaint> {
        self.differs(before, |now, before| now - before > FUSE_POINTS)
    }

    /// What it does far more, or far less, than `before` did.
    pub(super) fn distance(&self, before: &Tally) -> Option<Complaint> {
        self.differs(before, |now, before| (now - before).abs() > FUSE_POINTS)
    }

    fn differs(&self, before: &Tally, is_far: impl Fn(f64, f64) -> bool) -> Option<Complaint> {
        let (now, was) = (self.dropped(), before.dropped());
        if is_far(now, was) {
            return Some(Complaint::Drops { now, before: was });
        }
        let (now, was) = (self.rerouted(), before.rerouted());
        is_far(now, was).then_some(Complaint::Reroutes { now, before: was })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share for people; counts are far below 2⁵³"
)]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 * 100.0 / whole as f64
}

/// Why a version does not stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Complaint {
    /// Its calls fail.
    Failing { failures: u64, calls: u64 },
    /// Its calls take longer than they may.
    Late { late: u64, calls: u64 },
    /// It takes much longer than the version before it.
    Cost { now_ns: u64, before_ns: u64 },
    /// It drops far more, or less.
    Drops { now: f64, before: f64 },
    /// It routes far more, or less.
    Reroutes { now: f64, before: f64 },
}

impl Complaint {
    /// The label of the metric.
    pub(super) fn cause(self) -> &'static str {
        match self {
            Complaint::Failing { .. } | Complaint::Late { .. } => "errors",
            Complaint::Cost { .. } => "cost",
            Complaint::Drops { .. } | Complaint::Reroutes { .. } => "fuse",
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Complaint::Failing { failures, calls } => {
                write!(f, "{failures} of {calls} calls failed")
            }
            Complaint::Late { late, calls } => {
                write!(f, "{late} of {calls} calls took longer than the deadline")
            }
            Complaint::Cost { now_ns, before_ns } => write!(
                f,
                "a call takes {} µs, with the version before it took {} µs",
                now_ns / 1_000,
                before_ns / 1_000
            ),
            Complaint::Drops { now, before } => write!(
                f,
                "it drops {now:.0} % of the events, the version before dropped {before:.0} % (fuse = false allows it)"
            ),
            Complaint::Reroutes { now, before } => write!(
                f,
                "it routes {now:.0} % of the events, the version before routed {before:.0} % (fuse = false allows it)"
            ),
        }
    }
}

/// What is to be done about a version.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Judgment {
    /// Nothing.
    GoOn,
    /// It is a good version from now on.
    Good,
    /// It is to go.
    Bad(Complaint),
}

/// A version under watch.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) tally: Tally,
    since: Instant,
    /// `None`: it is good.
    probation: Option<Duration>,
    fuse: bool,
    /// What the version before it did.
    before: Option<Tally>,
}

impl Watch {
    /// `probation` is `None` for a version that was good before, which no fuse is for either; `before` is what the one before it did.
    pub(super) fn new(
        now: Instant,
        probation: Option<Duration>,
        fuse: bool,
        before: Option<Tally>,
    ) -> Watch {
        Watch {
            tally: Tally::default(),
            since: now,
            fuse: fuse && probation.is_some(),
            probation,
            before: before.filter(|before| before.events >= COMPARABLE_EVENTS),
        }
    }

    /// What the version before it did, for the next one: this one's own doings, if they say anything.
    pub(super) fn baseline(&self) -> Option<Tally> {
        let is_long = self.tally.events >= COMPARABLE_EVENTS;
        if is_long {
            Some(self.tally)
        } else {
            self.before
        }
    }

    /// What the version before it did.
    pub(super) fn before(&self) -> Option<Tally> {
        self.before
    }

    /// It did not run for a while: its probation begins again.
    pub(super) fn begin_again(&mut self, now: Instant) {
        self.since = now;
    }

    /// What it did so far was not for real.
    pub(super) fn forget(&mut self, now: Instant) {
        self.tally = Tally::default();
        self.since = now;
    }

    /// Whether it is still on probation.
    pub(super) fn is_on_probation(&self) -> bool {
        self.probation.is_some()
    }

    /// To be asked often; [`Judgment::Good`] is said once.
    pub(super) fn judge(&mut self, now: Instant) -> Judgment {
        if let Some(complaint) = self.fuse() {
            return Judgment::Bad(complaint);
        }
        let Some(probation) = self.probation else {
            return Judgment::GoOn;
        };
        if probation.is_zero() {
            // Whoever wants none takes every version for good.
            self.probation = None;
            return Judgment::Good;
        }
        if let Some(complaint) = self.complaint() {
            return Judgment::Bad(complaint);
        }
        let has_worked = self.tally.calls > self.tally.failures;
        if has_worked && now.saturating_duration_since(self.since) >= probation {
            self.probation = None;
            return Judgment::Good;
        }
        Judgment::GoOn
    }

    /// Judges once, when enough events came by.
    fn fuse(&mut self) -> Option<Complaint> {
        if !self.fuse || self.tally.events < FUSE_EVENTS {
            return None;
        }
        self.fuse = false;
        self.tally.excess(self.before.as_ref()?)
    }

    fn complaint(&self) -> Option<Complaint> {
        let Tally {
            calls, failures, ..
        } = self.tally;
        let failing_before = self.before.map_or(0.0, |before| before.failing());
        if failures >= FAILURES && self.tally.failing() > failing_before + FAILING_POINTS {
            return Some(Complaint::Failing { failures, calls });
        }
        let before_ns = self.before.filter(|before| before.calls >= COST_CALLS)?;
        let (now_ns, before_ns) = (self.tally.mean_ns(), before_ns.mean_ns());
        let is_slow = now_ns > COST_NS && now_ns > before_ns.saturating_mul(COST_FACTOR);
        (calls >= COST_CALLS && is_slow).then_some(Complaint::Cost { now_ns, before_ns })
    }
}

/// How often the load is looked at.
const LOAD_WINDOW: Duration = Duration::from_secs(1);
/// A backlog of fewer events is none.
const BACKLOG: u64 = 1_000;
/// Windows in a row in which the backlog grows and one filter takes more than half of the time.
const OVERLOADED: u32 = 3;
/// How long a filter is suspended at least.
const SUSPENSION: Duration = Duration::from_secs(60);

/// Whether one filter eats the pipeline's time while the backlog grows.
#[derive(Clone, Debug)]
pub(super) struct Load {
    since: Instant,
    waiting: u64,
    /// Nanoseconds that each filter had taken when the window began.
    took_ns: Vec<u64>,
    /// The filter that took too much, and in how many windows in a row.
    suspect: (usize, u32),
}

impl Load {
    pub(super) fn new(now: Instant) -> Load {
        Load {
            since: now,
            waiting: 0,
            took_ns: Vec::new(),
            suspect: (0, 0),
        }
    }

    /// The filter to suspend, by its place. `took_ns` is the time that each has taken since it started.
    pub(super) fn look(
        &mut self,
        now: Instant,
        waiting: u64,
        took_ns: impl Iterator<Item = u64>,
    ) -> Option<usize> {
        let window = now.saturating_duration_since(self.since);
        if window < LOAD_WINDOW {
            return None;
        }
        let took: Vec<u64> = took_ns.collect();
        let half = window.as_nanos() / 2;
        let same_chain = took.len() == self.took_ns.len();
        let shares = took.iter().zip(&self.took_ns);
        let mut shares = shares.map(|(now, before)| u128::from(now.saturating_sub(*before)));
        let hog = shares.position(|took| took > half).filter(|_| same_chain);
        let is_growing = waiting > BACKLOG && waiting > self.waiting;
        self.suspect = match hog.filter(|_| is_growing) {
            Some(hog) if hog == self.suspect.0 => (hog, self.suspect.1 + 1),
            Some(hog) => (hog, 1),
            None => (0, 0),
        };
        (self.since, self.waiting, self.took_ns) = (now, waiting, took);
        (self.suspect.1 >= OVERLOADED).then(|| {
            let (hog, _) = std::mem::take(&mut self.suspect);
            hog
        })
    }
}

/// Whether a filter that was suspended then may work again.
pub(super) fn may_resume(suspended: Instant, now: Instant, waiting: u64) -> bool {
    waiting < BACKLOG && now.saturating_duration_since(suspended) >= SUSPENSION
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn tally(events: u64, failures: u64, drops: u64, took_ns: u64) -> Tally {
        Tally {
            events,
            calls: events,
            failures,
            drops,
            reroutes: 0,
            took_ns,
        }
    }

    fn judged(before: Option<Tally>, so_far: Tally, after: Duration) -> Judgment {
        let start = Instant::now();
        let mut watch = Watch::new(start, Some(MINUTE), true, before);
        watch.tally = so_far;
        watch.judge(start + after)
    }

    #[test]
    fn a_version_is_good_after_its_probation_and_once() {
        let start = Instant::now();
        let mut watch = Watch::new(start, Some(MINUTE), true, None);
        assert_eq!(
            watch.judge(start + MINUTE),
            Judgment::GoOn,
            "it did nothing yet"
        );
        watch.tally = tally(1, 0, 0, 0);
        assert_eq!(watch.judge(start + MINUTE / 2), Judgment::GoOn);
        assert_eq!(watch.judge(start + MINUTE), Judgment::Good);
        assert_eq!(watch.judge(start + MINUTE), Judgment::GoOn);
        assert!(!watch.is_on_probation());
    }

    #[test]
    fn without_a_probation_every_version_is_good() {
        let mut watch = Watch::new(Instant::now(), Some(Duration::ZERO), true, None);
        watch.tally = tally(20, 20, 0, 0);
        assert_eq!(watch.judge(Instant::now()), Judgment::Good);
        assert_eq!(watch.judge(Instant::now()), Judgment::GoOn);
    }

    #[test]
    fn failures_count_from_the_tenth_on_and_beside_those_before() {
        let check = |before: Option<Tally>, failures, is_bad: bool| {
            let so_far = tally(500, failures, 0, 0);
            let is_so = matches!(judged(before, so_far, MINUTE / 2), Judgment::Bad(_));
            assert_eq!(is_so, is_bad, "{failures} failures after {before:?}");
        };
        check(None, 9, false);
        check(None, 10, true);
        check(Some(tally(1_000, 30, 0, 0)), 15, false);
        check(Some(tally(1_000, 30, 0, 0)), 25, true);
    }

    #[test]
    fn a_version_of_many_times_the_cost_is_bad() {
        let before = tally(2_000, 0, 0, 2_000 * 20_000);
        let bad = Judgment::Bad(Complaint::Cost {
            now_ns: 101_000,
            before_ns: 20_000,
        });
        assert_eq!(
            judged(Some(before), tally(1_000, 0, 0, 101_000_000), MINUTE / 2),
            bad
        );
        assert_eq!(
            judged(Some(before), tally(1_000, 0, 0, 99_000_000), MINUTE / 2),
            Judgment::GoOn
        );
        let cheap = tally(2_000, 0, 0, 2_000 * 1_000);
        assert_eq!(
            judged(Some(cheap), tally(1_000, 0, 0, 40_000_000), MINUTE / 2),
            Judgment::GoOn,
            "forty times, but cheap still"
        );
    }

    #[test]
    fn the_fuse_blows_over_twenty_points_more_and_only_at_the_thousandth_event() {
        let before = Some(tally(1_000, 0, 100, 0));
        assert_eq!(
            judged(before, tally(999, 0, 999, 0), Duration::ZERO),
            Judgment::GoOn
        );
        let bad = Judgment::Bad(Complaint::Drops {
            now: 31.0,
            before: 10.0,
        });
        assert_eq!(judged(before, tally(1_000, 0, 310, 0), Duration::ZERO), bad);
        assert_eq!(
            judged(before, tally(1_000, 0, 300, 0), Duration::ZERO),
            Judgment::GoOn
        );
        assert_eq!(
            judged(
                Some(tally(99, 0, 0, 0)),
                tally(1_000, 0, 1_000, 0),
                Duration::ZERO
            ),
            Judgment::GoOn,
            "the version before saw too little to compare with"
        );
    }

    #[test]
    fn who_takes_over_half_of_the_time_while_the_backlog_grows_is_named_after_three_seconds() {
        let start = Instant::now();
        let second = |n: u32| start + LOAD_WINDOW * n;
        let hog = |n: u32| u64::from(n) * 600_000_000;
        let check = |waiting: [u64; 5], expected: [Option<usize>; 5]| {
            let mut load = Load::new(start);
            for (n, (waiting, expected)) in (1..).zip(waiting.into_iter().zip(expected)) {
                let took = [0, hog(n)].into_iter();
                assert_eq!(load.look(second(n), waiting, took), expected, "second {n}");
            }
        };
        check(
            [2_000, 3_000, 4_000, 5_000, 6_000],
            [None, None, None, Some(1), None],
        );
        check([2_000, 3_000, 2_500, 2_600, 2_700], [None; 5]);
        check([100, 200, 300, 400, 500], [None; 5]);
    }
}
