//! `jackfield status`: a running host on one screen, once or again and again.
//!
//! Rates and shares are differences of two answers of `/status`, so even once takes a second.

mod screen;
mod table;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::http::Host;
use super::{FAILED, print_error};
use crate::config::duration;

/// Between two answers where nobody watches.
const ONCE: Duration = Duration::from_secs(1);
/// Clears the terminal and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    settings: super::Settings,
    /// Show it again and again, every second or so often, such as 500ms or 5s.
    #[arg(long, value_name = "EVERY", num_args = 0..=1, default_missing_value = "1s", value_parser = every)]
    watch: Option<Duration>,
    /// Print what `/status` answers, a line each time.
    #[arg(long)]
    json: bool,
}

/// What `/status` answered, and when.
struct Read {
    at: Instant,
    status: Value,
}

fn every(text: &str) -> Result<Duration, String> {
    let every = duration(text).filter(|every| *every >= Duration::from_millis(100));
    every.ok_or_else(|| "allowed is a duration from 100ms on, such as 500ms or 5s".to_owned())
}

impl Status {
    pub(super) fn main(self) -> ExitCode {
        let config = match self.settings.load() {
            Ok(config) => config,
            Err(code) => return code,
        };
        let host = Host::of(&config);
        let pause = self.watch.unwrap_or(ONCE);
        let mut before: Option<Read> = None;
        loop {
            let shown = match (read(&host), &before) {
                // A host that does not answer now may do so later.
                (Err(code), _) if self.watch.is_none() => return code,
                (Err(_), _) => {
                    before = None;
                    true
                }
                (Ok(now), _) if self.json => print(&format!("{}\n", now.status)),
                (Ok(now), None) => {
                    before = Some(now);
                    std::thread::sleep(pause);
                    continue;
                }
                (Ok(now), Some(then)) => {
                    let text = screen::screen(&then.status, &now.status, now.at - then.at);
                    before = Some(now);
                    match self.watch.is_some() && std::io::stdout().is_terminal() {
                        true => print(&format!("{CLEAR}{text}")),
                        false => print(&text),
                    }
                }
            };
            if self.watch.is_none() || !shown {
                return ExitCode::SUCCESS;
            }
            std::thread::sleep(pause);
        }
    }
}

fn read(host: &Host) -> Result<Read, ExitCode> {
    let failed = ExitCode::from(FAILED);
    let answer = host.get("/status").map_err(|error| {
        print_error(&error);
        failed
    })?;
    let at = Instant::now();
    match serde_json::from_str(&answer.body) {
        Ok(status) if answer.status.is_success() => Ok(Read { at, status }),
        _ => {
            eprintln!(
                "jackfield: the host answered {}: {}",
                answer.status.as_u16(),
                answer.body.trim()
            );
            Err(failed)
        }
    }
}

/// False if nobody reads any more.
fn print(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}
