//! What the host offers beside the event's declared headers: the event's other parts, the log, counters.
//! In a component these are the imports of the contract; natively they are stand-ins that `testing` fills and reads.

use std::fmt::Arguments;

#[cfg(target_family = "wasm")]
pub(crate) use crate::bindings::jackfield::filter::current_event;
#[cfg(target_family = "wasm")]
use crate::bindings::jackfield::filter::host as imports;
use crate::bindings::jackfield::filter::host::Level;
#[cfg(not(target_family = "wasm"))]
use crate::stand_in as imports;
#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::stand_in::current_event;

/// Add `by` to the counter `name`, exported as `jackfield_filter_custom_total{filter,counter}`.
///
/// The host caps the number of names: use fixed words, never a call's id.
pub fn count(name: &str, by: u64) {
    imports::count(name, by);
}

/// What [`debug!`](crate::debug), [`info!`](crate::info), [`warn!`](crate::warn) and [`error!`](crate::error) expand to.
#[doc(hidden)]
pub fn log(level: Level, message: Arguments<'_>) {
    match message.as_str() {
        Some(constant) => imports::log(level, constant),
        None => imports::log(level, &message.to_string()),
    }
}

/// Write a line to the host's log at level debug; formats as `println!` does.
#[macro_export]
macro_rules! debug {
    ($($message:tt)+) => { $crate::log($crate::Level::Debug, ::std::format_args!($($message)+)) };
}

/// Write a line to the host's log at level info; formats as `println!` does. Not for every event: the host caps the volume.
#[macro_export]
macro_rules! info {
    ($($message:tt)+) => { $crate::log($crate::Level::Info, ::std::format_args!($($message)+)) };
}

/// Write a line to the host's log at level warn: unexpected, but the filter goes on. Formats as `println!` does.
#[macro_export]
macro_rules! warn {
    ($($message:tt)+) => { $crate::log($crate::Level::Warn, ::std::format_args!($($message)+)) };
}

/// Write a line to the host's log at level error: something a person should see. Formats as `println!` does.
#[macro_export]
macro_rules! error {
    ($($message:tt)+) => { $crate::log($crate::Level::Error, ::std::format_args!($($message)+)) };
}
