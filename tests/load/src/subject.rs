//! What is measured: the host with filters, the bare relay, or a peer; each a process with the same environment, in a folder of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::store::free_port;

/// Ample for a process to start or to end.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at a host's status.
const LOOK: Duration = Duration::from_millis(10);

/// The programs and components of this checkout.
pub struct Built {
    /// Where `jackfield` and `relay` are.
    pub programs: PathBuf,
    /// Where the filters are.
    pub components: PathBuf,
}

/// What is to be started.
#[derive(Clone)]
pub enum Subject {
    /// Jackfield.
    Host(Setup),
    /// Event Socket in, `XADD` out, and nothing else.
    Relay,
    /// Another program with the same environment: its command line.
    Peer(Vec<String>),
}

/// How a host is set up, beside what all subjects get.
#[derive(Clone, Default)]
pub struct Setup {
    /// Files in its folder of filters, without their endings: the component and its settings.
    pub filters: Vec<(&'static str, &'static str, &'static str)>,
    /// The text of its configuration file.
    pub config: String,
}

/// What a stream keeps where nothing else is asked for: the default of Telephony Event Sync.
pub const MAX_LEN: u64 = 10_000;

/// What a subject is connected to.
#[derive(Clone)]
pub struct Wires {
    pub esl: SocketAddr,
    pub redis: String,
    /// How many entries the stream keeps, 0 for all.
    pub max_len: u64,
}

/// A process that ends with its owner.
pub struct Running {
    process: Child,
    http: SocketAddr,
    dir: TempDir,
}

impl Built {
    /// Beside this very program.
    pub fn beside(program: &Path) -> Built {
        // …/target/release/load, or …/target/debug/deps/… for a test.
        let folder = program
            .ancestors()
            .skip(1)
            .find(|folder| !folder.ends_with("deps"));
        let programs = folder.expect("a program lies in a folder").to_owned();
        let target = programs.parent().expect("target/release").to_owned();
        Built {
            components: target.join("wasm32-wasip2/filter"),
            programs,
        }
    }

    /// The component of a filter.
    pub fn component(&self, name: &str) -> PathBuf {
        self.components.join(format!("{name}.wasm"))
    }

    /// Starts a subject in a new folder.
    pub fn start(&self, subject: &Subject, wires: &Wires) -> Running {
        let dir = TempDir::new().expect("a folder");
        if let Subject::Host(setup) = subject {
            setup.place(self, dir.path());
        }
        self.start_in(dir, subject, wires)
    }

    /// Starts it in a folder where it was before.
    pub fn start_in(&self, dir: TempDir, subject: &Subject, wires: &Wires) -> Running {
        let mut command = match subject {
            Subject::Host(_) => {
                let mut command = Command::new(self.programs.join("jackfield"));
                command.arg("run");
                command
            }
            Subject::Relay => Command::new(self.programs.join("relay")),
            Subject::Peer(words) => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]);
                command
            }
        };
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        command
            .current_dir(dir.path())
            .env("ESL_HOST", wires.esl.ip().to_string())
            .env("ESL_PORT", wires.esl.port().to_string())
            .env("ESL_PASSWORD", "ClueCon")
            .env("ESL_RECONNECT_DELAY", "100ms")
            .env("ESL_MAX_RECONNECT_DELAY", "200ms")
            .env("REDIS_REMOTE_ADDR", &wires.redis)
            .env("REDIS_REMOTE_DB", "0")
            .env("EVENTS_MAX_LEN", wires.max_len.to_string())
            .env("EVENTS_TO_PUSH", "CHANNEL_ANSWER")
            .env("HEALTH_PORT", http.port().to_string())
            .env("LOG_LEVEL", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = command.spawn();
        let process = process.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Running { process, http, dir }
    }
}

impl Setup {
    fn place(&self, built: &Built, dir: &Path) {
        let filters = dir.join("filters.d");
        fs::create_dir(&filters).expect("a folder");
        for (file, component, settings) in &self.filters {
            let settings_file = filters.join(format!("{file}.toml"));
            fs::write(settings_file, settings).expect("the settings");
            place(&built.component(component), &filters, file, &[]);
        }
        if !self.config.is_empty() {
            fs::write(dir.join("jackfield.toml"), &self.config).expect("the settings");
        }
    }
}

