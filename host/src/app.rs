//! The spine: builds the stages in the order of the data, connects the queues between them, starts and stops them.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::admin::{self, Reach, View};
use crate::clock;
use crate::config::{self, Config};
use crate::esl::{Allowed, CommandLink, Commands, Intake, Resync, Subscription};
use crate::event::Indexer;
use crate::filter::{Beside, Chain, Engine, Loader, PastOf};
use crate::journal::JournalError;
use crate::ledger::{Balance, Ledger};
use crate::link::{Link, Links};
use crate::listeners::Listeners;
use crate::metrics::Metrics;
use crate::pipeline::{Arrivals, Calls, Inputs, Outbox, Past, Pipeline, Seen};
use crate::route::Routes;
use crate::settings::{self, Followers, Reading, SetLog, Settings};
use crate::worker::{Apart, Worker};
use crate::writer::{End, Letters, Printer, Source, Writer};

/// How long a stop may take to bring to Redis what is left; the rest stays in the journal.
const STOP: Duration = Duration::from_secs(9);
/// How long a stop waits for listeners to be told of it.
const STOP_TOLD: Duration = Duration::from_millis(300);
/// How long a stop waits for a Redis that is away.
const STOP_AWAY: Duration = Duration::from_secs(1);

/// How long the loader waits where changes of the chain wait for the pipeline.
const BUSY: Duration = Duration::from_millis(50);
/// Searches of the journal over HTTP at once: they read the disk that it is written to.
const SEARCHES: usize = 2;
/// Past inputs on which a new version of a filter is tried.
const REHEARSED: u64 = 1_000;
/// After so many of them there is a pause: a pipeline that runs may want this processor, and a reload is to be noticed by nobody.
const AT_ONCE: u64 = 32;
const PAUSE: Duration = Duration::from_millis(1);

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
    Engine(#[source] std::io::Error),
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
    intake: Apart<Infallible>,
    commands: Apart<()>,
    pipeline: Worker,
    writer: Apart<End>,
    loader: Worker,
    listeners: Worker,
    stop_watching: Arc<AtomicBool>,
    settings: Worker,
    server: Apart<()>,
}

impl App {
    /// Builds and starts everything, from the writer back to the socket, so that no event meets a half-built host. `config` is that of
    /// the reading, but for what the command changed about it; `log` is the log, to be changed with the settings.
    pub async fn start(
        config: Config,
        output: Output,
        reading: Reading,
        log: SetLog,
    ) -> Result<App, AppError> {
        let address = config.http.listen;
        let listen = |source| AppError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let http = listener.local_addr().map_err(listen)?;

        let (journal, router) = (config.journal.clone(), config.router.name.clone());
        let open = move || Inputs::open(&journal, router.as_deref());
        let opened = tokio::task::spawn_blocking(open).await;
        let mut inputs = opened.map_err(|_| AppError::Died("the opening of the journal"))??;
        let (routes, follow_routes) = watch::channel(Arc::new(settings::routes(&config)));
        let (filter_limits, follow_limits) = watch::channel(config.filters.limits.clone());
        let view = view(
            &config,
            output,
            &inputs,
            &follow_routes,
            |arrivals, metrics| {
                let (arrivals, metrics) = (Arc::clone(arrivals), Arc::clone(metrics));
                let (allowed, _) = watch::channel(Allowed(config.esl.allow.clone()));
                let followers = Followers {
                    routes,
                    arrivals,
                    filter_limits,
                    allowed,
                    metrics,
                    log,
                };
                Settings::new(reading, followers)
            },
        );
        let view = Arc::new(view);
        let outbox = outbox(&config, &mut inputs, follow_routes.clone(), &view);

        let writer = write(
            &config,
            output,
            &inputs,
            follow_routes.clone(),
            &outbox,
            &view,
        )
        .map_err(AppError::Thread)?;
        let engine = Arc::new(Engine::new().map_err(AppError::Engine)?);
        let stop_watching = Arc::new(AtomicBool::new(false));
        let loader = Loader::new(Arc::clone(&engine), config.filters)
            .apart(Arc::clone(&stop_watching))
            .keeping(&config.journal.dir.join("filters"))
            .following(follow_limits)
            .beside(Beside {
                past: past(&inputs, &view.arrivals),
                metrics: Arc::clone(&view.metrics),
            });
        let (wanted, wants) = watch::channel(Subscription::new());
        let own = Arc::clone(&view.arrivals);
        view.links.announce(&wants, move |event| own.own(event));
        let routes = Arc::clone(&follow_routes.borrow());
        let pipeline = Pipeline {
            indexer: Indexer::default(),
            chain: Chain::new(Arc::clone(&engine), Arc::clone(&view.metrics))
                .map_err(AppError::Thread)?,
            engine,
            routes,
            settings: follow_routes,
            inputs,
            dir: config.journal.dir,
            arrivals: Arc::clone(&view.arrivals),
            outbox,
            ledger: Arc::clone(&view.ledger),
            metrics: Arc::clone(&view.metrics),
            seen: Arc::clone(&view.seen),
            wanted,
            learn_name: config.router.name.is_none(),
            calls: Calls::default(),
        };
        // Filters are live and the subscription is known before the first event can come.
        let (pipeline, loader) = load_filters(pipeline, loader).await?;
        let pipeline =
            Worker::start("pipeline", move || pipeline.run()).map_err(AppError::Thread)?;
        let loader = watch_filters(loader, &view, Arc::clone(&stop_watching))?;
        let settings = watch_settings(&view, Arc::clone(&stop_watching))?;

        let socket = listener.into_std().map_err(listen)?;
        let serve = admin::serve(socket, Arc::clone(&view));
        let server = Apart::start("http", serve).map_err(AppError::Thread)?;
        let (intake, commands) = connect(config.esl, wants, &view).map_err(AppError::Thread)?;
        Ok(App {
            listeners: serve_listeners(&view)?,
            view,
            http,
            intake,
            commands,
            pipeline,
            writer,
            loader,
            stop_watching,
            settings,
            server,
        })
    }

