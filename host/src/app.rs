//! The spine: builds the stages in the order of the data, connects the queues between them, starts and stops them.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admin::{self, View};
use crate::config::{Config, Esl, EventsWanted};
use crate::esl::{Intake, Received, Subscription};
use crate::filter::{Chain, Engine, Loader, Refusal};
use crate::ledger::{Balance, Ledger};
use crate::link::Link;
use crate::metrics::Metrics;
use crate::pipeline::{Backlog, Input, Outbox, Pipeline, Seen};
use crate::route::Routes;
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
        address: std::net::SocketAddr,
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
    pub http: std::net::SocketAddr,
    backlog: Arc<Backlog>,
    outbox: Arc<Outbox>,
    intake: JoinSet<Infallible>,
    writer: JoinSet<()>,
    server: JoinSet<std::io::Result<()>>,
    pipeline: JoinHandle<()>,
    loader: JoinHandle<()>,
    stop_loader: Arc<AtomicBool>,
}

impl App {
    /// Builds and starts everything, from the filters back to the socket, so that no event meets a half-built host.
    pub async fn start(config: Config, output: Output) -> Result<App, AppError> {
        let address = config.http.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| AppError::Listen { address, source })?;
        let http = listener.local_addr().unwrap_or(address);

        let ledger = Arc::new(Ledger::default());
        let peer = |host: &str, port: u16| format!("{host}:{port}");
        let esl_link = Arc::new(Link::new(
            "esl",
            peer(&config.esl.host, config.esl.port),
            config.esl.alarm_after,
        ));
        let redis_peer = match output {
            Output::Redis => peer(&config.redis.host, config.redis.port),
            Output::Stdout => "stdout".to_owned(),
        };
        let redis_link = Arc::new(Link::new("redis", redis_peer, config.esl.alarm_after));
        let books = (
            Arc::clone(&ledger),
            Arc::clone(&esl_link),
            Arc::clone(&redis_link),
        );
        let metrics = Arc::new(Metrics::new(&config.limits, books.0, books.1, books.2));
        let seen = Arc::new(Seen::default());
        if let Some(name) = &config.router.name {
            seen.router.get_or_init(|| name.clone());
        }

        let backlog = Arc::new(Backlog::new(
            config.buffer.events,
            Arc::clone(&ledger),
            Arc::clone(&metrics),
        ));
        let outbox = Arc::new(Outbox::new(Arc::clone(&backlog), Arc::clone(&metrics)));
        let routes = Arc::new(Routes::new(
            &config.streams,
            &config.routes,
            &config.dead_letter,
        ));
        let engine = Arc::new(Engine::new()?);
        let mut loader = Loader::new(Arc::clone(&engine), config.filters);
        let (wanted, wants) = watch::channel(fixed(&config.esl));
        let mut pipeline = Pipeline {
            chain: Chain::new(Arc::clone(&engine), Arc::clone(&metrics)),
            engine,
            routes: Arc::clone(&routes),
            backlog: Arc::clone(&backlog),
            outbox: Arc::clone(&outbox),
            ledger: Arc::clone(&ledger),
            metrics: Arc::clone(&metrics),
            seen: Arc::clone(&seen),
            wanted,
            follow_filters: config.esl.events == EventsWanted::Auto,
        };
        // Filters are live and the subscription is known before the first event can come. Compiling takes a while, and
        // a filter's WASI may enter tokio, so this is no work for a worker.
        let runtime = tokio::runtime::Handle::current();
        let entered = runtime.clone();
        let started = std::thread::Builder::new()
            .name("start".to_owned())
            .spawn(move || {
                let _runtime = entered.enter();
                pipeline.change(loader.load());
                (pipeline, loader)
            });
        let started = started.map_err(AppError::Thread)?;
        let (pipeline, loader) = tokio::task::spawn_blocking(|| started.join())
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or(AppError::Died("the first load of the filters"))?;