/// Puts a component into a folder of filters, whole from the first moment on. A `build` makes it one that was never seen: a section
/// that nothing reads changes its digest.
pub fn place(component: &Path, filters: &Path, file: &str, build: &[u8]) {
    let read = fs::read(component);
    let mut bytes = read.unwrap_or_else(|error| {
        panic!("{} ({error}): run `make bench`", component.display());
    });
    if !build.is_empty() {
        let length = u8::try_from(build.len() + 2).expect("a short build");
        bytes.extend([0, length, 1, b'b']);
        bytes.extend(build);
    }
    let hidden = filters.join(format!(".{file}.new"));
    fs::write(&hidden, bytes).expect("the component is written");
    fs::rename(&hidden, filters.join(format!("{file}.wasm"))).expect("it gets its name");
}

impl Running {
    /// Its folder of filters, if it is a host.
    pub fn filters(&self) -> PathBuf {
        self.dir.path().join("filters.d")
    }

    /// The time that its threads were on a processor so far.
    pub fn cpu(&self) -> Cpu {
        Cpu::of(self.process.id())
    }

    /// What it holds in memory, in bytes: in all, and what is its own and no file's.
    pub fn resident(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(path).expect("the process runs");
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|number| number.parse::<u64>().ok())
        };
        let bytes = |name| kib(name).expect("a process has a size") << 10;
        (bytes("VmRSS:"), bytes("RssAnon:"))
    }

    /// A host's `/status`, once it answers.
    pub fn status(&self) -> Value {
        let started = Instant::now();
        loop {
            if let Some(status) = self.try_status() {
                return status;
            }
            assert!(started.elapsed() < LIMIT, "the host does not answer");
            std::thread::sleep(LOOK);
        }
    }

    fn try_status(&self) -> Option<Value> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        let request = "GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    /// Fails where a host runs other filters than those that it was given: one that was refused would cost nothing.
    pub fn check_filters(&self, setup: &Setup) {
        let running = |&(file, ..): &(&str, _, _)| self.filter_since_us(file).is_some();
        let status = || self.status()["filters"].to_string();
        assert!(setup.filters.iter().all(running), "{}", status());
    }

    /// Since when the version of a host's filter that runs does so, in microseconds since the epoch; `None` where none does.
    pub fn filter_since_us(&self, file: &str) -> Option<u64> {
        let status = self.status();
        let filters = status["filters"].as_array()?;
        let filter = filters.iter().find(|filter| filter["file"] == file)?;
        let runs = filter["state"] == "running";
        filter["since_us"].as_u64().filter(|_| runs)
    }

    /// Waits until another version runs than the one that did since `before`, and says since when.
    pub fn wait_for_swap(&self, file: &str, before: Option<u64>) -> u64 {
        let started = Instant::now();
        loop {
            let since = self.filter_since_us(file);
            if let Some(since_us) = since.filter(|_| since != before) {
                return since_us;
            }
            assert!(
                started.elapsed() < LIMIT,
                "{file} does not go live: {}",
                self.status()["filters"]
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Asks it to end, and gives its folder.
    pub fn stop(mut self) -> TempDir {
        let id = self.process.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &id]).status();
        assert!(asked.expect("kill runs").success(), "the process runs");
        let started = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) && started.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(5));
        }
        let empty = TempDir::new().expect("a folder");
        std::mem::replace(&mut self.dir, empty)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The time that each of a process' threads was on a processor so far; the scheduler counts it in nanoseconds.
pub struct Cpu(BTreeMap<OsString, Duration>);

impl Cpu {
    /// Of the threads that there are now.
    pub fn of(pid: u32) -> Cpu {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
        let time = |thread: &Path| {
            let text = fs::read_to_string(thread.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        let times = threads.flatten().filter_map(|thread| {
            // It may have ended meanwhile.
            let nanos = time(&thread.path())?;
            Some((thread.file_name(), Duration::from_nanos(nanos)))
        });
        Cpu(times.collect())
    }

    /// What they took since then. Of a thread that has ended, what it took last is not known.
    pub fn since(&self, before: &Cpu) -> Duration {
        let took = |(thread, now): (&OsString, &Duration)| {
            let then = before.0.get(thread).copied().unwrap_or_default();
            now.saturating_sub(then)
        };
        self.0.iter().map(took).sum()
    }
}
