//! Set-up for the tests: a real `jackfield` process, a real `redis-server`, components built from this checkout.
//!
//! The binary and the components are built once for each run. Everything listens on a free port, lives in a folder of its own
//! and ends with its test. Nothing here sleeps to be right: tests wait for a condition with a deadline.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before the test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn target() -> PathBuf {
    // …/target/debug/deps/e2e-…
    std::env::current_exe()
        .unwrap()
        .ancestors()
        .nth(3)
        .unwrap()
        .to_owned()
}

/// The cargo that runs these tests.
pub fn cargo_command() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn cargo(args: &[&str]) {
    let built = Command::new(cargo_command())
        .args(args)
        .current_dir(root())
        .env("CARGO_TARGET_DIR", target())
        .status();
    assert!(built.unwrap().success(), "cargo {} failed", args.join(" "));
}

/// The binary, built once: as `cargo test --workspace` has built it, for with other features all would be compiled again. Or the one that
/// `HOST_BINARY` names, such as the one that ships.
pub fn jackfield() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(binary) = std::env::var_os("HOST_BINARY") {
            return binary.into();
        }
        cargo(&[
            "test",
            "--quiet",
            "--workspace",
            "--test",
            "binary",
            "--no-run",
        ]);
        target().join("debug/jackfield")
    })
}

/// The filters that ship.
pub const FILTERS: [&str; 11] = [
    "call-record",
    "dedup",
    "enrich",
    "normalize",
    "project",
    "rate-limit",
    "ready",
    "redact",
    "route",
    "sample",
    "validate",
];

/// The component of a filter crate of this workspace, built once.
pub fn component(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let crates = FILTERS.into_iter().chain(["hostile"]);
        let packages: Vec<&str> = crates.flat_map(|name| ["-p", name]).collect();
        cargo(
            &[
                &[
                    "build",
                    "--quiet",
                    "--profile",
                    "filter",
                    "--target",
                    "wasm32-wasip2",
                ],
                packages.as_slice(),
            ]
            .concat(),
        );
        target().join("wasm32-wasip2/filter")
    });
    folder.join(format!("{}.wasm", name.replace('-', "_")))
}

/// The library for faults between a process and the kernel, built once.
pub fn interposer() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        cargo(&["build", "--quiet", "-p", "interposer"]);
        target().join("debug/libinterposer.so")
    });
    built.clone()
}

