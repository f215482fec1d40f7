//! The host's side of the imports for native unit tests: one event, a log and counters for each thread.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::{Header, Level};

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// What the imports read and write.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) headers: Vec<Header>,
    pub(crate) body: Option<String>,
    pub(crate) logs: Vec<(Level, String)>,
    pub(crate) counts: BTreeMap<String, u64>,
}

/// Put a host in place, and take out the one before.
pub(crate) fn replace(host: Host) -> Host {
    HOST.replace(host)
}

pub(crate) fn log(level: Level, message: &str) {
    HOST.with_borrow_mut(|host| host.logs.push((level, message.to_owned())));
}

pub(crate) fn count(name: &str, by: u64) {
    HOST.with_borrow_mut(|host| *host.counts.entry(name.to_owned()).or_default() += by);
}

/// As in the contract. Outside `handle` there is no event, and nothing in it: a component would trap.
pub(crate) mod current_event {
    use super::HOST;
    use crate::Header;

    pub(crate) fn get(name: &str) -> Option<String> {
        HOST.with_borrow(|host| {
            let last = host
                .headers
                .iter()
                .rev()
                .find(|header| header.name == name)?;
            Some(last.value.clone())
        })
    }

    pub(crate) fn headers() -> Vec<Header> {
        HOST.with_borrow(|host| host.headers.clone())
    }

    pub(crate) fn body() -> Option<String> {
        HOST.with_borrow(|host| host.body.clone())
    }
}
