//! No secret is shown anywhere, whatever goes wrong: planted ones are looked for in all that comes out of the host and its commands,
//! as they are, percent-encoded and in base64.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use jackfield::simulator::{Settings, Simulator};

use crate::harness::{Host, Redis, Setup, jackfield, post, request, wait_compiler, wait_for};
use crate::numbered;

/// What every planted secret has within it, so that also a piece of one is found.
const MARK: &str = "S3cret";

const ESL: &str = "esl S3cret/4711+?&";
const REDIS: &str = "redis+S3cret/%2F:@x";
const TOKEN: &str = "http+S3cret/9&=z";

/// All that the mark looks like.
fn shapes() -> Vec<String> {
    let percent = MARK.bytes().map(|byte| format!("%{byte:02X}")).collect();
    // In base64 three bytes are four digits, so it depends on what stands before.
    let base64 = (0..3).map(|before| {
        let bytes = [&vec![0; before], MARK.as_bytes()].concat();
        let digits = STANDARD_NO_PAD.encode(&bytes);
        let whole = bytes.len() * 8 / 6;
        digits[(before * 8).div_ceil(6)..whole].to_owned()
    });
    [MARK.to_owned(), percent]
        .into_iter()
        .chain(base64)
        .collect()
}

#[track_caller]
fn check(what: &str, bytes: &[u8]) {
    for shape in shapes() {
        let found = bytes
            .windows(shape.len())
            .position(|at| at == shape.as_bytes());
        if let Some(at) = found {
            let near = &bytes[at.saturating_sub(300)..(at + 30).min(bytes.len())];
            panic!("a secret in {what}: {}", String::from_utf8_lossy(near));
        }
    }
}

/// Every file below the folder.
fn check_folder(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => check_folder(&path),
            false => check(&path.display().to_string(), &fs::read(&path).unwrap()),
        }
    }
}

/// A host whose secrets are in files outside of its folder.
struct Planted {
    vault: tempfile::TempDir,
    vars: Vec<(&'static str, String)>,
}

impl Planted {
    fn new(switch: &Simulator, redis: &Redis) -> Planted {
        let vault = tempfile::tempdir().unwrap();
        let vars = vec![
            ("ESL_PORT", switch.addr().port().to_string()),
            (
                "JACKFIELD_REDIS_URL",
                format!("redis://127.0.0.1:{}/2", redis.port),
            ),
            ("JACKFIELD_REDIS_USER", "jack".to_owned()),
            ("JACKFIELD_FILTERS_DEADLINE", "1s".to_owned()),
            ("LOG_LEVEL", "trace".to_owned()),
            ("RUST_LOG", "trace".to_owned()),
            ("RUST_BACKTRACE", "full".to_owned()),
        ];
        let mut planted = Planted { vault, vars };
        planted.put("JACKFIELD_ESL_PASSWORD_FILE", ESL);
        planted.put("JACKFIELD_REDIS_PASSWORD_FILE", REDIS);
        planted.put("JACKFIELD_HTTP_TOKEN_FILE", TOKEN);
        planted
    }

    fn put(&mut self, variable: &'static str, secret: &str) {
        let path = self.vault.path().join(variable);
        fs::write(&path, format!("{secret}\n")).unwrap();
        self.vars.retain(|(name, _)| *name != variable);
        self.vars
            .push((variable, path.to_str().unwrap().to_owned()));
    }

    fn setup(&self) -> Setup {
        let vars = self.vars.iter();
        vars.fold(Setup::default(), |setup, (name, value)| {
            setup.env(name, value)
        })
    }

