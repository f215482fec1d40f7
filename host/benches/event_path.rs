//! The event path, step by step: a 5 KB event with 110 headers from frame to entry.
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
use jackfield::event::{Event, Format};
use jackfield::filter::{Chain, Engine, Loader};
use jackfield::ledger::Ledger;
use jackfield::link::Link;
use jackfield::metrics::Metrics;

/// A `CHANNEL_ANSWER` as FreeSWITCH sends it: names and sizes of a real call, in JSON.
fn json() -> Bytes {
    let mut event = String::from(
        r#"{"Event-Name":"CHANNEL_ANSWER","Core-UUID":"8adc0081-f85d-4764-a27d-3910166642ca","FreeSWITCH-Switchname":"fs1","Event-Date-Timestamp":"1795221672529642","Event-Sequence":"1629","Unique-ID":"6fedf11d-0a31-422f-9395-44217280da00","Caller-Caller-ID-Number":"+15550001100","Caller-Destination-Number":"101","variable_tenant":"acme""#,
    );
    for number in event.matches("\":\"").count()..110 {
        // Writing to a String cannot fail.
        let _written = write!(
            event,
            r#","variable_header_{number:03}":"value {number:03} of a header""#
        );
    }
    event.push('}');
    Bytes::from(event)
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

/// A chain of these components, in this order, with the settings that ship.
fn chain(components: &[&str]) -> (Chain, Arc<Engine>) {
    let dir = tempfile::tempdir().expect("a folder");
    for (at, name) in components.iter().enumerate() {
        let file = dir.path().join(format!("{at}-{name}"));
        std::fs::copy(
            target().join(format!("{name}.wasm")),
            file.with_extension("wasm"),
        )
        .unwrap_or_else(|error| panic!("{name}.wasm is missing ({error}): run `make bench`"));
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
    let link = || Arc::new(Link::new("bench", String::new(), 15));
    let metrics = Metrics::new(&config.limits, Arc::new(Ledger::default()), link(), link());
    let engine = Arc::new(Engine::new().expect("the engine starts"));
    let mut chain = Chain::new(Arc::clone(&engine), Arc::new(metrics));
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
    group.bench_function("frame to event, json", |b| {
        b.iter(|| Event::parse(Format::Json, json.clone()));
    });
    group.bench_function("frame to event, plain", |b| {
        b.iter(|| Event::parse(Format::Plain, plain.clone()));
    });
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
    edited.remove("variable_header_100");
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
    let chains: [(&str, &[&str]); 3] = [
        ("no filter", &[]),
        ("one call: read 4, set 2, route", &["yardstick"]),
        (
            "chain of 3: redact, route, project",
            &["redact", "route", "project"],
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
                    chain.handle(event, 1_795_221_672_529_642, &mut decided);
                    black_box(decided.pop())
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, events, filters);
criterion_main!(benches);
