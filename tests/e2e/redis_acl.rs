//! The rights that Jackfield needs at Redis are those that `docs/operators.md` lists, and one that is missing is named.

use std::fs;

use jackfield::simulator::{Settings, Simulator};

use crate::harness::{Redis, Setup, root};
use crate::numbered::{self, STREAM};

/// Without one of these nothing can be written.
const NEEDED: [&str; 8] = [
    "select", "role", "multi", "exec", "watch", "get", "set", "xadd",
];

/// The words of the page's `ACL SETUSER`, for this user and this router.
fn documented() -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/operators.md")).unwrap();
    let (_, block) = page
        .split_once("```\nACL SETUSER")
        .expect("the page has it");
    let (block, _) = block.split_once("```").unwrap();
    let words = block.split_whitespace();
    words.map(|word| word.replace("fs1", "router")).collect()
}

fn set_user(redis: &Redis, words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    redis.ask::<()>(&[&["ACL", "SETUSER"], &*words].concat());
}

fn setup(switch: &Simulator, redis: &Redis) -> Setup {
    let url = format!("redis://127.0.0.1:{}/2", redis.port);
    Setup::new(switch.addr(), redis)
        .env("JACKFIELD_ROUTER_NAME", "router")
        .env("JACKFIELD_REDIS_URL", &url)
        .env("JACKFIELD_REDIS_USER", "jackfield")
        .env("JACKFIELD_REDIS_PASSWORD", "PASSWORD")
        .env("TRIM_INTERVAL", "100ms")
        // And tries again soon.
        .env("REDIS_REMOTE_WRITE_TIMEOUT", "300ms")
}

/// What the user was refused, with those rights.
fn refused(redis: &Redis) -> Vec<String> {
    type Entry = Vec<redis::Value>;
    let entries: Vec<Entry> = redis.ask(&["ACL", "LOG"]);
    let object = |entry: &Entry| {
        let mut pairs = entry.chunks(2);
        let named =
            |pair: &&[redis::Value]| pair[0] == redis::Value::BulkString(b"object".to_vec());
        let found = pairs.find(named).expect("an entry has an object");
        redis::from_redis_value::<String>(found[1].clone()).unwrap()
    };
    entries.iter().map(object).collect()
}

/// Ends all connections but that of the test: the next one begins with what it may do now.
fn disconnect(redis: &Redis) {
    redis.ask::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_are_enough_for_everything() {
    let switch = Simulator::start(Settings::default()).await.unwrap();
    let redis = Redis::start();
    set_user(&redis, &documented());
    redis.ask::<()>(&["XGROUP", "CREATE", STREAM, "consumers", "0", "MKSTREAM"]);
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    host.wait_settled(10);
    // How far consumers are from losing entries is asked for with trimming.
    let gauge = format!("jackfield_consumer_reserve_ratio{{stream=\"{STREAM}\"}}");
    host.wait_status("a survey", |_| host.metric(&gauge).is_some());
    // What was written is looked for again, and is there.
    disconnect(&redis);
    numbered::fire(&switch, 10..20);
    host.wait_settled(20);
    let host = host.kill().start();
    host.wait_ready();
    numbered::fire(&switch, 20..30);
    // The inputs of this process, and what the one before had not marked as done.
    host.wait_status("all is written", |_| {
        numbered::in_stream(&redis, STREAM).len() == 30
    });
    host.stop();
    numbered::check(&redis, STREAM, 0..30);
    let owner: bool = redis.ask(&["EXISTS", "jackfield:router:owner"]);
    assert!(!owner, "the name is free again");
    let refused = refused(&redis);
    assert!(
        refused.iter().all(|right| right == "config|get"),
        "the page says why this one is not among them: {refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_named_until_it_is_given() {
    let switch = Simulator::start(Settings::default()).await.unwrap();
    let redis = Redis::start();
    set_user(&redis, &documented());
    let host = setup(&switch, &redis).start();
    let mut written = 0;
    for right in NEEDED {
        host.wait_ready();
        assert!(documented().contains(&format!("+{right}")), "{right}");
        set_user(&redis, &["jackfield".to_owned(), format!("-{right}")]);
        disconnect(&redis);
        numbered::fire(&switch, written..written + 5);
        written += 5;
        let named = format!("no permissions to run the '{right}' command");
        host.wait_status(&named, |_| host.get("/readyz").1.contains(&named));
        set_user(&redis, &["jackfield".to_owned(), format!("+{right}")]);
    }
    host.wait_settled(written);
    numbered::check(&redis, STREAM, 0..written);
    for right in ["time", "xtrim"] {
        set_user(&redis, &["jackfield".to_owned(), format!("-{right}")]);
        host.wait_log(&format!("no permissions to run the '{right}' command"));
        set_user(&redis, &["jackfield".to_owned(), format!("+{right}")]);
    }
    let foreign = ["jackfield", "resetkeys", "~freeswitch:*"].map(str::to_owned);
    set_user(&redis, &foreign);
    disconnect(&redis);
    host.wait_status("its own keys are missing", |_| {
        host.get("/readyz")
            .1
            .contains("NOPERM this user has no permissions to access one of the keys")
    });
}