    /// Runs until `stop` is ready, then stops within ten seconds: no new events, what is there is written; what Redis does
    /// not take stays in the journal.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<Balance, AppError> {
        let died = tokio::select! {
            () = stop => None,
            _ = self.intake.ended() => Some(AppError::Died("the event link to FreeSWITCH")),
            _ = self.commands.ended() => Some(AppError::Died("the command link to FreeSWITCH")),
            () = self.pipeline.ended() => Some(self.why("the pipeline", None)),
            ended = self.writer.ended() => Some(self.why("the writer", ended)),
            () = self.loader.ended() => Some(AppError::Died("the loader")),
            () = self.listeners.ended() => Some(AppError::Died("the listeners' reader")),
            () = self.settings.ended() => Some(AppError::Died("the watch of the settings")),
            _ = self.server.ended() => Some(AppError::Died("the HTTP server")),
        };
        let ledger = Arc::clone(&self.view.ledger);
        tracing::info!(pending = ledger.balance().pending, "stopping");
        // That one of them died was noticed above.
        self.intake.stop().await;
        self.commands.stop().await;
        self.view.links.esl.stopped();
        self.view.links.commands.stopped();
        self.view.links.redis.draining();
        self.view.arrivals.close();
        drain(&mut self.writer, &self.view).await;
        let wrote = self.writer.stop().await;
        self.view.arrivals.abort();
        // By now they can be told all that was decided.
        self.view.listeners.stop();
        // Whoever does not read cannot be told.
        let _told = timeout(STOP_TOLD, self.view.listeners.gone()).await;
        self.stop_watching.store(true, Ordering::Release);
        let served = self.server.stop().await;
        // The watch of the settings may hang in a file system, and has nothing that would be missed.
        let joined = [
            wrote,
            served,
            self.pipeline.join().await,
            self.loader.join().await,
            self.listeners.join().await,
        ];
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
            None if joined == [true; 5] => Ok(balance),
            None => Err(AppError::Died(
                "the writer, the HTTP server, the pipeline, the loader or the listeners' reader",
            )),
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

/// Waits until the writer is done, for as long as there is hope.
async fn drain(writer: &mut Apart<End>, view: &View) {
    let redis = Arc::clone(&view.links.redis);
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
            _ = writer.ended() => true,
            () = away => false,
        }
    };
    if !timeout(STOP, drained).await.unwrap_or(false) {
        let pending = view.ledger.balance().pending;
        tracing::warn!(pending, "not drained: the rest stays in the journal");
    }
}

