//! Redis answers, and takes nothing, or not everything: what is about Redis is waited for, what is about an entry makes a dead letter.

use std::fs;
use std::thread;

use jackfield::simulator::Event;
use redis::{Connection, cmd};

use super::dice::{rounds, seeds};
use super::trial::{DEAD, JOBS, Plan, Trial};
use super::trouble::impatient;
use super::verdict::Missing;
use crate::harness::wait_for;
use crate::proxy::Ending;

/// The host's user at Redis, which may do everything at first.
const JACK: [&str; 7] = ["--user", "jack", "on", ">old-s3cret", "~*", "&*", "+@all"];
const JACK_LOGIN: &str = "jack:old-s3cret";

fn plan(seed: u64) -> Plan {
    Plan::new(seed).setup(impatient)
}

/// Redis refuses again and again under load: the host says so, once in its log, and goes on as if nothing had happened.
async fn refused(
    test: &str,
    trial: impl AsyncFn(u64) -> Trial,
    words: &str,
    begin: fn(&Trial, &mut Connection),
    end: fn(&Trial, &mut Connection),
) {
    for seed in seeds(test, &[1]) {
        let trial = trial(seed).await;
        // Made before: a new one may be refused.
        let mut redis = trial.redis.connection();
        for _ in 0..rounds(2, 6) {
            trial.disturb();
            let said = trial.said(words);
            begin(&trial, &mut redis);
            trial.wait_in_trouble(words, 400);
            trial.check_secret("s3cret");
            trial.check_said_once(words, said);
            end(&trial, &mut redis);
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(200);
        }
        let verdict = trial.verdict(Missing::Nothing);
        let letters = verdict.found[DEAD].len();
        assert_eq!(letters, 0, "what is about Redis makes no dead letters");
    }
}

fn ask(redis: &mut Connection, words: &str) {
    let mut words = words.split(' ');
    let mut command = cmd(words.next().unwrap());
    words.for_each(|word| {
        // Some are empty, or have a blank.
        command.arg(word.replace("''", "").replace('_', " "));
    });
    command.exec(redis).unwrap();
}

macro_rules! refusals {
    ($($name:ident: $plan:expr, $words:expr, $begin:expr, $end:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let test = concat!("faults::redis_refuses::", stringify!($name));
                let trial = async |seed: u64| $plan(plan(seed)).start().await;
                refused(test, trial, $words, $begin, $end).await;
            }
        )*
    };
}

fn as_default(plan: Plan) -> Plan {
    plan
}

fn as_jack(plan: Plan) -> Plan {
    plan.redis(&JACK).redis_user(JACK_LOGIN)
}

