//! What each command of the Event Socket protocol does and answers.
//!
//! Answers are those of the captures, spelling mistakes included. Writes nothing itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::api;
use super::command::Command;
use super::compose::Composed;
use super::connection::Connection;
use super::encode::Format;
use super::event::Value;
use super::job::Job;
use super::names::Mask;
use super::switch::Switch;

/// What goes to the client, and what happens after it was written.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    pub(super) then: Then,
}

#[derive(Debug)]
pub(super) enum Then {
    Go,
    /// Say goodbye and close.
    Part,
    Begin(Job),
}

/// The state of one client's conversation.
#[derive(Debug)]
pub(super) struct Session {
    switch: Arc<Switch>,
    connection: Arc<Connection>,
    is_logged_in: bool,
    is_logging: bool,
}

impl Session {
    pub(super) fn new(switch: Arc<Switch>, connection: Arc<Connection>) -> Session {
        Session {
            switch,
            connection,
            is_logged_in: false,
            is_logging: false,
        }
    }

    pub(super) async fn execute(&mut self, command: &Command) -> Answer {
        if command.line.first() == Some(&0) {
            return Answer {
                bytes: reply("-ERR command parse error."),
                then: Then::Part,
            };
        }
        let line = String::from_utf8_lossy(&command.line);
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let verb = verb.to_ascii_lowercase();
        if verb.starts_with("exit") {
            return Answer {
                bytes: reply("+OK bye"),
                then: Then::Part,
            };
        }
        if !self.is_logged_in {
            return self.log_in(&verb, rest.trim());
        }
        let words: Vec<&str> = rest.split(' ').filter(|word| !word.is_empty()).collect();
        match verb.as_str() {
            "api" if line.contains(' ') => {
                Answer::from(api::response(&api::call(&self.switch, rest).await))
            }
            "bgapi" if line.contains(' ') => self.accept_job(rest, command),
            "event" => Answer::from(self.subscribe(&words)),
            "nixevent" => Answer::from(reply(
                if self
                    .connection
                    .subscribe(|subscription, _| subscription.remove(&words))
                {
                    self.switch.changed.notify_waiters();
                    "+OK events nixed"
                } else {
                    "-ERR no keywords supplied"
                },
            )),
            "noevents" => Answer::from(reply(self.unsubscribe())),
            "filter" if !rest.is_empty() => Answer::from(reply(&self.filter(rest))),
            "sendevent" => Answer::from(self.send_event(rest.trim(), command)),
            "sendmsg" => Answer::from(reply(&format!("-ERR invalid session id [{}]", rest.trim()))),
            "log" => Answer::from(reply(&self.log(rest.trim()))),
            "nolog" => Answer::from(reply(if std::mem::take(&mut self.is_logging) {
                "+OK no longer logging"
            } else {
                "-ERR not loging"
            })),
            "linger" | "nolinger" => Answer::from(reply("-ERR not controlling a session")),
            "divert_events" => Answer::from(reply("-ERR not controlling a session.")),
            _ => Answer::from(reply("-ERR command not found")),
        }
    }

    fn log_in(&mut self, verb: &str, rest: &str) -> Answer {
        let accepted = match verb {
            "auth" if rest == self.switch.settings.password => "+OK accepted",
            "userauth" if self.knows_user(rest) => {
                "+OK accepted\nAllowed-Events: all\nAllowed-API: all\nAllowed-LOG: true"
            }
            "auth" | "userauth" => {
                return Answer {
                    bytes: reply("-ERR invalid"),
                    then: Then::Part,
                };
            }
            _ => return Answer::from(reply("-ERR command not found")),
        };
        self.is_logged_in = true;
        self.switch.logins.fetch_add(1, Ordering::Relaxed);
        Answer::from(reply(accepted))
    }

    /// `user@domain:password`, or without the domain.
    fn knows_user(&self, credentials: &str) -> bool {
        let Some((user, password)) = &self.switch.settings.user else {
            return false;
        };
        let Some((name, given)) = credentials.split_once(':') else {
            return false;
        };
        let without_domain = name.split_once('@').map_or(name, |(user, _)| user);
        given == password && (name == user || without_domain == user)
    }

    fn subscribe(&self, words: &[&str]) -> Vec<u8> {
        let (format, words) = match words.split_first() {
            Some((word, _)) if word.eq_ignore_ascii_case("xml") => {
                return reply("-ERR xml is not simulated");
            }
            Some((word, rest)) if word.eq_ignore_ascii_case("plain") => (Some(Format::Plain), rest),
            Some((word, rest)) if word.eq_ignore_ascii_case("json") => (Some(Format::Json), rest),
            _ => (None, words),
        };
        let enabled = self.connection.subscribe(|subscription, current| {
            // A format alone is refused, and yet it changes the connection's format.
            *current = format.unwrap_or(*current);
            subscription.add(words).then_some(*current)
        });
        let Some(format) = enabled else {
            return reply("-ERR no keywords supplied");
        };
        self.switch.changed.notify_waiters();
        reply(&format!("+OK event listener enabled {}", format.name()))
    }

