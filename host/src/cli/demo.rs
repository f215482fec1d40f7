//! `jackfield demo`: the main job on one machine, with nothing to set up but a `redis-server` binary.
//!
//! A simulated FreeSWITCH places calls, the filters of this checkout handle their events, a private redis-server keeps
//! them. The last lines are the accounts; the exit code is 0 only if they balance and nothing was lost.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use tokio::process::{Child, Command};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::folder::Folder;
use super::run::{Signals, start_log};
use super::{FAILED, print_error, runtime};
use crate::admin::View;
use crate::app::{App, AppError, Output};
use crate::config::{Level, Log, LogFormat, Mistakes, Sources};
use crate::ledger::Balance;
use crate::settings::{Reading, SetLog};
use crate::simulator::{Load, Settings as Switch, Simulator};

/// The filters of this checkout, in the order of the demo's chain. Each has its settings beside it.
const FILTERS: [&str; 3] = ["redact", "route", "project"];
/// Where the checkout was when this binary was built.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const REDIS_UP: Duration = Duration::from_secs(10);
const DRAINED: Duration = Duration::from_secs(60);
/// Without a rate, calls wait while more events than this are on their way.
const MOST_PENDING: u64 = 10_000;

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// End after this many events [default: go on until Ctrl-C].
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// Events a second; 0 for as fast as they are taken.
    #[arg(long, value_name = "RATE", default_value_t = 1_000.0)]
    rate: f64,
    /// Calls at once.
    #[arg(long, value_name = "N", default_value_t = 50)]
    calls: usize,
    /// The same seed makes the same calls.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Print entries, one JSON object a line, instead of using Redis.
    #[arg(long)]
    stdout: bool,
}

