//! Somebody else at the same Redis: what they take out stays out, what they write stays in, and nothing of ours is lost or repeated.

use super::dice::{rounds, seeds};
use super::trial::{DEAD, EVENTS, JOBS, Plan, Trial};
use super::verdict::Missing;
use crate::harness::wait_for;

/// Does something to a stream again and again. The host is ready all the while, and sends nothing again.
async fn meddled(test: &str, meddle: fn(&mut Trial, &'static str)) {
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).start().await;
        for _ in 0..rounds(6, 40) {
            let more = trial.dice.within(1..150);
            trial.wait_delivered(more);
            let stream = *trial.dice.pick(&[EVENTS, JOBS]);
            meddle(&mut trial, stream);
        }
        trial.wait_delivered(150);
        let verdict = trial.verdict(Missing::Nothing);
        assert!(!verdict.log.contains("healing"), "nothing was sent again");
        let losses = &verdict.status["links"]["redis"]["losses"];
        assert_eq!(*losses, 0, "the connection is kept");
    }
}

macro_rules! meddling {
    ($($name:ident: $meddle:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                meddled(concat!("faults::redis_shared::", stringify!($name)), $meddle).await;
            }
        )*
    };
}

fn take_out(trial: &mut Trial, command: &[&str]) {
    let stream = command[1];
    trial.operator.take_out(&trial.redis, stream, command);
}

meddling! {
    a_stream_that_is_deleted_stays_deleted: |trial, stream| take_out(trial, &["DEL", stream]);

    what_is_trimmed_stays_trimmed: |trial, stream| {
        let most = trial.dice.within(0..200).to_string();
        take_out(trial, &["XTRIM", stream, "MAXLEN", &most]);
    };

    an_entry_that_is_deleted_stays_deleted: |trial, stream| {
        type Entries = Vec<(String, Vec<(String, String)>)>;
        // The newest is what is remembered of a stream.
        let newest: Entries = trial.redis.ask(&["XREVRANGE", stream, "+", "-", "COUNT", "1"]);
        if let Some((id, _)) = newest.first() {
            take_out(trial, &["XDEL", stream, id]);
        }
    };

    entries_of_somebody_else_are_left_alone: |trial, stream| {
        trial.operator.write(&trial.redis, stream, "*");
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_makes_dead_letters_until_the_stream_is_back() {
    let test =
        "faults::redis_shared::a_key_of_another_type_makes_dead_letters_until_the_stream_is_back";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).start().await;
        for _ in 0..rounds(3, 12) {
            let stream = *trial.dice.pick(&[EVENTS, JOBS]);
            let letters: u64 = trial.redis.ask(&["XLEN", DEAD]);
            let swap =
                "redis.call('RENAME', KEYS[1], 'aside') redis.call('SET', KEYS[1], 'theirs')";
            trial.redis.ask::<()>(&["EVAL", swap, "1", stream]);
            let more = trial.dice.within(1..100);
            wait_for("dead letters come", || {
                let now: u64 = trial.redis.ask(&["XLEN", DEAD]);
                (now > letters + more).then_some(())
            });
            trial.redis.ask::<()>(&["RENAME", "aside", stream]);
            let before: u64 = trial.redis.ask(&["XLEN", stream]);
            wait_for("the stream grows again", || {
                let now: u64 = trial.redis.ask(&["XLEN", stream]);
                (now > before + 20).then_some(())
            });
        }
        let verdict = trial.verdict(Missing::Nothing);
        let losses = &verdict.status["links"]["redis"]["losses"];
        assert_eq!(*losses, 0, "the connection is kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_no_ids_left_makes_dead_letters() {
    let test = "faults::redis_shared::a_stream_that_has_no_ids_left_makes_dead_letters";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).start().await;
        trial.wait_delivered(100);
        let stream = *trial.dice.pick(&[EVENTS, JOBS]);
        let last = "18446744073709551615-18446744073709551615";
        trial.operator.write(&trial.redis, stream, last);
        wait_for("dead letters come", || {
            let letters: u64 = trial.redis.ask(&["XLEN", DEAD]);
            (letters > 50).then_some(())
        });
        let other = if stream == EVENTS { JOBS } else { EVENTS };
        let before: u64 = trial.redis.ask(&["XLEN", other]);
        wait_for("the other one grows", || {
            let now: u64 = trial.redis.ask(&["XLEN", other]);
            (now > before + 20).then_some(())
        });
        // Whoever did this may take the entry out, but only a new stream takes events again.
        trial
            .operator
            .take_out(&trial.redis, stream, &["DEL", stream]);
        trial.operator.forget(stream);
        trial.wait_delivered(150);
        trial.verdict(Missing::Nothing);
    }
}
