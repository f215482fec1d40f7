//! What the journal tells of the past: inputs with the decisions about them, and each event as one filter saw it.
//!
//! Only reads, beside the journal's writer. Events are made again from frames and journaled edits; no filter runs.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::decision::{Became, decode, event_of};
use crate::esl::RollCall;
use crate::event::Event;
use crate::filter::{Answer, Derived, Occasion, Step, Verdict};
use crate::journal::{Disk, Kind, Lsn, Place, Reader, Record, SegmentFile};

/// Inputs in order, each with its decision. The decision stands further on in the journal, so two readers go through it side by
/// side.
#[derive(Clone, Debug)]
pub struct Pairs {
    inputs: Reader,
    decisions: Reader,
    /// Read, and about an input that was not asked for yet.
    waiting: Option<Record>,
    /// An input whose decision was not there yet.
    undecided: Option<Record>,
}

impl Pairs {
    /// Those of the inputs above `lsn`.
    pub fn after(disk: &Arc<dyn Disk>, dir: &Path, lsn: Lsn) -> Pairs {
        Pairs {
            inputs: Reader::inputs_after(Arc::clone(disk), dir, lsn),
            decisions: Reader::decisions_after(Arc::clone(disk), dir, lsn),
            waiting: None,
            undecided: None,
        }
    }

    /// The same, read from this place on, which is before them.
    fn from(self, place: Place) -> Pairs {
        Pairs {
            inputs: self.inputs.from(place),
            decisions: self.decisions.from(place),
            ..self
        }
    }

    /// The next input, decided or not. None: ask again when more was written.
    ///
    /// # Errors
    /// The disk.
    pub fn next_pair(&mut self) -> io::Result<Option<(Record, Option<Record>)>> {
        let input = match self.undecided.take() {
            Some(input) => Some(input),
            None => self.inputs.next()?,
        };
        let Some(input) = input else {
            return Ok(None);
        };
        let decision = self.about(input.head.lsn)?;
        Ok(Some((input, decision)))
    }

