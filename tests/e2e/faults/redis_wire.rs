//! The way to Redis: connections that end, swallow or crawl at any byte of a request or a reply, and batches that land late.

use crate::proxy::{Condition, Ending, Toward};

use super::dice::{Dice, rounds, seeds};
use super::trial::{DEAD, Plan, Trial};
use super::trouble::impatient;
use super::verdict::Missing;
use crate::harness::{Setup, wait_for};

/// Where a sweep begins to count, and how many bytes on it strikes at most. The first ones are those of a new connection.
const REQUESTS: [(&str, u64); 6] = [
    ("SELECT", 40),
    ("ROLE", 140),
    ("MULTI", 60),
    ("MULTI", 60_000),
    ("jackfield:", 240),
    ("EXEC", 140),
];
const REPLIES: [(&str, u64); 6] = [
    ("+OK", 10),
    ("master", 150),
    ("+OK", 40),
    ("+QUEUED", 2_000),
    ("\r\n*", 600),
    ("$", 120),
];
/// So many of them belong to a new connection.
const HANDSHAKE: usize = 2;

/// Strikes at this byte.
type Strike = fn(u64) -> Condition;

const FIN: Strike = |byte| Condition::EndAfter(byte, Ending::Fin);
const RST: Strike = |byte| Condition::EndAfter(byte, Ending::Rst);
const HOLE: Strike = Condition::HoleAfter;

/// Strikes at one byte after the other. Whether what was cut off arrived or not, each event is in Redis once.
async fn swept(test: &str, toward: Toward, strike: Strike) {
    for seed in seeds(test, &[1]) {
        let plan = Plan::new(seed).rate(800.0).setup(impatient);
        let mut trial = plan.start().await;
        trial.disturb();
        for _ in 0..rounds(18, 500) {
            strike_once(&mut trial, toward, strike);
            trial.wait_delivered(10);
        }
        trial.calm();
        let verdict = trial.verdict(Missing::Nothing);
        assert!(
            !verdict.log.contains("healing"),
            "nothing is sent again that Redis has"
        );
    }
}

fn strike_once(trial: &mut Trial, toward: Toward, strike: Strike) {
    let places = match toward {
        Toward::Server => &REQUESTS,
        Toward::Client => &REPLIES,
    };
    let place = trial.dice.within(0..places.len() as u64) as usize;
    let (word, span) = places[place];
    let connections = trial.lane.connections();
    let condition = strike(trial.dice.within(0..span));
    trial.lane.set_at(toward, word, condition);
    if place < HANDSHAKE {
        trial.lane.end(Ending::Fin);
    }
    trial.lane.wait_struck(toward);
    wait_for("the host connects again", || {
        (trial.lane.connections() > connections).then_some(())
    });
    // What a hole held arrives now, while the host is sending it again.
    trial.lane.clear();
}

macro_rules! sweeps {
    ($($name:ident: $toward:expr, $strike:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                swept(concat!("faults::redis_wire::", stringify!($name)), $toward, $strike).await;
            }
        )*
    };
}

