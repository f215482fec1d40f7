//! Two faults at a time, from a schedule that the seed decides: what each of them costs alone is known; together they cost no more.

use super::dice::{Dice, rounds, seeds};
use super::interposer::{EIO, ENOSPC, Point, Strike};
use super::trial::{Plan, Trial};
use super::verdict::Missing;
use crate::harness::DURABLE;
use crate::proxy::{Condition, Ending, Toward};

/// How many pairs one run goes through.
const PAIRS: u64 = 5;

/// What can be done to a host and its surroundings, and undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    HostKilled,
    HostStopped,
    PowerCut,
    RedisKilled,
    RedisHangs,
    RedisFull,
    RedisReadOnly,
    RedisForgets,
    LaneCut(Ending),
    LaneHole(Toward),
    LaneSlow,
    EslCut(Ending),
    EslHole,
    DiskFull,
    DiskFails,
    SyncFails,
    SyncHangs,
    ClockJumps,
    FilterReloaded,
}

const ALL: [Fault; 22] = [
    Fault::HostKilled,
    Fault::HostStopped,
    Fault::PowerCut,
    Fault::RedisKilled,
    Fault::RedisHangs,
    Fault::RedisFull,
    Fault::RedisReadOnly,
    Fault::RedisForgets,
    Fault::LaneCut(Ending::Fin),
    Fault::LaneCut(Ending::Rst),
    Fault::LaneHole(Toward::Server),
    Fault::LaneHole(Toward::Client),
    Fault::LaneSlow,
    Fault::EslCut(Ending::Fin),
    Fault::EslCut(Ending::Rst),
    Fault::EslHole,
    Fault::DiskFull,
    Fault::DiskFails,
    Fault::SyncFails,
    Fault::SyncHangs,
    Fault::ClockJumps,
    Fault::FilterReloaded,
];

impl Fault {
    /// Gives in how many more pieces events may be missing than one for each time that nobody listened.
    fn begin(self, trial: &mut Trial) -> u64 {
        let mut taken_back = 0;
        match self {
            Fault::HostKilled => trial.kill(),
            Fault::HostStopped => trial.stop(),
            Fault::PowerCut => taken_back = trial.cut_power().writes,
            Fault::RedisKilled => trial.redis.kill(),
            Fault::RedisHangs => trial.redis.signal("STOP"),
            Fault::RedisFull => trial.redis.ask(&["CONFIG", "SET", "maxmemory", "1"]),
            Fault::RedisReadOnly => trial.redis.ask(&["REPLICAOF", "127.0.0.1", "1"]),
            Fault::RedisForgets => trial.redis.ask(&["FLUSHALL"]),
            Fault::LaneCut(ending) => {
                let (toward, bytes) = (direction(&mut trial.dice), trial.dice.within(0..100_000));
                trial.lane.set(toward, Condition::EndAfter(bytes, ending));
            }
            Fault::LaneHole(toward) => trial.lane.set(toward, Condition::BlackHole),
            Fault::LaneSlow => trial.lane.set(Toward::Client, Condition::Delay(0..200)),
            Fault::EslCut(ending) => {
                let bytes = trial.dice.within(0..1_000_000);
                trial
                    .esl
                    .set(Toward::Client, Condition::EndAfter(bytes, ending));
            }
            Fault::EslHole => trial.esl.set(Toward::Client, Condition::BlackHole),
            Fault::DiskFull => {
                let part = trial.dice.within(0..1_000);
                trial.interposer.strike(
                    0,
                    Point::SegmentWrite,
                    0,
                    u64::MAX,
                    Strike::FillWithin(part),
                );
                trial
                    .interposer
                    .strike(1, Point::SegmentCreate, 0, u64::MAX, Strike::Fail(ENOSPC));
            }
            Fault::DiskFails => {
                let times = trial.dice.within(1..4);
                trial
                    .interposer
                    .strike(2, Point::SegmentWrite, 0, times, Strike::Fail(EIO));
            }
            Fault::SyncFails => {
                trial
                    .interposer
                    .strike(3, Point::SegmentSync, 0, 1, Strike::Fail(EIO));
            }
            Fault::SyncHangs => {
                trial
                    .interposer
                    .strike(4, Point::SegmentSync, 0, 1, Strike::Hang(2_000));
            }
            Fault::ClockJumps => trial
                .interposer
                .move_clock(*trial.dice.pick(&[-3_600, 3_600])),
            Fault::FilterReloaded => trial.reload_counter(),
        }
        taken_back
    }

