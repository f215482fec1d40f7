//! How a value is written: one [`Syntax`] per type, each with the words that tell a user what is allowed.
//!
//! Pure: text in, value or nothing out. Durations are Go's (`300ms`, `1h30m`), because the variables of Telephony
//! Event Sync use them; sizes are bytes with a binary unit.

use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use super::tls::BEGIN;
use super::types::{
    EventPattern, Format, Level, LogFormat, OnError, Secret, StreamFormat, Sync, Wasi,
};
use crate::event::{has_subclass, is_name};

/// The longest duration that Go's syntax can say: its durations are signed 64-bit counts of nanoseconds.
const MAX_NANOS: u128 = i64::MAX as u128;
/// One page of linear memory: a filter cannot have less.
const MIN_MEMORY: u64 = 64 << 10;
/// All that a 32-bit component can address.
const MAX_MEMORY: u64 = 4 << 30;
/// Eight segments of 2 MiB: with much less, the one that goes at the limit would be much of what is held.
const MIN_JOURNAL: u64 = 16 << 20;
/// All that Redis can count.
const MAX_COUNT: u64 = i64::MAX as u64;
/// A bound on what one typing error can make the host reserve.
const MAX_BUFFER: usize = 10_000_000;

/// How a value of one type is written.
pub(super) struct Syntax<T> {
    /// What a user may write, to follow "allowed is".
    pub(super) allowed: &'static str,
    /// The value of a text, if it has one.
    pub(super) parse: fn(&str) -> Option<T>,
    /// What of a text may be shown, where it can hold a secret.
    pub(super) mask: Option<fn(&str) -> String>,
}

impl<T> Syntax<T> {
    const fn new(allowed: &'static str, parse: fn(&str) -> Option<T>) -> Self {
        Self {
            allowed,
            parse,
            mask: None,
        }
    }

    const fn masked(mut self, mask: fn(&str) -> String) -> Self {
        self.mask = Some(mask);
        self
    }
}

pub(super) const PORT: Syntax<u16> = Syntax::new("a port from 1 to 65535", |text| {
    text.parse().ok().map(NonZeroU16::get)
});
pub(super) const HOST: Syntax<String> =
    Syntax::new("a host name or an address, without a port", |text| {
        is_host(text).then(|| text.to_owned())
    });
pub(super) const LISTEN: Syntax<SocketAddr> = Syntax::new(
    "an address and a port such as 127.0.0.1:9876 or [::1]:9876",
    |text| text.parse().ok(),
);
pub(super) const DURATION: Syntax<Duration> =
    Syntax::new("a duration such as 300ms, 5s or 1h30m", duration);
pub(super) const POSITIVE_DURATION: Syntax<Duration> =
    Syntax::new("a duration above zero such as 300ms, 5s or 1h30m", |text| {
        duration(text).filter(|d| !d.is_zero())
    });
pub(super) const MEMORY: Syntax<u64> =
    Syntax::new("a size from 64KiB to 4GiB such as 16MiB", |text| {
        size(text).filter(|bytes| (MIN_MEMORY..=MAX_MEMORY).contains(bytes))
    });
pub(super) const JOURNAL_SIZE: Syntax<u64> =
    Syntax::new("a size of at least 16MiB such as 4GiB", |text| {
        size(text).filter(|bytes| *bytes >= MIN_JOURNAL)
    });
pub(super) const SYNC: Syntax<Sync> = Syntax::new("interval, batch or never", |text| match text {
    "interval" => Some(Sync::Interval),
    "batch" => Some(Sync::Batch),
    "never" => Some(Sync::Never),
    _ => None,
});
pub(super) const COUNT: Syntax<u64> = Syntax::new("a whole number, 0 for no limit", |text| {
    text.parse().ok().filter(|n| *n <= MAX_COUNT)
});
pub(super) const ATTEMPTS: Syntax<u32> = Syntax::new("a whole number of at least 1", |text| {
    text.parse().ok().filter(|n| *n > 0)
});
pub(super) const BUFFERED: Syntax<usize> =
    Syntax::new("a whole number from 1 to 10000000", |text| {
        text.parse().ok().filter(|n| (1..=MAX_BUFFER).contains(n))
    });
