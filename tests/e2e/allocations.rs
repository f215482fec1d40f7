//! What the pipeline's thread allocates for an event: memory is used again from one event to the next.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use counting::allocations;
use jackfield::config::{Sources, load};
use jackfield::event::{Event, Format, Indexer};
use jackfield::filter::{Chain, Decided, Engine, Loader};
use jackfield::ledger::Ledger;
use jackfield::metrics::Metrics;
use jackfield::pipeline::Seen;

use crate::harness::{component, place_filter};

/// Events before the ones that count: buffers have grown by then.
const BEFORE: u64 = 100;
const COUNTED: u64 = 1_000;

/// A hundred headers and an own number. A value with escapes, which an edited event has decoded and encoded again, is not among them.
fn frame(number: u64) -> Bytes {
    let mut text = format!(
        r#"{{"Event-Name":"CHANNEL_ANSWER","Core-UUID":"c","Event-Sequence":"{}","Unique-ID":"6fedf11d","variable_tenant":"acme","Caller-ANI":"0301234567""#,
        1_000_000 + number
    );
    for header in 0..100 {
        text.push_str(&format!(r#","variable_{header}":"value {header}""#));
    }
    text.push('}');
    Bytes::from(text)
}

/// Allocations of one event after many.
fn each(mut handle: impl FnMut(Bytes)) -> u64 {
    let frames: Vec<Bytes> = (0..BEFORE + COUNTED).map(frame).collect();
    let (before, counted) = frames.split_at(BEFORE as usize);
    before.iter().cloned().for_each(&mut handle);
    let start = allocations();
    counted.iter().cloned().for_each(&mut handle);
    (allocations() - start).div_ceil(COUNTED)
}

#[test]
fn an_event_is_indexed_edited_and_written_without_an_allocation() {
    let (mut indexer, mut entry) = (Indexer::default(), Vec::new());
    let allocated = each(|frame| {
        let mut event = indexer.parse(Format::Json, frame).unwrap();
        event.set("variable_7", "edited");
        event.set("X-New", "added");
        event.remove("variable_8");
        entry.clear();
        event.write_json(&mut entry);
        indexer.take_back(event);
    });
    assert_eq!(allocated, 0);
    let written = Event::parse(Format::Json, Bytes::from(entry)).unwrap();
    assert_eq!(written.get_str("X-New").as_deref(), Some("added"));
}

/// Allocations of one event in a chain of these filters with the settings that ship.
fn of_chain(filters: &[&str]) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    for name in filters {
        let settings = format!("../filters/{name}/{name}.toml");
        let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join(settings);
        let settings = std::fs::read_to_string(settings).unwrap();
        place_filter(dir.path(), name, &component(name), &settings);
    }
    let mut config = load(Sources::default()).unwrap();
    config.filters.dir = dir.path().to_owned();
    let calls = Seen::default().calls();
    let metrics = Metrics::new(
        &config.limits,
        Arc::new(Ledger::default()),
        Arc::default(),
        calls,
    );
    let engine = Arc::new(Engine::new().unwrap());
    let mut chain = Chain::new(Arc::clone(&engine), Arc::new(metrics)).unwrap();
    let change = Loader::new(Arc::clone(&engine), config.filters).load();
    chain.apply(change, 0);
    let _ticking = engine.ticking();
    let (mut indexer, mut decided, mut lsn) = (Indexer::default(), Vec::<Decided>::new(), 0);
    each(|frame| {
        let event = indexer.parse(Format::Json, frame).unwrap();
        lsn += 1;
        chain.handle(event, lsn, 1_795_221_672_529_642, &mut decided);
        let done = decided.pop().unwrap();
        assert_eq!(done.steps.len(), filters.len(), "every filter was called");
        indexer.take_back(done.event);
    })
}

#[test]
fn a_chain_allocates_for_the_answers_of_its_filters_alone() {
    assert_eq!(of_chain(&[]), 0, "without a filter");
    // The list of steps, and what the engine allocates for a call; dedup passes the event on without a word.
    let silent = of_chain(&["dedup"]);
    assert!(silent <= 2, "{silent} for a filter that says nothing");
    // Two edits of redact, with two texts and their list; a verdict with the name of a stream.
    let three = of_chain(&["redact", "route", "dedup"]);
    assert!(three <= 16, "{three} for redact, route and dedup");
}