refusals! {
    a_full_redis_is_waited_for: as_default, "OOM",
        |_, redis| ask(redis, "CONFIG SET maxmemory 1"),
        |_, redis| ask(redis, "CONFIG SET maxmemory 0");

    a_master_that_becomes_a_replica_is_waited_for: as_default, "is a slave, not a master",
        |_, redis| ask(redis, "REPLICAOF 127.0.0.1 1"),
        |_, redis| ask(redis, "REPLICAOF NO ONE");

    a_master_without_enough_replicas_is_waited_for: as_default, "NOREPLICAS",
        |_, redis| ask(redis, "CONFIG SET min-replicas-to-write 1"),
        |_, redis| ask(redis, "CONFIG SET min-replicas-to-write 0");

    a_redis_that_cannot_save_is_waited_for: as_default, "MISCONF",
        |trial, redis| {
            // What an earlier round saved is in the way; then a folder in the place of the file: not even root can rename over it.
            drop(fs::remove_file(trial.redis.dir().join("dump.rdb")));
            fs::create_dir_all(trial.redis.dir().join("dump.rdb/x")).unwrap();
            ask(redis, "CONFIG SET save 1000_1");
            ask(redis, "BGSAVE");
        },
        |trial, redis| {
            fs::remove_dir_all(trial.redis.dir().join("dump.rdb")).unwrap();
            ask(redis, "BGSAVE");
        };

    a_redis_busy_with_a_script_is_waited_for: as_default, "BUSY",
        |trial, redis| {
            ask(redis, "CONFIG SET busy-reply-threshold 50");
            let mut busy = trial.redis.connection();
            thread::spawn(move || {
                // It is killed.
                drop(cmd("EVAL").arg("while true do end").arg(0).exec(&mut busy));
            });
        },
        |_, redis| ask(redis, "SCRIPT KILL");

    a_forbidden_command_is_waited_for: as_jack, "NOPERM",
        |_, redis| ask(redis, "ACL SETUSER jack -xadd"),
        |_, redis| ask(redis, "ACL SETUSER jack +xadd");

    a_forbidden_cursor_is_waited_for: as_jack, "NOPERM",
        |_, redis| ask(redis, "ACL SETUSER jack resetkeys ~freeswitch:*"),
        |_, redis| ask(redis, "ACL SETUSER jack ~*");

    a_password_that_was_rotated_is_waited_for: as_jack, "password rejected",
        |_, redis| {
            ask(redis, "ACL SETUSER jack resetpass >new-s3cret");
            ask(redis, "CLIENT KILL USER jack");
        },
        |_, redis| ask(redis, "ACL SETUSER jack resetpass >old-s3cret");

    a_password_that_is_asked_for_all_at_once_is_waited_for: as_default, "password rejected",
        |_, redis| {
            ask(redis, "CONFIG SET requirepass new-s3cret");
            ask(redis, "CLIENT KILL TYPE normal SKIPME yes");
        },
        |_, redis| ask(redis, "CONFIG SET requirepass ''");

    a_redis_with_too_many_clients_is_waited_for: as_default, "max number of clients reached",
        |trial, redis| {
            ask(redis, "CONFIG SET maxclients 1");
            trial.lane.end(Ending::Rst);
        },
        |_, redis| ask(redis, "CONFIG SET maxclients 1000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_key_makes_dead_letters_and_delays_nobody() {
    let test = "faults::redis_refuses::a_forbidden_key_makes_dead_letters_and_delays_nobody";
    for seed in seeds(test, &[1]) {
        let trial = as_jack(plan(seed)).start().await;
        let mut redis = trial.redis.connection();
        for _ in 0..rounds(2, 6) {
            let letters: u64 = trial.redis.ask(&["XLEN", DEAD]);
            let keys = "ACL SETUSER jack resetkeys ~jackfield:* ~freeswitch:telephony:events";
            ask(&mut redis, &format!("{keys} ~{DEAD}"));
            wait_for("dead letters come", || {
                let now: u64 = trial.redis.ask(&["XLEN", DEAD]);
                (now > letters + 20).then_some(())
            });
            ask(&mut redis, "ACL SETUSER jack ~*");
            let jobs: u64 = trial.redis.ask(&["XLEN", JOBS]);
            wait_for("jobs come again", || {
                let now: u64 = trial.redis.ask(&["XLEN", JOBS]);
                (now > jobs + 20).then_some(())
            });
        }
        let verdict = trial.verdict(Missing::Nothing);
        let losses = &verdict.status["links"]["redis"]["losses"];
        assert_eq!(*losses, 0, "the connection is kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_too_large_for_redis_are_dead_letters_and_delay_nobody() {
    let test =
        "faults::redis_refuses::events_too_large_for_redis_are_dead_letters_and_delay_nobody";
    for seed in seeds(test, &[1]) {
        let mut trial = plan(seed).start().await;
        let rounds = rounds(3, 8);
        for round in 0..rounds {
            // The host learns the limit when it connects, and this one the hard way.
            trial.disturb();
            trial
                .redis
                .ask::<()>(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"]);
            let large = "x".repeat(trial.dice.within((1 << 20)..(3 << 20)) as usize);
            let event = Event::new("CUSTOM").header("Event-Subclass", "trial::large");
            trial.switch.fire(event.body(large));
            wait_for("it is a dead letter", || {
                (trial.redis.ask::<u64>(&["XLEN", DEAD]) == round + 1).then_some(())
            });
            trial.host().wait_ready();
            trial.calm();
            trial
                .redis
                .ask::<()>(&["CONFIG", "SET", "proto-max-bulk-len", "512mb"]);
            trial.lane.end(Ending::Fin);
            trial.wait_delivered(100);
        }
        let verdict = trial.verdict(Missing::Nothing);
        assert_eq!(verdict.found[DEAD].len() as u64, rounds, "nothing else is");
    }
}
