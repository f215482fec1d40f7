//! A container that is killed, and another one in its place: with its volume, and without.

use std::sync::Arc;

use crate::engine::{Container, Volume, switch};
use crate::harness::Redis;
use crate::image::in_journal;
use crate::numbered::{self, Firing, STREAM};

#[tokio::test(flavor = "multi_thread")]
async fn with_its_volume_the_next_one_loses_and_repeats_nothing_that_was_journaled() {
    const KILLS: usize = 4;
    let (switch, redis, volume) = (Arc::new(switch().await), Redis::start(), Volume::new());
    let firing = Firing::start(&switch);
    for kill in 0..KILLS {
        let host = Container::start(&switch, &redis, &[&volume.mount()]);
        host.wait_ready();
        numbered::wait_growth(&redis, 500 + 97 * kill as u64);
        host.kill_and_remove();
    }
    let host = Container::start(&switch, &redis, &[&volume.mount()]);
    host.wait_ready();
    numbered::wait_growth(&redis, 500);
    firing.stop().await;
    let status = host.wait_settled(1);
    assert_eq!(status["counts"]["lost"], 0, "{status:#}");
    assert_eq!(host.stop(), 0, "{}", host.log());
    let journaled = in_journal(&volume);
    let gaps = journaled.windows(2).filter(|pair| pair[1] != pair[0] + 1);
    assert!(
        gaps.count() <= KILLS,
        "only what FreeSWITCH sent while nobody listened is missing"
    );
    numbered::check(&redis, STREAM, journaled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_in_the_volume_is_delivered_by_the_next_one() {
    let (switch, mut redis, volume) = (
        switch().await,
        Redis::start_with(&crate::harness::DURABLE),
        Volume::new(),
    );
    let host = Container::start(&switch, &redis, &[&volume.mount()]);
    host.wait_ready();
    numbered::fire(&switch, 0..100);
    host.wait_settled(100);
    redis.kill();
    numbered::fire(&switch, 100..3_000);
    host.wait_status("all is in the journal", |status| {
        status["journal"]["last"].as_u64() >= Some((1 << 40) + 2_999)
    });
    host.kill_and_remove();
    let host = Container::start(&switch, &redis, &[&volume.mount()]);
    redis.up();
    host.wait_ready();
    numbered::fire(&switch, 3_000..3_100);
    host.wait_status("all is delivered", |status| {
        let counts = &status["counts"];
        counts["delivered"].as_u64() >= Some(3_000) && counts["pending"] == 0
    });
    numbered::check(&redis, STREAM, 0..3_100);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_volume_the_next_one_takes_over_the_name_and_goes_on_behind_it() {
    let (switch, redis) = (switch().await, Redis::start());
    let host = Container::start(&switch, &redis, &[]);
    host.wait_ready();
    numbered::fire(&switch, 0..1_000);
    host.wait_settled(1_000);
    // The volume of a container that was given none has no name, and goes with it.
    host.kill_and_remove();
    let host = Container::start(&switch, &redis, &[]);
    // FreeSWITCH is heard at once; Redis has to wait until the key of the first one has expired.
    host.wait_status("it listens to FreeSWITCH", |status| {
        status["links"]["esl"]["state"] == "ready"
    });
    numbered::fire(&switch, 1_000..2_000);
    host.wait_ready();
    numbered::fire(&switch, 2_000..3_000);
    let status = host.wait_settled(2_000);
    assert_eq!(status["counts"]["lost"], 0, "{status:#}");
    numbered::check(&redis, STREAM, 0..3_000);
}
