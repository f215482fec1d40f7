//! A TCP proxy in front of Redis or FreeSWITCH that a test can disturb: it holds, delays, throttles, swallows and ends what goes
//! through it.
//!
//! A host has two connections to FreeSWITCH. What happens at a certain byte happens to the one for events, of which a test can
//! say where its bytes stand; the one for commands is spared.
//!
//! What was held is passed on when it is let go, also when its client has gone meanwhile: as in a network. It reads no more than
//! it passes on, so a sender feels what becomes of its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use jackfield::simulator::Simulator;

use crate::harness::{DEADLINE, Host, Redis, Setup, wait_for};
use crate::numbered;

/// The largest piece that is passed on at once.
const PIECE: usize = 1 << 20;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Toward {
    Server,
    Client,
}

/// What becomes of the bytes of one direction, over all connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Clear,
    /// Nothing passes, and nobody is told.
    BlackHole,
    /// So many bytes more, then a black hole.
    HoleAfter(u64),
    /// Every piece takes between so many milliseconds.
    Delay(Range<u64>),
    /// So many bytes a second.
    Slow(u64),
    /// So many bytes more, then the connection that carried the last of them ends, both ways; clear after that.
    EndAfter(u64, Ending),
    /// Every connection ends at this byte of it.
    EndEach(u64, Ending),
    /// So many bytes more, then these in between; clear after that.
    InsertAfter(u64, Vec<u8>),
    /// So many bytes more, then these, then the connection ends; clear after that.
    LastWords(u64, Vec<u8>),
    /// These before the next header block of an event; clear after that.
    InsertFrame(Vec<u8>),
}

impl Condition {
    /// At a certain byte of all that comes.
    fn strikes_once(&self) -> bool {
        !matches!(
            self,
            Condition::Clear
                | Condition::BlackHole
                | Condition::Delay(_)
                | Condition::Slow(_)
                | Condition::EndEach(..)
        )
    }
}

/// How a header block of an event begins, and nothing inside an event in JSON does.
const EVENT_FRAME: &[u8] = b"Content-Length: ";

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Fin,
    Rst,
}

/// It ends with its connections, or with the test.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    rules: Mutex<Rules>,
    changed: Condvar,
}

