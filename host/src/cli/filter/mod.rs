//! `jackfield filter`: what someone who writes a filter needs, from an empty folder to a component that a host takes.
//!
//! A filter is a crate like any other: `build` and `test` call cargo and add what a host would find. In reading order: `new`
//! writes a crate, `package` builds one, `build` and `test` use that, `check` looks at components, `traffic` is what happened
//! before, on which `bench` measures a filter and `replay` tries it.

mod bench;
mod build;
mod check;
mod facts;
mod new;
mod package;
mod replay;
mod test;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use thiserror::Error;

use super::{FAILED, Settings, WRONG_CONFIG, print_error};
use crate::config::FilterLimits;
use crate::filter::Engine;

#[derive(Debug, Args)]
pub(super) struct Filter {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a new filter: a crate with settings, tests and golden cases that builds anywhere.
    #[command(
        after_help = "Examples:\n  jackfield filter new tag\n  jackfield filter new tag --into ~/filters"
    )]
    New(new::New),
    /// Build a filter's crate, check the component with its golden cases, and put it where it is to be.
    #[command(
        after_help = "Examples:\n  jackfield filter build\n  jackfield filter build --output /etc/jackfield/filters.d/10-tag.wasm\n  jackfield filter build --manifest-path ~/filters/tag --json"
    )]
    Build(build::Build),
    /// Say of components whether a host takes them, and what they are; exits 1 if one is refused.
    #[command(
        after_help = "Examples:\n  jackfield filter check target/tag.wasm\n  jackfield filter check target/tag.wasm --settings filters.d/10-tag.toml\n  jackfield filter check filters.d/*.wasm --json"
    )]
    Check(check::Check),
    /// Run a filter's golden cases in the real engine; exits 1 if one fails.
    #[command(
        after_help = "Examples:\n  jackfield filter test\n  jackfield filter test --update\n  jackfield filter test filters.d/10-tag.wasm --json"
    )]
    Test(test::Test),
    /// Measure what a call of a filter costs, beside an empty filter.
    #[command(
        after_help = "Examples:\n  jackfield filter bench target/tag.wasm\n  jackfield filter bench target/tag.wasm --journal data/journal --json"
    )]
    Bench(bench::Bench),
    /// Try a filter on past traffic, and say what it does otherwise than was done.
    #[command(
        after_help = "Examples:\n  jackfield filter replay target/tag.wasm --as 10-tag --journal data/journal\n  jackfield filter replay target/tag.wasm --capture events.esl --json"
    )]
    Replay(replay::Replay),
}

impl Filter {
    pub(super) fn main(self) -> ExitCode {
        let done = match self.command {
            Command::New(new) => new.run(),
            Command::Build(build) => build.run(),
            Command::Check(check) => check.run(),
            Command::Test(test) => test.run(),
            Command::Bench(bench) => bench.run(),
            Command::Replay(replay) => replay.run(),
        };
        done.unwrap_or_else(|code| code)
    }
}

/// What filters may do where their own settings say nothing: as a host that was started here would have it.
fn limits_here() -> Result<FilterLimits, ExitCode> {
    let here = Settings {
        config: None,
        set: Vec::new(),
    };
    Ok(here.load()?.filters.limits)
}

/// A settings file that was named and is not there.
#[derive(Debug, Error)]
#[error("--settings {}: no such file", .0.display())]
struct NoSettings(PathBuf);

/// The settings file that was named, or NAME.toml beside NAME.wasm, if it is there.
fn settings_file(named: Option<&Path>, component: &Path) -> Result<PathBuf, ExitCode> {
    match named {
        Some(named) if !named.exists() => Err(misused(&NoSettings(named.to_owned()))),
        Some(named) => Ok(named.to_owned()),
        None => Ok(component.with_extension("toml")),
    }
}

fn engine() -> Result<Engine, ExitCode> {
    Engine::new().map_err(|error| failed(&error))
}

/// Exit code 1, after it was said what failed.
fn failed(error: &dyn std::error::Error) -> ExitCode {
    print_error(error);
    ExitCode::from(FAILED)
}

/// Exit code 2, after it was said what is wrong.
fn misused(error: &dyn std::error::Error) -> ExitCode {
    print_error(error);
    ExitCode::from(WRONG_CONFIG)
}