    fn end(self, trial: &mut Trial) {
        match self {
            Fault::HostKilled | Fault::HostStopped | Fault::PowerCut => trial.start_again(),
            Fault::RedisKilled => trial.redis.up(),
            Fault::RedisHangs => trial.redis.signal("CONT"),
            Fault::RedisFull => trial.redis.ask(&["CONFIG", "SET", "maxmemory", "0"]),
            Fault::RedisReadOnly => trial.redis.ask(&["REPLICAOF", "NO", "ONE"]),
            Fault::LaneCut(_) | Fault::LaneHole(_) | Fault::LaneSlow => trial.lane.clear(),
            Fault::EslCut(_) | Fault::EslHole => trial.esl.clear(),
            Fault::DiskFull => {
                trial.interposer.relax(0);
                trial.interposer.relax(1);
            }
            Fault::DiskFails => trial.interposer.relax(2),
            Fault::SyncFails => trial.interposer.relax(3),
            Fault::SyncHangs => trial.interposer.relax(4),
            Fault::ClockJumps => trial.interposer.move_clock(0),
            Fault::RedisForgets | Fault::FilterReloaded => {}
        }
    }

    /// What it is done to. Two faults of one place are one after the other, not at once.
    fn place(self) -> &'static str {
        match self {
            Fault::HostKilled | Fault::HostStopped | Fault::PowerCut => "host",
            Fault::RedisKilled
            | Fault::RedisHangs
            | Fault::RedisFull
            | Fault::RedisReadOnly
            | Fault::RedisForgets => "redis",
            Fault::LaneCut(_) | Fault::LaneHole(_) | Fault::LaneSlow => "lane",
            Fault::EslCut(_) | Fault::EslHole => "esl",
            Fault::DiskFull | Fault::DiskFails | Fault::SyncFails | Fault::SyncHangs => "disk",
            Fault::ClockJumps => "clock",
            Fault::FilterReloaded => "filter",
        }
    }
}

fn direction(dice: &mut Dice) -> Toward {
    *dice.pick(&[Toward::Server, Toward::Client])
}

/// Two faults of different places.
fn pair(dice: &mut Dice) -> [Fault; 2] {
    loop {
        let pair = [*dice.pick(&ALL), *dice.pick(&ALL)];
        if pair[0].place() != pair[1].place() {
            return pair;
        }
    }
}

/// What nobody promises is not asked for: events that only memory has while the disk takes nothing do not survive the host, which
/// does not start on such a disk either; and Redis cannot be healed of what the journal does not have, now or since an earlier pair.
fn is_promised(pair: [Fault; 2], done: &[[Fault; 2]]) -> bool {
    let host = pair.iter().any(|fault| fault.place() == "host");
    let disk = [Fault::DiskFull, Fault::DiskFails, Fault::SyncFails];
    let disk_fails = disk.iter().any(|fault| pair.contains(fault));
    let so_far = done.iter().flatten().chain(&pair);
    let lacking = [Fault::DiskFull, Fault::DiskFails, Fault::PowerCut];
    let journal_lacks = so_far.into_iter().any(|fault| lacking.contains(fault));
    let unhealable = journal_lacks && pair.contains(&Fault::RedisForgets);
    !(unhealable || host && disk_fails)
}

async fn run(seed: u64) {
    let plan = Plan::new(seed).redis(&DURABLE).with_power_cuts();
    let mut trial = plan
        .setup(|setup| {
            let setup = setup.env("ESL_HEALTH_CHECK_TIMEOUT", "1s");
            setup.filter("10-count", "hostile", "attack = \"counter\"\n")
        })
        .start()
        .await;
    let (mut done, mut unheard) = (Vec::new(), 0);
    while (done.len() as u64) < PAIRS {
        let pair = pair(&mut trial.dice);
        if !is_promised(pair, &done) {
            continue;
        }
        eprintln!("{pair:?}");
        trial.disturb();
        unheard += pair[0].begin(&mut trial);
        std::thread::sleep(trial.dice.millis(0..500));
        unheard += pair[1].begin(&mut trial);
        std::thread::sleep(trial.dice.millis(0..1_500));
        let first = trial.dice.within(0..2) as usize;
        pair[first].end(&mut trial);
        std::thread::sleep(trial.dice.millis(0..500));
        pair[1 - first].end(&mut trial);
        trial.host().wait_ready();
        trial.calm();
        trial.wait_delivered(50);
        unheard += 4;
        done.push(pair);
    }
    trial.verdict(Missing::Unheard(unheard as usize));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_faults_at_a_time_cost_no_more_than_each_alone() {
    let kept: Vec<u64> = (1..=rounds(6, 20)).collect();
    for seed in seeds(
        "faults::pairs::two_faults_at_a_time_cost_no_more_than_each_alone",
        &kept,
    ) {
        run(seed).await;
    }
}
