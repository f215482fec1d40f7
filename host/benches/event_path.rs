//! The event path, step by step: a 4 KB event with 106 headers from frame to entry.
//!
//! The components come from `make filters` and `cargo build -p yardstick`; `make bench` builds both first.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that cannot start must say why"
)]

use std::fmt::Write;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use jackfield::config::{Sources, load};
use jackfield::event::{Event, Format, Indexer};
use jackfield::filter::{Chain, EMPTY, Engine, Loader};
use jackfield::ledger::Ledger;
use jackfield::metrics::Metrics;

/// A `CHANNEL_ANSWER` as FreeSWITCH sends it: names and sizes of a real call.
fn json() -> Bytes {
    Bytes::from_static(include_bytes!("../../tests/corpus/channel_answer.json"))
}

fn plain(json: &Bytes) -> Bytes {
    let event = Event::parse(Format::Json, json.clone()).expect("the event parses");
    let mut text = String::new();
    for (name, value) in event.headers() {
        let value = value.replace(' ', "%20").replace('+', "%2B");
        let _written = writeln!(text, "{name}: {value}");
    }
    text.push('\n');
    Bytes::from(text)
}

fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    target.join("wasm32-wasip2/filter")
}

/// A filter of the chain.
#[derive(Clone, Copy)]
enum Component {
    /// Of this checkout, with the settings that ship.
    Built(&'static str),
    /// The one that does nothing.
    Empty,
}

/// A chain of these components, in this order.
fn chain(components: &[Component]) -> (Chain, Arc<Engine>) {
    let dir = tempfile::tempdir().expect("a folder");
    for (at, component) in components.iter().enumerate() {
        let (name, bytes) = match component {
            Component::Built(name) => {
                let read = std::fs::read(target().join(name.replace('-', "_") + ".wasm"));
                let bytes = read.unwrap_or_else(|error| {
                    panic!("the component of {name} is missing ({error}): run `make bench`")
                });
                (*name, bytes)
            }
            Component::Empty => ("empty", EMPTY.to_vec()),
        };
        let file = dir.path().join(format!("{at}-{name}"));
        std::fs::write(file.with_extension("wasm"), bytes).expect("the component is written");
        let settings = format!(
            "{}/../filters/{name}/{name}.toml",
            env!("CARGO_MANIFEST_DIR")
        );
        if Path::new(&settings).exists() {
            std::fs::copy(settings, file.with_extension("toml")).expect("the settings");
        }
    }
    let mut config = load(Sources::default()).expect("the defaults are valid");
    config.filters.dir = dir.path().to_owned();
    let metrics = Metrics::new(
        &config.limits,
        Arc::new(Ledger::default()),
        Arc::default(),
        jackfield::pipeline::Seen::default().calls(),
    );
    let engine = Arc::new(Engine::new().expect("the engine starts"));
    let mut chain = Chain::new(Arc::clone(&engine), Arc::new(metrics)).expect("a thread");
    let change = Loader::new(Arc::clone(&engine), config.filters).load();
    for filter in &change.planned {
        assert!(
            filter.refusal().is_none(),
            "{}: {:?}",
            filter.file,
            filter.refusal()
        );
    }
    chain.apply(change, 0);
    (chain, engine)
}

fn events(criterion: &mut Criterion) {
    let (json, plain) = (json(), plain(&json()));
    let mut group = criterion.benchmark_group("event");
    for (name, format, bytes) in [
        ("json", Format::Json, &json),
        ("plain", Format::Plain, &plain),
    ] {
        group.bench_function(format!("frame to event, {name}"), |b| {
            // As the pipeline does it: in the memory of the event before.
            let mut indexer = Indexer::default();
            b.iter(|| {
                let event = indexer.parse(format, bytes.clone());
                indexer.take_back(black_box(event.expect("the event parses")));
            });
        });
    }
    group.bench_function("yardstick: serde_json to a map and back", |b| {
        b.iter(|| {
            let map: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(&json).expect("the event is JSON");
            serde_json::to_vec(&map)
        });
    });
    let unedited = Event::parse(Format::Json, json.clone()).expect("the event parses");
    let mut edited = unedited.clone();
    edited.set("X-Tenant", "acme");
    edited.remove("variable_note");
    let from_plain = Event::parse(Format::Plain, plain).expect("the event parses");
    for (name, event) in [
        ("unedited", unedited),
        ("edited", edited),
        ("from plain", from_plain),
    ] {
        group.bench_function(format!("event to entry, {name}"), |b| {
            b.iter(|| {
                let mut entry = Vec::new();
                event.write_json(&mut entry);
                entry
            });
        });
    }
    group.finish();
}

fn filters(criterion: &mut Criterion) {
    let event = Event::parse(Format::Json, json()).expect("the event parses");
    let mut group = criterion.benchmark_group("filter");
    let chains: [(&str, &[Component]); 5] = [
        ("no filter", &[]),
        ("reads 4, sets 2, routes", &[Component::Built("yardstick")]),
        ("does nothing", &[Component::Empty]),
        // It reads registrations alone.
        ("not subscribed", &[Component::Built("rate-limit")]),
        (
            "chain of 3, redact, route, project",
            &[
                Component::Built("redact"),
                Component::Built("route"),
                Component::Built("project"),
            ],
        ),
    ];
    for (name, components) in chains {
        let (mut chain, engine) = chain(components);
        let _ticking = engine.ticking();
        let mut decided = Vec::new();
        group.bench_function(name, |b| {
            b.iter_batched(
                || event.clone(),
                |event| {
                    chain.handle(event, 1, 1_795_221_672_529_642, &mut decided);
                    black_box(decided.pop())
                },
                // Few at once: an event of the pipeline was parsed a moment ago, and is in the cache.
                BatchSize::NumIterations(16),
            );
        });
    }
    group.finish();
}

criterion_group!(benches, events, filters);
criterion_main!(benches);
