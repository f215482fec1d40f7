//! A real Redis Sentinel that watches one master, and promotes its replica when it cannot be reached.

use std::fs;
use std::process::{Child, Command, Stdio};

use redis::{Value, cmd};
use tempfile::TempDir;

use crate::harness::{free_port, wait_for};

/// The master's name.
const NAME: &str = "calls";

/// It ends with its test.
pub(crate) struct Sentinel {
    port: u16,
    process: Child,
    _dir: TempDir,
}

impl Sentinel {
    /// Watches the master on this port, and waits until it knows the replica. It is quick to believe the worst.
    #[track_caller]
    pub(crate) fn over(master: u16) -> Sentinel {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let config = dir.path().join("sentinel.conf");
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", dir.path().display()),
            format!("sentinel monitor {NAME} 127.0.0.1 {master} 1"),
            format!("sentinel down-after-milliseconds {NAME} 400"),
            format!("sentinel failover-timeout {NAME} 10000"),
        ];
        fs::write(&config, lines.join("\n")).unwrap();
        let process = Command::new("redis-server")
            .arg(config)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let sentinel = Sentinel {
            port,
            process: process.expect("redis-server is missing: apt-get install redis-server"),
            _dir: dir,
        };
        wait_for("Sentinel knows the replica", || {
            let replicas: Vec<Value> = sentinel.ask("replicas")?;
            (!replicas.is_empty()).then_some(())
        });
        sentinel
    }

    /// Waits until the replica on this port is the master.
    #[track_caller]
    pub(crate) fn wait_promoted(&self, port: u16) {
        wait_for("Sentinel promotes the replica", || {
            let (_, master): (String, u16) = self.ask("get-master-addr-by-name")?;
            (master == port).then_some(())
        });
    }

    fn ask<T: redis::FromRedisValue>(&self, what: &str) -> Option<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client.get_connection().ok()?;
        let mut asking = cmd("SENTINEL");
        asking.arg(what).arg(NAME).query(&mut connection).ok()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
