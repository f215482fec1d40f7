//! A filter that misbehaves as its settings say: what a host must survive, one attack at a time, and some that behave, for
//! the tests of reload, state and verdicts.
//!
//! ```toml
//! attack = "loop"            # see `Attack`
//! after = 100                # optional: only from this event on, counted from 1
//! until = 200                # optional: only up to this event
//! event = "CHANNEL_ANSWER"   # optional: only on this event
//! tick_ms = 50               # for "tick"
//! version = "v2"             # for "version"
//! work = 100_000             # for "slow"
//! wants = ["CODEC"]          # optional: the manifest's events; else every event
//! ```

mod attacks;

use std::time::Duration;

use jackfield_sdk::{Derived, Event, Filter, Manifest, Verdict};
use serde::Deserialize;

/// The settings file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    attack: Attack,
    #[serde(default)]
    after: u64,
    until: Option<u64>,
    event: Option<String>,
    #[serde(default)]
    tick_ms: u64,
    #[serde(default)]
    version: String,
    #[serde(default)]
    work: u64,
    #[serde(default)]
    wants: Vec<String>,
}

/// What to do. Without a note: in `handle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Attack {
    Loop,
    Trap,
    Memory,
    DeepRecursion,
    BadStream,
    RouteNothing,
    BadHeader,
    StreamLineBreaks,
    ManyStreams,
    HeaderNul,
    DerivedLineBreaks,
    FloodEdits,
    HugeValue,
    LongReason,
    FloodCounters,
    /// Behaves: a value may be any text.
    OddValue,
    FloodDerived,
    BigStrings,
    /// In `configure`.
    LoopInConfigure,
    /// In `configure`.
    TrapInConfigure,
    /// In `save`.
    TrapInSave,
    /// In `save`.
    LoopInSave,
    Sleep,
    Exit,
    FloodLog,
    FloodStdout,
    /// Emits as many events as one call may, for each event and each derived one.
    Multiply,
    /// Keeps what the host gives out for ever.
    HoardResources,
    /// Asks for a great many random bytes at once.
    HugeRandom,
    /// In `tick`.
    TrapInTick,
    /// In `tick`.
    LoopInTick,
    /// `configure` returns an error.
    Refuse,
    /// Looks for a way out, and writes what it found to `X-Escapes` and the log.
    Env,
    /// Behaves, and takes its time: goes `work` times round a loop.
    Slow,
    /// Behaves: writes the number of events so far to `X-Count`, and saves it.
    Counter,
    /// Behaves: writes the setting `version` to `X-Version`.
    Version,
    /// Behaves: emits `HOSTILE_TICK` every `tick_ms`.
    Tick,
    /// Behaves: emits `HOSTILE_DERIVED` with the number of the event.
    Derive,
    /// Behaves: gives the event the verdict dead-letter.
    DeadLetter,
    /// Behaves: writes a line of each level to the log, and counts.
    LogAndCount,
}

/// The filter.
pub struct Hostile {
    settings: Settings,
    seen: u64,
}

impl Filter for Hostile {
    type Settings = Settings;

    fn new(settings: Settings, saved: Option<Vec<u8>>) -> Result<Self, String> {
        match settings.attack {
            Attack::Refuse => return Err("refused: `attack` is \"refuse\"".into()),
            Attack::LoopInConfigure => attacks::spin(),
            Attack::TrapInConfigure => attacks::trap(),
            _ => {}
        }
        let seen = match saved {
            Some(saved) => String::from_utf8_lossy(&saved)
                .parse()
                .map_err(|error| format!("the saved state is no count: {error}"))?,
            None => 0,
        };
        Ok(Self { settings, seen })
    }

    fn manifest(&self) -> Manifest {
        let tick = Duration::from_millis(self.settings.tick_ms);
        Manifest::new()
            .events(&self.settings.wants)
            .headers(["Event-Name"])
            .tick(tick)
    }

