//! Redis over TLS: events come through it as they do in the clear, and a handshake that fails says why and what helps.

use std::fs;
use std::process::Command;

use jackfield::simulator::{Settings, Simulator};

use crate::certificates::{Authority, Files, text};
use crate::harness::{Host, Redis, Setup, free_port, jackfield};
use crate::numbered::{self, STREAM};

/// A Redis that shows this certificate on a port with TLS.
struct Secured {
    /// The tests ask it in the clear.
    redis: Redis,
    port: u16,
}

impl Secured {
    fn start(authority: &Authority, files: &Files, clients: &str) -> Secured {
        let (port, ca) = (free_port(), authority.file());
        let port_text = port.to_string();
        let args = [
            ("--tls-port", port_text.as_str()),
            ("--tls-cert-file", text(&files.cert)),
            ("--tls-key-file", text(&files.key)),
            ("--tls-ca-cert-file", text(&ca)),
            ("--tls-auth-clients", clients),
        ]
        .map(|(name, value)| [name, value]);
        let redis = Redis::start_with(args.as_flattened());
        Secured { redis, port }
    }

    /// A host that uses TLS there, and trusts whom the system trusts.
    fn setup(&self, switch: &Simulator) -> Setup {
        let url = format!("rediss://127.0.0.1:{}/2", self.port);
        Setup::new(switch.addr(), &self.redis).env("JACKFIELD_REDIS_URL", &url)
    }
}

async fn switch() -> Simulator {
    Simulator::start(Settings::default()).await.unwrap()
}

#[track_caller]
fn wait_trouble(host: &Host, words: &[&str]) {
    host.wait_status(&format!("{words:?}"), |_| {
        let trouble = host.get("/readyz").1;
        words.iter().all(|words| trouble.contains(words))
    });
}

