//! The spine: builds the stages in the order of the data, connects the queues between them, starts and stops them.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::admin::{self, View};
use crate::config::{Config, EventsWanted};
use crate::esl::{Intake, Subscription};
use crate::filter::{Chain, Engine, Loader, Refusal};
use crate::journal::JournalError;
use crate::ledger::{Balance, Ledger};
use crate::link::Link;
use crate::metrics::Metrics;
use crate::pipeline::{Arrivals, Inputs, Outbox, Pipeline, Seen};
use crate::route::Routes;
use crate::worker::Worker;
use crate::writer::{End, Letters, Printer, Source, Writer};

/// How long a stop may take to bring to Redis what is left; the rest stays in the journal.
const STOP: Duration = Duration::from_secs(9);
/// How long a stop waits for a Redis that is away.
const STOP_AWAY: Duration = Duration::from_secs(1);

/// Why a host could not start, or ended.
#[derive(Debug, Error)]
pub enum AppError {
    /// The address of HTTP is taken.
    #[error("cannot listen on {address} (http.listen)")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The journal cannot be used: a matter of settings.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// wasmtime does not start.
    #[error("cannot start the filter engine")]
    Engine(#[from] Refusal),
    /// No thread.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// A part of the host died.
    #[error("{0} ended unexpectedly")]
    Died(&'static str),
    /// The events come from another FreeSWITCH than those in the journal.
    #[error(
        "FreeSWITCH-Switchname is {found:?}, but this journal is of {known:?}: set router.name, or another journal.dir"
    )]
    OtherSwitch {
        /// What the journal says.
        known: String,
        /// What the events say.
        found: String,
    },
    /// Another host writes under this router's name.
    #[error("router name {router:?} is held by {owner}: only one host may have it (router.name)")]
    Owned {
        /// The name.
        router: String,
        /// The other host.
        owner: String,
    },
}

/// Where entries go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Redis Streams.
    Redis,
    /// Standard output, a line an entry.
    Stdout,
}

/// A running host.
pub struct App {
    /// What can be seen of it.
    pub view: Arc<View>,
    /// Where HTTP listens.
    pub http: SocketAddr,
    intake: JoinSet<Infallible>,
    pipeline: Worker,
    writer: JoinSet<End>,
    loader: Worker,
    stop_loader: Arc<AtomicBool>,
    server: JoinSet<std::io::Result<()>>,
}

impl App {
    /// Builds and starts everything, from the writer back to the socket, so that no event meets a half-built host.
    pub async fn start(config: Config, output: Output) -> Result<App, AppError> {
        let address = config.http.listen;
        let listen = |source| AppError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let http = listener.local_addr().map_err(listen)?;

        let (journal, router) = (config.journal.clone(), config.router.name.clone());
        let open = move || Inputs::open(&journal, router.as_deref());
        let opened = tokio::task::spawn_blocking(open).await;
        let mut inputs = opened.map_err(|_| AppError::Died("the opening of the journal"))??;
        let view = Arc::new(view(&config, output, &inputs));
        let routes = Routes::new(&config.streams, &config.routes, &config.dead_letter);
        let routes = Arc::new(routes);
        let (sync, metrics) = (config.journal.sync, Arc::clone(&view.metrics));
        let arrivals = Arc::clone(&view.arrivals);
        let outbox = Outbox::new(arrivals, &inputs, Arc::clone(&routes), sync, metrics);
        let outbox = Arc::new(outbox);
        let durable = Arc::clone(&outbox);
        inputs.on_durable(move || durable.wake());

        let mut writer = JoinSet::new();
        match output {
            Output::Redis => {
                let lane = Writer {
                    settings: config.redis.clone(),
                    trim_interval: config.trim_interval,
                    host: host_name(),
                    source: Source::of(&inputs),
                    routes: Arc::clone(&routes),
                    outbox: Arc::clone(&outbox),
                    seen: Arc::clone(&view.seen),
                    letters: Letters::open(&config.journal.dir),
                    ledger: Arc::clone(&view.ledger),
                    metrics: Arc::clone(&view.metrics),
                    link: Arc::clone(&view.redis),
                };
                writer.spawn(lane.run());
            }
            Output::Stdout => {
                let printer = Printer {
                    outbox: Arc::clone(&outbox),
                    seen: Arc::clone(&view.seen),
                    ledger: Arc::clone(&view.ledger),
                    metrics: Arc::clone(&view.metrics),
                    link: Arc::clone(&view.redis),
                };
                writer.spawn(printer.run());
            }
        }

        let engine = Arc::new(Engine::new()?);
        let loader = Loader::new(Arc::clone(&engine), config.filters);
        let (wanted, wants) = watch::channel(Subscription::of(&config.esl.events));
        let pipeline = Pipeline {
            chain: Chain::new(Arc::clone(&engine), Arc::clone(&view.metrics)),
            engine,
            routes,
            inputs,
            dir: config.journal.dir,
            arrivals: Arc::clone(&view.arrivals),
            outbox,
            ledger: Arc::clone(&view.ledger),
            metrics: Arc::clone(&view.metrics),
            seen: Arc::clone(&view.seen),
            wanted,
            follow_filters: config.esl.events == EventsWanted::Auto,
            learn_name: config.router.name.is_none(),
        };
        // Filters are live and the subscription is known before the first event can come.
        let (pipeline, loader) = load_filters(pipeline, loader).await?;
        let pipeline =
            Worker::start("pipeline", move || pipeline.run()).map_err(AppError::Thread)?;
        let stop_loader = Arc::new(AtomicBool::new(false));
        let loader = watch_filters(loader, &view, Arc::clone(&stop_loader))?;

        let mut server = JoinSet::new();
        server.spawn(admin::serve(listener, Arc::clone(&view)));
        let mut intake = JoinSet::new();
        let into = Arc::clone(&view.arrivals);
        let link = Intake {
            settings: config.esl,
            wanted: wants,
            link: Arc::clone(&view.esl),
        };
        intake.spawn(link.run(move |received| into.receive(received)));
        Ok(App {
            view,
            http,
            intake,
            pipeline,
            writer,
            loader,
            stop_loader,
            server,
        })
    }

