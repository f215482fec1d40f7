//! What FreeSWITCH sends is in Redis, once, in order.

use jackfield::simulator::{Load, Settings, Simulator};

use crate::harness::{Redis, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn events_of_many_calls_reach_their_streams_once_and_in_order() {
    let (switch, redis) = (Simulator::start(Settings::default()).await.unwrap(), Redis::start());
    let host = Setup::new(switch.addr(), &redis).start();
    host.wait_ready();
    switch.place_calls(Load { rate: 0.0, events: Some(5_000), calls_at_once: 100 }).await;
    let status = host.wait_settled(switch.sent().queued);
    let written = redis.events("freeswitch:telephony:events").len() + redis.events("freeswitch:telephony:background-jobs").len();
    assert_eq!(status["counts"]["delivered"], written, "an event a stream, each once: {status:#}");
}