/// The shared records: accounts, links, metrics, and where inputs arrive. What an earlier run left undecided is received.
fn view(
    config: &Config,
    output: Output,
    inputs: &Inputs,
    routes: &watch::Receiver<Arc<Routes>>,
    settings: impl FnOnce(&Arc<Arrivals>, &Arc<Metrics>) -> Settings,
) -> View {
    let ledger = Arc::new(Ledger::default());
    ledger.received(inputs.waiting());
    let arrivals = Arc::new(Arrivals::new(config.buffer.events, Arc::clone(&ledger)));
    let alarm_after = config.esl.alarm_after;
    let freeswitch = format!("{}:{}", config.esl.host, config.esl.port);
    let redis = match output {
        Output::Redis => format!("{}:{}", config.redis.host, config.redis.port),
        Output::Stdout => "stdout".to_owned(),
    };
    let links = Arc::new(Links::new(
        Link::new("esl", freeswitch.clone(), alarm_after),
        Link::optional("commands", freeswitch, alarm_after),
        Link::new("redis", redis, alarm_after),
    ));
    let seen = Arc::new(Seen::of(inputs.id()));
    let (accounts, shown) = (Arc::clone(&ledger), Arc::clone(&links));
    let metrics = Arc::new(Metrics::new(&config.limits, accounts, shown, seen.calls()));
    if let Some(name) = config.router.name.as_deref().or(inputs.router()) {
        seen.router.get_or_init(|| name.to_owned());
    }
    let max_bytes = i64::try_from(config.journal.max_size).unwrap_or(i64::MAX);
    metrics.journal.max_bytes.set(max_bytes);
    let listeners = Listeners::new(inputs, Arc::clone(&seen), Arc::clone(&metrics));
    let settings = settings(&arrivals, &metrics);
    View {
        ledger,
        arrivals,
        links,
        commands: Commands::default(),
        allowed: settings.allowed(),
        metrics,
        seen,
        listeners: Arc::new(listeners),
        started: Instant::now(),
        token: config.http.token.clone(),
        settings: Arc::new(settings),
        routes: routes.clone(),
        reach: Reach::of(config, inputs),
        searches: Semaphore::new(SEARCHES),
    }
}

/// The queue to the writer, which hears when more is on stable storage.
fn outbox(
    config: &Config,
    inputs: &mut Inputs,
    routes: watch::Receiver<Arc<Routes>>,
    view: &View,
) -> Arc<Outbox> {
    let (arrivals, metrics) = (Arc::clone(&view.arrivals), Arc::clone(&view.metrics));
    let outbox = Outbox::new(arrivals, inputs, routes, config.journal.sync, metrics);
    let outbox = Arc::new(outbox);
    let (durable, metrics) = (Arc::clone(&outbox), Arc::clone(&view.metrics));
    inputs.on_synced(move |took| {
        metrics.journal.synced(took);
        durable.wake();
    });
    outbox
}

/// Both links to FreeSWITCH, and what they say of each other, from now on. The one that reads events has its thread for itself.
fn connect(
    settings: config::Esl,
    wanted: watch::Receiver<Subscription>,
    view: &View,
) -> std::io::Result<(Apart<Infallible>, Apart<()>)> {
    let resync = Resync {
        link: Arc::clone(&view.links.esl),
        commands: view.commands.clone(),
        wanted: wanted.clone(),
    };
    let into = Arc::clone(&view.arrivals);
    let calls = view.seen.calls();
    let believed = move || usize::try_from(calls.borrow().alive).unwrap_or(usize::MAX);
    let resync = resync.run(move |parts| into.roll_call(parts), believed);
    let commands = CommandLink {
        settings: settings.clone(),
        commands: view.commands.clone(),
        link: Arc::clone(&view.links.commands),
        events: Arc::clone(&view.links.esl),
    };
    let intake = Intake {
        settings,
        wanted,
        link: Arc::clone(&view.links.esl),
        commands: view.commands.clone(),
    };
    let (into, metrics) = (Arc::clone(&view.arrivals), Arc::clone(&view.metrics));
    let intake = intake.run(move |received| {
        let (read_us, events) = (received.at_us, received.events.len() as u64);
        into.receive(received);
        let took = Duration::from_micros(clock::now_us().saturating_sub(read_us));
        metrics.stages.intake.worked(took, events);
    });
    let commands = async {
        let _never = tokio::join!(commands.run(), resync);
    };
    Ok((
        Apart::start("esl", intake)?,
        Apart::start("commands", commands)?,
    ))
}