        let entered = runtime.clone();
        let pipeline = std::thread::Builder::new()
            .name("pipeline".to_owned())
            .spawn(move || {
                let _runtime = entered.enter();
                pipeline.run();
            })
            .map_err(AppError::Thread)?;
        let stop_loader = Arc::new(AtomicBool::new(false));
        let (stop, changes, waker) = (
            Arc::clone(&stop_loader),
            Arc::clone(&seen),
            Arc::clone(&backlog),
        );
        let loader = std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || {
                let _runtime = runtime.enter();
                loader.watch(&stop, |change| {
                    changes.change(change);
                    waker.wake();
                });
            })
            .map_err(AppError::Thread)?;

        let mut writer = JoinSet::new();
        let (ledger_, metrics_) = (Arc::clone(&ledger), Arc::clone(&metrics));
        match output {
            Output::Redis => {
                let lane = Lane {
                    settings: config.redis,
                    trim_interval: config.trim_interval,
                    routes,
                    outbox: Arc::clone(&outbox),
                    seen: Arc::clone(&seen),
                    ledger: ledger_,
                    metrics: metrics_,
                    link: Arc::clone(&redis_link),
                };
                writer.spawn(lane.run());
            }
            Output::Stdout => {
                let printer = Printer {
                    outbox: Arc::clone(&outbox),
                    ledger: ledger_,
                    metrics: metrics_,
                    link: Arc::clone(&redis_link),
                };
                writer.spawn(async {
                    if let Err(error) = printer.run().await {
                        tracing::error!(%error, "standard output is gone");
                    }
                });
            }
        }

        let view = View {
            ledger,
            esl: Arc::clone(&esl_link),
            redis: redis_link,
            metrics,
            seen,
            started: Instant::now(),
            token: config.http.token,
        };
        let view = Arc::new(view);
        let mut server = JoinSet::new();
        server.spawn(admin::serve(listener, Arc::clone(&view)));
        let mut intake = JoinSet::new();
        let into = Arc::clone(&backlog);
        let ledger = Arc::clone(&view.ledger);
        let link = Intake {
            settings: config.esl,
            wanted: wants,
            link: esl_link,
        };
        intake.spawn(link.run(move |received| deliver(&into, &ledger, received)));
        Ok(App {
            view,
            http,
            backlog,
            outbox,
            intake,
            writer,
            server,
            pipeline,
            loader,
            stop_loader,
        })
    }

    /// Runs until `stop` is ready, then stops: no new events, what is there is written, within ten seconds.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<Balance, AppError> {
        let died = tokio::select! {
            () = stop => None,
            _ = self.intake.join_next() => Some("the intake"),
            _ = self.writer.join_next() => Some("the writer"),
            _ = self.server.join_next() => Some("the HTTP server"),
        };
        if let Some(part) = died {
            tracing::error!(part, "a part of the host ended unexpectedly");
        }
        tracing::info!(pending = self.view.ledger.balance().pending, "stopping");
        self.intake.shutdown().await;
        self.view.esl.stopped();
        self.backlog.close();
        if timeout(STOP, self.writer.join_next()).await.is_err() {
            tracing::error!(
                pending = self.view.ledger.balance().pending,
                "not drained in time: what is left is lost"
            );
        }
        self.writer.shutdown().await;
        self.backlog.abort();
        self.stop_loader.store(true, Ordering::Release);
        self.server.shutdown().await;
        let (pipeline, loader) = (self.pipeline, self.loader);
        let joined =
            tokio::task::spawn_blocking(move || (pipeline.join().is_ok(), loader.join().is_ok()))
                .await;
        let pending = self.view.ledger.balance().pending;
        self.view.ledger.lost("shutdown", pending);
        let balance = self.view.ledger.balance();
        tracing::info!(
            received = balance.received,
            delivered = balance.delivered,
            dropped = balance.dropped,
            dead_lettered = balance.dead_lettered,
            lost = balance.lost,
            "stopped"
        );
        match (died, joined) {
            (Some(part), _) => Err(AppError::Died(part)),
            (None, Ok((true, true))) => Ok(balance),
            (None, _) => Err(AppError::Died("the pipeline or the loader")),
        }
    }

    /// Events that are decided and wait for the writer.
    pub fn waiting_for_writer(&self) -> u64 {
        self.outbox.pending()
    }
}

/// What the settings alone ask for; the routes and filters add to it unless `esl.events` is a list.
fn fixed(esl: &Esl) -> Subscription {
    let mut wanted = Subscription::new();
    if let EventsWanted::List(events) = &esl.events {
        events
            .iter()
            .for_each(|event| wanted.add(&event.name, event.subclass.as_deref()));
    }
    wanted
}

fn deliver(backlog: &Backlog, ledger: &Ledger, received: Received) {
    if received.too_large > 0 {
        ledger.received(received.too_large);
        ledger.lost("too_large", received.too_large);
    }
    let received_us = received.at_us;
    backlog.push(received.events.into_iter().map(|(format, bytes)| Input {
        format,
        bytes,
        received_us,
    }));
}