/// Waits until `done` gives something; fails with `what` if it does not in time.
#[track_caller]
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(
            started.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Arguments of a redis-server of which what it has acknowledged survives its death.
pub const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// A redis-server of the test's own.
pub struct Redis {
    pub port: u16,
    dir: TempDir,
    server: Option<Child>,
    args: Vec<String>,
    env: Vec<(&'static str, PathBuf)>,
}

impl Redis {
    /// In memory, without persistence.
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// With further arguments of redis-server, such as `--appendonly yes`.
    pub fn start_with(args: &[&str]) -> Redis {
        Redis::start_within(args, Vec::new())
    }

    /// And with variables of its environment.
    pub fn start_within(args: &[&str], env: Vec<(&'static str, PathBuf)>) -> Redis {
        let args = args.iter().map(ToString::to_string).collect();
        let mut redis = Redis {
            port: free_port(),
            dir: tempfile::tempdir().unwrap(),
            server: None,
            args,
            env,
        };
        redis.up();
        redis
    }

    /// Starts it again on the same port and folder.
    #[track_caller]
    pub fn up(&mut self) {
        self.spawn();
        self.wait_up();
    }

    /// Starts it again, and waits for nothing.
    pub fn spawn(&mut self) {
        let server = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &self.port.to_string(),
                "--save",
                "",
                "--dir",
            ])
            .arg(self.dir.path())
            .args(&self.args)
            .envs(self.env.iter().cloned())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.server = Some(server.expect("redis-server is missing: apt-get install redis-server"));
    }

    /// Waits until it answers as one that has its data.
    #[track_caller]
    pub fn wait_up(&self) {
        wait_for("redis-server answers", || {
            let mut connection = self.client().get_connection().ok()?;
            redis::cmd("PING").query::<String>(&mut connection).ok()
        });
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// `SHUTDOWN`, which writes what the persistence settings say.
    pub fn shut_down(&mut self) {
        if let Some(mut server) = self.server.take() {
            let mut connection = self.client().get_connection().unwrap();
            // The connection ends with the server, so there is no answer.
            drop(redis::cmd("SHUTDOWN").query::<()>(&mut connection));
            server.wait().unwrap();
        }
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    /// Such as `STOP`, which makes it hang, and `CONT`.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(format!("redis://127.0.0.1:{}/2", self.port)).unwrap()
    }

    pub fn connection(&self) -> redis::Connection {
        self.client().get_connection().unwrap()
    }

    /// One command, such as `redis.ask(&["XLEN", "stream"])`.
    pub fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        command
            .query(&mut self.connection())
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// All entries of a stream in order: the fields of each.
    pub fn entries(&self, stream: &str) -> Vec<Vec<(String, String)>> {
        type Entries = Vec<(String, Vec<(String, String)>)>;
        let entries: Entries = self.ask(&["XRANGE", stream, "-", "+"]);
        entries.into_iter().map(|(_, fields)| fields).collect()
    }

    /// The `event` field of all entries of a stream, parsed.
    pub fn events(&self, stream: &str) -> Vec<Value> {
        let entries = self.entries(stream);
        entries
            .iter()
            .map(|fields| serde_json::from_str(field(fields, "event")).unwrap())
            .collect()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a process a signal such as `KILL`.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status()
        .unwrap();
    assert!(sent.success(), "kill -{name} {pid}");
}

/// The value of a field of an entry.
#[track_caller]
pub fn field<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    let found = fields.iter().find(|(field, _)| field == name);
    &found
        .unwrap_or_else(|| panic!("no field {name} in {fields:?}"))
        .1
}

/// How to start a host.
pub struct Setup {
    dir: TempDir,
    config: String,
    env: Vec<(OsString, OsString)>,
    args: Vec<OsString>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            dir: tempfile::tempdir().unwrap(),
            config: String::new(),
            env: Vec::new(),
            args: vec!["run".into()],
        }
    }
}

impl Setup {
    /// A host for this FreeSWITCH and this Redis, by the variables of Telephony Event Sync alone.
    pub fn new(esl: SocketAddr, redis: &Redis) -> Setup {
        Setup::default()
            .env("ESL_PORT", &esl.port().to_string())
            .env("REDIS_REMOTE_ADDR", &format!("127.0.0.1:{}", redis.port))
    }

    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.env.push((name.into(), value.into()));
        self
    }

    pub fn arg(mut self, arg: &str) -> Setup {
        self.args.push(arg.into());
        self
    }

    /// Another command line in place of `run`.
    pub fn instead(mut self, args: &[&str]) -> Setup {
        self.args = args.iter().map(OsString::from).collect();
        self
    }

    /// Text of `jackfield.toml` in the host's working folder.
    pub fn config(mut self, text: &str) -> Setup {
        self.config.push_str(text);
        self
    }

    /// A filter in `filters.d`, with the text of its settings file.
    pub fn filter(self, file: &str, component_name: &str, settings: &str) -> Setup {
        place_filter(&self.filters(), file, &component(component_name), settings);
        self
    }

    pub fn filters(&self) -> PathBuf {
        self.dir.path().join("filters.d")
    }

    /// The process with its environment, not started.
    pub fn command(&self) -> Command {
        if !self.config.is_empty() {
            fs::write(self.dir.path().join("jackfield.toml"), &self.config).unwrap();
        }
        let mut command = Command::new(jackfield());
        command
            .args(&self.args)
            .current_dir(self.dir.path())
            .env_clear()
            .envs(self.env.iter().cloned());
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end: exit code, standard output, standard error.
    pub fn run(self) -> (i32, String, String) {
        let output = self.command().output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Host {
        match self.start_or_end() {
            Ok(host) => host,
            Err(setup) => panic!("the host ended at its start, in {}", setup.dir().display()),
        }
    }

    /// Starts it and waits until it listens, or has ended before it did.
    pub fn start_or_end(self) -> Result<Host, Setup> {
        let mut command = self.command();
        if !self.env.iter().any(|(name, _)| name == "HEALTH_PORT") {
            command.env("JACKFIELD_HTTP_LISTEN", "127.0.0.1:0");
        }
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = collect(process.stdout.take().unwrap());
        let log = collect(process.stderr.take().unwrap());
        let http = wait_for("the host says where it listens", || {
            let log = log.lock().unwrap();
            let plain = without_colors(&log);
            let http = plain.find("http=").and_then(|at| {
                let address = plain[at + "http=".len()..].split_whitespace().next()?;
                address.parse::<SocketAddr>().ok()
            });
            match http {
                None => process.try_wait().unwrap().map(|_| None),
                http => Some(http),
            }
        });
        let Some(http) = http else {
            return Err(self);
        };
        let http = SocketAddr::from(([127, 0, 0, 1], http.port()));
        Ok(Host {
            process,
            http,
            out,
            log,
            filters: self.filters(),
            setup: Some(self),
        })
    }

    /// The folder that it runs in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The journal's folder.
    pub fn journal(&self) -> PathBuf {
        self.dir.path().join("data/journal")
    }
}

fn without_colors(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        plain.push_str(&rest[..at]);
        rest = rest[at..].split_once('m').map_or("", |(_, after)| after);
    }
    plain + rest
}