    /// Runs until `stop` is ready, then stops within ten seconds: no new events, what is there is written; what Redis does
    /// not take stays in the journal.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<Balance, AppError> {
        let died = tokio::select! {
            () = stop => None,
            _ = self.intake.join_next() => Some(AppError::Died("the intake")),
            () = self.pipeline.ended() => Some(self.why("the pipeline", None)),
            Some(ended) = self.writer.join_next() => Some(self.why("the writer", ended.ok())),
            () = self.loader.ended() => Some(AppError::Died("the loader")),
            _ = self.server.join_next() => Some(AppError::Died("the HTTP server")),
        };
        let ledger = Arc::clone(&self.view.ledger);
        tracing::info!(pending = ledger.balance().pending, "stopping");
        self.intake.shutdown().await;
        self.view.esl.stopped();
        self.view.arrivals.close();
        self.drain().await;
        self.writer.shutdown().await;
        self.view.arrivals.abort();
        self.stop_loader.store(true, Ordering::Release);
        self.server.shutdown().await;
        let joined = [self.pipeline.join().await, self.loader.join().await];
        let balance = ledger.balance();
        tracing::info!(
            received = balance.received,
            delivered = balance.delivered,
            dropped = balance.dropped,
            dead_lettered = balance.dead_lettered,
            lost = balance.lost,
            pending = balance.pending,
            "stopped"
        );
        match died {
            Some(error) => Err(error),
            None if joined == [true, true] => Ok(balance),
            None => Err(AppError::Died("the pipeline or the loader")),
        }
    }

    /// Waits until the writer is done, for as long as there is hope.
    async fn drain(&mut self) {
        let redis = Arc::clone(&self.view.redis);
        let away = async {
            let mut since = Instant::now();
            while since.elapsed() < STOP_AWAY {
                sleep(STOP_AWAY / 20).await;
                if redis.is_ready() {
                    since = Instant::now();
                }
            }
        };
        let drained = async {
            tokio::select! {
                _ = self.writer.join_next() => true,
                () = away => false,
            }
        };
        if !timeout(STOP, drained).await.unwrap_or(false) {
            let pending = self.view.ledger.balance().pending;
            tracing::warn!(pending, "not drained: the rest stays in the journal");
        }
    }

    /// Why the pipeline or the writer ended by itself; a pipeline that ends takes the writer with it.
    fn why(&self, part: &'static str, end: Option<End>) -> AppError {
        let seen = &self.view.seen;
        match (end, seen.router.get(), seen.other_switch.get()) {
            (Some(End::Foreign { owner }), Some(router), _) => AppError::Owned {
                router: router.clone(),
                owner,
            },
            (_, Some(known), Some(found)) => AppError::OtherSwitch {
                known: known.clone(),
                found: found.clone(),
            },
            _ => AppError::Died(part),
        }
    }
}

/// The shared records: accounts, links, metrics, and where inputs arrive. What an earlier run left undecided is received.
fn view(config: &Config, output: Output, inputs: &Inputs) -> View {
    let ledger = Arc::new(Ledger::default());
    ledger.received(inputs.waiting());
    let arrivals = Arrivals::new(config.buffer.events, Arc::clone(&ledger));
    let link = |name, peer| Arc::new(Link::new(name, peer, config.esl.alarm_after));
    let esl = link("esl", format!("{}:{}", config.esl.host, config.esl.port));
    let redis = match output {
        Output::Redis => format!("{}:{}", config.redis.host, config.redis.port),
        Output::Stdout => "stdout".to_owned(),
    };
    let redis = link("redis", redis);
    let books = (Arc::clone(&ledger), Arc::clone(&esl), Arc::clone(&redis));
    let metrics = Arc::new(Metrics::new(&config.limits, books.0, books.1, books.2));
    let seen = Arc::new(Seen::of(inputs.id()));
    if let Some(name) = config.router.name.as_deref().or(inputs.router()) {
        seen.router.get_or_init(|| name.to_owned());
    }
    View {
        ledger,
        arrivals: Arc::new(arrivals),
        esl,
        redis,
        metrics,
        seen,
        started: Instant::now(),
        token: config.http.token.clone(),
    }
}

/// Changes of the folder go to the pipeline.
fn watch_filters(loader: Loader, view: &View, stop: Arc<AtomicBool>) -> Result<Worker, AppError> {
    let (seen, arrivals) = (Arc::clone(&view.seen), Arc::clone(&view.arrivals));
    let watch = move || {
        loader.watch(&stop, |change| {
            seen.change(change);
            arrivals.wake();
        });
    };
    Worker::start("loader", watch).map_err(AppError::Thread)
}

/// For the owner's key, where people read it.
fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// The first load of the folder, and what filters missed since they saved their state. It takes a while, so it is no work for
/// the runtime's threads.
async fn load_filters(
    mut pipeline: Pipeline,
    mut loader: Loader,
) -> Result<(Pipeline, Loader), AppError> {
    let load = tokio::task::spawn_blocking(move || {
        pipeline.prepare(loader.load());
        (pipeline, loader)
    });
    load.await
        .map_err(|_| AppError::Died("the first load of the filters"))
}
