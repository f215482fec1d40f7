//! `jackfield esl`: an API command of FreeSWITCH through the running host, over the connection that it has anyway.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use thiserror::Error;

use super::http::{Host, NoAnswer};
use super::{FAILED, Settings, WRONG_CONFIG, print_error};
use crate::config::duration;

/// The host gives up in time; this is for its words to arrive.
const MARGIN: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Esl {
    #[command(flatten)]
    settings: Settings,
    /// The command, as FreeSWITCH's console takes it; several words are joined with spaces.
    #[arg(required = true)]
    command: Vec<String>,
    /// Run it in the background, where it may take long, and wait for its end.
    #[arg(long)]
    background: bool,
    /// How long to wait for the answer, up to 10m.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = within)]
    timeout: Within,
    /// Answer in JSON: the command, whether it went well, and FreeSWITCH's answer.
    #[arg(long)]
    json: bool,
}

/// A duration as it was written, so that the host reads the same.
#[derive(Clone, Debug)]
struct Within {
    text: String,
    duration: Duration,
}

fn within(text: &str) -> Result<Within, String> {
    let duration = duration(text).ok_or("expected a duration such as 300ms, 5s or 1m30s")?;
    Ok(Within {
        text: text.to_owned(),
        duration,
    })
}

/// Why there is no answer of FreeSWITCH's.
#[derive(Debug, Error)]
enum Failure {
    #[error("the host answered {status}: {body}")]
    Refused { status: u16, body: String },
    #[error(transparent)]
    Host(#[from] NoAnswer),
}

impl Esl {
    pub(super) fn main(self) -> ExitCode {
        let host = match self.settings.clone().load() {
            Ok(config) => Host::of(&config),
            Err(code) => return code,
        };
        if !host.has_token() {
            eprintln!(
                "http.token: missing; a command goes through the running host, which asks for its token"
            );
            return ExitCode::from(WRONG_CONFIG);
        }
        let command = self.command.join(" ");
        match self.ask(&host, &command) {
            Ok(answer) => self.print(&command, &answer),
            Err(error) => {
                print_error(&error);
                ExitCode::from(FAILED)
            }
        }
    }

    fn ask(&self, host: &Host, command: &str) -> Result<String, Failure> {
        let mode = if self.background { "bgapi" } else { "api" };
        let path = format!("/esl?mode={mode}&timeout={}", self.timeout.text);
        let within = self.timeout.duration.saturating_add(MARGIN);
        let answer = host.post_within(&path, command, within)?;
        match answer.status.as_u16() {
            200 => Ok(answer.body),
            status => Err(Failure::Refused {
                status,
                body: answer.body.trim().to_owned(),
            }),
        }
    }

    fn print(&self, command: &str, answer: &str) -> ExitCode {
        let mut errors = ["-ERR", "-USAGE"].iter();
        let ok = !errors.any(|error| answer.starts_with(error));
        if self.json {
            let answer = json!({ "command": command, "ok": ok, "answer": answer });
            println!("{answer}");
        } else {
            // FreeSWITCH ends some answers with a newline and some without.
            println!("{}", answer.strip_suffix('\n').unwrap_or(answer));
        }
        match ok {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(FAILED),
        }
    }
}
