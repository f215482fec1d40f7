//! What Wasm changes: nothing in what a filter decides, and this much in time. The crates of the filters that ship run as
//! components in the host's chain, and natively beside it, on the same events.
//!
//! The times are of this build: `cargo test --release` gives those that mean something.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jackfield::config::{Config, Sources, filter_settings, load};
use jackfield::event::{Event, Format, Name};
use jackfield::filter::{Chain, Decided, Edit, Engine, Loader, Verdict};
use jackfield::ledger::Ledger;
use jackfield::metrics::Metrics;
use jackfield_sdk::bindings::jackfield::filter::types;
use jackfield_sdk::{Filter, Manifest, Running};

use crate::harness::{component, place_filter, root};
use crate::reading;

/// Rounds over all events, natively and in Wasm by turns; the median of each counts.
const ROUNDS: usize = 7;

#[test]
fn a_filter_decides_the_same_natively_and_in_wasm() {
    let events = events();
    assert!(events.len() >= 800, "the corpus alone has 800 events");
    compare::<redact::Redact>("redact", &events);
    compare::<route::Route>("route", &events);
    compare::<project::Project>("project", &events);
    compare::<dedup::Dedup>("dedup", &events);
    compare::<sample::Sample>("sample", &events);
    compare::<validate::Validate>("validate", &events);
    compare::<enrich::Enrich>("enrich", &events);
    compare::<normalize::Normalize>("normalize", &events);
}

/// Every event of the captures that there are, in the form in which it came.
fn events() -> Vec<Event> {
    let captures = reading::captures();
    let frames = captures
        .iter()
        .flat_map(|capture| reading::frames(&capture.bytes).0);
    let parsed = frames.filter_map(|frame| {
        let format = match frame.content_type() {
            "text/event-json" => Format::Json,
            "text/event-plain" => Format::Plain,
            _ => return None,
        };
        Event::parse(format, Bytes::from(frame.body)).ok()
    });
    parsed.collect()
}

fn compare<F: Filter>(name: &str, events: &[Event]) {
    let settings = fs::read_to_string(root().join(format!("filters/{name}/{name}.toml"))).unwrap();
    let config = config();
    let (_, json) = filter_settings(&settings, &config.filters.limits).unwrap();
    let mut native = Native::<F>::new(&json);
    let mut wasm = Wasm::new(name, &settings, config);

    let mut changed = 0;
    for event in events {
        let expected = native.handle(event.clone());
        let got = wasm.handle(event.clone());
        assert_eq!(got, expected, "{name} of {}", entry(event));
        changed += usize::from(got.verdict != Verdict::Pass || !got.edits.is_empty());
    }
    assert!(
        changed > 0,
        "{name} does something with {} events",
        events.len()
    );

    let (mut natively, mut in_wasm) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        natively.push(per_event(events, |event| drop(native.call(event))));
        in_wasm.push(per_event(events, |event| wasm.call(event)));
    }
    let (natively, in_wasm) = (median(natively), median(in_wasm));
    println!(
        "{name}: {changed} of {} events changed; per event natively {natively:?}, in Wasm {in_wasm:?}, ratio {:.2} ({} build)",
        events.len(),
        in_wasm.as_secs_f64() / natively.as_secs_f64(),
        if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
    );
}

