//! kill -9 of the host: everything that was journaled is in Redis exactly once, in order, wherever it was hit.

use super::dice::{rounds, seeds};
use super::interposer::{Point, Strike};
use super::trial::{Missing, Plan, Trial};

/// A host that dies at this point and is started again goes on as if nothing had happened.
async fn dies_at(test: &str, point: Point, strike: Strike) {
    for seed in seeds(test, &[1]) {
        let mut trial = Plan::new(seed).journal(64 << 20).interposed().start().await;
        for _ in 0..rounds(2, 5) {
            let skip = trial.dice.within(0..30);
            trial.disturb();
            trial.interposer.strike(0, point, skip, 1, strike);
            trial.wait_killed();
            trial.start_again();
            trial.host().wait_ready();
            trial.calm();
            trial.wait_delivered(200);
        }
        trial.verdict(Missing::Unheard(10));
    }
}

macro_rules! deaths {
    ($($name:ident: $point:expr, $strike:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                dies_at(concat!("faults::killed_host::", stringify!($name)), $point, $strike).await;
            }
        )*
    };
}

deaths! {
    a_death_before_an_append: Point::SegmentWrite, Strike::KillBefore;
    a_death_in_the_middle_of_an_append: Point::SegmentWrite, Strike::KillWithin(500);
    a_death_after_an_append: Point::SegmentWrite, Strike::KillAfter;
    a_death_between_decision_and_send: Point::BatchSend, Strike::KillBefore;
    a_death_in_the_middle_of_a_send: Point::BatchSend, Strike::KillWithin(500);
    a_death_between_exec_and_its_reply: Point::BatchReply, Strike::KillBefore;
}