#[derive(Default)]
struct Rules {
    hold_batches: bool,
    /// Connections whose batches alone are held.
    hold_batches_of: BTreeSet<usize>,
    hold_replies: bool,
    let_go: BTreeSet<usize>,
    held: BTreeSet<usize>,
    over: BTreeSet<usize>,
    connections: usize,
    /// Those that are clear are not here.
    conditions: BTreeMap<Toward, Condition>,
    /// What becomes of a direction from this word on.
    armed: BTreeMap<Toward, (&'static str, Condition)>,
    /// The port of the server, for connections to come.
    port: u16,
    open: BTreeMap<usize, Arc<Connection>>,
    /// Which connections to FreeSWITCH have asked for what, as long as they are open.
    asked: BTreeMap<usize, Asked>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Events,
    ForCommands,
}

struct Connection {
    number: usize,
    client: TcpStream,
    server: TcpStream,
}

/// Starts a host whose Redis is behind a proxy, and waits until its first ten events are in Redis.
#[track_caller]
pub(crate) fn start_behind(setup: Setup, switch: &Simulator, redis: &Redis) -> (Proxy, Host) {
    let proxy = Proxy::to(redis.port);
    let url = format!("redis://127.0.0.1:{}/2", proxy.port);
    let host = setup.env("JACKFIELD_REDIS_URL", &url).start();
    host.wait_ready();
    numbered::fire(switch, 0..10);
    host.wait_settled(10);
    (proxy, host)
}

impl Proxy {
    pub(crate) fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Proxy {
            port: listener.local_addr().unwrap().port(),
            gate: Arc::default(),
        };
        proxy.aim(port);
        let gate = Arc::clone(&proxy.gate);
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let port = gate.lock().port;
                let server = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)));
                gate.change(|rules| rules.connections = number + 1);
                if let (Ok(client), Ok(server)) = (client, server) {
                    gate.serve(Connection {
                        number,
                        client,
                        server,
                    });
                }
            }
        });
        proxy
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// New connections go to this port from now on.
    pub(crate) fn aim(&self, port: u16) {
        self.gate.change(|rules| rules.port = port);
    }

    /// From now on this becomes of the bytes of this direction.
    pub(crate) fn set(&self, toward: Toward, condition: Condition) {
        self.gate.change(|rules| {
            match condition {
                Condition::Clear => rules.conditions.remove(&toward),
                condition => rules.conditions.insert(toward, condition),
            };
        });
    }

    /// This becomes of the bytes of this direction once this word comes, from its first byte on. Until then it must be clear; a
    /// word in two pieces is not seen, so the next one counts.
    pub(crate) fn set_at(&self, toward: Toward, word: &'static str, condition: Condition) {
        self.gate.change(|rules| {
            rules.armed.insert(toward, (word, condition));
        });
    }

    /// Both directions are clear again.
    pub(crate) fn clear(&self) {
        self.gate.change(|rules| {
            rules.conditions.clear();
            rules.armed.clear();
        });
    }

    /// Waits until a condition that counts bytes has struck.
    #[track_caller]
    pub(crate) fn wait_struck(&self, toward: Toward) {
        self.wait("the fault has struck", |rules| {
            let is_over = matches!(
                rules.condition(toward),
                Condition::Clear | Condition::BlackHole
            );
            is_over && !rules.armed.contains_key(&toward)
        });
    }

    /// Waits until this direction is as told: a condition that strikes once has struck when it is clear.
    #[track_caller]
    pub(crate) fn wait_condition(&self, toward: Toward, condition: &Condition) {
        self.wait(&format!("{toward:?} is {condition:?}"), |rules| {
            rules.condition(toward) == *condition
        });
    }

    /// Ends every connection now.
    pub(crate) fn end(&self, ending: Ending) {
        let open: Vec<_> = self.gate.lock().open.values().cloned().collect();
        for connection in open {
            connection.end(ending);
        }
    }

    /// From now on whatever has an XADD in it waits, by connection, to be let go.
    pub(crate) fn hold_batches(&self) {
        self.gate.change(|rules| rules.hold_batches = true);
    }

    /// The same for this connection alone, also if it was let go before.
    pub(crate) fn hold_batches_of(&self, number: usize) {
        self.gate.change(|rules| {
            rules.hold_batches_of.insert(number);
            rules.let_go.remove(&number);
            rules.held.remove(&number);
        });
    }

    /// From now on, or no longer, what Redis says waits.
    pub(crate) fn hold_replies(&self, hold: bool) {
        self.gate.change(|rules| rules.hold_replies = hold);
    }

    /// How many connections there were: the number of the next one.
    pub(crate) fn connections(&self) -> usize {
        self.gate.lock().connections
    }

    /// Passes on what this connection has held; the first one is number 0.
    pub(crate) fn let_go(&self, number: usize) {
        self.gate.change(|rules| {
            rules.let_go.insert(number);
        });
    }

    /// Waits until this connection holds a batch.
    #[track_caller]
    pub(crate) fn wait_held(&self, number: usize) {
        self.wait("a batch is held", |rules| rules.held.contains(&number));
    }

    /// Waits until Redis has done all that this connection brought, and both sides are closed.
    #[track_caller]
    pub(crate) fn wait_over(&self, number: usize) {
        self.wait("the connection is over", |rules| {
            rules.over.contains(&number)
        });
    }

    #[track_caller]
    fn wait(&self, what: &str, done: impl Fn(&Rules) -> bool) {
        wait_for(what, || done(&self.gate.lock()).then_some(()));
    }
}

impl Rules {
    fn condition(&self, toward: Toward) -> Condition {
        let condition = self.conditions.get(&toward);
        condition.cloned().unwrap_or(Condition::Clear)
    }

    fn note(&mut self, number: usize, bytes: &[u8]) {
        let has = |word: &[u8]| bytes.windows(word.len()).any(|place| place == word);
        if has(numbered::FOR_COMMANDS.as_bytes()) {
            self.asked.insert(number, Asked::ForCommands);
        } else if has(b"event json ") || has(b"event plain ") {
            self.asked.insert(number, Asked::Events);
        }
    }