    /// The next input that was decided; `None`: ask again when more was. To follow a running host.
    ///
    /// # Errors
    /// The disk.
    pub fn next_decided(&mut self) -> io::Result<Option<(Record, Record)>> {
        while let Some((input, decision)) = self.next_pair()? {
            if let Some(decision) = decision {
                return Ok(Some((input, decision)));
            }
            if self.waiting.is_none() {
                // Decisions come in order: this one is still to come.
                self.undecided = Some(input);
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Gives back files and memory until the next call.
    pub fn rest(&mut self) {
        self.inputs.rest();
        self.decisions.rest();
    }

    /// Places of the journal that were damaged and were passed over.
    pub fn quarantined(&self) -> u64 {
        // Both readers go over the same bytes.
        self.inputs.quarantined().max(self.decisions.quarantined())
    }

    /// The decision about this input, which is above all that were asked for before.
    fn about(&mut self, lsn: Lsn) -> io::Result<Option<Record>> {
        while self.waiting.as_ref().is_none_or(|one| one.head.lsn < lsn) {
            self.waiting = self.decisions.next()?;
            if self.waiting.is_none() {
                break;
            }
        }
        Ok(self.waiting.take_if(|waiting| waiting.head.lsn == lsn))
    }
}

/// Events as the filter of one name saw them, with what it did.
pub struct Past {
    pairs: Pairs,
    file: String,
    /// Whether it was in the chain, so that it is known what it did where it is not met.
    present: bool,
    waiting: VecDeque<Occasion>,
    /// Events that are still to be read.
    left: u64,
}

impl Past {
    /// The past of the filter `file` after `lsn`. Where it is not met, it did nothing.
    pub fn after(disk: &Arc<dyn Disk>, dir: &Path, lsn: Lsn, file: &str) -> Past {
        Past {
            pairs: Pairs::after(disk, dir, lsn),
            file: file.to_owned(),
            present: true,
            waiting: VecDeque::new(),
            left: u64::MAX,
        }
    }

    /// The past of the filter `file` over the last `count` events, and the ticks between them. What it did is known from where it
    /// is met first: before, it may not have been in the chain.
    ///
    /// # Errors
    /// The disk.
    pub fn newest(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        count: u64,
        file: &str,
        place: Option<Place>,
    ) -> io::Result<Past> {
        let behind = match place {
            Some(place) => before_newest_behind(place, disk, dir, count)?.zip(Some(place)),
            None => None,
        };
        let past = match behind {
            Some((after, place)) => {
                let past = Past::after(disk, dir, after, file);
                Past {
                    pairs: past.pairs.from(place),
                    ..past
                }
            }
            None => Past::after(disk, dir, before_newest(disk, dir, count)?, file),
        };
        // Counted, as a host that runs goes on writing.
        Ok(Past {
            present: false,
            left: count,
            ..past
        })
    }

    /// The next event or tick.
    ///
    /// # Errors
    /// The disk.
    pub fn next_occasion(&mut self) -> io::Result<Option<Occasion>> {
        while self.waiting.is_empty() && self.read()? {}
        Ok(self.waiting.pop_front())
    }

    /// Takes one input; false: there is none.
    fn read(&mut self) -> io::Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        let Some((input, decision)) = self.pairs.next_pair()? else {
            return Ok(false);
        };
        self.left -= u64::from(input.head.kind.is_event());
        self.take(&input, decision.as_ref());
        Ok(true)
    }

    fn take(&mut self, input: &Record, decision: Option<&Record>) {
        let moment = Moment::new(input, decision);
        self.present |= moment.has_met(&self.file);
        self.waiting
            .extend(moment.seen_by(&self.file, self.present));
    }
}

/// An input, with what became of it.
pub(super) struct Moment<'a> {
    input: &'a Record,
    /// Its time for the filters.
    now_us: u64,
    event: Option<Event>,
    /// `None`: that is not known. One that does not read is as good as none.
    became: Option<Vec<Became>>,
}

impl<'a> Moment<'a> {
    pub(super) fn new(input: &'a Record, decision: Option<&Record>) -> Moment<'a> {
        let event = event_of(input.head.kind, input.payload.clone());
        let own_us = match input.head.kind {
            Kind::RollCall => RollCall::decode(&input.payload)
                .ok()
                .map(|roll| roll.asked_us),
            _ => event.as_ref().and_then(Event::timestamp),
        };
        Moment {
            input,
            now_us: own_us.unwrap_or(input.head.at_us),
            event,
            became: decision.and_then(|decision| decode(&decision.payload).ok()),
        }
    }

    /// The input itself; `None` if it is no event.
    pub(super) fn event(&self) -> Option<&Event> {
        self.event.as_ref()
    }

    /// What the filter `file` saw of it. One that was `present` passed on what it left no trace in.
    pub(super) fn seen_by(&self, file: &str, present: bool) -> Vec<Occasion> {
        let event = self.event.as_ref();
        let Some(became) = &self.became else {
            let undecided = event.map(|event| self.occasion(Some(event.clone()), None));
            return self.tick_of(file).into_iter().chain(undecided).collect();
        };
        let events = became.iter().filter_map(|one| {
            let came = match &one.derived {
                None => event.cloned(),
                Some(derived) => (*derived.by < *file).then(|| derived.event()),
            };
            let event = before(file, came?, one)?;
            Some(self.occasion(Some(event), answer(file, one, became, present)))
        });
        self.tick_of(file).into_iter().chain(events).collect()
    }

    fn tick_of(&self, file: &str) -> Option<Occasion> {
        if self.input.head.kind != Kind::Tick {
            return None;
        }
        let names = String::from_utf8_lossy(&self.input.payload);
        let is_due = names.lines().any(|name| name == file);
        is_due.then(|| self.occasion(None, None))
    }

    fn occasion(&self, event: Option<Event>, answer: Option<Answer>) -> Occasion {
        Occasion {
            lsn: self.input.head.lsn,
            now_us: self.now_us,
            event,
            answer,
        }
    }

    fn has_met(&self, file: &str) -> bool {
        let mut became = self.became.iter().flatten();
        became.any(|one| part(file, one).is_some())
    }
}

/// The event as it came to the filter; `None` if one before it ended it.
fn before(file: &str, event: Event, became: &Became) -> Option<Event> {
    let mut event = event;
    let earlier = became.steps.iter().filter(|step| *step.by < *file);
    for step in earlier {
        if matches!(step.verdict, Verdict::Drop(_) | Verdict::DeadLetter(_)) {
            return None;
        }
        step.edits.iter().for_each(|edit| edit.apply(&mut event));
    }
    Some(event)
}

fn part<'a>(file: &str, became: &'a Became) -> Option<&'a Step> {
    became.steps.iter().find(|step| *step.by == *file)
}

