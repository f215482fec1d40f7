//! What a filter file is, found out as the loader would, without a folder and without a host: for those who write filters.

use std::path::Path;
use std::sync::Arc;

use super::engine::Engine;
use super::folder::{FilterFile, MAX_COMPONENT, MAX_SETTINGS};
use super::golden::{self, Broken, Rehearsal};
use super::refusal::Refusal;
use super::rehearsal::Candidate;
use super::version::{self, Made};
use crate::clock;
use crate::config::FilterLimits;
use crate::stamp::Stamp;

/// A filter that could go live, but for its golden cases.
#[derive(Debug)]
pub struct Inspected {
    /// The manifest's name.
    pub name: String,
    /// The manifest's version.
    pub version: String,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: Arc<str>,
    /// Its bytes.
    pub size: usize,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// The events that it wants to see; none: every event.
    pub events: Vec<String>,
    /// The headers that it receives.
    pub headers: Vec<String>,
    /// How often it wants its `tick`, in milliseconds; 0: never.
    pub tick_ms: u32,
    /// How many golden cases it carries, or how one of them fails.
    pub golden: Result<usize, Broken>,
}

/// A component with its settings, before it was tried.
pub struct Prepared {
    made: Made,
}

impl Prepared {
    /// Reads the settings, compiles the component, and asks whether its settings let it run. `defaults` are the limits where
    /// the settings say nothing.
    ///
    /// # Errors
    /// Why the host would refuse it.
    pub fn new(
        engine: &Engine,
        file: &FilterFile,
        defaults: &FilterLimits,
    ) -> Result<Prepared, Refusal> {
        let (limits, settings) = file.read_settings(defaults)?;
        let component = engine.compile(file.bytes()?)?;
        component.admit(limits.wasi)?;
        Ok(Prepared {
            made: Made {
                component,
                settings: settings.into(),
                limits,
                text: file.text().into(),
                muted: false,
            },
        })
    }

    /// It can be tried on past traffic, as the filter `file`.
    ///
    /// # Errors
    /// It does not start.
    pub fn candidate(&self, engine: &Arc<Engine>, file: &str) -> Result<Candidate, Refusal> {
        Candidate::start(engine, &file.into(), &self.made, clock::now_us())
    }

    /// Its golden cases can be run, under its own limits.
    pub fn rehearsal<'a>(&'a self, engine: &'a Engine) -> Rehearsal<'a> {
        Rehearsal::new(
            engine,
            &self.made.component,
            &self.made.limits,
            golden::TIME,
        )
    }
}

/// Tries a filter file as the loader does, and runs the golden cases that it carries.
///
/// # Errors
/// Why the host would refuse it.
pub fn inspect(
    engine: &Engine,
    file: &FilterFile,
    defaults: &FilterLimits,
) -> Result<Inspected, Refusal> {
    let Prepared { made } = Prepared::new(engine, file, defaults)?;
    let _ticking = engine.ticking();
    let (_, manifest) = version::start(engine, &file.name, &made, None, clock::now_us())?;
    let bytes = file.component.as_deref().unwrap_or_default();
    Ok(Inspected {
        name: manifest.name,
        version: manifest.version,
        digest: Arc::clone(&made.component.digest),
        size: bytes.len(),
        imports: made.component.imports.to_vec(),
        events: manifest.events,
        headers: manifest.headers,
        tick_ms: manifest.tick_interval,
        golden: golden::run(engine, &made.component, &made.limits, bytes),
    })
}

impl FilterFile {
    /// A filter anywhere, with the settings of this file; of a file that is not there, none.
    pub fn read(component: &Path, settings: &Path) -> FilterFile {
        let name = component.file_stem().unwrap_or(component.as_os_str());
        let missing = || format!("{}: no such file", component.display());
        FilterFile {
            name: name.to_string_lossy().into(),
            component: bytes(component, MAX_COMPONENT).and_then(|bytes| bytes.ok_or_else(missing)),
            settings: FilterFile::settings(settings),
        }
    }

    /// The text of a settings file; empty if there is none.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn settings(path: &Path) -> Result<String, String> {
        let bytes = bytes(path, MAX_SETTINGS)?.unwrap_or_default();
        String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))
    }
}

/// A file from anywhere; `None` if there is none.
fn bytes(path: &Path, max: u64) -> Result<Option<Vec<u8>>, String> {
    Stamp::of(path, Path::new("/")).map_or(Ok(None), |stamp| stamp.read(max))
}
