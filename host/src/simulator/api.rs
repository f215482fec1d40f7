//! The API commands that a client is likely to use, with the answers of the real switch.
//!
//! A real one has hundreds; every other command is answered as unknown.

use std::time::Duration;

use super::compose::Composed;
use super::event::Value;
use super::switch::{HOSTNAME, Switch, Vitals};

const VERSION: &str = "1.11.2-release";
pub(super) const FULL_VERSION: &str = "1.11.2-release~64bit";
/// The longest `msleep`, so that a mistake cannot hold a test for hours.
const MAX_SLEEP_MS: u64 = 60_000;

/// The frame of an API command's answer.
pub(super) fn response(body: &[u8]) -> Vec<u8> {
    let body = if body.is_empty() {
        b"-ERR no reply\n"
    } else {
        body
    };
    let head = format!(
        "Content-Type: api/response\nContent-Length: {}\n\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Runs a command. Its API event is numbered before and fired after it, as by the real switch.
pub(super) async fn call(switch: &Switch, line: &str) -> Vec<u8> {
    let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
    let number = switch.reserve();
    let Some(body) = run(switch, &command.to_ascii_lowercase(), argument).await else {
        return format!("-ERR {command} Command not found!\n").into_bytes();
    };
    let mut after = vec![(b"API-Command".to_vec(), Value::from(command))];
    if !argument.is_empty() {
        after.push((b"API-Command-Argument".to_vec(), Value::from(argument)));
    }
    let event = Composed {
        name: "API".to_owned(),
        after,
        caller: ["switch_loadable_module.c", "switch_api_execute", "3140"].map(str::to_owned),
        ..Composed::default()
    };
    switch.fire_reserved(event, &number);
    body
}

async fn run(switch: &Switch, command: &str, argument: &str) -> Option<Vec<u8>> {
    if !switch.settings.has_commands {
        return None;
    }
    let text = match (command, argument) {
        ("version", "short") => format!("{VERSION}\n"),
        ("version", _) => format!("FreeSWITCH Version {FULL_VERSION} ( 64bit)\n"),
        ("status", _) => status(switch.vitals()),
        ("switchname", _) => switch.settings.switchname.clone(),
        ("hostname", _) => HOSTNAME.to_owned(),
        ("echo", text) => text.to_owned(),
        ("create_uuid", _) => switch.uuid(),
        ("strepoch", "") => (switch.vitals().now_us / 1_000_000).to_string(),
        ("global_getvar", "hostname") => HOSTNAME.to_owned(),
        ("global_getvar", "core_uuid") => switch.core_uuid(),
        ("global_getvar", _) => String::new(),
        ("uuid_exists", uuid) => switch.has_channel(uuid).to_string(),
        ("show", "channels as json") => return Some(switch.channels_as_json()),
        ("show", "channels count") => format!("\n{} total.\n", switch.vitals().channels),
        ("show", _) => "-USAGE: channels as json|channels count\n".to_owned(),
        ("reloadxml", _) => "+OK [Success]\n".to_owned(),
        ("msleep", millis) => {
            let millis: u64 = millis.trim().parse().unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(millis.min(MAX_SLEEP_MS))).await;
            "+OK".to_owned()
        }
        _ => return None,
    };
    Some(text.into_bytes())
}

fn status(vitals: Vitals) -> String {
    let Vitals {
        channels, sessions, ..
    } = vitals;
    format!(
        "UP {}\nFreeSWITCH (Version {VERSION}  64bit) is ready\n{sessions} session(s) since startup\n\
         {channels} session(s) - peak {channels}, last 5min {channels} \n0 session(s) per Sec out of max 1000, peak 0, last 5min 0 \n\
         5000 session(s) max\nmin idle cpu 0.00/90.00\nCurrent Stack Size/Max 240K/8192K\n",
        uptime(vitals.uptime_us)
    )
}

/// `0 years, 0 days, 0 hours, 4 minutes, 39 seconds, 442 milliseconds, 285 microseconds`, with `1 minute` in the singular.
pub(super) fn uptime(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    let parts = [
        (seconds / 31_536_000, "year"),
        (seconds / 86_400 % 365, "day"),
        (seconds / 3_600 % 24, "hour"),
        (seconds / 60 % 60, "minute"),
        (seconds % 60, "second"),
        (micros / 1_000 % 1_000, "millisecond"),
        (micros % 1_000, "microsecond"),
    ];
    let parts =
        parts.map(|(count, unit)| format!("{count} {unit}{}", if count == 1 { "" } else { "s" }));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::{response, uptime};

    #[test]
    fn up_times_read_as_captured() {
        assert_eq!(
            uptime(279_442_285),
            "0 years, 0 days, 0 hours, 4 minutes, 39 seconds, 442 milliseconds, 285 microseconds"
        );
        assert!(
            uptime(90_055_008).contains(" 1 minute, 30 seconds, 55 milliseconds, 8 microseconds")
        );
    }

    #[test]
    fn an_empty_answer_is_an_error_text() {
        assert_eq!(
            response(b""),
            b"Content-Type: api/response\nContent-Length: 14\n\n-ERR no reply\n"
        );
    }
}