    fn handle(&mut self, event: &mut Event) -> Verdict {
        self.seen += 1;
        let this_event = self
            .settings
            .event
            .as_deref()
            .is_none_or(|name| event.declared(0) == Some(name));
        let early = self.seen < self.settings.after;
        let late = self.settings.until.is_some_and(|last| self.seen > last);
        if !this_event || early || late {
            return Verdict::Pass;
        }
        match self.settings.attack {
            Attack::Loop => attacks::spin(),
            Attack::Trap => attacks::trap(),
            Attack::Memory => attacks::exhaust_memory(),
            Attack::DeepRecursion => attacks::exhaust_stack(),
            Attack::BadStream => return Verdict::route(["not:an:allowed:stream", ""]),
            Attack::RouteNothing => return Verdict::Route(Vec::new()),
            Attack::StreamLineBreaks => {
                return Verdict::route(["freeswitch:a\r\n*1\r\n$8\r\nSHUTDOWN"]);
            }
            Attack::ManyStreams => return Verdict::Route(attacks::many_streams()),
            Attack::HeaderNul => event.set("X-\0", "a NUL in the name"),
            Attack::DerivedLineBreaks => event.emit(Derived::new("HOSTILE\n\nexit")),
            Attack::FloodEdits => attacks::flood_edits(event),
            Attack::HugeValue => event.set("X-Huge", "x".repeat(100_000_000)),
            Attack::LongReason => return Verdict::Drop("x".repeat(1_000)),
            Attack::FloodCounters => attacks::flood_counters(),
            Attack::OddValue => event.set("X-Odd", "a\r\n\r\nb\0c\u{1b}[2J\u{202e}"),
            Attack::BadHeader => attacks::set_bad_headers(event),
            Attack::FloodDerived => attacks::flood_derived(event),
            Attack::BigStrings => attacks::set_big_strings(event),
            Attack::Sleep => attacks::sleep(),
            Attack::Exit => std::process::exit(0),
            Attack::FloodLog => attacks::flood_log(),
            Attack::FloodStdout => attacks::flood_stdout(),
            Attack::Multiply => attacks::multiply(event),
            Attack::HoardResources => attacks::hoard_resources(),
            Attack::HugeRandom => attacks::ask_for_huge_random(),
            Attack::Env => attacks::look_for_a_way_out(event),
            Attack::Slow => attacks::work(self.settings.work),
            Attack::Counter => event.set("X-Count", self.seen.to_string()),
            Attack::Version => event.set("X-Version", self.settings.version.as_str()),
            Attack::Derive => {
                event.emit(Derived::new("HOSTILE_DERIVED").header("X-Of", self.seen.to_string()));
            }
            Attack::DeadLetter => return Verdict::dead_letter("told to"),
            Attack::LogAndCount => self.log_and_count(),
            Attack::LoopInConfigure
            | Attack::TrapInConfigure
            | Attack::TrapInSave
            | Attack::LoopInSave
            | Attack::TrapInTick
            | Attack::LoopInTick
            | Attack::Refuse
            | Attack::Tick => {}
        }
        Verdict::Pass
    }

    fn tick(&mut self, now: u64) -> Vec<Derived> {
        match self.settings.attack {
            Attack::Tick => vec![Derived::new("HOSTILE_TICK").header("X-Now", now.to_string())],
            Attack::TrapInTick => attacks::trap(),
            Attack::LoopInTick => attacks::spin(),
            _ => Vec::new(),
        }
    }

    fn save(&self) -> Vec<u8> {
        match self.settings.attack {
            Attack::TrapInSave => attacks::trap(),
            Attack::LoopInSave => attacks::spin(),
            Attack::Counter => self.seen.to_string().into_bytes(),
            _ => Vec::new(),
        }
    }
}

impl Hostile {
    fn log_and_count(&self) {
        jackfield_sdk::debug!("debug {}", self.seen);
        jackfield_sdk::info!("info {}", self.seen);
        jackfield_sdk::warn!("warn {}", self.seen);
        jackfield_sdk::error!("error {}", self.seen);
        jackfield_sdk::count("seen", 1);
        jackfield_sdk::count("tens", 10);
    }
}

jackfield_sdk::export!(Hostile);
