//! `compose.yaml`: the host, a Redis and the simulated FreeSWITCH, with one command.

use std::path::Path;
use std::process::Command;

use crate::harness::{free_port, root, wait_for};
use crate::numbered::STREAM;

/// The services on ports of their own, taken down at the end.
struct Services {
    folder: tempfile::TempDir,
    redis: u16,
    variables: Vec<(&'static str, String)>,
}

impl Services {
    fn new() -> Services {
        let redis = free_port();
        let variables = vec![
            ("ESL_PORT", free_port().to_string()),
            ("REDIS_PORT", redis.to_string()),
            ("REDIS_REMOTE_ADDR", format!("127.0.0.1:{redis}")),
            ("HEALTH_PORT", free_port().to_string()),
        ];
        Services {
            folder: tempfile::tempdir().unwrap(),
            redis,
            variables,
        }
    }

    fn compose(&self, args: &[&str]) -> std::process::Output {
        let folder: &Path = self.folder.path();
        let mut command = Command::new("docker-compose");
        command.arg("--project-directory").arg(folder);
        command.args(["--project-name", "jackfield-test", "--profile", "simulated"]);
        command.arg("--file").arg(root().join("compose.yaml"));
        command.args(args).envs(self.variables.iter().cloned());
        command.output().unwrap()
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let output = self.compose(&["logs", "--no-color"]);
            eprintln!("{}", String::from_utf8_lossy(&output.stdout));
        }
        drop(self.compose(&["down", "--volumes"]));
    }
}

#[test]
fn the_services_of_compose_bring_simulated_calls_to_redis() {
    let services = Services::new();
    let up = services.compose(&["up", "--detach", "--no-build"]);
    assert!(up.status.success(), "{up:?}");
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/2", services.redis)).unwrap();
    wait_for("events come to Redis", || {
        let mut connection = client.get_connection().ok()?;
        let length: u64 = redis::cmd("XLEN").arg(STREAM).query(&mut connection).ok()?;
        (length > 50).then_some(())
    });
    let down = services.compose(&["stop"]);
    assert!(down.status.success(), "{down:?}");
}
