//! `jackfield health`: `/health` of a running host as an exit code.

use std::process::ExitCode;

use clap::Args;

use super::http::Host;
use super::{FAILED, Settings, print_error};
use crate::config::{self, Secret};

#[derive(Debug, Args)]
pub(super) struct Health {
    #[command(flatten)]
    settings: Settings,
}

impl Health {
    pub(super) fn main(self) -> ExitCode {
        // A mistake in the settings is no matter of a host that runs with those before it.
        let host = match self.settings.sources() {
            Ok(sources) => Host::at(config::http_listen(sources), Secret::default()),
            Err(code) => return code,
        };
        match host.get("/health") {
            Ok(answer) => {
                println!("{}", answer.body);
                match answer.status.is_success() {
                    true => ExitCode::SUCCESS,
                    false => ExitCode::from(FAILED),
                }
            }
            Err(error) => {
                print_error(&error);
                ExitCode::from(FAILED)
            }
        }
    }
}