/// What the filter did with one event of an input that became all these; `None`: that is not known.
fn answer(file: &str, one: &Became, all: &[Became], present: bool) -> Option<Answer> {
    let Some(step) = part(file, one) else {
        return present.then(Answer::pass);
    };
    if step.failure.is_some() {
        // What became of the event is its policy, not its answer.
        return None;
    }
    let derived = all.iter().filter_map(|one| one.derived.clone());
    let derived: Vec<Derived> = derived.filter(|made| *made.by == *file).collect();
    let calls = all.iter().filter(|one| part(file, one).is_some()).count();
    if calls > 1 && !derived.is_empty() {
        // A decision does not say which call made them.
        return None;
    }
    Some(Answer {
        verdict: step.verdict.clone(),
        edits: step.edits.clone(),
        derived,
    })
}

/// The number before the last `count` inputs that are events, if all of them lie behind this place.
fn before_newest_behind(
    place: Place,
    disk: &Arc<dyn Disk>,
    dir: &Path,
    count: u64,
) -> io::Result<Option<Lsn>> {
    let mut inputs = Reader::inputs_after(Arc::clone(disk), dir, place.lsn).from(place);
    let mut events = Vec::new();
    while let Some(head) = inputs.next_head()? {
        events.extend(head.kind.is_event().then_some(head.lsn));
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let first = events
        .len()
        .checked_sub(count)
        .and_then(|at| events.get(at));
    Ok(first.map(|lsn| lsn.saturating_sub(1)))
}

/// The number before the last `count` inputs that are events.
fn before_newest(disk: &Arc<dyn Disk>, dir: &Path, count: u64) -> io::Result<Lsn> {
    let mut missing = usize::try_from(count).unwrap_or(usize::MAX);
    let mut end = Lsn::MAX;
    let segments = SegmentFile::all(disk.as_ref(), dir)?;
    for segment in segments.iter().rev() {
        let mut inputs =
            Reader::inputs_after(Arc::clone(disk), dir, segment.number.saturating_sub(1));
        let (mut first, mut events) = (None, Vec::new());
        while let Some(head) = inputs.next_head()?.filter(|head| head.lsn < end) {
            first = first.or(Some(head.lsn));
            events.extend(head.kind.is_event().then_some(head.lsn));
        }
        let Some(first) = first else {
            continue;
        };
        if missing == 0 {
            return Ok(end.saturating_sub(1));
        }
        if let Some(at) = events.len().checked_sub(missing) {
            return Ok(events.get(at).map_or(first, |lsn| lsn.saturating_sub(1)));
        }
        missing -= events.len();
        end = first;
    }
    Ok(end.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::config;
    use crate::event::Format;
    use crate::filter::Edit;
    use crate::journal::{Journal, RealDisk};
    use crate::pipeline::encode;
    use crate::route::Outcome;

    /// The filter in the middle of 10-a, 20-b and 30-c.
    const FILE: &str = "20-b";

    /// A journal, opened as often as a test likes.
    struct Log {
        folder: tempfile::TempDir,
        journal: Option<Journal>,
        disk: Arc<dyn Disk>,
    }

    impl Log {
        fn new() -> Log {
            let mut log = Log {
                folder: tempfile::tempdir().unwrap(),
                journal: None,
                disk: Arc::new(RealDisk),
            };
            log.open();
            log
        }

        fn open(&mut self) {
            self.journal = None;
            let settings = config::Journal {
                dir: self.dir().to_owned(),
                // Segments of 2 MiB.
                max_size: 16 << 20,
                retain: Duration::from_secs(60),
                sync: config::Sync::Never,
            };
            let opened = Journal::open(Arc::clone(&self.disk), &settings, None);
            self.journal = Some(opened.unwrap().0);
        }

        fn dir(&self) -> &Path {
            self.folder.path()
        }

        fn input(&mut self, kind: Kind, payload: &str) -> Lsn {
            let journal = self.journal.as_mut().unwrap();
            let lsn = journal.append(kind, 7, 1, 0, payload.as_bytes());
            journal.write(0).unwrap();
            lsn
        }

        fn decide(&mut self, lsn: Lsn, became: &[Became]) {
            let bytes = encode(became, Vec::new()).unwrap();
            let journal = self.journal.as_mut().unwrap();
            journal.decide(lsn, 8, &bytes);
            journal.write(0).unwrap();
        }

        /// A DTMF with the headers A and B, and what became of it.
        fn event(&mut self, became: &[Became]) -> Lsn {
            let lsn = self.input(Kind::Json, DTMF);
            self.decide(lsn, became);
            lsn
        }

        /// All that the filter in the middle saw.
        fn past(&self) -> Vec<Saw> {
            let mut past = Past::after(&self.disk, self.dir(), 0, FILE);
            std::iter::from_fn(|| past.next_occasion().unwrap())
                .map(|occasion| Saw::new(&occasion))
                .collect()
        }
    }

    const DTMF: &str = r#"{"Event-Name":"DTMF","Event-Date-Timestamp":"5","A":"1","B":"2"}"#;

    /// An occasion in short.
    #[derive(Debug, PartialEq)]
    struct Saw {
        event: Option<String>,
        answer: Option<Answer>,
    }

    impl Saw {
        fn new(occasion: &Occasion) -> Saw {
            Saw {
                event: occasion.event.as_ref().map(json),
                answer: occasion.answer.clone(),
            }
        }
    }

    fn json(event: &Event) -> String {
        let mut text = Vec::new();
        event.write_json(&mut text);
        String::from_utf8(text).unwrap()
    }

    fn saw(event: &str, answer: Option<Answer>) -> Saw {
        let event = Event::parse(Format::Json, Bytes::copy_from_slice(event.as_bytes()));
        Saw {
            event: Some(json(&event.unwrap())),
            answer,
        }
    }

    fn step(by: &str, verdict: Verdict, edits: &[Edit]) -> Step {
        Step {
            by: by.into(),
            version: "0.1.0".into(),
            digest: "0123456789ab".into(),
            took_ns: 1,
            verdict,
            edits: edits.to_vec(),
            failure: None,
        }
    }

    fn passed(by: &str, edits: &[Edit]) -> Step {
        step(by, Verdict::Pass, edits)
    }

    fn set(name: &str, value: &str) -> Edit {
        Edit::Set {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    fn made(by: &str, name: &str) -> Derived {
        Derived {
            by: by.into(),
            name: name.to_owned(),
            headers: vec![("A".to_owned(), "1".to_owned())],
            body: None,
        }
    }

    fn became(steps: &[Step]) -> Became {
        Became {
            derived: None,
            steps: steps.to_vec(),
            outcome: Outcome::Unrouted,
        }
    }

    fn derived(made: Derived, steps: &[Step]) -> Became {
        Became {
            derived: Some(made),
            ..became(steps)
        }
    }

    fn answer(verdict: Verdict, edits: &[Edit], derived: &[Derived]) -> Option<Answer> {
        Some(Answer {
            verdict,
            edits: edits.to_vec(),
            derived: derived.to_vec(),
        })
    }

    #[test]
    fn an_event_is_as_the_filters_before_it_left_it() {
        let mut log = Log::new();
        let edits = [set("B", "mine"), Edit::Remove("A".to_owned())];
        log.event(&[became(&[
            passed("10-a", &[set("A", "x")]),
            step(FILE, Verdict::Route(vec!["s".into()]), &edits),
            passed("30-c", &[set("B", "theirs")]),
        ])]);
        let event = r#"{"Event-Name":"DTMF","Event-Date-Timestamp":"5","A":"x","B":"2"}"#;
        let expected = answer(Verdict::Route(vec!["s".into()]), &edits, &[]);
        assert_eq!(log.past(), [saw(event, expected)]);
    }

    #[test]
    fn what_an_earlier_filter_ended_never_came_and_what_a_later_one_ended_did() {
        let mut log = Log::new();
        let drop = |by| step(by, Verdict::Drop("noise".to_owned()), &[]);
        let dead = step("10-a", Verdict::DeadLetter("late".to_owned()), &[]);
        log.event(&[became(&[drop("10-a")])]);
        log.event(&[became(&[dead])]);
        log.event(&[became(&[passed(FILE, &[]), drop("30-c")])]);
        log.event(&[became(&[drop(FILE)])]);
        let dropped = answer(Verdict::Drop("noise".to_owned()), &[], &[]);
        let expected = [saw(DTMF, Some(Answer::pass())), saw(DTMF, dropped)];
        assert_eq!(log.past(), expected);
    }

    #[test]
    fn events_that_earlier_filters_made_came_to_it_and_its_own_are_what_it_did() {
        let mut log = Log::new();
        let own = made(FILE, "OWN");
        log.event(&[
            became(&[passed("10-a", &[]), passed(FILE, &[]), passed("30-c", &[])]),
            derived(made("10-a", "EARLIER"), &[passed("15-x", &[set("A", "9")])]),
            derived(own.clone(), &[passed("30-c", &[])]),
            derived(made("30-c", "LATER"), &[]),
        ]);
        let expected = [
            saw(DTMF, answer(Verdict::Pass, &[], &[own])),
            saw(r#"{"Event-Name":"EARLIER","A":"9"}"#, Some(Answer::pass())),
        ];
        assert_eq!(log.past(), expected);
    }

    #[test]
    fn which_of_two_calls_made_an_event_is_not_guessed() {
        let mut log = Log::new();
        log.event(&[
            became(&[passed("10-a", &[]), passed(FILE, &[])]),
            derived(made("10-a", "EARLIER"), &[passed(FILE, &[])]),
            derived(made(FILE, "OWN"), &[]),
        ]);
        let answers = log.past().into_iter().map(|saw| saw.answer);
        assert_eq!(answers.collect::<Vec<_>>(), [None, None]);
    }

    #[test]
    fn what_became_of_a_failed_call_is_not_its_answer() {
        let mut log = Log::new();
        let failed = Step {
            failure: Some("trap: unreachable".to_owned()),
            ..step(FILE, Verdict::Drop("trap".to_owned()), &[])
        };
        log.event(&[became(&[failed])]);
        assert_eq!(log.past(), [saw(DTMF, None)]);
    }

    #[test]
    fn of_ticks_there_are_its_own_and_what_earlier_filters_made_of_theirs() {
        let mut log = Log::new();
        let tick = log.input(Kind::Tick, "10-a\n20-b");
        log.decide(
            tick,
            &[derived(made("10-a", "TICKED"), &[passed(FILE, &[])])],
        );
        let others = log.input(Kind::Tick, "30-c\n20-bb");
        log.decide(others, &[]);
        let own = Saw {
            event: None,
            answer: None,
        };
        let ticked = saw(r#"{"Event-Name":"TICKED","A":"1"}"#, Some(Answer::pass()));
        assert_eq!(log.past(), [own, ticked]);
    }

    #[test]
    fn what_it_did_is_known_from_where_it_was_met_first() {
        let mut log = Log::new();
        log.event(&[became(&[passed("10-a", &[])])]);
        log.event(&[became(&[passed(FILE, &[])])]);
        log.event(&[became(&[])]);
        let mut newest = Past::newest(&log.disk, log.dir(), 3, FILE, None).unwrap();
        let known = std::iter::from_fn(|| newest.next_occasion().unwrap());
        let known = known.map(|occasion| occasion.answer);
        let pass = || Some(Answer::pass());
        assert_eq!(
            known.collect::<Vec<_>>(),
            [None, pass(), pass()],
            "one that it did not subscribe to it passed on"
        );
        let known = log.past().into_iter().map(|saw| saw.answer);
        assert_eq!(known.collect::<Vec<_>>(), [pass(), pass(), pass()]);
    }

    #[test]
    fn an_input_without_a_readable_decision_is_as_it_came() {
        let mut log = Log::new();
        log.event(&[became(&[passed(FILE, &[])])]);
        let old = log.input(Kind::Json, DTMF);
        let journal = log.journal.as_mut().unwrap();
        journal.decide(old, 8, b"\x01of version 1");
        log.input(Kind::Json, "no event");
        log.input(Kind::Json, DTMF);
        let undecided = || saw(DTMF, None);
        let expected = [saw(DTMF, Some(Answer::pass())), undecided(), undecided()];
        assert_eq!(log.past(), expected);
    }

    #[test]
    fn the_newest_are_the_last_inputs_over_segments_and_openings() {
        let mut log = Log::new();
        let text = "x".repeat(500 << 10);
        let large = format!("{{\"Event-Name\":\"DTMF\",\"_body\":{text:?}}}");
        let two = [became(&[]), derived(made("10-a", "EARLIER"), &[])];
        let mut inputs = Vec::new();
        for _ in 0..3 {
            log.open();
            for _ in 0..6 {
                let lsn = log.input(Kind::Json, &large);
                log.decide(lsn, &two);
                inputs.push(lsn);
            }
        }
        let progress = log.journal.as_ref().unwrap().progress();
        let places = [0, 1, 2].map(|inputs| progress.place_before(inputs));
        assert!(places.iter().all(Option::is_some), "{places:?}");
        let segments = SegmentFile::all(log.disk.as_ref(), log.dir()).unwrap();
        assert!(segments.len() > 5, "several each time: {segments:?}");
        let counts = 0..=inputs.len() + 2;
        for (count, place) in
            counts.flat_map(|count| [(count, None), (count, places[0]), (count, places[2])])
        {
            let newest = Past::newest(&log.disk, log.dir(), count as u64, FILE, place);
            let mut newest = newest.unwrap();
            let mut events: HashMap<Lsn, usize> = HashMap::new();
            while let Some(occasion) = newest.next_occasion().unwrap() {
                *events.entry(occasion.lsn).or_default() += 1;
            }
            let expected = inputs.iter().rev().take(count);
            let expected: HashMap<Lsn, usize> = expected.map(|lsn| (*lsn, 2)).collect();
            assert_eq!(
                events, expected,
                "the last {count}, each with what it became; from {place:?}"
            );
        }
    }

    #[test]
    fn a_decision_that_is_still_to_come_is_waited_for_and_one_that_was_lost_is_not() {
        let mut log = Log::new();
        let mut pairs = Pairs::after(&log.disk, log.dir(), 0);
        let mut decided = || {
            let next = pairs.next_decided().unwrap();
            next.map(|(input, _)| input.head.lsn)
        };
        let inputs = [(); 4].map(|()| log.input(Kind::Json, DTMF));
        assert_eq!(decided(), None);
        log.decide(inputs[0], &[]);
        assert_eq!((decided(), decided()), (Some(inputs[0]), None));
        log.decide(inputs[2], &[]);
        assert_eq!(
            (decided(), decided()),
            (Some(inputs[2]), None),
            "decisions come in order: the second one was lost"
        );
        log.open();
        log.decide(inputs[3], &[]);
        assert_eq!((decided(), decided()), (Some(inputs[3]), None));
    }
}
