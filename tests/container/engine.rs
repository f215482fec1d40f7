//! Containers of the image: started under limits, asked, killed, and removed with their volumes at the end of a test.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jackfield::simulator::{Settings, Simulator};
use serde_json::Value;

use crate::harness::{self, Redis, free_port, wait_for};

/// What `make container-test` built.
pub(crate) const IMAGE: &str = "jackfield";
/// The router's name in all tests.
pub(crate) const ROUTER: &str = "boxed";
/// The journal's place in the image.
pub(crate) const DATA: &str = "/jackfield/data";
/// One processor, 1 GiB, nothing to write to, no rights.
const LIMITS: [&str; 11] = [
    "--network=host",
    "--cpus",
    "1",
    "--memory",
    "1g",
    "--memory-swap",
    "1g",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt",
    "no-new-privileges",
];

/// A variable that the script sets.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run make container-test"))
}

/// Runs `docker` and gives what it printed, also if it failed.
pub(crate) fn try_docker(args: &[&str]) -> Output {
    Command::new(variable("CONTAINER_DOCKER"))
        .args(args)
        .output()
        .unwrap()
}

/// Runs `docker`, which must succeed.
#[track_caller]
pub(crate) fn docker(args: &[&str]) -> String {
    let output = try_docker(args);
    assert!(output.status.success(), "docker {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A name that no other test of this run has.
fn unused(kind: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("jackfield-test-{}-{kind}-{number}", std::process::id())
}

/// A switch without heartbeats and events of commands: what a test fires is all there is.
pub(crate) async fn switch() -> Simulator {
    let settings = Settings {
        heartbeat: Duration::ZERO,
        has_commands: false,
        ..Settings::default()
    };
    Simulator::start(settings).await.unwrap()
}

/// A volume with a name, removed at the end.
pub(crate) struct Volume(pub(crate) String);

impl Volume {
    pub(crate) fn new() -> Volume {
        Volume(docker(&["volume", "create", &unused("volume")]))
    }

    /// As an argument of `docker run`.
    pub(crate) fn mount(&self) -> String {
        format!("--volume={}:{DATA}", self.0)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        drop(try_docker(&["volume", "rm", "--force", &self.0]));
    }
}

/// A running host in a container.
pub(crate) struct Container {
    name: String,
    http: SocketAddr,
}

impl Container {
    /// Starts one for this FreeSWITCH and this Redis, with further arguments of `docker run`.
    #[track_caller]
    pub(crate) fn start(switch: &Simulator, redis: &Redis, more: &[&str]) -> Container {
        let name = unused("host");
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let variables = [
            format!("ESL_PORT={}", switch.addr().port()),
            format!("REDIS_REMOTE_ADDR=127.0.0.1:{}", redis.port),
            format!("JACKFIELD_ROUTER_NAME={ROUTER}"),
            format!("HEALTH_PORT={}", http.port()),
            "EVENTS_MAX_LEN=0".to_owned(),
            "ESL_RECONNECT_DELAY=50ms".to_owned(),
        ];
        let variables = variables.iter().flat_map(|set| ["--env", set]);
        let start = ["run", "--detach", "--name", &name].into_iter();
        let args = start.chain(LIMITS).chain(variables);
        let args: Vec<&str> = args.chain(more.iter().copied()).chain([IMAGE]).collect();
        docker(&args);
        Container { name, http }
    }

    #[track_caller]
    pub(crate) fn wait_ready(&self) {
        let ready =
            || harness::request(self.http, "GET", "/readyz", "").is_ok_and(|it| it.0 == 200);
        self.wait("it is ready", || ready().then_some(()));
    }

    /// Waits until a condition on `/status` holds.
    #[track_caller]
    pub(crate) fn wait_status(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        self.wait(what, || {
            // Nobody answers before the host has started.
            let (_, _, body) = harness::request(self.http, "GET", "/status", "").ok()?;
            let status: Value = serde_json::from_str(&body).ok()?;
            assert_eq!(status["counts"]["balanced"], true, "{status:#}");
            done(&status).then_some(status)
        })
    }

    /// Waits for something; the log is shown if it does not come.
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, done: impl FnMut() -> Option<T>) -> T {
        wait_for(&format!("{what}, in {}", self.name), done)
    }

    /// Waits until so many events have come to this process and nothing is pending.
    #[track_caller]
    pub(crate) fn wait_settled(&self, inputs: u64) -> Value {
        self.wait_status(&format!("{inputs} inputs are settled"), |status| {
            let counts = &status["counts"];
            counts["inputs"].as_u64() >= Some(inputs) && counts["pending"] == 0
        })
    }

    /// The state of the container, as the engine has it.
    pub(crate) fn state(&self) -> Value {
        let state = docker(&["inspect", "--format", "{{json .State}}", &self.name]);
        serde_json::from_str(&state).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        let output = try_docker(&["logs", &self.name]);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// SIGTERM, as `docker stop` sends it, and the exit code. What takes longer than the engine waits by default is killed: 137.
    pub(crate) fn stop(&self) -> i64 {
        docker(&["stop", "--time", "10", &self.name]);
        self.state()["ExitCode"].as_i64().unwrap()
    }

    /// SIGKILL to all that runs in it, and its removal with the volumes that have no name.
    pub(crate) fn kill_and_remove(self) {
        docker(&["kill", "--signal", "KILL", &self.name]);
        self.wait("it is dead", || {
            (self.state()["Running"] == false).then_some(())
        });
        assert_eq!(self.state()["ExitCode"], 137, "it was killed");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log());
        }
        drop(try_docker(&["rm", "--force", "--volumes", &self.name]));
    }
}
