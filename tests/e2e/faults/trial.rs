//! One trial: a host in the middle of thousands of calls, and what is done to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jackfield::simulator::{Event, Load, Settings, Simulator};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::dice::Dice;
use super::entries;
use super::interposer::{Interposer, is_interposed};
use super::operator::Operator;
use super::power::{self, Cut};
use super::tap::{Key, Tap};
use super::verdict::{self, Missing, Verdict};
use super::watch::{Peak, Watch};
use crate::harness::{DEADLINE, Host, Redis, Setup, wait_for};
use crate::proxy::Proxy;

pub(crate) const EVENTS: &str = "freeswitch:telephony:events";
pub(crate) const JOBS: &str = "freeswitch:telephony:background-jobs";
pub(crate) const DEAD: &str = "freeswitch:telephony:dead";

/// Events a second of all kinds; about a quarter of them belongs into a stream.
const RATE: f64 = 6_000.0;
const CALLS: usize = 2_000;
/// What a host may need beyond what it had at its start, whatever happens to it.
const MEMORY_KIB: u64 = 96 << 10;
/// The journal's room in these tests; segments have an eighth of it.
const JOURNAL: u64 = 256 << 20;

/// How a trial is set up.
pub(crate) struct Plan {
    dice: Dice,
    switch: Settings,
    rate: f64,
    redis: Vec<String>,
    redis_user: String,
    setup: Vec<Box<dyn FnOnce(Setup) -> Setup>>,
    journal: u64,
    memory_kib: u64,
    dropped: Option<&'static str>,
    interposed: bool,
    undo: bool,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Plan {
        let mut dice = Dice::new(seed);
        let switch = Settings {
            seed: dice.next(),
            heartbeat: Duration::from_secs(1),
            ..Settings::default()
        };
        Plan {
            dice,
            switch,
            rate: RATE,
            redis: Vec::new(),
            redis_user: String::new(),
            setup: Vec::new(),
            journal: JOURNAL,
            memory_kib: MEMORY_KIB,
            dropped: None,
            interposed: false,
            undo: false,
        }
    }

    /// Events a second.
    pub(crate) fn rate(mut self, rate: f64) -> Plan {
        self.rate = rate;
        self
    }

    /// Settings of the simulated FreeSWITCH.
    pub(crate) fn switch(mut self, change: impl FnOnce(&mut Settings)) -> Plan {
        change(&mut self.switch);
        self
    }

    /// Arguments of redis-server.
    pub(crate) fn redis(mut self, args: &[&str]) -> Plan {
        self.redis.extend(args.iter().map(ToString::to_string));
        self
    }

    /// Whom the host logs in as at Redis, and with what: `user:password`.
    pub(crate) fn redis_user(mut self, user: &str) -> Plan {
        self.redis_user = format!("{user}@");
        self
    }

    /// Filters and settings of the host.
    pub(crate) fn setup(mut self, prepare: impl FnOnce(Setup) -> Setup + 'static) -> Plan {
        self.setup.push(Box::new(prepare));
        self
    }

    /// The journal's room in bytes.
    pub(crate) fn journal(mut self, bytes: u64) -> Plan {
        self.journal = bytes;
        self
    }

    /// What the host may need beyond what it had at its start.
    pub(crate) fn memory(mut self, kib: u64) -> Plan {
        self.memory_kib = kib;
        self
    }

    /// Events of this name are dropped by a filter, every one.
    pub(crate) fn dropped(mut self, name: &'static str) -> Plan {
        self.dropped = Some(name);
        self
    }

    /// With the library for faults between the host and the kernel.
    pub(crate) fn interposed(mut self) -> Plan {
        self.interposed = true;
        self
    }

    /// And a record of what a power cut could take back.
    pub(crate) fn with_power_cuts(mut self) -> Plan {
        (self.interposed, self.undo) = (true, true);
        self
    }

