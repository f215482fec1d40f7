//! Write a filter for Jackfield in Rust.
//!
//! A filter is a struct, its settings, and a function on an event. Jackfield runs it as a WebAssembly component: drop the
//! `.wasm` file into the host's filters folder, beside it a `.toml` file of the same name with the settings.
//!
//! ```
//! use jackfield_sdk::{Derived, Event, Filter, Manifest, Verdict};
//!
//! /// The settings file. Errors in it name the setting, and keep the filter from going live.
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! pub struct Settings {
//!     /// Calls to numbers that begin so are tests.
//!     test_prefix: String,
//! }
//!
//! /// Drops test calls, and announces every other call with its number.
//! pub struct Announce {
//!     settings: Settings,
//! }
//!
//! impl Filter for Announce {
//!     type Settings = Settings;
//!
//!     fn new(settings: Settings, _saved: Option<Vec<u8>>) -> Result<Self, String> {
//!         if settings.test_prefix.is_empty() {
//!             return Err("`test_prefix` is empty: every call would be a test".into());
//!         }
//!         Ok(Self { settings })
//!     }
//!
//!     fn manifest(&self) -> Manifest {
//!         Manifest::new().events(["CHANNEL_ANSWER"]).headers(["Caller-Destination-Number"])
//!     }
//!
//!     fn handle(&mut self, event: &mut Event) -> Verdict {
//!         let Some(number) = event.get("Caller-Destination-Number").map(str::to_owned) else {
//!             return Verdict::Pass;
//!         };
//!         if number.starts_with(&self.settings.test_prefix) {
//!             return Verdict::drop("test call");
//!         }
//!         jackfield_sdk::count("announced", 1);
//!         event.set("X-Announced", "true");
//!         event.emit(Derived::new("CALL_ANSWERED").header("Number", number));
//!         Verdict::Pass
//!     }
//! }
//!
//! jackfield_sdk::export!(Announce);
//!
//! // Unit tests run natively, with plain `cargo test`.
//! # fn main() {
//! use jackfield_sdk::testing::{event, filter};
//!
//! let mut announce: Announce = filter(r#"test_prefix = "999""#).unwrap();
//! let after = event("CHANNEL_ANSWER").header("Caller-Destination-Number", "100").run(&mut announce);
//! assert_eq!(after.verdict, Verdict::Pass);
//! assert_eq!(after.get("X-Announced"), Some("true"));
//! assert_eq!(after.derived[0].get("Number"), Some("100"));
//! assert_eq!(after.counts["announced"], 1);
//!
//! let error = filter::<Announce>("test_prefix = 999").err().unwrap();
//! assert_eq!(error, "settings: `test_prefix`: invalid type: integer `999`, expected a string");
//! # }
//! ```
//!
//! `Cargo.toml` needs
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib", "rlib"]   # the component; a library for tests
//!
//! [dependencies]
//! jackfield-sdk = …
//! serde = { version = "1", features = ["derive"] }
//! ```
//!
//! and `cargo build --release --target wasm32-wasip2` makes the component.
//!
//! # What a filter may rely on
//! - Every event that its manifest names, in the order of arrival, one call at a time: no locks.
//! - A call that fails (a panic, the deadline, bad output) changes nothing: none of its edits and derived events count, and the
//!   host treats the event as the filter's `on_error` says. After it the filter is built anew, with what it saved last.
//! - There are no files, sockets or environment. Standard output goes to the host's log; sleeping fails the call.
//!
//! # What costs time
//! A call that reads four declared headers and sets two takes about a microsecond. A header that was not declared adds a call
//! to the host, and [`Event::headers`] copies all of them, which takes thirty times as long. So declare what you read.
//! Short strings are cheap: a component has the SDK's allocator, and so cannot set a `#[global_allocator]` of its own.
//!
//! # State
//! Keep it in the struct, and return it from [`Filter::save`]: the next version gets it in [`Filter::new`], and so does this one
//! after a restart of the host. The host asks for it every ten seconds, at a reload and at its end. After a crash it calls
//! `handle` and `tick` again for what came since, and discards the answers: the state is as if nothing had happened. Take the time from [`Event::now`] or [`Filter::tick`], not from a clock, so that a replay decides as the first run did.

#[cfg(target_family = "wasm")]
mod allocator;
mod answer;
#[doc(hidden)]
pub mod bindings;
mod duration;
mod event;
mod export;
mod host;
mod running;
#[cfg(not(target_family = "wasm"))]
mod stand_in;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use bindings::jackfield::filter::host::Level;
pub use bindings::jackfield::filter::types::{Derived, Edit, Header, Manifest, Verdict};
pub use duration::duration;
pub use event::Event;
pub use host::count;
#[doc(hidden)]
pub use host::log;
#[doc(hidden)]
pub use running::Running;

#[cfg(test)]
mod tests;

/// A filter: what it wants to see, and what it makes of an event.
pub trait Filter: Sized {
    /// The settings file beside the component. Derive `Deserialize` with `#[serde(deny_unknown_fields)]`, so that a
    /// misspelt setting is refused; add `default` if all have one. [`NoSettings`] if there are none.
    type Settings: DeserializeOwned;

    /// Build the filter from its settings and, on a reload or a restart, from what was saved last.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what is allowed. It keeps the filter from going live.
    fn new(settings: Self::Settings, saved: Option<Vec<u8>>) -> Result<Self, String>;

    /// The events to handle and the headers to receive. Asked once, after `new`.
    fn manifest(&self) -> Manifest;

    /// Decide on one event: read it, edit it, emit others, and return what becomes of it.
    fn handle(&mut self, event: &mut Event) -> Verdict;

    /// Do what time brings, as often as the manifest asks. `now` is in microseconds since 1970.
    fn tick(&mut self, now: u64) -> Vec<Derived> {
        let _ = now;
        Vec::new()
    }

    /// The state that the next version, or the next run of the host, should get. Empty: none.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// The settings of a filter that has none: a settings file with anything in it is refused.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}