pub(super) const ROUTER_NAME: Syntax<String> =
    Syntax::new("a name without spaces and control characters", |text| {
        (!text.contains(|c: char| c.is_whitespace() || c.is_control())).then(|| text.to_owned())
    });
pub(super) const STREAM_NAME: Syntax<String> =
    Syntax::new("a name, not empty and without control characters", |text| {
        is_key(text).then(|| text.to_owned())
    });
pub(super) const STREAM_PATTERN: Syntax<String> = Syntax::new(
    "stream names, each with at most one * and that at its end",
    |text| {
        let name = text.strip_suffix('*').unwrap_or(text);
        (is_key(text) && !name.contains('*')).then(|| text.to_owned())
    },
);
pub(super) const DIR: Syntax<PathBuf> = Syntax::new("the path of a folder", |text| {
    (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
});
pub(super) const EVENT: Syntax<EventPattern> = Syntax::new(
    "event names in capitals such as CHANNEL_ANSWER or CUSTOM sofia::register, and not ALL",
    event_pattern,
);
/// An event name, or nothing for `auto`.
pub(super) const EVENT_OR_AUTO: Syntax<Option<EventPattern>> = Syntax::new(
    "auto, or event names in capitals such as CHANNEL_ANSWER or CUSTOM sofia::register, and not ALL",
    |text| match text {
        "auto" => Some(None),
        _ => event_pattern(text).map(Some),
    },
);
pub(super) const ESL_USER: Syntax<String> =
    Syntax::new("a user name without colons and line breaks", |text| {
        (!text.contains([':', '\r', '\n', '\0'])).then(|| text.to_owned())
    });
pub(super) const VERB: Syntax<String> = Syntax::new(
    "names of API commands such as status or uuid_kill, and not *",
    |text| {
        let is_name = |c: char| !c.is_whitespace() && !c.is_control() && c != '*';
        (!text.is_empty() && text.chars().all(is_name)).then(|| text.to_owned())
    },
);
pub(super) const ESL_PASSWORD: Syntax<Secret> =
    Syntax::new("a password without line breaks", |text| {
        is_password(text).then(|| Secret::new(text))
    })
    .masked(mask_all);
pub(super) const REDIS_USER: Syntax<String> = Syntax::new("a user name without spaces", |text| {
    let odd = |c: char| c.is_whitespace() || c.is_control();
    (!text.contains(odd)).then(|| text.to_owned())
});
pub(super) const REDIS_PASSWORD: Syntax<Secret> =
    Syntax::new("a password without line breaks", |text| {
        is_password(text).then(|| Secret::new(text))
    })
    .masked(mask_all);
/// The path of a PEM file, or what is in one.
pub(super) const PEM: Syntax<String> = Syntax::new("the path of a PEM file", |text| {
    let is_path = !text.contains(char::is_control);
    (is_path || text.contains(BEGIN)).then(|| text.to_owned())
})
.masked(mask_pem);
/// The same for a private key. A path is not shown either: it may be the key itself, without its first line.
pub(super) const PEM_KEY: Syntax<String> = Syntax {
    mask: Some(mask_all),
    ..PEM
};
pub(super) const TOKEN: Syntax<Secret> =
    Syntax::new("visible ASCII characters without spaces", |text| {
        text.chars()
            .all(|c| c.is_ascii_graphic())
            .then(|| Secret::new(text))
    })
    .masked(mask_all);
pub(super) const REDIS_URL: Syntax<RedisUrl> = Syntax::new(
    "redis://host:6379/2, or rediss:// for TLS, with user:password@ before the host if there is a password",
    redis_url,
)
.masked(mask_credentials);
pub(super) const REDIS_ADDRESS: Syntax<(String, u16)> =
    Syntax::new("a host and a port such as 127.0.0.1:6379", |text| {
        host_and_port(text, RedisUrl::PORT)
    })
    .masked(mask_credentials);
pub(super) const REDIS_DB: Syntax<u32> =
    Syntax::new("the number of a Redis database such as 2", |text| {
        text.parse().ok()
    });
pub(super) const FORMAT: Syntax<Format> = Syntax::new("json or plain", |text| match text {
    "json" => Some(Format::Json),
    "plain" => Some(Format::Plain),
    _ => None,
});
pub(super) const STREAM_FORMAT: Syntax<StreamFormat> =
    Syntax::new("json or fields", |text| match text {
        "json" => Some(StreamFormat::Json),
        "fields" => Some(StreamFormat::Fields),
        _ => None,
    });
pub(super) const ON_ERROR: Syntax<OnError> =
    Syntax::new("pass, drop, dead-letter or last-good", |text| match text {
        "pass" => Some(OnError::Pass),
        "drop" => Some(OnError::Drop),
        "dead-letter" => Some(OnError::DeadLetter),
        "last-good" => Some(OnError::LastGood),
        _ => None,
    });
pub(super) const SWITCH: Syntax<bool> = Syntax::new("true or false", |text| text.parse().ok());
pub(super) const WASI: Syntax<Wasi> = Syntax::new("locked or deny", |text| match text {
    "locked" => Some(Wasi::Locked),
    "deny" => Some(Wasi::Deny),
    _ => None,
});
pub(super) const LEVEL: Syntax<Level> = Syntax::new("error, warn, info, debug or trace", |text| {
    match text.to_ascii_lowercase().as_str() {
        "error" => Some(Level::Error),
        "warn" | "warning" => Some(Level::Warn),
        "info" => Some(Level::Info),
        "debug" => Some(Level::Debug),
        "trace" => Some(Level::Trace),
        _ => None,
    }
});
pub(super) const LOG_FORMAT: Syntax<LogFormat> = Syntax::new("text or json", |text| match text {
    "text" => Some(LogFormat::Text),
    "json" => Some(LogFormat::Json),
    _ => None,
});

/// The parts of a `redis://` or `rediss://` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RedisUrl {
    pub(super) is_tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) db: u32,
    pub(super) user: String,
    pub(super) password: Secret,
}

