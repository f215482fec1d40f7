//! The command line: what a user types, and the exit code. The only place that prints.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong configuration or usage, 3 another host owns this router's name.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what talks to the terminal"
)]

mod check;
mod compile_filter;
mod dead;
mod demo;
mod esl;
mod filter;
mod folder;
mod health;
mod http;
mod journal;
mod link;
mod run;
mod simulate;
mod status;
mod tail;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, Mistakes, Sources};
use crate::settings::Reading;

const FAILED: u8 = 1;
const WRONG_CONFIG: u8 = 2;
/// Another host has this router's name.
const OWNED: u8 = 3;

/// Routes FreeSWITCH events through WebAssembly filters into Redis Streams.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong configuration or usage, 3 another host owns this router's name."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the router until SIGTERM or SIGINT.
    #[command(
        after_help = "Examples:\n  jackfield run\n  jackfield run --config /etc/jackfield.toml --set esl.host=10.0.0.5\n  jackfield run --stdout"
    )]
    Run(run::Run),
    /// Check the configuration and the filters, without connecting to anything.
    #[command(
        after_help = "Examples:\n  jackfield check\n  jackfield check --config staging.toml --json"
    )]
    Check(check::Check),
    /// Ask a running host whether it is healthy; exits 0 if it is, 1 if not (for containers).
    #[command(after_help = "Example:\n  jackfield health")]
    Health(health::Health),
    /// Show a running host on one screen: alarms, stages, links, filters, streams, accounts.
    #[command(
        after_help = "Examples:\n  jackfield status\n  jackfield status --watch\n  jackfield status --json | jq .alarms"
    )]
    Status(status::Status),
    /// Have a running host make a connection anew, at once. Needs http.token.
    #[command(after_help = "Examples:\n  jackfield reconnect\n  jackfield reconnect redis --json")]
    Reconnect(link::Reconnect),
    /// Have a running host read its settings again and ask FreeSWITCH which calls are alive. Needs http.token.
    #[command(after_help = "Examples:\n  jackfield refresh\n  jackfield refresh --json")]
    Refresh(link::Refresh),
    /// Write, build, check, test and measure filters, and try them on past traffic.
    #[command(
        after_help = "Examples:\n  jackfield filter new tag\n  jackfield filter build --output filters.d/10-tag.wasm\n  jackfield filter check filters.d/*.wasm\n  jackfield filter test\n  jackfield filter replay target/tag.wasm --as 10-tag --journal data/journal"
    )]
    Filter(filter::Filter),
    /// List, show and replay the events that could not be handled.
    #[command(
        after_help = "Examples:\n  jackfield dead list\n  jackfield dead show local:3\n  jackfield dead replay --all"
    )]
    Dead(dead::Dead),
    /// List, export and verify the journal, also that of a running host.
    #[command(
        after_help = "Examples:\n  jackfield journal ls\n  jackfield journal export --json\n  jackfield journal verify"
    )]
    Journal(journal::Journal),
    /// Say what became of an event and which filter did it, from the journal.
    #[command(
        after_help = "Examples:\n  jackfield why 1099511627780\n  jackfield why 8a5a4d1e-7a35-4c1c-a5c4-5b1f6a3f8c2d --from 2026-11-27T15:00:00Z\n  jackfield why 1099511627780 /var/lib/jackfield/journal --json"
    )]
    Why(why::Why),
    /// Run an API command of FreeSWITCH through the running host, and print the answer.
    #[command(
        after_help = "The host runs what esl.allow names, and asks for http.token. Exits 1 where FreeSWITCH answers -ERR or -USAGE.\n\nExamples:\n  jackfield esl status\n  jackfield esl \"show channels as json\" --timeout 30s\n  jackfield esl --background \"originate user/1000 &echo\" --timeout 1m"
    )]
    Esl(esl::Esl),
    /// Follow what becomes of events while it happens.
    #[command(
        after_help = "Examples:\n  jackfield tail\n  jackfield tail --event CHANNEL_ANSWER --event 'CUSTOM sofia::*'\n  jackfield tail --header 'Caller-Destination-Number:49*' --json --limit 10\n  jackfield tail --since 1099511627780 --timeout 30s\n  jackfield tail --decisions"
    )]
    Tail(tail::Tail),
    /// Run everything at once: a simulated FreeSWITCH, a private redis-server, the filters of this checkout, the host.
    #[command(
        after_help = "Examples:\n  jackfield demo\n  jackfield demo --events 5000\n  jackfield demo --rate 0 --events 100000\n  jackfield demo --stdout --events 20"
    )]
    Demo(demo::Demo),
    /// Serve a simulated FreeSWITCH alone, which places calls until SIGTERM or SIGINT.
    #[command(
        after_help = "Examples:\n  jackfield simulate\n  jackfield simulate --listen 127.0.0.1:8022 --rate 1000 --calls 50"
    )]
    Simulate(simulate::Simulate),
    /// What the host runs to compile a filter apart.
    #[command(hide = true)]
    CompileFilter(compile_filter::CompileFilter),
}