    /// Whether this connection is the one for commands. It logs in while the one for events is there.
    fn is_for_commands(&self, number: usize) -> bool {
        match self.asked.get(&number) {
            Some(asked) => *asked == Asked::ForCommands,
            None => self.asked.values().any(|asked| *asked == Asked::Events),
        }
    }
}

/// What is to be done with the next bytes of a direction.
enum Turn {
    /// So many of them pass, after this time; then there may be more to do.
    Pass(usize, Duration, Then),
    Wait,
}

enum Then {
    Go,
    End(Ending),
    Insert(Vec<u8>),
    SayAndEnd(Vec<u8>),
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn pass_when(&self, may_pass: impl Fn(&mut Rules) -> bool) {
        drop(
            self.changed
                .wait_timeout_while(self.lock(), DEADLINE, |rules| !may_pass(rules))
                .unwrap(),
        );
    }

    fn serve(self: &Arc<Gate>, connection: Connection) {
        connection.client.set_nodelay(true).unwrap();
        connection.server.set_nodelay(true).unwrap();
        let (number, connection) = (connection.number, Arc::new(connection));
        self.change(|rules| {
            rules.open.insert(number, Arc::clone(&connection));
        });
        let (gate, asking) = (Arc::clone(self), Arc::clone(&connection));
        thread::spawn(move || {
            gate.copy(&asking, Toward::Server, |bytes| {
                let is_batch = bytes.windows(4).any(|word| word == b"XADD");
                if !is_batch {
                    gate.lock().note(number, bytes);
                }
                gate.pass_when(|rules| {
                    let is_free = !rules.hold_batches && !rules.hold_batches_of.contains(&number);
                    let may_pass = !is_batch || is_free || rules.let_go.contains(&number);
                    if !may_pass {
                        rules.held.insert(number);
                    }
                    may_pass
                });
            });
        });
        let gate = Arc::clone(self);
        thread::spawn(move || {
            gate.copy(&connection, Toward::Client, |_| {
                gate.pass_when(|rules| !rules.hold_replies);
            });
            gate.change(|rules| {
                rules.over.insert(number);
                rules.open.remove(&number);
                rules.asked.remove(&number);
            });
        });
    }

