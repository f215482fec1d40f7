//! The simulator as a caller sees it: started, loaded, disturbed, stopped.
//!
//! Owns the tasks: one accepts connections and owns theirs, one fires heartbeats. `stop` joins them; dropping the simulator aborts them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::compose::Composed;
use super::connection::{Connection, SHUTDOWN};
use super::conversation;
use super::event::Event;
use super::heartbeat;
use super::load::{self, Load};
use super::script::Script;
use super::switch::{Switch, lock};

/// How long `shut_down_notice` waits for clients that do not read.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How the simulated switch is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; port 0 chooses a free one.
    pub listen: SocketAddr,
    /// What `auth` must give.
    pub password: String,
    /// What `userauth` must give: the user, with or without its domain, and the password.
    pub user: Option<(String, String)>,
    /// The name of the switch in events and in `api switchname`.
    pub switchname: String,
    /// The time between heartbeats; zero for none.
    pub heartbeat: Duration,
    /// The same seed makes the same calls, UUIDs included.
    pub seed: u64,
    /// How many events may wait for a connection; what is over is dropped.
    pub max_queue: usize,
    /// From how many numbers a call's event takes one by chance: more make more events come before those of lower numbers. 1: none does but
    /// those that are numbered ahead.
    pub disorder: usize,
    /// One in so many events of calls is preceded by a number that never appears.
    pub gap_every: u64,
    /// Reject every connection as an access list does.
    pub acl_reject: bool,
    /// Whether `mod_commands` is loaded: without it every API command is unknown.
    pub has_commands: bool,
}

impl Default for Settings {
    /// As FreeSWITCH out of the box, but on a free port of the loopback.
    fn default() -> Settings {
        Settings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            password: "ClueCon".to_owned(),
            user: None,
            switchname: "sim1".to_owned(),
            heartbeat: Duration::from_secs(20),
            seed: 1,
            max_queue: 100_000,
            disorder: 1,
            gap_every: 33,
            acl_reject: false,
            has_commands: true,
        }
    }
}

/// What became of the events so far, over all connections and restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Events that happened, whether or not anybody listened: calls, fired ones, heartbeats, those that commands bring about.
    pub fired: u64,
    /// Events that entered a connection's queue; one event counts once for each connection, those for commands left out.
    pub queued: u64,
    /// Events that were lost at a full queue.
    pub dropped: u64,
    /// Listeners that were given up because too many in a row were.
    pub given_up: u64,
}