    fn unsubscribe(&self) -> &'static str {
        let was_listening = self
            .connection
            .subscribe(|subscription, _| subscription.clear());
        self.connection.discard();
        self.switch.room.notify_waiters();
        self.switch.changed.notify_waiters();
        if was_listening {
            "+OK no longer listening for events"
        } else {
            "-ERR not listening for events"
        }
    }

    fn filter(&self, rest: &str) -> String {
        let (action, rest) = match rest.split_once(' ') {
            Some((action @ ("delete" | "add"), rest)) => (action, rest),
            _ => ("add", rest),
        };
        let (name, value) = match rest.split_once(' ') {
            Some((name, value)) => (name, Some(value.trim())),
            None => (rest.trim(), None),
        };
        self.connection
            .subscribe(|subscription, _| match (action, name, value) {
                ("delete", "all", None) => subscription.delete_filters(),
                ("delete", name, value) => subscription.delete_filter(name, value),
                (_, name, Some(value)) => subscription.add_filter(name, value),
                _ => {}
            });
        match (action, value) {
            ("delete", value) => format!(
                "+OK filter deleted. [{name}][{}]",
                value.unwrap_or_default()
            ),
            (_, Some(value)) => format!("+OK filter added. [{name}]=[{value}]"),
            _ => "-ERR invalid syntax".to_owned(),
        }
    }

    /// The sender's headers come before the core headers, so that forged ones are read first; the last ones are the true ones.
    fn send_event(&self, name: &str, command: &Command) -> Vec<u8> {
        let uuid = self.switch.uuid();
        let is_custom = Mask::named(name).is_none_or(|mask| mask == Mask::CUSTOM);
        let (mut before, mut own) = (Vec::new(), Vec::new());
        for (name, value) in &command.headers {
            let header = (name.clone(), Value::Text(value.clone()));
            if is_custom && name == b"Event-Subclass" && before.is_empty() {
                before.push(header);
            } else {
                own.push(header);
            }
        }
        let sent = format!("sendevent {name}");
        before.push((b"Command".to_vec(), Value::from(sent.trim_end())));
        before.append(&mut own);
        before.push((b"Event-UUID".to_vec(), Value::from(uuid.as_str())));
        self.switch.fire(Composed {
            name: name.to_ascii_uppercase(),
            before,
            caller: ["mod_event_socket.c", "parse_command", "2283"].map(str::to_owned),
            body: command.body.clone(),
            ..Composed::default()
        });
        reply(&format!("+OK {uuid}"))
    }

    fn log(&mut self, level: &str) -> String {
        const LEVELS: [&str; 8] = [
            "console", "alert", "crit", "err", "warning", "notice", "info", "debug",
        ];
        let number = match level {
            "" => Some(7),
            level => LEVELS
                .iter()
                .position(|name| name.eq_ignore_ascii_case(level))
                .or_else(|| level.parse().ok().filter(|number| *number < LEVELS.len())),
        };
        let Some(number) = number else {
            return "-ERR invalid log level".to_owned();
        };
        self.is_logging = true;
        format!("+OK log level {level} [{number}]")
    }

    fn accept_job(&self, rest: &str, command: &Command) -> Answer {
        let job = Job::new(rest, command, || self.switch.uuid());
        let uuid = job.uuid();
        Answer {
            bytes: reply(&format!("+OK Job-UUID: {uuid}\nJob-UUID: {uuid}")),
            then: Then::Begin(job),
        }
    }

    /// Runs an accepted job beside the conversation, and beyond its end.
    pub(super) fn begin_job(&self, then: Then) {
        if let Then::Begin(job) = then {
            job.begin(&self.switch);
        }
    }
}

impl From<Vec<u8>> for Answer {
    fn from(bytes: Vec<u8>) -> Answer {
        Answer {
            bytes,
            then: Then::Go,
        }
    }
}

fn reply(text: &str) -> Vec<u8> {
    format!("Content-Type: command/reply\nReply-Text: {text}\n\n").into_bytes()
}

/// The frame that announces the end of a connection.
pub(super) fn notice(text: &str) -> Vec<u8> {
    format!(
        "Content-Type: text/disconnect-notice\nContent-Length: {}\n\n{text}",
        text.len()
    )
    .into_bytes()
}