    /// Passes bytes on until the end, each time when `before` returns. A receiver that is gone does not end it.
    fn copy(&self, connection: &Connection, toward: Toward, before: impl Fn(&[u8])) {
        let (mut from, mut to) = match toward {
            Toward::Server => (&connection.client, &connection.server),
            Toward::Client => (&connection.server, &connection.client),
        };
        let mut bytes = vec![0; PIECE];
        let (mut delays, mut passed) = (connection.number as u64, 0);
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            before(&bytes[..read]);
            let mut rest = &bytes[..read];
            while !rest.is_empty() {
                let Turn::Pass(count, after, then) =
                    self.turn(connection.number, toward, rest, passed, &mut delays)
                else {
                    let stuck = self.lock().condition(toward);
                    let still = |rules: &mut Rules| rules.condition(toward) == stuck;
                    let waited = self.changed.wait_while(self.lock(), still);
                    drop(waited.unwrap());
                    continue;
                };
                thread::sleep(after);
                // The end of the other side shows in reading from it.
                drop(to.write_all(&rest[..count]));
                rest = &rest[count..];
                passed += count as u64;
                match then {
                    Then::Go => {}
                    Then::End(ending) => {
                        self.lock().asked.remove(&connection.number);
                        connection.end(ending);
                        return;
                    }
                    Then::Insert(bytes) => drop(to.write_all(&bytes)),
                    Then::SayAndEnd(bytes) => {
                        drop(to.write_all(&bytes));
                        self.lock().asked.remove(&connection.number);
                        connection.end(Ending::Fin);
                        return;
                    }
                }
            }
        }
        drop(to.shutdown(Shutdown::Write));
    }

    fn turn(
        &self,
        number: usize,
        toward: Toward,
        bytes: &[u8],
        passed: u64,
        delays: &mut u64,
    ) -> Turn {
        let (length, mut rules) = (bytes.len(), self.lock());
        let is_spared = rules.is_for_commands(number);
        if let Some((word, condition)) = rules.armed.get(&toward).cloned() {
            let mut windows = bytes.windows(word.len());
            match windows.position(|window| window == word.as_bytes()) {
                Some(0) => {
                    rules.armed.remove(&toward);
                    rules.conditions.insert(toward, condition);
                }
                at => return Turn::Pass(at.unwrap_or(length), Duration::ZERO, Then::Go),
            }
        }
        let Some(condition) = rules.conditions.get_mut(&toward) else {
            return Turn::Pass(length, Duration::ZERO, Then::Go);
        };
        let turn = match condition {
            Condition::Clear => Turn::Pass(length, Duration::ZERO, Then::Go),
            Condition::BlackHole => Turn::Wait,
            Condition::Delay(range) => {
                // Any sequence will do that is not the same for each piece.
                *delays = delays
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let spread = (range.end - range.start).max(1);
                let delay = range.start + (*delays >> 33) % spread;
                Turn::Pass(length, Duration::from_millis(delay), Then::Go)
            }
            Condition::Slow(rate) => {
                let count = (usize::try_from(*rate).unwrap() / 20).clamp(1, length);
                let time = Duration::from_secs_f64(count as f64 / *rate as f64);
                Turn::Pass(count, time, Then::Go)
            }
            Condition::EndEach(at, ending) => {
                let left = usize::try_from(at.saturating_sub(passed)).unwrap();
                let then = match left <= length {
                    true => Then::End(*ending),
                    false => Then::Go,
                };
                return Turn::Pass(left.min(length), Duration::ZERO, then);
            }
            condition if is_spared && condition.strikes_once() => {
                return Turn::Pass(length, Duration::ZERO, Then::Go);
            }
            Condition::HoleAfter(left)
            | Condition::EndAfter(left, _)
            | Condition::InsertAfter(left, _)
            | Condition::LastWords(left, _)
                if (length as u64) < *left =>
            {
                *left -= length as u64;
                return Turn::Pass(length, Duration::ZERO, Then::Go);
            }
            Condition::HoleAfter(left) => {
                let count = usize::try_from(*left).unwrap();
                *condition = Condition::BlackHole;
                Turn::Pass(count, Duration::ZERO, Then::Go)
            }
            Condition::EndAfter(left, ending) => {
                let (count, ending) = (usize::try_from(*left).unwrap(), *ending);
                rules.conditions.remove(&toward);
                Turn::Pass(count, Duration::ZERO, Then::End(ending))
            }
            Condition::InsertAfter(left, between) => {
                let (count, between) = (usize::try_from(*left).unwrap(), std::mem::take(between));
                rules.conditions.remove(&toward);
                Turn::Pass(count, Duration::ZERO, Then::Insert(between))
            }
            Condition::LastWords(left, words) => {
                let (count, words) = (usize::try_from(*left).unwrap(), std::mem::take(words));
                rules.conditions.remove(&toward);
                Turn::Pass(count, Duration::ZERO, Then::SayAndEnd(words))
            }
            Condition::InsertFrame(frame) => {
                let mut places = bytes.windows(EVENT_FRAME.len());
                let Some(count) = places.position(|place| place == EVENT_FRAME) else {
                    return Turn::Pass(length, Duration::ZERO, Then::Go);
                };
                let frame = std::mem::take(frame);
                rules.conditions.remove(&toward);
                Turn::Pass(count, Duration::ZERO, Then::Insert(frame))
            }
        };
        self.changed.notify_all();
        turn
    }
}

impl Connection {
    fn end(&self, ending: Ending) {
        for socket in [&self.client, &self.server] {
            // It may have ended already.
            match ending {
                Ending::Fin => drop(socket.shutdown(Shutdown::Both)),
                Ending::Rst => drop(rustix::net::connect_unspec(socket)),
            }
        }
    }
}