    /// Starts everything, and waits until the first events of the calls are in Redis.
    pub(crate) async fn start(self) -> Trial {
        let switch = Arc::new(Simulator::start(self.switch).await.unwrap());
        let args: Vec<&str> = self.redis.iter().map(String::as_str).collect();
        let redis_interposer = Interposer::new();
        let preload = match self.interposed {
            true => redis_interposer.environment(false),
            false => Vec::new(),
        };
        let redis = Redis::start_within(&args, preload);
        let (esl, lane) = (Proxy::to(switch.addr().port()), Proxy::to(redis.port));
        let interposer = Interposer::new();
        interposer.know_redis(lane.port);
        let mut setup = setup(&esl, &lane, &self.redis_user, &redis)
            .env("JACKFIELD_JOURNAL_MAX_SIZE", &self.journal.to_string());
        for prepare in self.setup {
            setup = prepare(setup);
        }
        if self.interposed {
            for (name, path) in interposer.environment(self.undo) {
                setup = setup.env(name, path.to_str().unwrap());
            }
        }
        let tap = Tap::new(switch.addr());
        let host = setup.start();
        assert_eq!(
            is_interposed(host.pid()),
            self.interposed,
            "the library is where it is wanted"
        );
        let disturbed = Arc::<AtomicBool>::default();
        let watch = Watch::new(&host, &disturbed);
        assert!(
            switch.wait_for_subscribers(2, DEADLINE).await,
            "the host and the tap listen"
        );
        let load = calls(&switch, self.rate);
        let trial = Trial {
            dice: self.dice,
            switch,
            esl,
            redis,
            lane,
            interposer,
            redis_interposer,
            operator: Operator::default(),
            tap,
            life: Life::Running(host, watch),
            disturbed,
            peak: Peak::default(),
            journal: self.journal,
            memory_kib: self.memory_kib,
            dropped: self.dropped,
            rate: self.rate,
            load,
        };
        trial.host().wait_ready();
        trial.wait_delivered(200);
        trial
    }
}

fn setup(esl: &Proxy, lane: &Proxy, redis_user: &str, redis: &Redis) -> Setup {
    Setup::new(esl.addr(), redis)
        .env(
            "JACKFIELD_REDIS_URL",
            &format!("redis://{redis_user}127.0.0.1:{}/2", lane.port),
        )
        .env("REDIS_REMOTE_WRITE_TIMEOUT", "1s")
        .env("REDIS_REMOTE_DIAL_TIMEOUT", "1s")
        .env("ESL_RECONNECT_DELAY", "50ms")
        .env("ESL_MAX_RECONNECT_DELAY", "500ms")
        .env("EVENTS_MAX_LEN", "0")
        .env("JOBS_MAX_LEN", "0")
        .env("EVENTS_EXPIRE_TIME", "0")
        .env("JOBS_EXPIRE_TIME", "0")
        .env("JACKFIELD_FILTERS_DEADLINE", "1s")
}

/// A host in the middle of calls.
pub(crate) struct Trial {
    pub(crate) dice: Dice,
    pub(crate) switch: Arc<Simulator>,
    /// Before FreeSWITCH.
    pub(crate) esl: Proxy,
    pub(crate) redis: Redis,
    /// Before Redis.
    pub(crate) lane: Proxy,
    /// Between the host and its kernel.
    pub(crate) interposer: Interposer,
    /// The same of Redis.
    pub(crate) redis_interposer: Interposer,
    /// Somebody else at the same Redis.
    pub(crate) operator: Operator,
    tap: Tap,
    life: Life,
    disturbed: Arc<AtomicBool>,
    peak: Peak,
    journal: u64,
    memory_kib: u64,
    dropped: Option<&'static str>,
    rate: f64,
    load: JoinHandle<()>,
}

/// Places calls until the task is aborted.
fn calls(switch: &Arc<Simulator>, rate: f64) -> JoinHandle<()> {
    let switch = Arc::clone(switch);
    let load = Load {
        rate,
        events: None,
        calls_at_once: CALLS,
    };
    tokio::spawn(async move {
        switch.place_calls(load).await;
    })
}

enum Life {
    Running(Host, Watch),
    /// With what it left on the disk.
    Over(Setup),
    /// For a moment, between two.
    Changing,
}

