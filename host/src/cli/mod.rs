//! The command line: what a user types, and the exit code. The only place that prints.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong configuration or usage, 3 another host owns this router's name.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what talks to the terminal"
)]

mod check;
mod dead;
mod demo;
mod folder;
mod health;
mod journal;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, Sources};

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
    /// Run everything at once: a simulated FreeSWITCH, a private redis-server, the filters of this checkout, the host.
    #[command(
        after_help = "Examples:\n  jackfield demo\n  jackfield demo --events 5000\n  jackfield demo --rate 0 --events 100000\n  jackfield demo --stdout --events 20"
    )]
    Demo(demo::Demo),
}

/// Where settings come from beside the environment.
#[derive(Debug, Args)]
struct Settings {
    /// The configuration file [default: ./jackfield.toml if it is there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting, over the environment and the file; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

impl Settings {
    /// The configuration, or the exit code after every mistake was printed.
    fn load(self) -> Result<Config, ExitCode> {
        let sources = Sources {
            file: self.config,
            env: std::env::vars_os().collect(),
            flags: self.set,
        };
        config::load(sources).map_err(|mistakes| {
            eprintln!("{mistakes}");
            ExitCode::from(WRONG_CONFIG)
        })
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("expected KEY=VALUE, such as esl.host=127.0.0.1")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(run) => run.main(),
        Command::Check(check) => check.main(),
        Command::Health(health) => health.main(),
        Command::Dead(dead) => dead.main(),
        Command::Journal(journal) => journal.main(),
        Command::Demo(demo) => demo.main(),
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

/// A runtime for sockets, timers and HTTP; events are filtered on a thread of their own.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}