    /// A command of the CLI beside a host; what it says is looked through.
    #[track_caller]
    fn command(&self, host: &Host, args: &str) -> String {
        let output = Command::new(jackfield())
            .args(args.split(' '))
            .current_dir(host.dir())
            .env_clear()
            .envs(self.vars.iter().map(|(name, value)| (name, value)))
            .env("JACKFIELD_HTTP_LISTEN", host.http.to_string())
            .output()
            .unwrap();
        check(args, &output.stdout);
        check(args, &output.stderr);
        let is_run = output.status.code() != Some(2);
        assert!(
            is_run,
            "{args}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Everything that the host says by itself and when it is asked.
#[track_caller]
fn check_said(host: &Host) {
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    let wrong = "Authorization: Bearer wrong+S3cret\r\n";
    let query = format!(
        "X-Odd: {TOKEN}\r\nAuthorization: Basic {}\r\n",
        STANDARD_NO_PAD.encode(TOKEN)
    );
    for path in [
        "/health",
        "/livez",
        "/readyz",
        "/metrics",
        "/status",
        "/events?since=0&timeout=100ms",
        "/",
        "/nothing",
    ] {
        for headers in ["", &right, wrong, &query] {
            let (_, head, body) = request(host.http, "GET", path, headers).unwrap();
            check(path, head.as_bytes());
            check(path, body.as_bytes());
        }
    }
    for path in [
        "/dead/replay",
        "/esl",
        "/reconnect",
        "/refresh",
        "/filters/10-dead/rollback",
    ] {
        for headers in ["", wrong, &query, &right] {
            // What is asked wrongly is not answered with what was asked.
            let (_, answer) = post(host.http, path, headers, "{}").unwrap();
            check(path, answer.as_bytes());
        }
    }
    check("the log", host.log().as_bytes());
    check("standard output", host.out().as_bytes());
}

async fn switch(password: &str) -> Simulator {
    Simulator::start(Settings {
        password: password.to_owned(),
        ..Settings::default()
    })
    .await
    .unwrap()
}

fn allow(redis: &Redis, rules: &[&str]) {
    redis.ask::<()>(&[&["ACL", "SETUSER", "jack", "on"], rules].concat());
}

#[track_caller]
fn wait_trouble(host: &Host, words: &str) {
    host.wait_status(words, |_| host.get("/readyz").1.contains(words));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hosts_life_shows_no_secret() {
    let (switch, redis) = (switch(ESL).await, Redis::start());
    let password = format!(">{REDIS}");
    allow(&redis, &["~*", "&*", "+@all", &password]);
    let planted = Planted::new(&switch, &redis);
    let setup = planted
        .setup()
        .filter("10-dead", "hostile", "attack = \"dead-letter\"\n");
    let host = setup.start();
    host.wait_ready();
    numbered::fire(&switch, 0..5);
    host.wait_settled(5);
    check_said(&host);

    let proc = format!("/proc/{}", host.pid());
    check(
        "the arguments",
        &fs::read(format!("{proc}/cmdline")).unwrap(),
    );
    check(
        "the environment",
        &fs::read(format!("{proc}/environ")).unwrap(),
    );
    let letters = planted.command(&host, "dead list --json");
    let id = letters
        .split('"')
        .find(|word| word.contains("-0") && word.starts_with('1'));
    let id = id.unwrap_or_else(|| panic!("a letter: {letters}"));
    for args in [
        "check",
        "health",
        "reconnect redis",
        "refresh",
        "why 1099511627777",
        "tail --decisions --since 0 --limit 1",
        "tail --since 0 --limit 1",
        "esl status",
        "dead list",
        "dead replay --all",
        "journal ls",
        "journal ls --json",
        "journal export",
        "journal verify",
        "filter check filters.d/10-dead.wasm",
    ] {
        planted.command(&host, args);
    }
    planted.command(&host, &format!("dead show {id}"));

    allow(&redis, &["-xadd"]);
    numbered::fire(&switch, 5..10);
    wait_trouble(&host, "NOPERM");
    check_said(&host);
    allow(&redis, &["+xadd", "resetpass", ">another"]);
    redis.ask::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    wait_trouble(&host, "password rejected");
    check_said(&host);
    planted.command(&host, "dead list");
    allow(&redis, &["resetpass", &password]);
    host.wait_ready();
    let host = host.kill().start();
    host.wait_ready();
    check_said(&host);
    let setup = host.stop();
    check_folder(setup.dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_of_freeswitch_is_shown_nowhere() {
    let (switch, redis) = (switch("right").await, Redis::start());
    allow(&redis, &["~*", "&*", "+@all", &format!(">{REDIS}")]);
    let host = Planted::new(&switch, &redis).setup().start();
    wait_trouble(&host, "esl: password rejected");
    check_said(&host);
    check_folder(&host.journal());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_compiles_filters_has_no_environment() {
    let (switch, redis) = (switch(ESL).await, Redis::start());
    allow(&redis, &["~*", "&*", "+@all", &format!(">{REDIS}")]);
    let host = Planted::new(&switch, &redis).setup().start();
    host.wait_ready();
    let filter = crate::harness::component("hostile");
    let (environment, arguments) = wait_for("a look at the compiler", || {
        // A version that it has not seen: a comment in the settings is not enough to compile anew.
        let cache = host.journal().join("filters");
        drop(fs::remove_dir_all(cache));
        crate::harness::place_filter(&host.filters, "10-none", &filter, "");
        let compiler = format!("/proc/{}", wait_compiler(host.pid()));
        let of = |name: &str| fs::read(format!("{compiler}/{name}")).ok();
        // It may have ended meanwhile: then both are empty.
        Some((
            of("environ")?,
            of("cmdline").filter(|line| !line.is_empty())?,
        ))
    });
    assert_eq!(environment, b"", "it needs none");
    check("its arguments", &arguments);
}

#[test]
fn mistakes_with_secrets_in_them_show_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let key = "-----BEGIN PRIVATE KEY-----\nS3cret\n-----END PRIVATE KEY-----\n";
    let (two_lines, key_file) = (file("two", "S3cret\n\n"), file("key", key));
    for (variable, value) in [
        ("JACKFIELD_REDIS_URL", "redis://jack:S3cret@host:x"),
        ("JACKFIELD_REDIS_URL", "redis://jack:S3cret@host/2/3"),
        ("JACKFIELD_REDIS_URL", "redis://:S3cret%0A@host"),
        ("JACKFIELD_REDIS_URL", "redis://S3cret@host"),
        ("JACKFIELD_REDIS_URL", "http://jack:S3cret@host"),
        ("JACKFIELD_REDIS_URL", "jack:S3cret@host"),
        ("JACKFIELD_REDIS_URL_FILE", "redis://jack:S3cret@host"),
        ("REDIS_REMOTE_ADDR", "redis://jack:S3cret@host:6379"),
        ("REDIS_REMOTE_PASSWORD", "S3cret\r\nFLUSHALL"),
        ("JACKFIELD_REDIS_PASSWORD", "S3cret\n"),
        ("JACKFIELD_REDIS_PASSWORD_FILE", "/S3cret"),
        ("JACKFIELD_REDIS_PASSWORD_FILE", &two_lines),
        ("JACKFIELD_REDIS_KEY", "S3cret"),
        ("JACKFIELD_REDIS_KEY", key),
        ("JACKFIELD_REDIS_KEY", &key_file),
        ("ESL_PASSWORD", "S3cret\n\nsendevent"),
        ("JACKFIELD_ESL_PASSWORD_FILE", "S3cret"),
        ("JACKFIELD_ESL_PASSWORD_FILE", &two_lines),
        ("JACKFIELD_HTTP_TOKEN", "S3cret and more"),
        ("JACKFIELD_HTTP_TOKEN_FILE", &two_lines),
    ] {
        for command in ["check", "run", "health", "dead list"] {
            let args: Vec<&str> = command.split(' ').collect();
            // So that its own key is not the only mistake about it.
            let setup = Setup::default().instead(&args).env(variable, value);
            let (code, out, log) = setup.env("LOG_LEVEL", "trace").run();
            // Whether a host answers is no matter of these settings; none does.
            let expected = if command == "health" { 1 } else { 2 };
            assert_eq!(code, expected, "{variable}={value:?} {command}: {out}{log}");
            check(variable, format!("{out}{log}").as_bytes());
        }
    }
    for text in [
        "[esl]\npassword = [\"S3cret\"]",
        "[esl]\npassword = \"S3cret",
        "[esl]\npassword = S3cret",
        "[esl]\npasswort = \"S3cret\"",
        "esl = \"S3cret\"",
        "[http]\ntoken = { is = \"S3cret\" }",
        "[redis]\npassword = \"S3cret\\n\"",
        "redis = \"redis://:S3cret@host\"",
    ] {
        let (code, out, log) = Setup::default().config(text).run();
        assert_eq!(code, 2, "{text}: {log}");
        check(text, format!("{out}{log}").as_bytes());
    }
    for flag in [
        "esl.password:S3cret",
        "http.token=S3cret and more",
        "redis.url=redis://:S3cret@h:x",
    ] {
        let (code, out, log) = Setup::default().arg("--set").arg(flag).run();
        assert_eq!(code, 2, "{flag}: {log}");
        check("a flag", format!("{out}{log}").as_bytes());
    }
}