impl Trial {
    pub(crate) fn host(&self) -> &Host {
        match &self.life {
            Life::Running(host, _) => host,
            _ => panic!("the host is not running"),
        }
    }

    /// Something is wrong from now on: the host may call itself ready or not.
    pub(crate) fn disturb(&self) {
        self.disturbed.store(true, Ordering::Relaxed);
    }

    /// Nothing is wrong any more: a host that does not get ready soon does not tell the truth.
    pub(crate) fn calm(&self) {
        self.disturbed.store(false, Ordering::Relaxed);
    }

    /// How many events have been sent so far that belong into a stream.
    pub(crate) fn sent(&self) -> usize {
        self.tap.count()
    }

    /// No calls from now on. Waits until all that was sent is known.
    #[track_caller]
    pub(crate) fn hold_calls(&self) {
        self.end_calls();
        let mark = Event::new("CUSTOM").header("Event-Subclass", "trial::mark");
        self.wait_known(self.switch.fire(mark));
    }

    #[track_caller]
    fn end_calls(&self) {
        self.load.abort();
        wait_for("the calls stop", || self.load.is_finished().then_some(()));
    }

    /// Waits until the tap has this event, which was fired last and belongs into a stream.
    #[track_caller]
    pub(crate) fn wait_known(&self, sequence: u64) {
        let core = self.switch.core_uuid().into();
        let key = Some(Key { core, sequence });
        wait_for("all is known that was sent", || {
            (self.tap.last() == key).then_some(())
        });
    }

    /// Calls go on.
    pub(crate) fn go_on(&mut self) {
        self.load = calls(&self.switch, self.rate);
    }

    /// The tap listens again, to a FreeSWITCH that was started again.
    pub(crate) async fn tap_again(&self) {
        self.tap.listen(self.switch.addr());
        let listens = self.switch.wait_for_subscribers(1, DEADLINE);
        assert!(listens.await, "the tap listens again");
    }

    /// Waits until so many events more have been sent that belong into a stream.
    #[track_caller]
    pub(crate) fn wait_sent(&self, more: usize) {
        let until = self.sent() + more;
        wait_for("calls go on", || (self.sent() >= until).then_some(()));
    }

