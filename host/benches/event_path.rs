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
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
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

impl Component {
    fn name(self) -> &'static str {
        match self {
            Component::Built(name) => name,
            Component::Empty => "empty",
        }
    }

    fn bytes(self) -> Vec<u8> {
        match self {
            Component::Built(name) => {
                let read = std::fs::read(target().join(name.replace('-', "_") + ".wasm"));
                read.unwrap_or_else(|error| {
                    panic!("the component of {name} is missing ({error}): run `make bench`")
                })
            }
            Component::Empty => EMPTY.to_vec(),
        }
    }
}

/// A chain of these components, in this order.
fn chain(components: &[Component]) -> (Chain, Arc<Engine>) {
    let dir = tempfile::tempdir().expect("a folder");
    for (at, component) in components.iter().enumerate() {
        let name = component.name();
        let file = dir.path().join(format!("{at}-{name}"));
        std::fs::write(file.with_extension("wasm"), component.bytes())
            .expect("the component is written");
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

/// Events through chains; what is told is the time between the index and the decision. Each event is indexed in the memory of one
/// before it, as the pipeline does it, so nothing has to grow anew.
fn filters(criterion: &mut Criterion) {
    /// As many as stay in the processor's cache between the index and the chain.
    const AT_ONCE: u64 = 16;
    let json = json();
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
        let mut indexers: Vec<Indexer> = (0..AT_ONCE).map(|_| Indexer::default()).collect();
        let mut decided = Vec::new();
        group.bench_function(name, |b| {
            b.iter_custom(|events| {
                let mut took = Duration::ZERO;
                for _ in 0..events.div_ceil(AT_ONCE) {
                    let indexed = indexers.iter_mut().map(|indexer| {
                        let event = indexer.parse(Format::Json, json.clone());
                        event.expect("the event parses")
                    });
                    let indexed: Vec<Event> = indexed.collect();
                    let started = Instant::now();
                    for event in indexed {
                        chain.handle(event, 1, 1_795_221_672_529_642, &mut decided);
                    }
                    took += started.elapsed();
                    for (indexer, decided) in indexers.iter_mut().zip(decided.drain(..)) {
                        indexer.take_back(decided.event);
                    }
                }
                took.mul_f64(events as f64 / events.next_multiple_of(AT_ONCE) as f64)
            });
        });
    }
    group.finish();
}

/// The same calls with nothing of the host around them: what wasmtime and the guest take, at least, with this contract.
mod alone {
    use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
    use wasmtime::{Config, Engine, Result, Store};
    use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

    mod bindings {
        #![allow(
            clippy::all,
            clippy::pedantic,
            clippy::restriction,
            reason = "generated"
        )]
        wasmtime::component::bindgen!({
            path: "../wit",
            world: "filter",
            ownership: Borrowing { duplicate_if_necessary: true },
        });
    }
    use bindings::jackfield::filter::{current_event, host, types};

    #[derive(Default)]
    pub(super) struct Guest {
        wasi: WasiCtx,
        table: ResourceTable,
    }

    impl WasiView for Guest {
        fn ctx(&mut self) -> WasiCtxView<'_> {
            WasiCtxView {
                ctx: &mut self.wasi,
                table: &mut self.table,
            }
        }
    }

    impl types::Host for Guest {}

    impl current_event::Host for Guest {
        fn get(&mut self, _: String) -> Option<String> {
            None
        }
        fn headers(&mut self) -> Vec<types::Header> {
            Vec::new()
        }
        fn body(&mut self) -> Option<String> {
            None
        }
    }

    impl host::Host for Guest {
        fn log(&mut self, _: host::Level, _: String) {}
        fn count(&mut self, _: String, _: u64) {}
    }

    /// A component that was configured, as a function of the headers that it declares.
    pub(super) fn instance(
        component: &[u8],
    ) -> Result<impl FnMut(&[Option<&str>]) -> Result<()> + use<>> {
        let mut config = Config::new();
        config.epoch_interruption(true);
        let engine = Engine::new(&config)?;
        let mut linker = Linker::<Guest>::new(&engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
        bindings::Filter::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
        let mut store = Store::new(&engine, Guest::default());
        store.set_epoch_deadline(1);
        let component = Component::new(&engine, component)?;
        let filter = bindings::Filter::instantiate(&mut store, &component, &linker)?;
        let configured = filter
            .jackfield_filter_handler()
            .call_configure(&mut store, "{}", None)?;
        configured.map_err(wasmtime::Error::msg)?;
        Ok(move |headers: &[Option<&str>]| {
            let handler = filter.jackfield_filter_handler();
            let decision = handler.call_handle(&mut store, 1_795_221_672_529_642, headers);
            decision.map(std::hint::black_box).map(drop)
        })
    }
}

fn wasmtime_alone(criterion: &mut Criterion) {
    let event = Event::parse(Format::Json, json()).expect("the event parses");
    let read = [
        "Unique-ID",
        "Caller-Caller-ID-Number",
        "Caller-Destination-Number",
        "variable_tenant",
    ]
    .map(|name| event.get_str(name));
    let read: Vec<Option<&str>> = read.iter().map(Option::as_deref).collect();
    let mut group = criterion.benchmark_group("wasmtime alone");
    let calls: [(&str, Component, &[Option<&str>]); 2] = [
        (
            "reads 4, sets 2, routes",
            Component::Built("yardstick"),
            &read,
        ),
        ("does nothing", Component::Empty, &[]),
    ];
    for (name, component, headers) in calls {
        let mut handle = alone::instance(&component.bytes()).expect("the filter starts");
        group.bench_function(name, |b| {
            b.iter(|| handle(headers).expect("the filter answers"));
        });
    }
    group.finish();
}

criterion_group!(benches, events, filters, wasmtime_alone);
criterion_main!(benches);