fn collect(pipe: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let into = Arc::clone(&text);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut text = into.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}

/// Puts a filter into a folder as a team would: the settings first, then the component by rename.
pub fn place_filter(folder: &Path, file: &str, component: &Path, settings: &str) {
    fs::create_dir_all(folder).unwrap();
    if !settings.is_empty() {
        fs::write(folder.join(format!("{file}.toml")), settings).unwrap();
    }
    let copy = folder.join(format!(".{file}.copy"));
    fs::copy(component, &copy).unwrap();
    fs::rename(&copy, folder.join(format!("{file}.wasm"))).unwrap();
}

/// A running host.
pub struct Host {
    process: Child,
    pub http: SocketAddr,
    out: Arc<Mutex<String>>,
    log: Arc<Mutex<String>>,
    pub filters: PathBuf,
    /// Taken when it was killed, to start it again.
    setup: Option<Setup>,
}

impl Host {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn setup(&self) -> &Setup {
        self.setup.as_ref().expect("the host was not killed")
    }

    pub fn dir(&self) -> &Path {
        self.setup().dir()
    }

    /// The journal's folder.
    pub fn journal(&self) -> PathBuf {
        self.setup().journal()
    }

    /// kill -9. What it left on disk is where the next start finds it.
    pub fn kill(mut self) -> Setup {
        let status = self.status();
        assert_eq!(status["counts"]["balanced"], true, "{status:#}");
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.setup.take().unwrap()
    }

    /// Waits for its death by SIGKILL. What it left on disk is where the next start finds it.
    #[track_caller]
    pub fn died(mut self) -> Setup {
        let ended = self.wait_end();
        assert_eq!(ended.signal(), Some(9), "{ended}\n{}", self.log());
        self.setup.take().unwrap()
    }

    /// Waits for its end with this exit code.
    #[track_caller]
    pub fn left(mut self, code: i32) -> Setup {
        let ended = self.wait_end();
        assert_eq!(ended.code(), Some(code), "{ended}\n{}", self.log());
        self.setup.take().unwrap()
    }

    /// SIGTERM and its end, which must be a good one.
    #[track_caller]
    pub fn stop(mut self) -> Setup {
        let ended = self.terminate();
        assert!(ended.success(), "{ended}\n{}", self.log());
        self.setup.take().unwrap()
    }

    /// SIGTERM and the end of a host that has lost events, which is no good one.
    #[track_caller]
    pub fn stop_after_losses(mut self) -> Setup {
        let ended = self.terminate();
        assert_eq!(ended.code(), Some(1), "{ended}\n{}", self.log());
        self.setup.take().unwrap()
    }

    /// Standard error so far, without colors.
    pub fn log(&self) -> String {
        without_colors(&self.log.lock().unwrap())
    }

