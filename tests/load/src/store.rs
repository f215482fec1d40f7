//! A redis-server of the benchmark's own, in memory, and the few questions that it is asked.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue};
use tempfile::TempDir;

/// The stream that all subjects write to.
pub const STREAM: &str = "freeswitch:telephony:events";
/// Ample for a redis-server to start.
const START: Duration = Duration::from_secs(10);
/// Entries that are read at a time.
const PAGE: usize = 500;

/// A redis-server that ends with its owner.
pub struct Store {
    pub port: u16,
    server: Child,
    dir: TempDir,
}

impl Store {
    /// Starts it on a free port.
    pub fn start() -> Store {
        let port = free_port();
        let dir = TempDir::new().expect("a folder");
        Store {
            server: spawn(port, &dir),
            port,
            dir,
        }
    }

    /// As if its machine had gone away, with all that it held.
    pub fn kill(&mut self) {
        // It may have ended already.
        drop(self.server.kill());
        drop(self.server.wait());
    }

    /// Begins anew on the same port, empty.
    pub fn start_again(&mut self) {
        self.server = spawn(self.port, &self.dir);
    }

    /// Where it is, as the subjects are told.
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// A connection of one's own.
    pub fn connect(&self) -> Connection {
        let client = redis::Client::open(format!("redis://{}/0", self.address()));
        let client = client.expect("an address");
        client.get_connection().expect("redis-server is up")
    }

    /// The process, for those who look at its processor time.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn spawn(port: u16, dir: &TempDir) -> Child {
    let server = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is missing: apt-get install redis-server");
    let started = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(started.elapsed() < START, "redis-server does not answer");
        std::thread::sleep(Duration::from_millis(2));
    }
    server
}

/// One command, such as `ask(&mut connection, &["XLEN", "stream"])`.
pub fn ask<T: FromRedisValue>(connection: &mut Connection, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let answer = command.query(connection);
    answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// How many entries were ever added to the stream, whatever was trimmed since.
pub fn added(connection: &mut Connection, stream: &str) -> u64 {
    let asked: redis::RedisResult<redis::Value> = redis::cmd("XINFO")
        .arg("STREAM")
        .arg(stream)
        .query(connection);
    // No such key: nothing yet.
    let Ok(redis::Value::Array(words)) = asked else {
        return 0;
    };
    let mut words = words.iter();
    words
        .find(|word| matches!(word, redis::Value::BulkString(name) if name == b"entries-added"))
        .and_then(|_| words.next())
        .and_then(|value| u64::from_redis_value_ref(value).ok())
        .expect("redis-server 7 or later says how many entries were added")
}

/// Goes through all entries of the stream, in order: what a field's value is, for the first field of each.
pub fn read(connection: &mut Connection, stream: &str, mut take: impl FnMut(&[u8])) {
    type Entries = Vec<(String, Vec<(redis::Value, redis::Value)>)>;
    let mut from = "-".to_owned();
    loop {
        let count = PAGE.to_string();
        let entries: Entries = ask(connection, &["XRANGE", stream, &from, "+", "COUNT", &count]);
        let Some((last, _)) = entries.last() else {
            return;
        };
        from = format!("({last}");
        for (_, fields) in &entries {
            if let Some((_, redis::Value::BulkString(value))) = fields.first() {
                take(value);
            }
        }
    }
}