/// A running simulated switch.
#[derive(Debug)]
pub struct Simulator {
    switch: Arc<Switch>,
    addr: SocketAddr,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Simulator {
    /// Opens the port and starts. The error is that of the port.
    pub async fn start(settings: Settings) -> std::io::Result<Simulator> {
        let script = Script::shared().map_err(std::io::Error::other)?;
        let listener = TcpListener::bind(settings.listen).await?;
        let addr = listener.local_addr()?;
        let interval = settings.heartbeat;
        let switch = Arc::new(Switch::new(settings, script));
        let (stopping, mut stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let accepting = Arc::clone(&switch);
        tasks.spawn(accept(accepting, listener, stopped.clone()));
        let beating = Arc::clone(&switch);
        tasks.spawn(async move {
            tokio::select! {
                () = heartbeat::beat(&beating, interval) => {}
                () = stop_asked(&mut stopped) => {}
            }
        });
        Ok(Simulator {
            switch,
            addr,
            stopping,
            tasks,
        })
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The identity of this life of the switch; `restart` changes it.
    pub fn core_uuid(&self) -> String {
        self.switch.core_uuid()
    }

    /// Places calls until so many events were fired, and returns how many. Calls that have not ended then go on in the next load, also
    /// when this future is dropped. Unpaced, it waits for listeners, but not for one to come: events without a listener are gone.
    ///
    /// As with a real switch, about 3 % of the sequence numbers never appear, and an API event comes later than its number says.
    pub async fn place_calls(&self, load: Load) -> u64 {
        load::place(&self.switch, load).await
    }

    /// Fires one event and returns its Event-Sequence, without a gap before it. At a full queue it is dropped, as by FreeSWITCH.
    pub fn fire(&self, event: Event) -> u64 {
        self.switch.fire(Composed::from(event))
    }

    /// Sends bytes as they are to every connection that listens to events, after the events that wait, and returns when they are written.
    pub async fn write_raw(&self, bytes: Bytes) {
        let listening: Vec<_> = self.listening();
        for connection in &listening {
            connection.push_raw(bytes.clone());
        }
        for connection in &listening {
            connection.drained().await;
        }
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        let connections = self.switch.connections();
        connections
            .iter()
            .filter(|connection| !connection.is_over())
            .count()
    }

    /// How many logins succeeded so far.
    pub fn logins(&self) -> u64 {
        self.switch.logins.load(Ordering::Relaxed)
    }

    /// Waits until so many connections listen to events; one for commands, which asks for BACKGROUND_JOB and HEARTBEAT alone, does not. False when the time is up first.
    pub async fn wait_for_subscribers(&self, count: usize, deadline: Duration) -> bool {
        let enough = async {
            loop {
                let changed = self.switch.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.listening().len() >= count {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(deadline, enough).await.is_ok()
    }

    /// The counters.
    pub fn sent(&self) -> Sent {
        self.switch.sent()
    }

    /// Closes every connection at once, in the middle of a frame if it is being written, without a notice. To end in the middle of a
    /// frame for certain, write its start with `write_raw` first.
    pub fn cut(&self) {
        for connection in self.switch.connections() {
            connection.cut();
        }
    }

    /// The same for connections for commands: those that ask for BACKGROUND_JOB and HEARTBEAT alone.
    pub fn cut_commands(&self) {
        for connection in self.switch.connections() {
            if connection.is_for_commands() {
                connection.cut();
            }
        }
    }

    /// Ends every connection as `reload mod_event_socket` does: what waits, the notice, the end. Clients that do not read are cut.
    pub async fn shut_down_notice(&self) {
        let connections = self.switch.connections();
        for connection in &connections {
            connection.say_farewell(SHUTDOWN);
        }
        let all_gone = async {
            for connection in &connections {
                connection.over().await;
            }
        };
        if tokio::time::timeout(FAREWELL_TIMEOUT, all_gone)
            .await
            .is_err()
        {
            for connection in connections {
                connection.cut();
            }
        }
    }

    /// While silent, connections are accepted and commands answered, but no events or heartbeats are sent; they are lost.
    pub fn set_silent(&self, silent: bool) {
        self.switch.silent.store(silent, Ordering::Relaxed);
        for connection in self.switch.connections() {
            connection.discard();
        }
        self.switch.room.notify_waiters();
    }

    /// While refusing, new connections are closed at once, before a single byte. The port stays taken, so that nobody else gets it.
    pub fn set_refuse(&self, refuse: bool) {
        self.switch.refuse.store(refuse, Ordering::Relaxed);
    }

    /// As after `kill -9` and a new start: connections are cut, calls are gone without a word, the Core-UUID is new, numbers start again.
    pub fn restart(&self) {
        self.cut();
        self.switch.be_reborn();
    }

    /// The last 10,000 commands, each with its headers below it, in the order of their arrival.
    pub fn commands(&self) -> Vec<String> {
        let commands = self.switch.commands().into_iter();
        commands.map(|(_, command)| command).collect()
    }

    /// The same, connection by connection, in the order of connecting.
    pub fn conversations(&self) -> Vec<Vec<String>> {
        let mut conversations = BTreeMap::<usize, Vec<String>>::new();
        for (connection, command) in self.switch.commands() {
            conversations.entry(connection).or_default().push(command);
        }
        conversations.into_values().collect()
    }

    /// Cuts every connection, closes the port and joins the tasks.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        while let Some(result) = self.tasks.join_next().await {
            if let Err(error) = result {
                tracing::error!(%error, "a task of the simulator failed");
            }
        }
        lock(&self.switch.jobs).abort_all();
    }

    fn listening(&self) -> Vec<Arc<Connection>> {
        let mut connections = self.switch.connections();
        connections.retain(|connection| connection.is_listening());
        connections
    }
}

/// Returns when the simulator is to stop, or was dropped.
async fn stop_asked(stopped: &mut watch::Receiver<bool>) {
    // An error means that the simulator is gone, which asks for the same.
    drop(stopped.wait_for(|stopping| *stopping).await);
}

async fn accept(switch: Arc<Switch>, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let mut conversations = JoinSet::new();
    let mut number = 0;
    loop {
        let stream = tokio::select! {
            () = stop_asked(&mut stopped) => break,
            Some(ended) = conversations.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection of the simulator failed");
                }
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the simulator could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        if switch.refuse.load(Ordering::Relaxed) {
            continue;
        }
        let connection = Arc::new(Connection::default());
        switch.admit(Arc::clone(&connection));
        number += 1;
        let switch = Arc::clone(&switch);
        conversations.spawn(conversation::serve(switch, connection, number, stream));
    }
    conversations.shutdown().await;
}