    /// Waits until the log has this text, and gives it: what reads standard error may be a little behind.
    #[track_caller]
    pub fn wait_log(&self, text: &str) -> String {
        let started = Instant::now();
        loop {
            let log = self.log();
            if log.contains(text) {
                return log;
            }
            assert!(
                started.elapsed() < DEADLINE,
                "not in the log: {text}\n{log}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Standard output so far.
    pub fn out(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    /// Status code and body of a GET.
    pub fn get(&self, path: &str) -> (u16, String) {
        let (code, _, body) = request(self.http, "GET", path, "").expect("the host answers HTTP");
        (code, body)
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status").1).unwrap()
    }

    /// A number of `/status`' counts.
    pub fn count(&self, name: &str) -> u64 {
        self.status()["counts"][name]
            .as_u64()
            .unwrap_or_else(|| panic!("no count {name}"))
    }

    /// The value of a metric with its labels, as it stands in `/metrics`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").1;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    #[track_caller]
    pub fn wait_ready(&self) {
        wait_for("the host is ready", || {
            (self.get("/readyz").0 == 200).then_some(())
        });
    }

    /// Waits until Redis is known to be away and FreeSWITCH to be there.
    #[track_caller]
    pub fn wait_redis_away(&self) {
        self.wait_status("Redis is away", |status| {
            let links = &status["links"];
            links["redis"]["state"] != "ready" && links["esl"]["state"] == "ready"
        });
    }

    /// Waits until a condition on `/status` holds.
    #[track_caller]
    pub fn wait_status(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let status = self.status();
            if done(&status) {
                return status;
            }
            assert!(
                started.elapsed() < DEADLINE,
                "not within {DEADLINE:?}: {what}\n{status:#}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until `inputs` inputs have come and nothing is pending; the accounts must balance.
    #[track_caller]
    pub fn wait_settled(&self, inputs: u64) -> Value {
        let status = self.wait_status(&format!("{inputs} inputs are settled"), |status| {
            status["counts"]["inputs"].as_u64() >= Some(inputs) && status["counts"]["pending"] == 0
        });
        assert_eq!(
            status["counts"]["balanced"], true,
            "received = delivered + dropped + dead-lettered + lost + pending: {status:#}"
        );
        status
    }

    /// Waits until a filter is in this state with this version's digest or any.
    #[track_caller]
    pub fn wait_filter(&self, file: &str, done: impl Fn(&Value) -> bool) -> Value {
        let of = |status: &Value| {
            status["filters"]
                .as_array()
                .unwrap()
                .iter()
                .find(|f| f["file"] == file)
                .cloned()
        };
        let status = self.wait_status(&format!("filter {file}"), |status| {
            of(status).is_some_and(|filter| done(&filter))
        });
        of(&status).unwrap()
    }

    /// The process in which it compiles a filter, once there is one.
    #[track_caller]
    pub fn wait_compiler(&self) -> u32 {
        wait_compiler(self.pid())
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().unwrap()
    }

    /// SIGTERM, and its end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_end()
    }

    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(
                started.elapsed() < DEADLINE,
                "the host does not end\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the host ---\n{}", self.log());
        } else if let Ok((200, _, status)) = request(self.http, "GET", "/status", "") {
            // Whatever else a test is about: the accounts balance at every instant.
            let status: Value = serde_json::from_str(&status).unwrap();
            assert_eq!(status["counts"]["balanced"], true, "{status:#}");
        }
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The process in which the host of this process id compiles a filter, once there is one.
#[track_caller]
pub fn wait_compiler(host: u32) -> u32 {
    wait_for("a filter is compiled", || compiler(host, |_| true))
}

/// A child of this host that compiles a filter with such a command line.
pub fn compiler(host: u32, is_meant: impl Fn(&str) -> bool) -> Option<u32> {
    let tasks = fs::read_dir(format!("/proc/{host}/task")).ok()?;
    let children = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).ok();
    let children: String = tasks.flatten().filter_map(children).collect();
    let mut children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    children.find(|pid: &u32| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline"));
        command.is_ok_and(|command| command.contains("compile-filter") && is_meant(&command))
    })
}

/// A request by hand: status code, head and body. `headers` are whole lines, each ended by CR LF.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
) -> std::io::Result<(u16, String, String)> {
    exchange(address, method, path, headers, "")
}

/// A POST by hand with a body: status code and body.
pub fn post(
    address: SocketAddr,
    path: &str,
    headers: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let headers = format!("{headers}Content-Length: {}\r\n", body.len());
    let (code, _, answer) = exchange(address, "POST", path, &headers, body)?;
    Ok((code, answer))
}

fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> std::io::Result<(u16, String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    Ok((code, head.to_owned(), body.to_owned()))
}
