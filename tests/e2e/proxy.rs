//! A TCP proxy in front of Redis that can hold what goes through it, so that a test decides what arrives late.
//!
//! What was held is passed on when it is let go, also when its client has gone meanwhile: as in a network.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use jackfield::simulator::Simulator;

use crate::harness::{DEADLINE, Host, Redis, Setup, wait_for};
use crate::numbered;

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
    hold_replies: bool,
    let_go: BTreeSet<usize>,
    held: BTreeSet<usize>,
    over: BTreeSet<usize>,
    connections: usize,
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
        let gate = Arc::clone(&proxy.gate);
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let server = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)));
                gate.change(|rules| rules.connections = number + 1);
                if let (Ok(client), Ok(server)) = (client, server) {
                    gate.serve(number, client, server);
                }
            }
        });
        proxy
    }

    /// From now on whatever has an XADD in it waits, by connection, to be let go.
    pub(crate) fn hold_batches(&self) {
        self.gate.change(|rules| rules.hold_batches = true);
    }

    /// From now on, or no longer, what Redis says waits.
    pub(crate) fn hold_replies(&self, hold: bool) {
        self.gate.change(|rules| rules.hold_replies = hold);
    }

    /// How many connections there were: the number of the next one.
    pub(crate) fn connections(&self) -> usize {
        self.gate.rules.lock().unwrap().connections
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
        wait_for(what, || {
            done(&self.gate.rules.lock().unwrap()).then_some(())
        });
    }
}

impl Gate {
    fn change(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.rules.lock().unwrap());
        self.changed.notify_all();
    }

    fn pass_when(&self, may_pass: impl Fn(&mut Rules) -> bool) {
        let rules = self.rules.lock().unwrap();
        drop(
            self.changed
                .wait_timeout_while(rules, DEADLINE, |rules| !may_pass(rules))
                .unwrap(),
        );
    }

    fn serve(self: &Arc<Gate>, number: usize, client: TcpStream, server: TcpStream) {
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let (from, to, gate) = (
            client.try_clone().unwrap(),
            server.try_clone().unwrap(),
            Arc::clone(self),
        );
        thread::spawn(move || {
            copy(from, to, |bytes| {
                let is_batch = bytes.windows(4).any(|word| word == b"XADD");
                gate.pass_when(|rules| {
                    let may_pass =
                        !is_batch || !rules.hold_batches || rules.let_go.contains(&number);
                    if !may_pass {
                        rules.held.insert(number);
                    }
                    may_pass
                });
            });
        });
        let gate = Arc::clone(self);
        thread::spawn(move || {
            copy(server, client, |_| {
                gate.pass_when(|rules| !rules.hold_replies);
            });
            gate.change(|rules| {
                rules.over.insert(number);
            });
        });
    }
}

/// Passes bytes on until the end, each time when `before` returns. A receiver that is gone does not end it.
fn copy(mut from: TcpStream, mut to: TcpStream, before: impl Fn(&[u8])) {
    let mut bytes = vec![0; 1 << 20];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        before(&bytes[..read]);
        // The end of the other side shows in reading from it.
        drop(to.write_all(&bytes[..read]));
    }
    drop(to.shutdown(Shutdown::Write));
}