impl RedisUrl {
    const PORT: u16 = 6379;
}

/// Go's `time.ParseDuration`, without negative durations.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (whole, after_whole) = leading_digits(rest);
        let (fraction, after_number) = match after_whole.strip_prefix('.') {
            Some(tail) => leading_digits(tail),
            None => ("", after_whole),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end_of_unit = after_number
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after_number.len());
        let (unit, tail) = after_number.split_at(end_of_unit);
        let unit = unit_nanos(unit)?;
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        nanos += u128::from(whole) * unit + fraction_of(unit, fraction);
        if nanos > MAX_NANOS {
            return None;
        }
        rest = tail;
    }
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

fn leading_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

fn unit_nanos(unit: &str) -> Option<u128> {
    match unit {
        "ns" => Some(1),
        "us" | "µs" | "μs" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(1_000_000_000),
        "m" => Some(60_000_000_000),
        "h" => Some(3_600_000_000_000),
        _ => None,
    }
}

/// `0.fraction` of `unit`, rounded down. Digits beyond the 15th are below a nanosecond even for hours.
fn fraction_of(unit: u128, fraction: &str) -> u128 {
    let mut nanos = 0;
    let mut scale = 1;
    for digit in fraction.chars().take(15).filter_map(|c| c.to_digit(10)) {
        scale *= 10;
        nanos = nanos * 10 + u128::from(digit);
    }
    nanos * unit / scale
}