sweeps! {
    requests_cut_by_a_reset: Toward::Server, RST;
    requests_cut_by_an_end: Toward::Server, FIN;
    requests_cut_by_a_black_hole: Toward::Server, HOLE;
    replies_cut_by_a_reset: Toward::Client, RST;
    replies_cut_by_an_end: Toward::Client, FIN;
    replies_cut_by_a_black_hole: Toward::Client, HOLE;
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_crawl_are_given_up_on_and_believed_later() {
    let test = "faults::redis_wire::replies_that_crawl_are_given_up_on_and_believed_later";
    for seed in seeds(test, &[1]) {
        let trial = Plan::new(seed).setup(impatient).start().await;
        for _ in 0..rounds(2, 6) {
            trial.disturb();
            trial.lane.set(Toward::Client, Condition::Slow(1));
            trial.wait_in_trouble("redis: no reply within", 400);
            trial.lane.clear();
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(200);
        }
        trial.verdict(Missing::Nothing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_of_uneven_delays_keeps_up_and_stays_ready() {
    let test = "faults::redis_wire::a_link_of_uneven_delays_keeps_up_and_stays_ready";
    for seed in seeds(test, &[1]) {
        // A large batch is many pieces, each of which is delayed.
        let patient = |setup: Setup| setup.env("REDIS_REMOTE_WRITE_TIMEOUT", "5s");
        let plan = Plan::new(seed).rate(800.0).setup(patient);
        let trial = plan.start().await;
        for toward in [Toward::Server, Toward::Client] {
            trial.lane.set(toward, Condition::Delay(0..200));
        }
        trial.wait_delivered(rounds(400, 10_000));
        let verdict = trial.verdict(Missing::Nothing);
        let losses = &verdict.status["links"]["redis"]["losses"];
        assert_eq!(*losses, 0, "no reply was given up on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_ends_every_connection_on_a_batch_makes_no_dead_letters() {
    let test =
        "faults::redis_wire::a_way_that_ends_every_connection_on_a_batch_makes_no_dead_letters";
    for seed in seeds(test, &[1]) {
        // So few events that a batch has one: nothing else could be to blame.
        let plan = Plan::new(seed).rate(800.0).setup(impatient);
        let mut trial = plan.start().await;
        for ending in [Ending::Rst, Ending::Fin] {
            trial.disturb();
            // Enough for what comes before a batch.
            let byte = trial.dice.within(800..1_200);
            let connections = trial.lane.connections();
            trial
                .lane
                .set(Toward::Server, Condition::EndEach(byte, ending));
            wait_for("more than a batch needs to be suspected", || {
                let tries = trial.lane.connections() - connections;
                (tries as u64 > rounds(12, 40)).then_some(())
            });
            trial.lane.clear();
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(50);
        }
        let verdict = trial.verdict(Missing::Nothing);
        assert_eq!(
            verdict.found[DEAD].len(),
            0,
            "it was the way, not the event"
        );
    }
}

/// How a batch that was given up on arrives.
#[derive(Clone, Copy, Debug)]
enum Landing {
    /// Long after it was sent again.
    After,
    /// While it is about to be sent again.
    Between,
    /// At the same time.
    Together,
}

fn land(trial: &Trial, landing: Landing) {
    let first = trial.lane.connections() - 1;
    trial.lane.hold_batches_of(first);
    if !matches!(landing, Landing::After) {
        trial.lane.hold_batches_of(first + 1);
    }
    trial.lane.wait_held(first);
    match landing {
        Landing::After => trial.wait_delivered(50),
        Landing::Between => {
            trial.lane.wait_held(first + 1);
            trial.lane.let_go(first);
            trial.lane.wait_over(first);
        }
        Landing::Together => trial.lane.wait_held(first + 1),
    }
    trial.lane.let_go(first + 1);
    trial.lane.let_go(first);
    trial.lane.wait_over(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_land_late_do_nothing() {
    let test = "faults::redis_wire::batches_that_land_late_do_nothing";
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).setup(impatient).start().await;
        trial.disturb();
        for _ in 0..rounds(3, 20) {
            for landing in shuffled(&mut trial.dice) {
                land(&trial, landing);
                trial.wait_delivered(50);
            }
        }
        trial.calm();
        let verdict = trial.verdict(Missing::Nothing);
        let fenced = verdict.log.contains("batch fenced by the cursor");
        assert!(fenced, "some came before those that were sent again");
    }
}

fn shuffled(dice: &mut Dice) -> [Landing; 3] {
    let mut all = [Landing::After, Landing::Between, Landing::Together];
    all.swap(0, dice.within(0..3) as usize);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_slower_than_the_timeout_now_and_then_repeats_nothing() {
    let test = "faults::redis_wire::a_link_slower_than_the_timeout_now_and_then_repeats_nothing";
    for seed in seeds(test, &[1]) {
        let hasty = |setup: Setup| setup.env("REDIS_REMOTE_WRITE_TIMEOUT", "100ms");
        let trial = Plan::new(seed).setup(hasty).start().await;
        trial.disturb();
        trial.lane.set(Toward::Server, Condition::Delay(0..130));
        trial.wait_sent(rounds(800, 20_000) as usize);
        trial.lane.clear();
        trial.host().wait_ready();
        trial.calm();
        let verdict = trial.verdict(Missing::Nothing);
        let late = verdict.log.matches("no reply within 100 ms").count();
        assert!(late > 0, "some were late");
    }
}
