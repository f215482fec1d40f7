//! Faults, one after the other in one host: each is named on the page, with its stage and its cause, and soon: within three seconds on
//! a machine that has nothing else to do.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use jackfield::simulator::Event;
use serde_json::Value;

use crate::browser::Browser;
use crate::harness::{DEADLINE, place_filter};
use crate::page::open;
use crate::scene::{EVENTS, Scene};

/// A fault is to be named within three seconds. These tests share two cores with others, which may take as long again for themselves;
/// what it took is printed.
const SOON: Duration = Duration::from_secs(3 * 3);
const JOBS: &str = "freeswitch:telephony:background-jobs";

/// Waits until an alarm of this stage with these words in its cause stands on the page; fails if that takes too long.
#[track_caller]
fn assert_named(browser: &mut Browser, began: Instant, stage: &str, name: &str, cause: &str) {
    loop {
        let alarms = browser.eval(
            "[...document.querySelectorAll('#alarms li')].map(li => [li.dataset.stage, li.k.stage.textContent, li.k.cause.textContent])",
        );
        let found = alarms.as_array().unwrap().iter().any(|alarm| {
            let [here, title, said] = [0, 1, 2].map(|at| alarm[at].as_str().unwrap());
            here == stage && title.contains(name) && said.contains(cause)
        });
        let took = began.elapsed();
        if found {
            println!("{stage} {name}: named after {} ms", took.as_millis());
            assert!(took < SOON, "{stage} {name}: named after {took:?} only");
            return;
        }
        assert!(
            took < DEADLINE,
            "{stage} {name} with {cause:?} is not among {alarms:#}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn limit_file_size(pid: u32, bytes: &str) {
    let limited = Command::new("prlimit")
        .args([
            "--pid",
            &pid.to_string(),
            &format!("--fsize={bytes}:unlimited"),
        ])
        .status()
        .expect("prlimit is missing: apt-get install util-linux");
    assert!(limited.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_named_with_its_stage_and_its_cause_soon() {
    const SETTINGS: &str = "[limits]\n";
    let mut scene = Scene::start(|setup| {
        setup
            .env("ESL_RECONNECT_DELAY", "50ms")
            .env("ESL_MAX_RECONNECT_DELAY", "200ms")
            .env("TRIM_INTERVAL", "100ms")
            .env("REDIS_REMOTE_WRITE_TIMEOUT", "300ms")
            .config(SETTINGS)
            .filter(
                "10-trap",
                "hostile",
                "attack = \"trap\"\nevent = \"CHANNEL_HOLD\"\n",
            )
    })
    .await;
    scene.fire(10);
    scene.settle();
    let mut browser = open(&scene);
    let ready = |scene: &Scene| {
        scene
            .host
            .wait_status("ready again", |status: &Value| status["ready"] == true);
    };

    // Settings with a mistake.
    let file = scene.host.dir().join("jackfield.toml");
    let began = Instant::now();
    fs::write(&file, "[limits]\nnonsense = 1\n").unwrap();
    assert_named(&mut browser, began, "settings", "Settings", "nonsense");
    fs::write(&file, SETTINGS).unwrap();

    // A file that is no filter.
    let refused = scene.host.dir().join("refused.wasm");
    fs::write(&refused, "no component").unwrap();
    let began = Instant::now();
    place_filter(&scene.host.filters, "20-refused", &refused, "");
    assert_named(
        &mut browser,
        began,
        "filter",
        "20-refused",
        "is not WebAssembly",
    );

    // A filter that traps.
    let began = Instant::now();
    for _ in 0..20 {
        scene.switch.fire(Event::new("CHANNEL_HOLD"));
    }
    assert_named(&mut browser, began, "filter", "10-trap", "trap");

    // A stream of another type.
    scene.redis.ask::<()>(&["SET", JOBS, "somebody else's"]);
    let began = Instant::now();
    scene.switch.fire(Event::new("DTMF"));
    assert_named(
        &mut browser,
        began,
        "dead_letters",
        "Dead letters",
        "WRONGTYPE",
    );

    // The disk of the journal.
    let began = Instant::now();
    limit_file_size(scene.host.pid(), "4096");
    scene.fire(20);
    assert_named(&mut browser, began, "journal", "Journal", "File too large");
    limit_file_size(scene.host.pid(), "unlimited");
    ready(&scene);

    // Redis has no memory left.
    let began = Instant::now();
    scene.redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    scene.fire(1);
    assert_named(&mut browser, began, "redis", "Redis", "OOM");
    scene.redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    ready(&scene);

    // No FreeSWITCH.
    let began = Instant::now();
    scene.switch.set_refuse(true);
    scene.switch.cut();
    assert_named(&mut browser, began, "esl", "FreeSWITCH", "no connection");
    assert_named(&mut browser, began, "commands", "Commands", "no connection");
    scene.switch.set_refuse(false);
    ready(&scene);

    // No Redis.
    let began = Instant::now();
    scene.redis.kill();
    assert_named(&mut browser, began, "redis", "Redis", "refused");
    scene.redis.up();
    ready(&scene);

    // No host.
    scene.host.signal("STOP");
    let began = Instant::now();
    assert_named(&mut browser, began, "host", "Host", "does not answer");
    let gone = browser.eval("[document.querySelector('#gone').checkVisibility(), document.querySelector('[data-row=intake] [data-k=rate]').textContent]");
    assert_eq!(
        gone.to_string(),
        "[true,\"–\"]",
        "no number looks as if it were live"
    );
    scene.host.signal("CONT");
    browser.wait("document.body.dataset.mode === 'live'");
    browser.assert_no_complaints();
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_lose_entries_and_a_filter_that_is_too_slow_are_named() {
    let mut scene = Scene::start(|setup| {
        setup
            .env("EVENTS_MAX_LEN", "100")
            .env("TRIM_INTERVAL", "100ms")
            .filter(
                "10-slow",
                "hostile",
                "attack = \"slow\"\nwork = 60_000_000\nevent = \"CHANNEL_HOLD\"\n",
            )
    })
    .await;
    scene.fire(1);
    scene.settle();
    scene
        .redis
        .ask::<()>(&["XGROUP", "CREATE", EVENTS, "dashboards", "0"]);
    let mut browser = open(&scene);
    let began = Instant::now();
    scene.fire(95);
    assert_named(
        &mut browser,
        began,
        "streams",
        EVENTS,
        "group dashboards is about to lose entries",
    );
    let began = Instant::now();
    for _ in 0..600 {
        scene.switch.fire(Event::new("CHANNEL_HOLD"));
    }
    assert_named(&mut browser, began, "pipeline", "Pipeline", "10-slow");
    browser.assert_no_complaints();
}