/// A number of bytes: plain, or with `KiB`, `MiB` or `GiB`.
fn size(text: &str) -> Option<u64> {
    let (number, unit) = leading_digits(text);
    let unit: u64 = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn event_pattern(text: &str) -> Option<EventPattern> {
    let mut words = text.split_ascii_whitespace();
    let name = words.next()?;
    let subclass = words.next().map(str::to_owned);
    let fits = subclass.is_none() || has_subclass(name);
    (is_name(name) && fits && name != "ALL" && words.next().is_none()).then(|| EventPattern {
        name: name.to_owned(),
        subclass,
    })
}

fn is_password(text: &str) -> bool {
    !text.contains(['\r', '\n', '\0'])
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}

fn is_host(text: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/@[]".contains(c);
    let port_free = !text.contains(':') || text.parse::<Ipv6Addr>().is_ok();
    !text.is_empty() && !text.contains(odd) && port_free
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`; the host without brackets.
fn host_and_port(text: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']')?;
        let port = match port {
            "" => None,
            _ => Some(port.strip_prefix(':')?),
        };
        host.parse::<Ipv6Addr>().ok()?;
        (host, port)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = match port {
        Some(port) => (PORT.parse)(port)?,
        None => default_port,
    };
    is_host(host).then(|| (host.to_owned(), port))
}

/// `redis[s]://[[user]:password@]host[:port][/db]`, user and password percent-encoded. Without a number the database is 0,
/// as for every other client. A user may stand alone: `redis.password` can have the password.
fn redis_url(text: &str) -> Option<RedisUrl> {
    let (scheme, rest) = text.split_once("://")?;
    let is_tls = match scheme {
        "redis" => false,
        "rediss" => true,
        _ => return None,
    };
    let (credentials, place) = match rest.rsplit_once('@') {
        Some((credentials, place)) => (Some(credentials), place),
        None => (None, rest),
    };
    let (user, password) = match credentials {
        Some(credentials) => credentials.split_once(':').unwrap_or((credentials, "")),
        None => ("", ""),
    };
    let (address, db) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = host_and_port(address, RedisUrl::PORT)?;
    let password = percent_decoded(password)?;
    is_password(&password).then_some(())?;
    Some(RedisUrl {
        is_tls,
        host,
        port,
        db: if db.is_empty() { 0 } else { db.parse().ok()? },
        user: percent_decoded(user)?,
        password: Secret::new(password),
    })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut hex_digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(hex_digit()? * 16 + hex_digit()?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok()
}

fn mask_all(_: &str) -> String {
    "***".to_owned()
}

/// A path is shown; what is no path may be a private key.
fn mask_pem(text: &str) -> String {
    if text.contains(char::is_control) || text.contains(BEGIN) {
        return mask_all(text);
    }
    format!("{text:?}")
}

/// Masks what is, or in a malformed address may be, a user and password.
fn mask_credentials(text: &str) -> String {
    // A password may have a `://` too; before that of a scheme there is no colon.
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(':') => (format!("{scheme}://"), rest),
        _ => (String::new(), text),
    };
    let shown = match rest.rsplit_once('@') {
        Some((_, place)) => format!("{scheme}***@{place}"),
        None => match rest.split_once(':') {
            Some((host, port)) if port.contains(|c: char| !c.is_ascii_digit() && c != '/') => {
                format!("{scheme}{host}:***")
            }
            _ => format!("{scheme}{rest}"),
        },
    };
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("+5s", Some(5_000_000_000)),
            ("300ms", Some(300_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("1m0.000000001s", Some(60_000_000_001)),
            ("7µs", Some(7_000)),
            ("7μs", Some(7_000)),
            ("7us3ns", Some(7_003)),
            ("0.3333333333333333333h", Some(1_199_999_999_999)),
            ("2562047h47m16.854775807s", Some(9_223_372_036_854_775_807)),
            ("2562047h47m16.854775808s", None),
            ("99999999999999999999s", None),
            ("", None),
            ("5", None),
            ("-5s", None),
            ("soon", None),
            ("5 s", None),
            (".s", None),
            ("s", None),
            ("5d", None),
        ] {
            assert_eq!(duration(text), nanos.map(Duration::from_nanos), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_bytes_with_binary_units() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("512KiB", Some(524_288)),
            ("16MiB", Some(16_777_216)),
            ("4GiB", Some(4_294_967_296)),
            ("1048576", Some(1_048_576)),
            ("99999999999GiB", None),
            ("16MB", None),
            ("16 MiB", None),
            ("MiB", None),
            ("", None),
        ] {
            assert_eq!(size(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn event_names_are_capitals_and_only_custom_has_a_subclass() {
        let pattern = |name: &str, subclass: Option<&str>| EventPattern {
            name: name.to_owned(),
            subclass: subclass.map(str::to_owned),
        };
        for (text, expected) in [
            ("CHANNEL_ANSWER", Some(pattern("CHANNEL_ANSWER", None))),
            ("CUSTOM", Some(pattern("CUSTOM", None))),
            (
                "CUSTOM sofia::register",
                Some(pattern("CUSTOM", Some("sofia::register"))),
            ),
            ("CUSTOM a b", None),
            ("CHANNEL_ANSWER x", None),
            ("channel_answer", None),
            ("ALL", None),
            ("", None),
        ] {
            assert_eq!(event_pattern(text), expected, "{text:?}");
        }
    }

    #[test]
    fn redis_addresses_have_optional_parts() {
        let parts = |text| {
            redis_url(text).map(|url| {
                let password = url.password.expose().to_owned();
                (url.user, password, url.host, url.port, url.db)
            })
        };
        let expected = |user: &str, password: &str, host: &str, port, db| {
            Some((user.into(), password.into(), host.into(), port, db))
        };
        for (text, expected) in [
            ("redis://r", expected("", "", "r", 6379, 0)),
            ("redis://r:1/3", expected("", "", "r", 1, 3)),
            ("redis://[::1]:7/", expected("", "", "::1", 7, 0)),
            ("redis://:a%40b@r", expected("", "a@b", "r", 6379, 0)),
            ("redis://u:p@q@r/1", expected("u", "p@q", "r", 6379, 1)),
            ("redis://u@r", expected("u", "", "r", 6379, 0)),
            ("redis://u:@r", expected("u", "", "r", 6379, 0)),
            ("redis://:a%0Ab@r", None),
            ("redis://:%zz@r", None),
            ("redis://:%e4@r", None),
            ("redis://r:0", None),
            ("redis://r/x", None),
            ("redis://[r]", None),
            ("redis://", None),
            ("rediss://u:p@r:1/3", expected("u", "p", "r", 1, 3)),
            ("redisss://r", None),
        ] {
            assert_eq!(parts(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_masked_address_shows_no_password_however_it_is_broken() {
        for text in [
            "redis://u:sec/ret@r:1/x",
            "redis://u:secret",
            "u:secret@r",
            "rediss://:secret@r",
            "u:secret",
            "redis://u:sec@ret@",
            "u:secret://x@r",
            "u:secret://r",
        ] {
            let shown = mask_credentials(text);
            assert!(!shown.contains("sec"), "{text} is shown as {shown}");
        }
        assert_eq!(mask_credentials("redis://r:x/2"), "\"redis://r:***\"");
        assert_eq!(mask_credentials("http://r:1/2"), "\"http://r:1/2\"");
    }

    proptest! {
        #[test]
        fn every_duration_of_go_survives(hours in 0..2_000_000_u64, nanos in 0..3_600_000_000_000_u64) {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let text = format!("{hours}h{minutes}m{}.{:09}s", rest / 1_000_000_000, rest % 1_000_000_000);
            let expected = Duration::from_secs(hours * 3600) + Duration::from_nanos(nanos);
            assert_eq!(duration(&text), Some(expected), "{text}");
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>()) {
            let _parsed = (duration(&text), size(&text), event_pattern(&text), redis_url(&text), mask_credentials(&text));
        }

        #[test]
        fn any_password_can_be_written_in_an_address(password in "\\PC{1,20}") {
            let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let url = redis_url(&format!("redis://:{encoded}@r:1/2")).unwrap();
            assert_eq!(url.password.expose(), password);
        }

        #[test]
        fn no_password_is_ever_shown(password in "[a-z]{8}[@:/ ]?[a-z]{8}", tail in "[a-z0-9:/@]{0,6}") {
            let shown = mask_credentials(&format!("redis://me:{password}@{tail}"));
            assert!(!shown.contains(&password), "{shown}");
        }
    }
}
