//! Which settings differ between two readings, and which of them a running host takes over.
//!
//! Pure. `docs/settings.md` says the same of every key; a test holds it against this table.

use super::types::{Config, Identity};

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// In the running host.
    Now,
    /// At the next start: it says who the host is or where something is, and the rest is built on it.
    AtStart,
}

/// A key, or a table for all its keys that are not listed; when it takes effect; whether two readings differ in it.
pub(super) type Setting = (&'static str, Takes, fn(&Config, &Config) -> bool);

/// Every setting.
pub(super) const SETTINGS: &[Setting] = {
    use Takes::{AtStart, Now};
    &[
        ("router.name", AtStart, |a, b| a.router != b.router),
        ("esl.host", AtStart, |a, b| a.esl.host != b.esl.host),
        ("esl.port", AtStart, |a, b| a.esl.port != b.esl.port),
        ("esl.password", AtStart, |a, b| {
            a.esl.password != b.esl.password
        }),
        ("esl.user", AtStart, |a, b| a.esl.user != b.esl.user),
        ("esl.allow", Now, |a, b| a.esl.allow != b.esl.allow),
        ("esl.events", Now, |a, b| a.esl.events != b.esl.events),
        ("esl.format", AtStart, |a, b| a.esl.format != b.esl.format),
        ("esl.backoff", AtStart, |a, b| {
            a.esl.backoff != b.esl.backoff
        }),
        ("esl.timeout", AtStart, |a, b| {
            a.esl.timeout != b.esl.timeout
        }),
        ("esl.alarm_after", AtStart, |a, b| {
            a.esl.alarm_after != b.esl.alarm_after
        }),
        ("journal.dir", AtStart, |a, b| {
            a.journal.dir != b.journal.dir
        }),
        ("journal.max_size", AtStart, |a, b| {
            a.journal.max_size != b.journal.max_size
        }),
        ("journal.retain", AtStart, |a, b| {
            a.journal.retain != b.journal.retain
        }),
        ("journal.sync", AtStart, |a, b| {
            a.journal.sync != b.journal.sync
        }),
        ("buffer.events", AtStart, |a, b| a.buffer != b.buffer),
        ("redis.url", AtStart, |a, b| url(a) != url(b)),
        ("redis.user", AtStart, |a, b| a.redis.user != b.redis.user),
        ("redis.password", AtStart, |a, b| {
            a.redis.password != b.redis.password
        }),
        ("redis.ca", AtStart, |a, b| ca(a) != ca(b)),
        ("redis.cert", AtStart, |a, b| {
            identity(a).map(|it| &it.cert) != identity(b).map(|it| &it.cert)
        }),
        ("redis.key", AtStart, |a, b| {
            identity(a).map(|it| &it.key) != identity(b).map(|it| &it.key)
        }),
        ("redis.connect_timeout", AtStart, |a, b| {
            a.redis.connect_timeout != b.redis.connect_timeout
        }),
        ("redis.timeout", AtStart, |a, b| {
            a.redis.timeout != b.redis.timeout
        }),
        ("redis.trim_interval", AtStart, |a, b| {
            a.trim_interval != b.trim_interval
        }),
        ("stream", Now, |a, b| {
            a.streams != b.streams || a.routes != b.routes
        }),
        ("dead_letter", Now, |a, b| a.dead_letter != b.dead_letter),
        ("filters.dir", AtStart, |a, b| {
            a.filters.dir != b.filters.dir
        }),
        ("filters", Now, |a, b| a.filters.limits != b.filters.limits),
        ("http.listen", AtStart, |a, b| {
            a.http.listen != b.http.listen
        }),
        ("http.token", AtStart, |a, b| a.http.token != b.http.token),
        ("log", Now, |a, b| a.log != b.log),
        ("limits", Now, |a, b| a.limits != b.limits),
    ]
};

/// What only `redis.url` says.
fn url(config: &Config) -> (&str, u16, u32, bool) {
    let redis = &config.redis;
    (&redis.host, redis.port, redis.db, redis.tls.is_some())
}

fn ca(config: &Config) -> Option<&String> {
    config.redis.tls.as_ref()?.ca.as_ref()
}

fn identity(config: &Config) -> Option<&Identity> {
    config.redis.tls.as_ref()?.identity.as_ref()
}

/// What a new reading changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Taken over by the running host.
    pub now: Vec<&'static str>,
    /// Where the host goes on as it started.
    pub at_start: Vec<&'static str>,
}

/// What differs in `new`: from `before`, what the host takes over; from `started`, what it goes on without.
pub fn changes(started: &Config, before: &Config, new: &Config) -> Changes {
    let keys = |takes: Takes, old: &Config| {
        let differing = SETTINGS
            .iter()
            .filter(|(_, when, differs)| *when == takes && differs(old, new));
        differing.map(|(key, _, _)| *key).collect()
    };
    Changes {
        now: keys(Takes::Now, before),
        at_start: keys(Takes::AtStart, started),
    }
}

#[cfg(test)]
mod tests {
    use super::{Changes, changes};
    use crate::config::tests::Situation;

    /// What a host does that started with `started`, runs with `before`, and reads `new`.
    #[track_caller]
    fn check([started, before, new]: [&str; 3], now: &[&'static str], at_start: &[&'static str]) {
        let config = |text: &str| Situation::file(text).config();
        let found = changes(&config(started), &config(before), &config(new));
        let expected = Changes {
            now: now.to_vec(),
            at_start: at_start.to_vec(),
        };
        assert_eq!(found, expected, "{started:?} → {before:?} → {new:?}");
    }

    #[test]
    fn what_a_host_takes_over_is_told_from_what_waits_for_its_next_start() {
        let debug = "[log]\nlevel = \"debug\"\n";
        let elsewhere = "[redis]\nurl = \"redis://10.0.0.1\"\ntimeout = \"1s\"\n";
        let both = format!("{debug}{elsewhere}");
        check(["", "", ""], &[], &[]);
        check(["", "", debug], &["log"], &[]);
        check(["", debug, debug], &[], &[]);
        let waiting = ["redis.url", "redis.timeout"];
        check(["", "", &both], &["log"], &waiting);
        check(["", &both, &both], &[], &waiting);
        check(["", &both, debug], &[], &[]);
        check([elsewhere, elsewhere, ""], &[], &waiting);
    }

    #[test]
    fn a_rule_or_a_limit_of_a_stream_is_a_change_of_the_streams() {
        let stream = "[[stream]]\nname = \"a\"\nevents = [\"DTMF\"]\n";
        let longer = format!("{stream}max_len = 5\n");
        let other = stream.replace("DTMF", "CODEC");
        check([stream, stream, &longer], &["stream"], &[]);
        check([stream, stream, &other], &["stream"], &[]);
        // The journal keeps events as long as the longest of its streams, unless it is told otherwise.
        let old = format!("{stream}expire = \"1h\"\n");
        check([stream, stream, &old], &["stream"], &["journal.retain"]);
    }
}
