//! No secret is shown: what stands in a password's place and contains [`SECRET`] must not be seen anywhere afterwards.
//!
//! What stands in another setting's place is no secret, and may be shown. So may the rest of an address.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use jackfield::config::{Config, Mistakes, Sources};
use toml::{Table, Value};

/// What must not be shown.
const SECRET: &str = "Xyzzy42";

const SECRETS: [&str; 12] = [
    "esl.password",
    "http.token",
    "redis.url",
    "redis.password",
    "redis.key",
    "ESL_PASSWORD",
    "REDIS_REMOTE_PASSWORD",
    "JACKFIELD_ESL_PASSWORD",
    "JACKFIELD_HTTP_TOKEN",
    "JACKFIELD_REDIS_URL",
    "JACKFIELD_REDIS_PASSWORD",
    "JACKFIELD_REDIS_KEY",
];

/// Those in which a user and a password stand before a host.
const ADDRESSES: [&str; 3] = ["redis.url", "JACKFIELD_REDIS_URL", "REDIS_REMOTE_ADDR"];

/// The tables with secrets: what stands in the place of a whole table may be one.
const TABLES: [&str; 3] = ["esl", "http", "redis"];

/// Checks that what came of the sources shows no secret of theirs.
pub(super) fn check(loaded: &Result<Config, Mistakes>, sources: &Sources, text: &[u8]) {
    let is_secret = text_is(text)
        && sources.env.iter().all(variable_is)
        && sources
            .flags
            .iter()
            .all(|(key, value)| value_is(key, value));
    if !is_secret {
        return;
    }
    let shown = match loaded {
        // Who logs in is no secret.
        Ok(config) if config.redis.user.contains(SECRET) => return,
        Ok(config) => format!("{config:?}"),
        Err(mistakes) => format!("{mistakes}{mistakes:?}"),
    };
    assert!(!shown.contains(SECRET), "a secret is shown: {shown}");
}

/// Whether the secret stands in the file where one may stand, and nowhere else. What is not even TOML is never quoted.
fn text_is(text: &[u8]) -> bool {
    let text = std::str::from_utf8(text).ok();
    let table = text.and_then(|text| text.parse::<Table>().ok());
    table.is_none_or(|table| table_is("", &table))
}

fn table_is(path: &str, table: &Table) -> bool {
    table.iter().all(|(name, value)| {
        let key = format!("{path}{name}");
        let (is_key, is_table) = (SECRETS.contains(&&*key), TABLES.contains(&&*key));
        match value {
            _ if name.contains(SECRET) => false,
            Value::String(_) if is_table => true,
            Value::String(text) => value_is(&key, text),
            Value::Table(_) | Value::Array(_) if is_key => true,
            Value::Table(table) => table_is(&format!("{key}."), table),
            other => is_table || !other.to_string().contains(SECRET),
        }
    })
}

fn variable_is((name, value): &(OsString, OsString)) -> bool {
    let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
    let Some(twin) = name.strip_suffix("_FILE") else {
        return value_is(&name, &value);
    };
    if value.contains(SECRET) {
        // A secret in the place of a path.
        return SECRETS.contains(&twin);
    }
    let content = fs::read(Path::new(&*value)).unwrap_or_default();
    value_is(twin, &String::from_utf8_lossy(&content))
}

fn value_is(name: &str, value: &str) -> bool {
    if !value.contains(SECRET) {
        return !name.contains(SECRET);
    }
    if ADDRESSES.contains(&name) {
        return is_in_password(value);
    }
    SECRETS.contains(&name)
}

/// Whether the secret is in the password of an address, whatever else is wrong with that.
fn is_in_password(address: &str) -> bool {
    let is_scheme = |text: &str| {
        let mut characters = text.chars();
        characters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let rest = match address.split_once("://") {
        Some((before, rest)) if is_scheme(before) && !before.contains(SECRET) => rest,
        _ => address,
    };
    let credentials = rest.rsplit_once('@').map_or(rest, |(before, _)| before);
    let password = credentials
        .split_once(':')
        .map_or("", |(_, password)| password);
    password.matches(SECRET).count() == address.matches(SECRET).count()
}
