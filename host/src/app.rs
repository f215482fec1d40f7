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
use tokio::time::timeout;

use crate::admin::{self, View};
use crate::config::{Config, EventsWanted};
use crate::esl::{Intake, Subscription};
use crate::filter::{Chain, Engine, Loader, Refusal};
use crate::ledger::{Balance, Ledger};
use crate::link::Link;
use crate::metrics::Metrics;
use crate::pipeline::{Backlog, Outbox, Pipeline, Seen};
use crate::route::Routes;
use crate::worker::Worker;
use crate::writer::{Lane, Printer};

/// How long a stop may take before what is left is given up.
const STOP: Duration = Duration::from_secs(9);

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
    /// wasmtime does not start.
    #[error("cannot start the filter engine")]
    Engine(#[from] Refusal),
    /// No thread.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// A part of the host died.
    #[error("{0} ended unexpectedly")]
    Died(&'static str),
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
    backlog: Arc<Backlog>,
    intake: JoinSet<Infallible>,
    pipeline: Worker,
    writer: JoinSet<()>,
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

        let view = Arc::new(view(&config, output));
        let View {
            ledger,
            metrics,
            seen,
            ..
        } = &*view;
        let backlog = Backlog::new(
            config.buffer.events,
            Arc::clone(ledger),
            Arc::clone(metrics),
        );
        let backlog = Arc::new(backlog);
        let outbox = Arc::new(Outbox::new(Arc::clone(&backlog), Arc::clone(metrics)));
        let routes = Routes::new(&config.streams, &config.routes, &config.dead_letter);
        let routes = Arc::new(routes);
        let engine = Arc::new(Engine::new()?);
        let loader = Loader::new(Arc::clone(&engine), config.filters);
        let (wanted, wants) = watch::channel(Subscription::of(&config.esl.events));
        let pipeline = Pipeline {
            chain: Chain::new(Arc::clone(&engine), Arc::clone(metrics)),
            engine,
            routes: Arc::clone(&routes),
            backlog: Arc::clone(&backlog),
            outbox: Arc::clone(&outbox),
            ledger: Arc::clone(ledger),
            metrics: Arc::clone(metrics),
            seen: Arc::clone(seen),
            wanted,
            follow_filters: config.esl.events == EventsWanted::Auto,
        };

        // Filters are live and the subscription is known before the first event can come.
        let (pipeline, loader) = load_filters(pipeline, loader).await?;
        let pipeline =
            Worker::start("pipeline", move || pipeline.run()).map_err(AppError::Thread)?;
        let stop_loader = Arc::new(AtomicBool::new(false));
        let (stop, changes) = (Arc::clone(&stop_loader), Arc::clone(seen));
        let waker = Arc::clone(&backlog);
        let watch = move || {
            loader.watch(&stop, |change| {
                changes.change(change);
                waker.wake();
            });
        };
        let loader = Worker::start("loader", watch).map_err(AppError::Thread)?;

        let mut writer = JoinSet::new();
        match output {
            Output::Redis => {
                let lane = Lane {
                    settings: config.redis,
                    trim_interval: config.trim_interval,
                    routes,
                    outbox,
                    seen: Arc::clone(seen),
                    ledger: Arc::clone(ledger),
                    metrics: Arc::clone(metrics),
                    link: Arc::clone(&view.redis),
                };
                writer.spawn(lane.run());
            }
            Output::Stdout => {
                let printer = Printer {
                    outbox,
                    ledger: Arc::clone(ledger),
                    metrics: Arc::clone(metrics),
                    link: Arc::clone(&view.redis),
                };
                writer.spawn(printer.run());
            }
        }

        let mut server = JoinSet::new();
        server.spawn(admin::serve(listener, Arc::clone(&view)));
        let mut intake = JoinSet::new();
        let into = Arc::clone(&backlog);
        let link = Intake {
            settings: config.esl,
            wanted: wants,
            link: Arc::clone(&view.esl),
        };
        intake.spawn(link.run(move |received| into.receive(received)));
        Ok(App {
            view,
            http,
            backlog,
            intake,
            pipeline,
            writer,
            loader,
            stop_loader,
            server,
        })
    }

    /// Runs until `stop` is ready, then stops: no new events, what is there is written, within ten seconds.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<Balance, AppError> {
        let died = tokio::select! {
            () = stop => None,
            _ = self.intake.join_next() => Some("the intake"),
            () = self.pipeline.ended() => Some("the pipeline"),
            _ = self.writer.join_next() => Some("the writer"),
            () = self.loader.ended() => Some("the loader"),
            _ = self.server.join_next() => Some("the HTTP server"),
        };
        if let Some(part) = died {
            tracing::error!(part, "a part of the host ended unexpectedly");
        }
        let ledger = Arc::clone(&self.view.ledger);
        tracing::info!(pending = ledger.balance().pending, "stopping");
        self.intake.shutdown().await;
        self.view.esl.stopped();
        self.backlog.close();
        if timeout(STOP, self.writer.join_next()).await.is_err() {
            tracing::error!(pending = ledger.balance().pending, "not drained in time");
        }
        self.writer.shutdown().await;
        self.backlog.abort();
        self.stop_loader.store(true, Ordering::Release);
        self.server.shutdown().await;
        let joined = [self.pipeline.join().await, self.loader.join().await];
        ledger.lost("shutdown", ledger.balance().pending);
        let balance = ledger.balance();
        tracing::info!(
            received = balance.received,
            delivered = balance.delivered,
            dropped = balance.dropped,
            dead_lettered = balance.dead_lettered,
            lost = balance.lost,
            "stopped"
        );
        match died {
            Some(part) => Err(AppError::Died(part)),
            None if joined == [true, true] => Ok(balance),
            None => Err(AppError::Died("the pipeline or the loader")),
        }
    }
}

/// The shared records: accounts, links, metrics.
fn view(config: &Config, output: Output) -> View {
    let ledger = Arc::new(Ledger::default());
    let link = |name, peer| Arc::new(Link::new(name, peer, config.esl.alarm_after));
    let esl = link("esl", format!("{}:{}", config.esl.host, config.esl.port));
    let redis = match output {
        Output::Redis => format!("{}:{}", config.redis.host, config.redis.port),
        Output::Stdout => "stdout".to_owned(),
    };
    let redis = link("redis", redis);
    let books = (Arc::clone(&ledger), Arc::clone(&esl), Arc::clone(&redis));
    let metrics = Arc::new(Metrics::new(&config.limits, books.0, books.1, books.2));
    let seen = Arc::new(Seen::default());
    if let Some(name) = &config.router.name {
        seen.router.get_or_init(|| name.clone());
    }
    View {
        ledger,
        esl,
        redis,
        metrics,
        seen,
        started: Instant::now(),
        token: config.http.token.clone(),
    }
}

/// The first load of the folder. Compiling takes a while, so it is no work for the runtime's threads.
async fn load_filters(
    mut pipeline: Pipeline,
    mut loader: Loader,
) -> Result<(Pipeline, Loader), AppError> {
    let load = tokio::task::spawn_blocking(move || {
        pipeline.change(loader.load());
        (pipeline, loader)
    });
    load.await
        .map_err(|_| AppError::Died("the first load of the filters"))
}