/// Where settings come from beside the environment.
#[derive(Clone, Debug, Args)]
struct Settings {
    /// The configuration file [default: ./jackfield.toml if it is there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting, over the environment and the file; may be repeated.
    // Split by hand: what clap cannot read it prints, and this may be a secret.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Settings {
    /// The configuration, or the exit code after every mistake was printed.
    fn load(self) -> Result<Config, ExitCode> {
        or_mistakes(config::load(self.sources()?))
    }

    /// The same for a host, which reads them again.
    fn read(self) -> Result<Reading, ExitCode> {
        or_mistakes(Reading::first(self.sources()?))
    }

    fn sources(self) -> Result<Sources, ExitCode> {
        let pair = |text: &String| {
            let (key, value) = text.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        };
        let flags: Option<Vec<_>> = self.set.iter().map(pair).collect();
        let Some(flags) = flags else {
            eprintln!("--set: allowed is KEY=VALUE, such as esl.host=127.0.0.1");
            return Err(ExitCode::from(WRONG_CONFIG));
        };
        Ok(Sources {
            file: self.config,
            env: std::env::vars_os().collect(),
            flags,
        })
    }
}

fn or_mistakes<T>(read: Result<T, Mistakes>) -> Result<T, ExitCode> {
    read.map_err(|mistakes| {
        eprintln!("{mistakes}");
        ExitCode::from(WRONG_CONFIG)
    })
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(run) => run.main(),
        Command::Check(check) => check.main(),
        Command::Health(health) => health.main(),
        Command::Status(status) => status.main(),
        Command::Reconnect(reconnect) => reconnect.main(),
        Command::Refresh(refresh) => refresh.main(),
        Command::Filter(filter) => filter.main(),
        Command::Dead(dead) => dead.main(),
        Command::Journal(journal) => journal.main(),
        Command::Why(why) => why.main(),
        Command::Esl(esl) => esl.main(),
        Command::Tail(tail) => tail.main(),
        Command::Demo(demo) => demo.main(),
        Command::Simulate(simulate) => simulate.main(),
        Command::CompileFilter(compile) => compile.main(),
    }
}

/// An error with its causes, on one line of standard error.
fn print_error(error: &dyn std::error::Error) {
    let mut line = format!("jackfield: {error}");
    let mut cause = error.source();
    while let Some(source) = cause {
        line.push_str(&format!(": {source}"));
        cause = source.source();
    }
    eprintln!("{line}");
}

/// A runtime for the command itself: signals, timers, the simulated FreeSWITCH. What moves events has threads of its own.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

/// What a terminal would obey is escaped: events carry what strangers sent.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_terminal_obeys_nothing_that_an_event_carries() {
        assert_eq!(printable("a\u{1b}[2J\nb\u{9b}ü"), "a\\u{1b}[2J\\nb\\u{9b}ü");
    }
}
