//! Which file or connection a call is about: by the name under which it was opened, or the port that it was connected to.

use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a descriptor is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Other,
    /// Of the journal, with the number in its name.
    Segment(u64),
    State,
    /// A connection, and whether a transaction was sent since something was read.
    Redis {
        asked: bool,
    },
}

const OTHER: u64 = 0;
const STATE: u64 = 1;
const REDIS: u64 = 2;
const REDIS_ASKED: u64 = 3;
const SEGMENT: u64 = 1 << 63;

/// Descriptors above are not followed.
const MOST: usize = 4096;

static CLASSES: [AtomicU64; MOST] = [const { AtomicU64::new(OTHER) }; MOST];

pub(crate) fn class(descriptor: c_int) -> Class {
    let slot = usize::try_from(descriptor)
        .ok()
        .and_then(|descriptor| CLASSES.get(descriptor));
    match slot.map_or(OTHER, |slot| slot.load(Ordering::Acquire)) {
        STATE => Class::State,
        REDIS => Class::Redis { asked: false },
        REDIS_ASKED => Class::Redis { asked: true },
        number if number & SEGMENT != 0 => Class::Segment(number & !SEGMENT),
        _ => Class::Other,
    }
}

pub(crate) fn set(descriptor: c_int, class: Class) {
    let word = match class {
        Class::Other => OTHER,
        Class::State => STATE,
        Class::Redis { asked: false } => REDIS,
        Class::Redis { asked: true } => REDIS_ASKED,
        Class::Segment(number) => number | SEGMENT,
    };
    if let Some(slot) = usize::try_from(descriptor)
        .ok()
        .and_then(|descriptor| CLASSES.get(descriptor))
    {
        slot.store(word, Ordering::Release);
    }
}

/// What a path names.
pub(crate) fn of_path(path: &CStr) -> Class {
    let path = path.to_bytes();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    if let Some(number) = name.strip_suffix(b".jnl") {
        let number = std::str::from_utf8(number).ok();
        let number = number.and_then(|number| u64::from_str_radix(number, 16).ok());
        return number.map_or(Class::Other, Class::Segment);
    }
    match name.starts_with(b"filters.state") {
        true => Class::State,
        false => Class::Other,
    }
}