#[derive(Debug, Error)]
enum DemoError {
    #[error("cannot use {path}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "cannot build the filters: run this in a checkout of Jackfield, with cargo and the wasm32-wasip2 target (`make filters`)"
    )]
    Filters(#[source] std::io::Error),
    #[error("building the filters failed: {0}")]
    Build(std::process::ExitStatus),
    #[error("cannot start redis-server; on Debian: apt-get install redis-server")]
    Redis(#[source] std::io::Error),
    #[error("redis-server did not answer in time")]
    RedisLate,
    #[error("cannot start the simulated FreeSWITCH")]
    Simulator(#[source] std::io::Error),
    #[error(transparent)]
    Config(#[from] Mistakes),
    #[error(transparent)]
    App(#[from] AppError),
}

impl Demo {
    pub(super) fn main(self) -> ExitCode {
        let log = start_log(Log {
            level: Level::Warn,
            format: LogFormat::Text,
        });
        let ran = runtime()
            .map_err(|error| AppError::Thread(error).into())
            .and_then(|runtime| {
                let ran = runtime.block_on(self.run(log));
                runtime.shutdown_background();
                ran
            });
        match ran {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(FAILED),
            Err(error) => {
                print_error(&error);
                ExitCode::from(FAILED)
            }
        }
    }

    async fn run(self, log: SetLog) -> Result<bool, DemoError> {
        let folder = Folder::new().map_err(|source| DemoError::File {
            path: std::env::temp_dir(),
            source,
        })?;
        let filters = folder.place_filters().await?;
        let redis = if self.stdout {
            None
        } else {
            Some(Redis::start(&folder.path).await?)
        };
        let switch = Switch {
            seed: self.seed,
            ..Switch::default()
        };
        let switch = Simulator::start(switch)
            .await
            .map_err(DemoError::Simulator)?;
        let file = folder.write_config(
            switch.addr(),
            redis.as_ref().map(|redis| redis.port),
            &filters,
        )?;
        let reading = Reading::first(Sources {
            file: Some(file.clone()),
            ..Sources::default()
        })?;
        let mut config = reading.config.clone();
        let output = if self.stdout {
            Output::Stdout
        } else {
            Output::Redis
        };
        let start = |config| App::start(config, output, reading.clone(), Arc::clone(&log));
        let app = match start(config.clone()).await {
            // Another demo took the usual port since it was looked at.
            Err(AppError::Listen { .. }) => {
                config.http.listen.set_port(0);
                start(config).await?
            }
            started => started?,
        };
        self.announce(&app, &switch, redis.as_ref(), &filters, &file);

        let mut signals = Signals::new().map_err(AppError::Thread)?;
        let view = Arc::clone(&app.view);
        let load = Load {
            rate: self.rate,
            events: self.events,
            calls_at_once: self.calls,
        };
        let placed = async {
            // An event that is fired before the host listens is none that it could lose.
            switch.wait_for_subscribers(1, DRAINED).await;
            place(&switch, load, &view).await;
            all_settled(&switch, &view).await;
        };
        let stop = async {
            tokio::select! {
                () = placed => {}
                () = signals.stop() => {}
                () = show(&view) => {}
            }
        };
        let balance = app.run_until(stop).await?;
        let sent = switch.sent();
        switch.stop().await;
        Ok(self.conclude(balance, sent.queued, sent.dropped))
    }

    fn announce(
        &self,
        app: &App,
        switch: &Simulator,
        redis: Option<&Redis>,
        filters: &Path,
        file: &Path,
    ) {
        eprintln!(
            "FreeSWITCH (simulated)  {}, password ClueCon, seed {}",
            switch.addr(),
            self.seed
        );
        if let Some(redis) = redis {
            eprintln!(
                "Redis (private)         redis-cli -p {} -n 2 XREVRANGE freeswitch:telephony:events + - COUNT 1",
                redis.port
            );
        }
        eprintln!(
            "filters                 {} (drop, replace or delete a .wasm: it is live within 2 s)",
            filters.display()
        );
        eprintln!("configuration           {}", file.display());
        eprintln!("page                    http://{}/", app.http);
        eprintln!("status                  curl http://{}/status", app.http);
        eprintln!("metrics                 curl http://{}/metrics", app.http);
        for filter in app.view.seen.filters().0 {
            let digest = filter.digest.get(..12).unwrap_or_default();
            eprintln!(
                "filter                  {} ({} {}, {digest}) {:?}",
                filter.file, filter.name, filter.version, filter.state
            );
        }
        eprintln!();
    }

    fn conclude(&self, balance: Balance, sent: u64, dropped_by_switch: u64) -> bool {
        let Balance {
            received,
            delivered,
            dropped,
            dead_lettered,
            lost,
            pending,
        } = balance;
        eprintln!();
        eprintln!("sent by FreeSWITCH {sent}, dropped there {dropped_by_switch}");
        eprintln!(
            "received {received} = delivered {delivered} + dropped {dropped} + dead-lettered {dead_lettered} + lost {lost} + pending {pending}"
        );
        let complete = self.events.is_none() || received >= sent;
        let good = balance.holds() && lost == 0 && pending == 0 && complete;
        eprintln!(
            "{}",
            if good {
                "balanced, nothing lost"
            } else {
                "NOT BALANCED, or something was lost"
            }
        );
        good
    }
}

/// Places the calls. Without a rate, as fast as the host takes them: what it holds in memory is bounded, and a demo is no
/// overload test.
async fn place(switch: &Simulator, load: Load, view: &View) {
    if load.rate > 0.0 {
        switch.place_calls(load).await;
        return;
    }
    let mut left = load.events.unwrap_or(u64::MAX);
    while left > 0 {
        let events = left.min(MOST_PENDING / 4);
        switch
            .place_calls(Load {
                events: Some(events),
                ..load
            })
            .await;
        left -= events;
        poll(|| view.ledger.balance().pending < MOST_PENDING, DRAINED).await;
    }
}

/// Everything that the switch sent has been received, and nothing is pending.
async fn all_settled(switch: &Simulator, view: &View) {
    let settled = || {
        let accounts = view.ledger.accounts();
        accounts.inputs >= switch.sent().queued && accounts.pending == 0
    };
    poll(settled, DRAINED).await;
}

/// Waits until `done` says so; false if it does not in time.
async fn poll(done: impl Fn() -> bool, within: Duration) -> bool {
    let checking = async {
        let mut every = interval(Duration::from_millis(5));
        while !done() {
            every.tick().await;
        }
    };
    timeout(within, checking).await.is_ok()
}

/// A line a second, for ever.
async fn show(view: &View) {
    let mut every = interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let started = Instant::now();
    let mut before = view.ledger.balance();
    every.tick().await;
    loop {
        every.tick().await;
        let now = view.ledger.balance();
        let latency = view.metrics.total_latency.percentiles();
        eprintln!(
            "{:4} s  received {:6}/s  delivered {:6}/s  dropped {:6}/s  pending {:5}  socket to Redis p50 {:.2} ms  p99 {:.2} ms",
            started.elapsed().as_secs(),
            now.received - before.received,
            now.delivered - before.delivered,
            now.dropped - before.dropped,
            now.pending,
            milliseconds(latency.p50_us),
            milliseconds(latency.p99_us),
        );
        before = now;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a latency for the eye")]
fn milliseconds(us: u64) -> f64 {
    us as f64 / 1_000.0
}

impl Folder {
    /// Builds what is missing, and copies the filters with their settings.
    async fn place_filters(&self) -> Result<PathBuf, DemoError> {
        let checkout = PathBuf::from(CHECKOUT);
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| checkout.join("target"), PathBuf::from);
        let built = target.join("wasm32-wasip2/filter");
        let lacking = FILTERS
            .iter()
            .any(|name| !built.join(format!("{name}.wasm")).exists());
        if lacking {
            eprintln!("building the filters…");
            let mut cargo = Command::new("cargo");
            cargo.args([
                "build",
                "--quiet",
                "--profile",
                "filter",
                "--target",
                "wasm32-wasip2",
            ]);
            for name in FILTERS {
                cargo.args(["-p", name]);
            }
            let status = cargo
                .current_dir(&checkout)
                .status()
                .await
                .map_err(DemoError::Filters)?;
            if !status.success() {
                return Err(DemoError::Build(status));
            }
        }
        let filters = self.path.join("filters.d");
        create(&filters)?;
        for (at, name) in FILTERS.iter().enumerate() {
            let number = (at + 1) * 10;
            let settings = checkout.join(format!("filters/{name}/{name}.toml"));
            copy(&settings, &filters.join(format!("{number}-{name}.toml")))?;
            copy(
                &built.join(format!("{name}.wasm")),
                &filters.join(format!("{number}-{name}.wasm")),
            )?;
        }
        Ok(filters)
    }

    fn write_config(
        &self,
        esl: SocketAddr,
        redis: Option<u16>,
        filters: &Path,
    ) -> Result<PathBuf, DemoError> {
        // The usual port, unless something else has it.
        let usual = SocketAddr::from(([127, 0, 0, 1], 9876));
        let http = if TcpListener::bind(usual).is_ok() {
            usual.port()
        } else {
            0
        };
        let mut text = format!(
            "[esl]\nport = {}\n\n[filters]\ndir = {:?}\n\n[journal]\ndir = {:?}\n\n",
            esl.port(),
            filters,
            self.path.join("journal")
        );
        text.push_str(&format!("[http]\nlisten = \"127.0.0.1:{http}\"\n"));
        if let Some(port) = redis {
            text.push_str(&format!(
                "\n[redis]\nurl = \"redis://127.0.0.1:{port}/2\"\n"
            ));
        }
        let path = self.path.join("jackfield.toml");
        std::fs::write(&path, text).map_err(|source| DemoError::File {
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }
}

fn create(path: &Path) -> Result<(), DemoError> {
    std::fs::create_dir_all(path).map_err(|source| DemoError::File {
        path: path.to_owned(),
        source,
    })
}

fn copy(from: &Path, to: &Path) -> Result<(), DemoError> {
    std::fs::copy(from, to).map_err(|source| DemoError::File {
        path: from.to_owned(),
        source,
    })?;
    Ok(())
}

/// A redis-server of the demo's own, in memory, killed at the end.
struct Redis {
    port: u16,
    _server: Child,
}

impl Redis {
    async fn start(dir: &Path) -> Result<Redis, DemoError> {
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        let port = free.map_err(DemoError::Redis)?.port();
        let server = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
            ])
            .arg(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(DemoError::Redis)?;
        let up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        if !poll(up, REDIS_UP).await {
            return Err(DemoError::RedisLate);
        }
        Ok(Redis {
            port,
            _server: server,
        })
    }
}
