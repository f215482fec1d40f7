//! The journal's disk: full, too small, not there, of another router. FreeSWITCH is read all the same, and what is lost is counted.

use std::process::Command;
use std::sync::Arc;

use jackfield::simulator::{Event, Settings, Simulator};

use crate::faults::resident_kib;
use crate::harness::{Host, Redis, Setup, wait_for};
use crate::numbered::{self, STREAM};

async fn switch_named(name: &str) -> Arc<Simulator> {
    let settings = Settings {
        switchname: name.to_owned(),
        ..Settings::default()
    };
    Arc::new(Simulator::start(settings).await.unwrap())
}

fn setup(switch: &Simulator, redis: &Redis) -> Setup {
    Setup::new(switch.addr(), redis)
        .env("REDIS_REMOTE_WRITE_TIMEOUT", "300ms")
        .env("EVENTS_MAX_LEN", "0")
}

/// Fires numbered events of so many bytes and more.
fn fire_large(switch: &Simulator, numbers: std::ops::Range<u64>, bytes: usize) {
    let long = "x".repeat(bytes);
    for number in numbers {
        switch.fire(numbered::event(number).header("Long", &*long));
    }
}

/// From now on the host's files may not be longer than this: to the host it looks like a full disk.
fn limit_file_size(host: &Host, bytes: &str) {
    let limited = Command::new("prlimit")
        .args(["--pid", &host.pid().to_string()])
        .arg(format!("--fsize={bytes}:unlimited"))
        .status()
        .expect("prlimit is missing: apt-get install util-linux");
    assert!(limited.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_nothing_while_redis_is_there_and_heals_by_itself() {
    let (switch, redis) = (switch_named("sim1").await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..100);
    host.wait_settled(100);
    limit_file_size(&host, "4096");
    numbered::fire(&switch, 100..200);
    wait_for("it is said what is wrong", || {
        let (code, why) = host.get("/readyz");
        (code == 503 && why.contains("journal: cannot be written: File too large")).then_some(())
    });
    host.wait_log("journal broken: events are held in memory only");
    numbered::fire(&switch, 200..1_000);
    host.wait_settled(1_000);
    assert_eq!(host.metric("jackfield_journal_broken"), Some(1.0));
    limit_file_size(&host, "unlimited");
    host.wait_status("the disk takes events again", |status| {
        status["ready"] == true
    });
    numbered::fire(&switch, 1_000..1_100);
    host.wait_settled(1_100);
    numbered::check(&redis, STREAM, 0..1_100);
    let host = host.kill().start();
    host.wait_ready();
    numbered::fire(&switch, 1_100..1_200);
    wait_for("a restart goes on", || {
        (redis.ask::<u64>(&["XLEN", STREAM]) == 1_200).then_some(())
    });
    host.wait_settled(0);
    numbered::check(&redis, STREAM, 0..1_200);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_full_disk_and_no_redis_memory_holds_the_newest_and_the_rest_is_counted() {
    let (switch, mut redis) = (switch_named("sim1").await, Redis::start());
    let host = setup(&switch, &redis).env("BUFFER_SIZE", "500").start();
    host.wait_ready();
    limit_file_size(&host, "4096");
    redis.kill();
    numbered::fire(&switch, 0..5_000);
    host.wait_status("all is read", |status| status["counts"]["inputs"] == 5_000);
    redis.up();
    let status = host.wait_settled(5_000);
    let lost = status["counts"]["lost_by"]["buffer_full"].as_u64().unwrap();
    assert!(lost > 0, "there was no room for all: {status:#}");
    assert_eq!(status["counts"]["delivered"], 5_000 - lost, "{status:#}");
    let kept = numbered::in_stream(&redis, STREAM);
    assert_eq!(kept.len() as u64, 5_000 - lost, "each once");
    assert!(kept.is_sorted(), "in order");
    let newest: Vec<u64> = (4_500..5_000).collect();
    assert!(kept.ends_with(&newest), "the newest are kept");
    host.wait_log("buffer full: the oldest events are lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_full_disk_and_no_redis_memory_is_bounded_for_what_goes_nowhere_too() {
    let (switch, mut redis) = (switch_named("sim1").await, Redis::start());
    // It wants every event; no route does.
    let setup = setup(&switch, &redis).filter("10-count", "hostile", "attack = \"counter\"\n");
    let host = setup.env("BUFFER_SIZE", "500").start();
    host.wait_ready();
    limit_file_size(&host, "4096");
    redis.kill();
    let before = resident_kib(host.pid()).unwrap();
    let long = "x".repeat(1_000);
    for number in 0..100_000 {
        switch.fire(Event::new("CHANNEL_CREATE").header("Long", &*long));
        if number % 1_000 == 0 {
            host.wait_status("it is read", |status| {
                status["counts"]["inputs"].as_u64() >= Some(number)
            });
        }
    }
    let grown = resident_kib(host.pid()).unwrap().saturating_sub(before);
    assert!(grown < 80 << 10, "{grown} KiB for 100 MB of events");
    assert_eq!(host.status()["counts"]["balanced"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_at_its_limit_gives_up_the_oldest_and_counts_them() {
    let (switch, mut redis) = (switch_named("sim1").await, Redis::start());
    let host = setup(&switch, &redis)
        .config("[journal]\nmax_size = \"16MiB\"\n")
        .start();
    host.wait_ready();
    redis.kill();
    host.wait_status("Redis is away", |status| {
        status["links"]["redis"]["state"] != "ready"
    });
    fire_large(&switch, 0..3_000, 16 << 10);
    let status = host.wait_status("all is received", |status| {
        status["counts"]["inputs"] == 3_000 && status["counts"]["lost"].as_u64() > Some(0)
    });
    assert_eq!(status["counts"]["balanced"], true, "{status:#}");
    let bytes = status["journal"]["bytes"].as_u64().unwrap();
    assert!(bytes <= 16 << 20, "{bytes} bytes on disk");
    redis.up();
    let status = host.wait_settled(3_000);
    let lost = status["counts"]["lost_by"]["journal_full"]
        .as_u64()
        .unwrap();
    let kept = numbered::in_stream(&redis, STREAM);
    assert_eq!(kept.len() as u64, 3_000 - lost, "{status:#}");
    assert!(kept.is_sorted(), "in order");
    assert_eq!(kept.last(), Some(&2_999), "the newest are kept");
    host.wait_log("journal full: the oldest events are lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_sync_delivers_and_survives_kill_9() {
    for sync in ["interval", "batch", "never"] {
        let (switch, redis) = (switch_named("sim1").await, Redis::start());
        let host = setup(&switch, &redis)
            .env("JACKFIELD_JOURNAL_SYNC", sync)
            .start();
        host.wait_ready();
        numbered::fire(&switch, 0..500);
        host.wait_settled(500);
        let host = host.kill().start();
        host.wait_ready();
        numbered::fire(&switch, 500..600);
        host.wait_settled(100);
        numbered::check(&redis, STREAM, 0..600);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_cannot_share_a_journal() {
    let (switch, redis) = (switch_named("sim1").await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    let dir = host.journal();
    let second = setup(&switch, &redis).env("JACKFIELD_JOURNAL_DIR", dir.to_str().unwrap());
    let (code, _, log) = second.env("JACKFIELD_HTTP_LISTEN", "127.0.0.1:0").run();
    assert_eq!(code, 2, "{log}");
    assert!(log.contains(dir.to_str().unwrap()), "it is named: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_is_a_wrong_setting() {
    let (switch, redis) = (switch_named("sim1").await, Redis::start());
    let setup = setup(&switch, &redis).env("JACKFIELD_JOURNAL_DIR", "/dev/null/journal");
    let (code, _, log) = setup.env("JACKFIELD_HTTP_LISTEN", "127.0.0.1:0").run();
    assert_eq!(code, 2, "{log}");
    assert!(log.contains("/dev/null/journal"), "it is named: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_freeswitch_on_the_same_journal_is_refused() {
    let (switch, redis) = (switch_named("one").await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    host.wait_settled(10);
    let other = switch_named("other").await;
    let setup = host
        .stop()
        .env("ESL_PORT", &other.addr().port().to_string());
    let mut host = setup.start();
    let firing = numbered::Firing::start(&other);
    let ended = host.wait_end();
    firing.stop().await;
    assert_eq!(ended.code(), Some(2), "{}", host.log());
    host.wait_log("FreeSWITCH-Switchname is \"other\", but this journal is of \"one\"");
    numbered::check(&redis, STREAM, 0..10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_for_a_while_during_an_outage_of_redis_loses_nothing() {
    let (switch, mut redis) = (switch_named("sim1").await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    redis.kill();
    host.wait_status("Redis is away", |status| {
        status["links"]["redis"]["state"] != "ready"
    });
    // More than memory keeps beside the journal.
    numbered::fire(&switch, 0..3_000);
    host.wait_status("all is in the journal", |status| {
        status["counts"]["inputs"] == 3_000
    });
    limit_file_size(&host, "4096");
    for (second, start) in (3_000..5_000).step_by(500).enumerate() {
        numbered::fire(&switch, start..start + 500);
        host.wait_status("it is still broken", |status| {
            status["counts"]["inputs"] == start + 500
                && !status["journal"]["trouble"].is_null()
                && status["uptime_s"].as_u64() > Some(second as u64)
        });
    }
    assert_eq!(
        host.log().matches("journal broken").count(),
        1,
        "it is said once"
    );
    limit_file_size(&host, "unlimited");
    host.wait_log("events are journaled again");
    // All of it is in the journal now: a kill costs nothing.
    host.wait_status("what waited in memory is in the journal", |status| {
        status["journal"]["last"].as_u64() >= Some((1 << 40) + 4_999)
    });
    let host = host.kill().start();
    redis.up();
    host.wait_ready();
    let status = host.wait_status("all is delivered", |status| {
        status["counts"]["delivered"] == 5_000
    });
    assert_eq!(status["counts"]["lost"], 0, "{status:#}");
    numbered::check(&redis, STREAM, 0..5_000);
}
