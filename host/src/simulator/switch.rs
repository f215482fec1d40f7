//! The switch itself: its identity, its counters, what is going on in it, and who listens.
//!
//! One lock orders everything that happens: an event gets its number and enters the listeners' queues under it, so every listener sees
//! the same order. Does no IO; connections take their queues to the wire.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::calls::{Call, Now};
use super::channels::Channels;
use super::compose::{Composed, Source};
use super::connection::{Connection, Offer};
use super::encode::Format;
use super::names::Mask;
use super::random::Random;
use super::script::Script;
use super::server::{Sent, Settings};
use super::stamp::Stamp;

pub(super) const HOSTNAME: &str = "sim";
pub(super) const IPV4: &str = "192.0.2.2";
pub(super) const IPV6: &str = "fd00::2";

/// A real switch has made about this many events before its socket opens.
const FIRST_SEQUENCE: u64 = 393;
/// How many commands are remembered for tests.
const MAX_COMMANDS: usize = 10_000;

/// The switch, shared by its tasks.
#[derive(Debug)]
pub(super) struct Switch {
    pub(super) settings: Settings,
    script: Arc<Script>,
    state: Mutex<State>,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// A queue has become shorter, or a connection has ended.
    pub(super) room: Notify,
    /// A subscription has changed, or a connection has ended.
    pub(super) changed: Notify,
    pub(super) silent: AtomicBool,
    pub(super) refuse: AtomicBool,
    pub(super) logins: AtomicU64,
    commands: Mutex<VecDeque<(usize, String)>>,
    /// Background jobs that run.
    pub(super) jobs: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct State {
    core_uuid: String,
    started: Stamp,
    sequence: u64,
    /// Numbers that were given out and have no event yet.
    numbers: Vec<u64>,
    stamp: Stamp,
    /// Decides about calls only, so that other traffic does not change which calls a seed makes.
    choices: Random,
    uuids: Random,
    session: u64,
    open: Vec<Call>,
    channels: Channels,
    sent: Sent,
}

/// The number and the time of an event that will be fired later.
#[derive(Debug, Clone)]
pub(super) struct Reserved {
    sequence: u64,
    stamp: Stamp,
}

/// What status commands and heartbeats tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vitals {
    pub(super) uptime_us: u64,
    pub(super) now_us: u64,
    pub(super) channels: usize,
    pub(super) sessions: u64,
}

