//! A `bgapi` command: accepted at once, run beside the conversation, told about in a BACKGROUND_JOB event.

use std::sync::Arc;

use super::api;
use super::command::Command;
use super::compose::Composed;
use super::event::Value;
use super::switch::{Switch, lock};

/// A `bgapi` command that was accepted.
#[derive(Debug)]
pub(super) struct Job {
    uuid: String,
    command: String,
    argument: String,
}

impl Job {
    /// The job of a `bgapi` command; the caller may have given its UUID in a header.
    pub(super) fn new(line: &str, command: &Command, uuid: impl FnOnce() -> String) -> Job {
        let mut headers = command.headers.iter();
        let given = headers.find(|(name, _)| name.eq_ignore_ascii_case(b"Job-UUID"));
        let given = given.map(|(_, uuid)| String::from_utf8_lossy(uuid).into_owned());
        let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
        Job {
            uuid: given.unwrap_or_else(uuid),
            command: command.to_owned(),
            argument: argument.to_owned(),
        }
    }

    pub(super) fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Runs it as long as this life of the switch lasts, whatever becomes of the connection that it came over.
    pub(super) fn begin(self, switch: &Arc<Switch>) {
        let mut jobs = lock(&switch.jobs);
        while let Some(ended) = jobs.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a background job of the simulator failed");
            }
        }
        let switch = Arc::clone(switch);
        jobs.spawn(async move { self.run(&switch).await });
    }

    /// Runs the command and fires the event.
    async fn run(self, switch: &Switch) {
        let line = format!("{} {}", self.command, self.argument);
        let body = api::call(switch, line.trim_end()).await;
        let mut after = vec![
            (b"Job-UUID".to_vec(), Value::from(self.uuid)),
            (b"Job-Command".to_vec(), Value::from(self.command)),
        ];
        if !self.argument.is_empty() {
            after.push((b"Job-Command-Arg".to_vec(), Value::from(self.argument)));
        }
        switch.fire(Composed {
            name: "BACKGROUND_JOB".to_owned(),
            after,
            caller: ["mod_event_socket.c", "api_exec", "1580"].map(str::to_owned),
            body,
            ..Composed::default()
        });
    }
}