#[track_caller]
fn check_delivered(host: &Host, redis: &Redis, count: u64) {
    let status = host.wait_settled(count);
    assert_eq!(status["counts"]["delivered"], count, "{status:#}");
    numbered::check(redis, STREAM, 0..count);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_through_tls_and_through_its_loss_once_and_in_order() {
    let (switch, authority) = (switch().await, Authority::new("ours"));
    let secured = Secured::start(&authority, &authority.issue(&["127.0.0.1"]), "no");
    let ca = authority.file();
    let setup = secured.setup(&switch).env("JACKFIELD_REDIS_CA", text(&ca));
    let host = setup.start();
    host.wait_ready();
    numbered::fire(&switch, 0..100);
    host.wait_settled(100);
    secured
        .redis
        .ask::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    numbered::fire(&switch, 100..200);
    check_delivered(&host, &secured.redis, 200);
    let clear: String = secured.redis.ask(&["CLIENT", "LIST"]);
    assert_eq!(
        clear.lines().count(),
        2,
        "ours, and that of the test: {clear}"
    );
    assert!(
        clear.contains(&format!("laddr=127.0.0.1:{} ", secured.port)),
        "{clear}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_the_system_trusts_is_trusted() {
    let (switch, authority) = (switch().await, Authority::new("the system's"));
    let secured = Secured::start(&authority, &authority.issue(&["127.0.0.1"]), "no");
    let ca = authority.file();
    let host = secured
        .setup(&switch)
        .env("SSL_CERT_FILE", text(&ca))
        .start();
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    check_delivered(&host, &secured.redis, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_unknown_authority_is_not_trusted() {
    let (switch, authority) = (switch().await, Authority::new("ours"));
    let secured = Secured::start(&authority, &authority.issue(&["127.0.0.1"]), "no");
    let another = Authority::new("another");
    let other = another.file();
    let setup = secured
        .setup(&switch)
        .env("JACKFIELD_REDIS_CA", text(&other));
    let host = setup.start();
    let advice = "redis.ca must have the authority that issued it";
    wait_trouble(
        &host,
        &[
            "redis: no TLS: invalid peer certificate: UnknownIssuer",
            advice,
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_name_is_not_trusted() {
    let (switch, authority) = (switch().await, Authority::new("ours"));
    let secured = Secured::start(&authority, &authority.issue(&["redis.example"]), "no");
    let ca = authority.file();
    let setup = secured.setup(&switch).env("JACKFIELD_REDIS_CA", text(&ca));
    let host = setup.start();
    let advice = "redis.url must have a name that is in it";
    wait_trouble(&host, &["127.0.0.1", "redis.example", advice]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_not_trusted_until_it_is_renewed() {
    let (switch, authority) = (switch().await, Authority::new("ours"));
    let expired = authority.issue_expired(&["127.0.0.1"]);
    let secured = Secured::start(&authority, &expired, "no");
    let ca = authority.file();
    let setup = secured.setup(&switch).env("JACKFIELD_REDIS_CA", text(&ca));
    let host = setup.start();
    wait_trouble(
        &host,
        &["certificate expired", "renew it, or set the clock"],
    );
    host.wait_redis_away();
    numbered::fire(&switch, 0..10);
    let renewed = authority.issue(&["127.0.0.1"]);
    let (cert, key) = (text(&renewed.cert), text(&renewed.key));
    let renew = ["CONFIG", "SET", "tls-cert-file", cert, "tls-key-file", key];
    secured.redis.ask::<()>(&renew);
    check_delivered(&host, &secured.redis, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_tls_is_told_from_one_with_it() {
    let (switch, redis) = (switch().await, Redis::start());
    let url = format!("rediss://127.0.0.1:{}/2", redis.port);
    let setup = Setup::new(switch.addr(), &redis).env("JACKFIELD_REDIS_URL", &url);
    let host = setup.env("REDIS_REMOTE_DIAL_TIMEOUT", "300ms").start();
    host.wait_status("it is not TLS", |_| {
        let trouble = host.get("/readyz").1;
        trouble.contains("is it the port for redis://?")
            || trouble.contains("does this port speak TLS?")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_asks_who_we_are_is_shown_the_client_certificate() {
    let (switch, authority) = (switch().await, Authority::new("ours"));
    let secured = Secured::start(&authority, &authority.issue(&["127.0.0.1"]), "yes");
    let ca = authority.file();
    let setup = || secured.setup(&switch).env("JACKFIELD_REDIS_CA", text(&ca));
    let nameless = setup().start();
    wait_trouble(
        &nameless,
        &["it wants a client certificate: redis.cert and redis.key"],
    );
    drop(nameless);

    let ours = authority.issue_client("jackfield");
    let host = setup()
        .env("JACKFIELD_REDIS_CERT", text(&ours.cert))
        // What is in the file, rather than its path.
        .env("JACKFIELD_REDIS_KEY_FILE", text(&ours.key))
        .start();
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    check_delivered(&host, &secured.redis, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_read_over_tls() {
    let authority = Authority::new("ours");
    let secured = Secured::start(&authority, &authority.issue(&["127.0.0.1"]), "no");
    let letter = [
        "XADD",
        "freeswitch:telephony:dead",
        "*",
        "reason",
        "for a test",
    ];
    secured.redis.ask::<String>(&letter);
    let listed = Command::new(jackfield())
        .args(["dead", "list"])
        .current_dir(secured.redis.dir())
        .env(
            "JACKFIELD_REDIS_URL",
            format!("rediss://127.0.0.1:{}/2", secured.port),
        )
        .env("JACKFIELD_REDIS_CA", authority.file())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&listed.stdout);
    assert!(shown.contains("for a test"), "{listed:?}");
}

#[test]
fn files_that_cannot_be_used_are_mistakes_of_their_settings() {
    let authority = Authority::new("ours");
    let (ours, others) = (authority.issue_client("a"), authority.issue_client("b"));
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage.pem");
    fs::write(&garbage, "s3cret bytes, no certificate").unwrap();
    let damaged = dir.path().join("damaged.pem");
    let whole = fs::read_to_string(&ours.cert).unwrap();
    fs::write(&damaged, whole.replacen("MII", "MMM", 1)).unwrap();
    let [cert, key, other, garbage, damaged] =
        [&ours.cert, &ours.key, &others.key, &garbage, &damaged].map(|path| text(path));
    let certificates = "allowed is a PEM file with certificates";
    let private = "allowed is a PEM file with the private key of redis.cert, not encrypted";
    for (given, expected) in [
        (
            &[("CA", "/no/such.pem")][..],
            format!(
                "JACKFIELD_REDIS_CA = \"/no/such.pem\": {certificates}; it cannot be read: No such file"
            ),
        ),
        (
            &[("CA", text(dir.path()))],
            "it cannot be read: not a regular file".to_owned(),
        ),
        (&[("CA", garbage)], format!("{certificates}; it has none")),
        (
            &[("CERT", cert), ("KEY_FILE", garbage)],
            "JACKFIELD_REDIS_KEY_FILE = ***: ".to_owned(),
        ),
        (
            &[("CA", damaged)],
            format!("{certificates}; invalid peer certificate"),
        ),
        (
            &[("CERT", cert), ("KEY", garbage)],
            format!("JACKFIELD_REDIS_KEY = ***: {private}; it has none"),
        ),
        (
            &[("CERT", cert), ("KEY", other)],
            format!("{private}; keys may not be consistent"),
        ),
        (
            &[("CERT", garbage), ("KEY", key)],
            format!("{certificates}; it has none"),
        ),
        (
            &[("CERT", cert)],
            "allowed is a certificate whose private key is in redis.key".to_owned(),
        ),
        (
            &[("KEY", key)],
            "allowed is a private key whose certificate is in redis.cert".to_owned(),
        ),
        (
            &[("CA", cert), ("URL", "redis://127.0.0.1")],
            "allowed is a setting for TLS: redis.url must begin with rediss://".to_owned(),
        ),
    ] {
        let url = ("URL", "rediss://127.0.0.1");
        let mut setup = Setup::default();
        for (name, value) in [&[url], given].concat() {
            setup = setup.env(&format!("JACKFIELD_REDIS_{name}"), value);
        }
        let (code, _, log) = setup.run();
        assert_eq!(code, 2, "{given:?}: {log}");
        assert!(log.contains(&expected), "{given:?}: {log}");
        assert!(
            !log.contains("s3cret") && !log.contains("PRIVATE KEY"),
            "{log}"
        );
    }
}