/// Locks without regard to a panic of another holder: the state is consistent between statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Switch {
    pub(super) fn new(settings: Settings, script: Arc<Script>) -> Switch {
        let mut uuids = Random::new(!settings.seed);
        let stamp = Stamp::now();
        let state = State {
            core_uuid: text(&uuids.uuid()),
            started: stamp.clone(),
            sequence: FIRST_SEQUENCE,
            numbers: Vec::new(),
            stamp,
            choices: Random::new(settings.seed),
            uuids,
            session: 0,
            open: Vec::new(),
            channels: Channels::default(),
            sent: Sent::default(),
        };
        Switch {
            settings,
            script,
            state: Mutex::new(state),
            connections: Mutex::default(),
            room: Notify::new(),
            changed: Notify::new(),
            silent: AtomicBool::new(false),
            refuse: AtomicBool::new(false),
            logins: AtomicU64::new(0),
            commands: Mutex::default(),
            jobs: Mutex::default(),
        }
    }

    pub(super) fn core_uuid(&self) -> String {
        lock(&self.state).core_uuid.clone()
    }

    pub(super) fn uuid(&self) -> String {
        text(&lock(&self.state).uuids.uuid())
    }

    pub(super) fn sent(&self) -> Sent {
        lock(&self.state).sent
    }

    pub(super) fn vitals(&self) -> Vitals {
        let mut state = lock(&self.state);
        state.stamp.refresh();
        Vitals {
            uptime_us: state.stamp.micros.saturating_sub(state.started.micros),
            now_us: state.stamp.micros,
            channels: state.channels.len(),
            sessions: state.session,
        }
    }

    pub(super) fn channels_as_json(&self) -> Vec<u8> {
        lock(&self.state)
            .channels
            .as_json(&self.settings.switchname)
    }

    pub(super) fn has_channel(&self, uuid: &str) -> bool {
        lock(&self.state).channels.has(uuid)
    }

    /// Takes a number now for an event that is fired later.
    pub(super) fn reserve(&self) -> Reserved {
        let mut state = lock(&self.state);
        state.stamp.refresh();
        state.sequence += 1;
        Reserved {
            sequence: state.sequence,
            stamp: state.stamp.clone(),
        }
    }

    /// Fires an event whose number was taken before.
    pub(super) fn fire_reserved(&self, event: Composed, reserved: &Reserved) {
        let mut state = lock(&self.state);
        self.compose(&mut state, event, reserved.sequence, &reserved.stamp);
    }

    /// Fires an event and returns its number.
    pub(super) fn fire(&self, event: Composed) -> u64 {
        let mut state = lock(&self.state);
        state.stamp.refresh();
        state.sequence += 1;
        let (sequence, stamp) = (state.sequence, state.stamp.clone());
        self.compose(&mut state, event, sequence, &stamp);
        sequence
    }

    fn compose(&self, state: &mut State, event: Composed, sequence: u64, stamp: &Stamp) {
        let mask = Mask::named(&event.name).unwrap_or(Mask::CUSTOM);
        let now = Now {
            core_uuid: &state.core_uuid,
            switchname: &self.settings.switchname,
            stamp,
            sequence,
        };
        let (headers, body) = event.complete(mask, now);
        let source = Source::Composed(&headers, &body);
        let subclass = source.first(b"Event-Subclass").map(Cow::into_owned);
        state.channels.note(mask, &|name| source.first(name));
        self.deliver(&source, mask, subclass.as_deref(), &mut state.sent);
    }

    /// Fires the next event of some open call, or the first one of a new call.
    pub(super) fn play(&self, calls_at_once: usize) {
        let mut state = lock(&self.state);
        let State {
            core_uuid,
            sequence,
            numbers,
            stamp,
            choices,
            session,
            open,
            channels,
            sent,
            ..
        } = &mut *state;
        stamp.refresh();
        let may_begin = open.len() < calls_at_once.max(1);
        let call = if open.is_empty() || (may_begin && choices.below(4) == 0) {
            Call::begin(&self.script, choices, stamp, session, || {
                *sequence += 1;
                *sequence
            })
        } else {
            let index = choices.index(open.len());
            (index < open.len()).then(|| open.swap_remove(index))
        };
        let Some(mut call) = call else { return };
        let mut number = *sequence;
        if !call.next_is_late() {
            while numbers.len() < self.settings.disorder.max(1) {
                let is_gap = choices.below(self.settings.gap_every.max(1)) == 0;
                *sequence += if is_gap { 2 } else { 1 };
                numbers.push(*sequence);
            }
            let choice = match numbers.len() {
                0 | 1 => 0,
                many => choices.index(many),
            };
            number = numbers.swap_remove(choice);
        }
        let now = Now {
            core_uuid,
            switchname: &self.settings.switchname,
            stamp,
            sequence: number,
        };
        if let Some(event) = call.advance(now) {
            let source = Source::Scripted(event);
            channels.note(event.template.mask, &|name| source.first(name));
            self.deliver(
                &source,
                event.template.mask,
                event.template.subclass.as_deref(),
                sent,
            );
        }
        if !call.is_over() {
            open.push(call);
        }
    }

    fn deliver(&self, source: &Source<'_>, mask: Mask, subclass: Option<&[u8]>, sent: &mut Sent) {
        sent.fired += 1;
        if self.silent.load(Ordering::Relaxed) {
            return;
        }
        let first = |name: &[u8]| source.first(name);
        let (mut plain, mut json) = (None, None);
        for connection in lock(&self.connections).iter() {
            let frame = |format| {
                let rendered = match format {
                    Format::Plain => &mut plain,
                    Format::Json => &mut json,
                };
                rendered.get_or_insert_with(|| source.frame(format)).clone()
            };
            match connection.offer(
                self.settings.max_queue,
                |subscription| subscription.wants(mask, subclass, &first),
                frame,
            ) {
                Offer::Unwanted | Offer::Beside => {}
                Offer::Queued => sent.queued += 1,
                Offer::Dropped => sent.dropped += 1,
                Offer::GivenUp => {
                    sent.dropped += 1;
                    sent.given_up += 1;
                }
            }
        }
    }

    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        lock(&self.connections).clone()
    }

    pub(super) fn admit(&self, connection: Arc<Connection>) {
        lock(&self.connections).push(connection);
        self.changed.notify_waiters();
    }

    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        lock(&self.connections).retain(|other| !Arc::ptr_eq(other, connection));
        self.changed.notify_waiters();
        self.room.notify_waiters();
    }

    /// Whether every listener has room for an unpaced load.
    pub(super) fn is_comfortable(&self) -> bool {
        let max_queue = self.settings.max_queue;
        let connections = lock(&self.connections);
        let mut each = connections.iter();
        each.all(|connection| connection.is_comfortable(max_queue))
    }

    /// A new life: new Core-UUID, numbers from the start, no calls. Cutting the connections is the caller's part.
    pub(super) fn be_reborn(&self) {
        lock(&self.jobs).abort_all();
        let mut state = lock(&self.state);
        state.core_uuid = text(&state.uuids.uuid());
        state.started = Stamp::now();
        state.sequence = FIRST_SEQUENCE;
        state.numbers.clear();
        state.session = 0;
        state.open.clear();
        state.channels = Channels::default();
    }

    /// `connection` is its number in the order of connecting.
    pub(super) fn note_command(&self, connection: usize, command: String) {
        let mut commands = lock(&self.commands);
        if commands.len() == MAX_COMMANDS {
            commands.pop_front();
        }
        commands.push_back((connection, command));
    }

    /// Each with the number of its connection.
    pub(super) fn commands(&self) -> Vec<(usize, String)> {
        lock(&self.commands).iter().cloned().collect()
    }
}

fn text(uuid: &[u8]) -> String {
    String::from_utf8_lossy(uuid).into_owned()
}
