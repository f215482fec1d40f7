//! A candidate on past traffic: what it does with events that were handled before, beside what its namesake did then.
//!
//! Runs in an instance of its own and changes nothing. Where past traffic comes from is not known here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::decision::Allowance;
use super::difference::{Answer, Difference};
use super::engine::Engine;
use super::instance::Failure;
use super::probation::{COMPARABLE_EVENTS, Complaint, Tally};
use super::refusal::Refusal;
use super::step::Verdict;
use super::version::{Active, Made};
use crate::clock;
use crate::event::Event;
use crate::journal::Lsn;

/// One call in so many may take longer than its deadline: another program may have had the processor.
const LATE_SHARE: u64 = 100;
/// After so many it is clear.
const MAX_LATE: u64 = 20;
/// A slow filter is tried on fewer events.
const MAX_TIME: Duration = Duration::from_secs(5);

/// An event as a filter saw it, or a tick.
#[derive(Debug)]
pub struct Occasion {
    /// The input's number; 0 where there is none.
    pub lsn: Lsn,
    /// The time of the call.
    pub now_us: u64,
    /// As it came to the filter; `None` for a tick.
    pub event: Option<Event>,
    /// What the filter of this name did with it; `None` where there was no such filter, or nothing is known.
    pub answer: Option<Answer>,
}

/// A filter that is tried.
pub struct Candidate {
    engine: Arc<Engine>,
    active: Active,
    file: Arc<str>,
    /// What it did.
    pub tally: Tally,
    /// Events of which it is known what its namesake did.
    pub compared: u64,
    /// What its namesake did with those of them that either was called for.
    pub before: Tally,
    /// What it did with those.
    pub beside: Tally,
    late: u64,
}

impl Candidate {
    pub(super) fn start(
        engine: &Arc<Engine>,
        file: &Arc<str>,
        made: &Made,
        now_us: u64,
    ) -> Result<Candidate, Refusal> {
        let _ticking = engine.ticking();
        Ok(Candidate {
            engine: Arc::clone(engine),
            active: Active::alone(engine, file, made.muted(), None, now_us)?,
            file: Arc::clone(file),
            tally: Tally::default(),
            compared: 0,
            before: Tally::default(),
            beside: Tally::default(),
            late: 0,
        })
    }

    /// What it does. A difference is one to what its namesake did, if that is known.
    ///
    /// # Errors
    /// The call failed; the next one finds a new instance.
    pub fn handle(&mut self, occasion: Occasion) -> Result<Option<Difference>, Failure> {
        let engine = Arc::clone(&self.engine);
        let _ticking = engine.ticking();
        let now_us = occasion.now_us;
        self.active.revive(&engine, None, now_us)?;
        let answered = self.answer(occasion.event, now_us);
        if let Err(failure) = &answered {
            self.active.discard_instance();
            self.tally.failures += 1;
            self.late += u64::from(matches!(failure, Failure::Deadline(_)));
        }
        let Some((event, answer)) = answered? else {
            return Ok(None);
        };
        note(&mut self.tally, &answer.verdict);
        let Some(before) = occasion.answer else {
            return Ok(None);
        };
        self.compared += 1;
        if self.active.wants.event(&event) || before != Answer::pass() {
            note(&mut self.before, &before.verdict);
            note(&mut self.beside, &answer.verdict);
        }
        Ok(Difference::between(&event, &before, &answer))
    }

    fn answer(
        &mut self,
        event: Option<Event>,
        now_us: u64,
    ) -> Result<Option<(Event, Answer)>, Failure> {
        let mut allowance = Allowance::of_one_input();
        let Some(mut event) = event else {
            if self.active.tick_every.is_some() {
                self.active.tick(now_us, &mut allowance)?;
            }
            return Ok(None);
        };
        if !self.active.wants.event(&event) {
            return Ok(Some((event, Answer::pass())));
        }
        self.tally.calls += 1;
        let started = Instant::now();
        let decision = self.active.handle(&mut event, now_us, &mut allowance);
        let took_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.tally.took_ns += took_ns;
        Ok(Some((event, Answer::of(decision?, &self.file))))
    }

    /// What keeps it from going live, if anything does.
    fn complaint(&self, fuse: bool) -> Option<Complaint> {
        if self.late > 1 && self.late * LATE_SHARE > self.tally.calls {
            return Some(Complaint::Late {
                late: self.late,
                calls: self.tally.calls,
            });
        }
        (fuse && self.before.events >= COMPARABLE_EVENTS)
            .then(|| self.beside.distance(&self.before))
            .flatten()
    }
}

fn note(tally: &mut Tally, verdict: &Verdict) {
    tally.events += 1;
    match verdict {
        Verdict::Pass => {}
        Verdict::Route(_) => tally.reroutes += 1,
        Verdict::Drop(_) | Verdict::DeadLetter(_) => tally.drops += 1,
    }
}

/// Tries a version on past traffic before it goes live, and says in words how it went.
pub(super) fn rehearse(
    engine: &Arc<Engine>,
    file: &Arc<str>,
    made: &Made,
    occasions: impl Iterator<Item = Occasion>,
) -> Result<String, Refusal> {
    let mut candidate = Candidate::start(engine, file, made, clock::now_us())?;
    let (began, mut differences, mut is_cut) = (Instant::now(), 0_u64, false);
    for occasion in occasions {
        let lsn = occasion.lsn;
        match candidate.handle(occasion) {
            Ok(difference) => differences += u64::from(difference.is_some()),
            Err(Failure::Deadline(_)) => {}
            Err(failure) => {
                let why = format!("rehearsal on past events: {failure} (event {lsn})");
                return Err(Refusal::Rehearsal(why));
            }
        }
        // Others may wait to go live.
        is_cut = began.elapsed() > MAX_TIME;
        if is_cut || candidate.late >= MAX_LATE {
            break;
        }
    }
    if let Some(complaint) = candidate.complaint(made.limits.fuse) {
        let why = format!("rehearsal on past events: {complaint}");
        return Err(match complaint {
            Complaint::Late { .. } => Refusal::Late(why),
            _ => Refusal::Rehearsal(why),
        });
    }
    let events = candidate.tally.events;
    let cut = if is_cut {
        ", then the time was over"
    } else {
        ""
    };
    Ok(match candidate.compared {
        0 => format!("{events} events{cut}"),
        known => {
            format!("{events} events, {differences} of {known} handled otherwise than before{cut}")
        }
    })
}
