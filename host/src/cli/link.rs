//! `jackfield reconnect` and `jackfield refresh`: what an operator asks of the links of a running host.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::http::Host;
use super::{FAILED, Settings, WRONG_CONFIG, print_error};

/// Longer than the host takes to say that it was in vain.
const WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(super) struct Reconnect {
    #[command(flatten)]
    settings: Settings,
    /// The link; all of them if none is named.
    #[arg(value_parser = ["esl", "commands", "redis"])]
    link: Option<String>,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Refresh {
    #[command(flatten)]
    settings: Settings,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl Reconnect {
    pub(super) fn main(self) -> ExitCode {
        let path = match &self.link {
            Some(link) => format!("/reconnect?link={link}"),
            None => "/reconnect".to_owned(),
        };
        ask(self.settings, &path, self.json, |links| {
            for (name, link) in links.as_object().into_iter().flatten() {
                let text = |key: &str| link.get(key).and_then(Value::as_str).unwrap_or_default();
                let error = match text("last_error") {
                    "" => String::new(),
                    error => format!(": {error}"),
                };
                println!("{name} {}{error}", text("state"));
            }
        })
    }
}

impl Refresh {
    pub(super) fn main(self) -> ExitCode {
        ask(self.settings, "/refresh", self.json, |answer| {
            let settings = answer.get("settings").unwrap_or(&Value::Null);
            let list = |key: &str| {
                let list = settings.get(key).and_then(Value::as_array);
                let words = list.into_iter().flatten().filter_map(Value::as_str);
                words.collect::<Vec<&str>>().join(", ")
            };
            for (key, what) in [
                ("now", "settings changed"),
                ("at_start", "settings that take effect at the next start"),
                ("mistakes", "settings refused"),
            ] {
                let list = list(key);
                if !list.is_empty() {
                    println!("{what}: {list}");
                }
            }
            let calls = answer.get("calls").unwrap_or(&Value::Null);
            let number = |key: &str| calls.get(key).and_then(Value::as_u64).unwrap_or_default();
            if calls.get("followed") != Some(&Value::Bool(true)) {
                println!("calls are not followed");
                return;
            }
            match calls.get("unknown").and_then(Value::as_str) {
                Some(why) => println!("calls unknown: {why}"),
                None => println!("calls alive: {}", number("alive")),
            }
            let (lost, found) = (number("lost"), number("found"));
            println!("missed since the start: {lost} lost, {found} found");
        })
    }
}

fn ask(settings: Settings, path: &str, json: bool, show: impl FnOnce(&Value)) -> ExitCode {
    let host = match settings.load() {
        Ok(config) => Host::of(&config),
        Err(code) => return code,
    };
    if !host.has_token() {
        eprintln!(
            "http.token: missing; what changes something needs the token of the running host"
        );
        return ExitCode::from(WRONG_CONFIG);
    }
    let answer = match host.post_within(path, "", WITHIN) {
        Ok(answer) => answer,
        Err(error) => {
            print_error(&error);
            return ExitCode::from(FAILED);
        }
    };
    match serde_json::from_str::<Value>(&answer.body) {
        Ok(_) if json => println!("{}", answer.body),
        Ok(value) => show(&value),
        Err(_) => eprintln!(
            "jackfield: the host answered {}: {}",
            answer.status.as_u16(),
            answer.body.trim()
        ),
    }
    match answer.status.is_success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILED),
    }
}
