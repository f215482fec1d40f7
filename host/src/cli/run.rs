//! `jackfield run`, and what it shares with the demo: the log and the signals.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry, reload};

use super::folder::Folder;
use super::{FAILED, OWNED, Settings, WRONG_CONFIG, print_error, runtime};
use crate::app::{App, AppError, Output};
use crate::config::{Level, Log, LogFormat};
use crate::ledger::Balance;
use crate::settings::{self, SetLog, note};

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    settings: Settings,
    /// Print entries, one JSON object a line, instead of writing them to Redis.
    #[arg(long)]
    stdout: bool,
}

impl Run {
    pub(super) fn main(self) -> ExitCode {
        let reading = match self.settings.read() {
            Ok(reading) => reading,
            Err(code) => return code,
        };
        let mut config = reading.config.clone();
        let log = start_log(config.log);
        config.notes.iter().for_each(note);
        let output = if self.stdout {
            Output::Stdout
        } else {
            Output::Redis
        };
        // What is only looked at leaves the journal of the real host alone.
        let folder = match self.stdout.then(Folder::new).transpose() {
            Ok(folder) => folder,
            Err(error) => {
                print_error(&error);
                return ExitCode::from(FAILED);
            }
        };
        if let Some(folder) = &folder {
            config.journal.dir = folder.path.join("journal");
            config.journal.max_size = PRINTED;
            config.journal.retain = Duration::from_secs(1);
        }
        let ran = runtime().map_err(AppError::Thread).and_then(|runtime| {
            let ended = runtime.block_on(async {
                let mut signals = Signals::new().map_err(AppError::Thread)?;
                let mut hang_up = signal(SignalKind::hangup()).map_err(AppError::Thread)?;
                // Compiling filters may take a while, and nothing has come yet that could be lost.
                let app = tokio::select! {
                    app = App::start(config, output, reading, log) => app?,
                    () = signals.next() => return Ok(Balance::default()),
                };
                tracing::info!(version = env!("CARGO_PKG_VERSION"), http = %app.http, "started");
                let settings = Arc::clone(&app.view.settings);
                let stop = async {
                    tokio::select! {
                        () = signals.stop() => {}
                        () = reload_at(&mut hang_up, &settings) => {}
                    }
                };
                app.run_until(stop).await
            });
            // A guest or a resolver may still hold a blocking thread; the process need not wait for it.
            runtime.shutdown_background();
            ended
        });
        match ran {
            Ok(balance) if balance.lost == 0 => ExitCode::SUCCESS,
            Ok(balance) => {
                tracing::error!(lost = balance.lost, "events were lost");
                ExitCode::from(FAILED)
            }
            Err(error) => {
                print_error(&error);
                ExitCode::from(match error {
                    AppError::Journal(_) | AppError::OtherSwitch { .. } => WRONG_CONFIG,
                    AppError::Owned { .. } => OWNED,
                    _ => FAILED,
                })
            }
        }
    }
}

/// Reloads the settings at every SIGHUP, for ever.
async fn reload_at(hang_up: &mut Signal, settings: &Arc<settings::Settings>) {
    while hang_up.recv().await.is_some() {
        // What came of it is told where it is done.
        let _told = Arc::clone(settings).reload().await;
    }
    // No more signals can come.
    std::future::pending::<()>().await;
}

/// Structured logs on standard error; gives what changes them. Libraries are heard from warnings on: a compiler's own debug lines
/// would bury ours.
pub(super) fn start_log(log: Log) -> SetLog {
    let (levels, set_levels) = reload::Layer::new(levels(log.level));
    let (lines, set_lines) = reload::Layer::new(lines(log.format));
    registry().with(levels).with(lines).init();
    Arc::new(move |log: Log| {
        let levels = set_levels.reload(self::levels(log.level));
        let lines = set_lines.reload(self::lines(log.format));
        if let Err(error) = levels.and(lines) {
            tracing::error!(%error, "log does not change");
        }
    })
}

fn levels(level: Level) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_target("jackfield", level)
        .with_default(level.min(LevelFilter::WARN))
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

/// The journal of what is only printed.
const PRINTED: u64 = 256 << 20;

/// Sent by a write beyond a file size limit (`ulimit -f`); its default ends the process. Handled, the write fails like that of a
/// full disk, and the journal copes.
const SIGXFSZ: i32 = 25;

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    _file_size: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(SignalKind::from_raw(SIGXFSZ))?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Ready at the first signal; the second one leaves at once.
    pub(super) async fn stop(&mut self) {
        self.next().await;
        let Ok(mut again) = Signals::new() else {
            return;
        };
        let second = std::thread::Builder::new().name("second signal".to_owned());
        let handle = tokio::runtime::Handle::current();
        let waiting = second.spawn(move || {
            handle.block_on(again.next());
            tracing::warn!("second signal: leaving at once");
            std::process::exit(i32::from(FAILED));
        });
        if let Err(error) = waiting {
            tracing::warn!(%error, "a second signal will not be noticed");
        }
    }
}