    /// Waits until so many entries more are in Redis.
    #[track_caller]
    pub(crate) fn wait_delivered(&self, more: u64) {
        let until = self.delivered() + more;
        let started = Instant::now();
        while self.delivered() < until {
            assert!(
                started.elapsed() < DEADLINE,
                "not within {DEADLINE:?}: {more} events more in Redis\n{:#}\n{}",
                self.host().status(),
                self.host().log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn delivered(&self) -> u64 {
        [EVENTS, JOBS]
            .iter()
            .map(|stream| self.redis.ask::<u64>(&["XLEN", stream]))
            .sum()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.end_life(|host| {
            host.signal("KILL");
            host.died()
        });
    }

    /// Waits for the death that a rule of the interposer brings.
    pub(crate) fn wait_killed(&mut self) {
        self.end_life(Host::died);
    }

    /// Waits for an end with this exit code.
    pub(crate) fn wait_left(&mut self, code: i32) {
        self.end_life(|host| host.left(code));
    }

    /// SIGTERM, and a good end.
    pub(crate) fn stop(&mut self) {
        self.end_life(Host::stop);
    }

    /// The power goes: the host is gone, and what was not forced to the disk.
    pub(crate) fn cut_power(&mut self) -> Cut {
        self.kill();
        let journal = self.left().journal();
        power::cut(&self.interposer.undo(), &journal, &mut self.dice)
    }

    fn end_life(&mut self, end: impl FnOnce(Host) -> Setup) {
        let Life::Running(host, watch) = std::mem::replace(&mut self.life, Life::Changing) else {
            panic!("the host is not running");
        };
        self.life = Life::Over(end(host));
        self.saw(watch.end());
    }

    fn saw(&mut self, peak: Peak) {
        self.peak.memory_kib = self.peak.memory_kib.max(peak.memory_kib);
        self.peak.journal = self.peak.journal.max(peak.journal);
        self.peak.pending = self.peak.pending.max(peak.pending);
    }

    /// A new version of the filter `10-count`, which goes on counting.
    pub(crate) fn reload_counter(&mut self) {
        let filters = match &self.life {
            Life::Running(host, _) => host.filters.clone(),
            Life::Over(setup) => setup.filters(),
            Life::Changing => panic!("the host is between two lives"),
        };
        let version = self.dice.next();
        let settings = format!("attack = \"counter\"\nversion = \"{version}\"\n");
        std::fs::write(filters.join("10-count.toml"), settings).unwrap();
    }

    /// What a host that is over has left on the disk.
    pub(crate) fn left(&self) -> &Setup {
        match &self.life {
            Life::Over(setup) => setup,
            _ => panic!("the host is running"),
        }
    }

    /// Starts it again.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        assert!(self.lives_again(), "the host ended at its start");
    }

    /// Starts it again, where a rule of the interposer may kill it before it listens. Whether it lives.
    pub(crate) fn lives_again(&mut self) -> bool {
        let Life::Over(setup) = std::mem::replace(&mut self.life, Life::Changing) else {
            panic!("the host is running");
        };
        match setup.start_or_end() {
            Ok(host) => {
                let watch = Watch::new(&host, &self.disturbed);
                self.life = Life::Running(host, watch);
            }
            Err(setup) => self.life = Life::Over(setup),
        }
        matches!(self.life, Life::Running(..))
    }

    /// Ends the calls, waits until Redis has everything, and judges.
    #[track_caller]
    pub(crate) fn verdict(mut self, missing: Missing) -> Verdict {
        self.end_calls();
        self.calm();
        let status = self.drain();
        let Life::Running(host, watch) = std::mem::replace(&mut self.life, Life::Changing) else {
            panic!("the host is not running");
        };
        self.saw(watch.end());
        let log = host.log();
        let setup = match status["counts"]["lost"] == 0 {
            true => host.stop(),
            false => host.stop_after_losses(),
        };
        self.operator.check(&self.redis);
        let mut sent = self.tap.sent();
        sent.retain(|one| Some(&*one.name) != self.dropped);
        let of_stream = |stream| (stream, entries::of_stream(&self.redis, stream));
        let (letters, malformed) = entries::letters(&self.redis, DEAD, &setup);
        let verdict = Verdict {
            sent,
            found: [of_stream(EVENTS), of_stream(JOBS), (DEAD, letters)].into(),
            removed: self.operator.removed(),
            malformed,
            journaled: verdict::journaled(&setup),
            status,
            log,
            peak: self.peak,
            redis: self.redis,
        };
        verdict.check(missing);
        let peak = verdict.peak;
        assert!(
            peak.memory_kib < self.memory_kib,
            "memory stays bounded: {peak:?}"
        );
        assert!(
            peak.journal <= self.journal,
            "so does the journal: {peak:?}"
        );
        verdict
    }

    /// The calls have ended: what was sent last arrives, and with it all that was sent before. Gives `/status`.
    #[track_caller]
    fn drain(&self) -> Value {
        self.host().wait_ready();
        let marker = self.dice.seed.to_string() + "-last";
        let mut last = 0;
        wait_for("the host listens", || {
            // A marker that nobody hears is followed by another.
            let event = Event::new("CUSTOM").header("Event-Subclass", "trial::last");
            last = self.switch.fire(event.header("Marker", &*marker));
            let waited = Instant::now();
            while waited.elapsed() < Duration::from_secs(1) {
                type Entries = Vec<(String, Vec<(String, String)>)>;
                let newest: Entries =
                    self.redis
                        .ask(&["XREVRANGE", EVENTS, "+", "-", "COUNT", "1"]);
                if newest
                    .iter()
                    .flat_map(|(_, fields)| fields)
                    .any(|(_, value)| value.contains(&*marker))
                {
                    return Some(());
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            None
        });
        // The tap may be behind the host.
        self.wait_known(last);
        self.host().wait_settled(0)
    }
}