fn per_event(events: &[Event], mut call: impl FnMut(Event)) -> Duration {
    let events = events.to_vec();
    let count = u32::try_from(events.len()).unwrap();
    let started = Instant::now();
    events.into_iter().for_each(&mut call);
    started.elapsed() / count
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// What became of an event.
#[derive(Debug, PartialEq)]
struct Outcome {
    verdict: Verdict,
    edits: Vec<Edit>,
    entry: String,
}

/// What would be written of it.
fn entry(event: &Event) -> String {
    let mut json = Vec::new();
    event.write_json(&mut json);
    String::from_utf8(json).unwrap()
}

fn now_us(event: &Event) -> u64 {
    event.timestamp().unwrap_or(1)
}

/// The host's settings, with time for a machine that is busy.
pub fn config() -> Config {
    let mut config = load(Sources::default()).unwrap();
    config.filters.limits.deadline = Duration::from_secs(1);
    config
}

/// A filter of this workspace alone in a chain, in this process.
pub fn chain(name: &str, settings: &str, mut config: Config) -> (Chain, Arc<Engine>) {
    let dir = tempfile::tempdir().unwrap();
    place_filter(dir.path(), name, &component(name), settings);
    config.filters.dir = dir.path().to_owned();
    let metrics = Metrics::new(
        &config.limits,
        Arc::new(Ledger::default()),
        Arc::default(),
        jackfield::pipeline::Seen::default().calls(),
    );
    let engine = Arc::new(Engine::new().unwrap());
    let change = Loader::new(Arc::clone(&engine), config.filters).load();
    assert!(change.planned[0].refusal().is_none(), "{name} is live");
    let mut chain = Chain::new(Arc::clone(&engine), Arc::new(metrics)).unwrap();
    chain.apply(change, 1);
    (chain, engine)
}

/// The filter's component, alone in a chain.
struct Wasm {
    chain: Chain,
    engine: Arc<Engine>,
    decided: Vec<Decided>,
}

impl Wasm {
    fn new(name: &str, settings: &str, config: Config) -> Wasm {
        let (chain, engine) = chain(name, settings, config);
        Wasm {
            chain,
            engine,
            decided: Vec::new(),
        }
    }

    fn call(&mut self, event: Event) {
        let _ticking = self.engine.ticking();
        let now_us = now_us(&event);
        self.decided.clear();
        self.chain.handle(event, 0, now_us, &mut self.decided);
    }

    fn handle(&mut self, event: Event) -> Outcome {
        self.call(event);
        let decided = self.decided.pop().unwrap();
        assert!(self.decided.is_empty(), "nothing is derived");
        let step = decided.steps.into_iter().next();
        if let Some(failure) = step.as_ref().and_then(|step| step.failure.as_ref()) {
            panic!("{failure}");
        }
        let (verdict, edits) = step.map_or((Verdict::Pass, Vec::new()), |step| {
            (step.verdict, step.edits)
        });
        Outcome {
            verdict,
            edits,
            entry: entry(&decided.event),
        }
    }
}

/// The filter as a part of this program, with what the host does around a call.
struct Native<F> {
    running: Running<F>,
    manifest: Manifest,
    declared: Vec<Name>,
}

impl<F: Filter> Native<F> {
    fn new(settings: &str) -> Native<F> {
        let (running, manifest) = Running::configure(settings, None).unwrap();
        let declared = manifest.headers.iter().map(|name| Name::new(name));
        Native {
            running,
            declared: declared.collect(),
            manifest,
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let (name, subclass) = (event.name(), event.subclass().unwrap_or_default());
        let wanted = |wanted: &String| match wanted.split_once(' ') {
            Some((_, only)) => name == "CUSTOM" && subclass == only,
            None => *wanted == name,
        };
        self.manifest.events.is_empty() || self.manifest.events.iter().any(wanted)
    }

    fn call(&mut self, mut event: Event) -> (Event, Verdict, Vec<Edit>) {
        if !self.wants(&event) {
            return (event, Verdict::Pass, Vec::new());
        }
        let values = self.declared.iter();
        let values = values.map(|name| event.get(name).map(|value| value.into_owned()));
        let decision = self.running.handle(now_us(&event), values.collect());
        let edits: Vec<Edit> = decision.edits.into_iter().map(edit).collect();
        edits.iter().for_each(|edit| edit.apply(&mut event));
        (event, verdict(decision.verdict), edits)
    }

    fn handle(&mut self, event: Event) -> Outcome {
        let (event, verdict, edits) = self.call(event);
        Outcome {
            verdict,
            edits,
            entry: entry(&event),
        }
    }
}

fn verdict(verdict: types::Verdict) -> Verdict {
    match verdict {
        types::Verdict::Pass => Verdict::Pass,
        types::Verdict::Drop(reason) => Verdict::Drop(reason),
        types::Verdict::DeadLetter(reason) => Verdict::DeadLetter(reason),
        types::Verdict::Route(streams) => {
            Verdict::Route(streams.into_iter().map(Arc::from).collect())
        }
    }
}

fn edit(edit: types::Edit) -> Edit {
    match edit {
        types::Edit::Set(types::Header { name, value }) => Edit::Set { name, value },
        types::Edit::Remove(name) => Edit::Remove(name),
        types::Edit::Keep(names) => Edit::Keep(names),
        types::Edit::Body(body) => Edit::Body(body),
    }
}