/// Starts what brings decisions to where they go.
fn write(
    config: &Config,
    output: Output,
    inputs: &Inputs,
    routes: watch::Receiver<Arc<Routes>>,
    outbox: &Arc<Outbox>,
    view: &View,
) -> std::io::Result<Apart<End>> {
    match output {
        Output::Redis => {
            let lane = Writer {
                settings: config.redis.clone(),
                trim_interval: config.trim_interval,
                host: host_name(),
                source: Source::of(inputs),
                routes,
                outbox: Arc::clone(outbox),
                seen: Arc::clone(&view.seen),
                letters: Letters::open(&config.journal.dir),
                ledger: Arc::clone(&view.ledger),
                metrics: Arc::clone(&view.metrics),
                link: Arc::clone(&view.links.redis),
            };
            Apart::start("writer", lane.run())
        }
        Output::Stdout => {
            let printer = Printer {
                outbox: Arc::clone(outbox),
                seen: Arc::clone(&view.seen),
                ledger: Arc::clone(&view.ledger),
                metrics: Arc::clone(&view.metrics),
                link: Arc::clone(&view.links.redis),
            };
            Apart::start("writer", printer.run())
        }
    }
}

/// Changes of the folder go to the pipeline.
fn watch_filters(loader: Loader, view: &View, stop: Arc<AtomicBool>) -> Result<Worker, AppError> {
    let (seen, arrivals) = (Arc::clone(&view.seen), Arc::clone(&view.arrivals));
    let watch = move || {
        let change = |change| {
            let mut change = change;
            while let Err(back) = seen.change(change) {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                change = back;
                std::thread::sleep(BUSY);
            }
            arrivals.wake();
        };
        loader.watch(&stop, change, || seen.take_reports());
    };
    Worker::start("loader", watch).map_err(AppError::Thread)
}

/// The journal is read for listeners.
fn serve_listeners(view: &View) -> Result<Worker, AppError> {
    let listeners = Arc::clone(&view.listeners);
    Worker::start("listeners", move || listeners.serve()).map_err(AppError::Thread)
}

/// A change of the settings' file is taken over.
fn watch_settings(view: &View, stop: Arc<AtomicBool>) -> Result<Worker, AppError> {
    let settings = Arc::clone(&view.settings);
    let watch = move || settings::watch(&settings, &stop);
    Worker::start("settings", watch).map_err(AppError::Thread)
}

/// What filters saw last, from the journal.
fn past(inputs: &Inputs, arrivals: &Arc<Arrivals>) -> PastOf {
    let arrivals = Arc::clone(arrivals);
    let ((disk, dir), progress) = (inputs.place(), inputs.progress());
    let unreadable = |error: std::io::Error| {
        tracing::warn!(%error, "journal cannot be read: a filter goes live without a whole rehearsal");
    };
    Box::new(move |file| {
        // Not every input is an event: some more, so that there are enough.
        let place = progress.place_before(2 * REHEARSED);
        let mut past = Past::newest(&disk, &dir, REHEARSED, file, place)
            .map_err(unreadable)
            .ok();
        let (arrivals, mut told) = (Arc::clone(&arrivals), 0_u64);
        Box::new(std::iter::from_fn(move || {
            told += 1;
            if told.is_multiple_of(AT_ONCE) && arrivals.is_served() {
                std::thread::sleep(PAUSE);
            }
            past.as_mut()?
                .next_occasion()
                .map_err(unreadable)
                .ok()
                .flatten()
        }))
    })
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
