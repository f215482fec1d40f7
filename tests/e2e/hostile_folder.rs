//! A filter folder in which nothing is as it should be, and one that never rests: nothing blocks, nothing is read from elsewhere,
//! the good filters go on with every event.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jackfield::simulator::{Settings, Simulator};

use crate::forged::Forged;
use crate::harness::{Redis, Setup, component, place_filter, wait_for};
use crate::hostile::{GOOD, assert_counted};
use crate::numbered::{self, Firing, STREAM};
use crate::scene::{Scene, runs};

/// Half of what a file has to rest before it is read.
const RESTED: Duration = Duration::from_millis(50);

fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success(), "mkfifo {}", path.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_of_the_folder_is_refused_and_never_opened() {
    let mut scene = Scene::start(|setup| setup.filter("10-good", "hostile", GOOD)).await;
    let firing = scene.fire_steadily();
    let filters = fs::canonicalize(&scene.host.filters).unwrap();
    let at = |name: &str| filters.join(name);
    // As `filters.dir` is set.
    let shown = |name: &str| format!("filters.d/{name}");
    let outside = fs::canonicalize(scene.host.dir()).unwrap().join("outside");
    fs::write(&outside, "attack = \"trap\"").unwrap();
    let with_component = [
        "20-link.toml",
        "20-pipe.toml",
        "20-folder.toml",
        "20-binary.toml",
        "20-long.toml",
    ];
    symlink("/etc/passwd", at("30-link.wasm")).unwrap();
    symlink("/dev/zero", at("30-zero.wasm")).unwrap();
    symlink("30-loop.wasm", at("30-loop.wasm")).unwrap();
    symlink("nowhere", at("30-nowhere.wasm")).unwrap();
    fs::create_dir(at("30-folder.wasm")).unwrap();
    fifo(&at("30-pipe.wasm"));
    symlink(&outside, at("20-link.toml")).unwrap();
    fifo(&at("20-pipe.toml"));
    fs::create_dir(at("20-folder.toml")).unwrap();
    fs::write(at("20-binary.toml"), [0xff; 10]).unwrap();
    fs::File::create(at("20-long.toml"))
        .unwrap()
        .set_len((1 << 20) + 1)
        .unwrap();
    for settings in with_component {
        place_filter(
            &filters,
            &settings[..settings.len() - 5],
            &component("hostile"),
            "",
        );
    }
    place_filter(&filters, "40-two\nlines", &component("hostile"), GOOD);
    let leads = |name: &str, to: &Path| {
        format!(
            "{} leads to {}, outside of {}",
            shown(name),
            to.display(),
            filters.display()
        )
    };
    let irregular = |name: &str| format!("{} is not a regular file", shown(name));
    for (name, why) in [
        ("30-link", leads("30-link.wasm", Path::new("/etc/passwd"))),
        ("30-zero", leads("30-zero.wasm", Path::new("/dev/zero"))),
        (
            "30-loop",
            format!(
                "{}: Too many levels of symbolic links (os error 40)",
                shown("30-loop.wasm")
            ),
        ),
        ("30-folder", irregular("30-folder.wasm")),
        ("30-pipe", irregular("30-pipe.wasm")),
        ("20-link", leads("20-link.toml", &outside)),
        ("20-pipe", irregular("20-pipe.toml")),
        ("20-folder", irregular("20-folder.toml")),
        ("20-binary", "20-binary.toml is not UTF-8".to_owned()),
        (
            "20-long",
            format!(
                "{} has 1048577 bytes; at most 1048576 are allowed",
                shown("20-long.toml")
            ),
        ),
    ] {
        let filter = scene
            .host
            .wait_filter(name, |filter| !filter["last_error"].is_null());
        assert_eq!(
            filter["last_error"],
            format!("cannot be read: {why}"),
            "{name}"
        );
    }
    place_filter(&filters, "90-good", &component("hostile"), QUIET);
    scene
        .host
        .wait_filter("90-good", |filter| filter["state"] == "running");
    let there = scene.host.status()["filters"].as_array().unwrap().len();
    assert_eq!(
        there, 12,
        "what leads nowhere and what has no proper name is no filter"
    );
    scene.stop(firing);
    assert_counted(&scene.all_delivered());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_filters_at_once_the_first_64_run() {
    let mut scene = Scene::start(|setup| setup.filter("10-good", "hostile", GOOD)).await;
    let firing = scene.fire_steadily();
    let forged = Forged::default().bytes();
    for number in 0..1_000 {
        fs::write(
            scene.host.filters.join(format!("50-{number:03}.wasm")),
            &forged,
        )
        .unwrap();
    }
    let running = |number: usize| {
        move |status: &serde_json::Value| {
            let filters = status["filters"].as_array().unwrap();
            filters.len() == number && filters.iter().all(|filter| filter["state"] == "running")
        }
    };
    let status = scene.host.wait_status("64 filters run", running(64));
    assert_eq!(status["filters"][63]["file"], "50-062", "in name order");
    scene
        .host
        .wait_log("too many filters: those behind the first ones in name order do not run");
    for number in 0..1_000 {
        fs::remove_file(scene.host.filters.join(format!("50-{number:03}.wasm"))).unwrap();
    }
    scene.host.wait_status("one is left", running(1));
    scene.stop(firing);
    assert_counted(&scene.all_delivered());
}

/// Settings of a filter that leaves no trace.
const QUIET: &str = "attack = \"slow\"\n";

/// Puts something else into a folder every few milliseconds until it is stopped.
struct Swapping {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Swapping {
    fn start(every: Duration, swap: impl Fn(usize) + Send + 'static) -> Swapping {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for round in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                swap(round);
                std::thread::sleep(every);
            }
        });
        Swapping { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

fn version(version: &str) -> String {
    format!("attack = \"version\"\nversion = \"{version}\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_never_rest_are_left_alone_until_they_do_and_others_go_live_meanwhile() {
    let mut scene = Scene::start(|setup| {
        let setup = setup.filter("10-good", "hostile", GOOD);
        setup.filter("20-swapped", "hostile", &version("first"))
    })
    .await;
    let firing = scene.fire_steadily();
    let filters = scene.host.filters.clone();
    let whole = fs::read(component("hostile")).unwrap();
    // On a machine that had no time for the swapping, versions were at rest after all, and then they may go live.
    let rested = Arc::new(Mutex::new(vec!["first".to_owned(), "last".to_owned()]));
    let (noted, last) = (Arc::clone(&rested), Mutex::new(Instant::now()));
    let swapping = Swapping::start(Duration::from_millis(10), move |round| {
        let late = last.lock().unwrap().elapsed() > RESTED;
        // One is replaced as a whole, the other one is written over, half of the time by half.
        place_filter(
            &filters,
            "20-swapped",
            &component("hostile"),
            &version(&round.to_string()),
        );
        fs::write(filters.join("30-written.wasm"), &whole[round % 2 * 1_000..]).unwrap();
        let mut last = last.lock().unwrap();
        if late || last.elapsed() > RESTED {
            let rounds = [round.saturating_sub(1), round];
            noted
                .lock()
                .unwrap()
                .extend(rounds.map(|one| one.to_string()));
        }
        *last = Instant::now();
    });
    for number in 0..4 {
        let name = format!("40-new-{number}");
        place_filter(&scene.host.filters, &name, &component("hostile"), QUIET);
        scene
            .host
            .wait_filter(&name, |filter| filter["state"] == "running");
    }
    scene
        .host
        .wait_log("file does not settle: it is not read while it keeps changing");
    swapping.stop();
    let whole = component("hostile");
    place_filter(&scene.host.filters, "20-swapped", &whole, &version("last"));
    place_filter(&scene.host.filters, "30-written", &whole, QUIET);
    for name in ["20-swapped", "30-written"] {
        scene.host.wait_filter(name, |filter| {
            filter["state"] == "running" && filter["last_error"].is_null()
        });
    }
    wait_for("the last version is live", || {
        scene.newest().filter(|event| event["X-Version"] == "last")
    });
    scene.stop(firing);
    let events = scene.all_delivered();
    assert_counted(&events);
    let (runs, rested) = (runs(&events, "X-Version"), rested.lock().unwrap());
    assert_eq!((&*runs[0], &*runs[runs.len() - 1]), ("first", "last"));
    for version in &runs {
        assert!(
            rested.contains(version),
            "nothing that was there for a moment was live: {runs:?}, at rest were {rested:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_in_mid_swap_again_and_again_delivers_all_once_in_order() {
    let switch = Arc::new(Simulator::start(Settings::default()).await.unwrap());
    let redis = Redis::start();
    let mut setup = Setup::new(switch.addr(), &redis)
        .env("EVENTS_MAX_LEN", "0")
        .env("ESL_RECONNECT_DELAY", "50ms")
        .env("JACKFIELD_FILTERS_DEADLINE", "1s")
        .filter("10-good", "hostile", GOOD)
        .filter("20-swapped", "hostile", &version("0"));
    let filters = setup.filters();
    let whole = fs::read(component("hostile")).unwrap();
    // Slow enough that versions do go live; each is compiled anew.
    let swapping = Swapping::start(Duration::from_millis(250), move |round| {
        let mut bytes = whole.clone();
        bytes.extend([0, 3, 1, b'b', u8::try_from(round % 256).unwrap()]);
        let build = filters.join(".build");
        fs::write(&build, bytes).unwrap();
        place_filter(&filters, "20-swapped", &build, &version(&round.to_string()));
    });
    let firing = Firing::start(&switch);
    for round in 0..6 {
        let host = setup.start();
        host.wait_ready();
        numbered::wait_growth(&redis, 200 + 97 * round);
        setup = host.kill();
    }
    let host = setup.start();
    host.wait_ready();
    numbered::wait_growth(&redis, 100);
    swapping.stop();
    firing.stop().await;
    host.wait_filter("20-swapped", |filter| {
        filter["state"] == "running" && filter["last_error"].is_null()
    });
    let status = host.wait_settled(0);
    assert_eq!(status["counts"]["lost"], 0, "{status:#}");
    let setup = host.stop();
    assert!(
        kept(&setup, ".new").is_empty(),
        "what a kill left half written is gone"
    );
    let journaled = numbered::in_journal(&setup);
    numbered::check(&redis, STREAM, journaled.iter().copied());
}

/// The files of the host's own folder that end so.
fn kept(setup: &Setup, suffix: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(setup.journal().join("filters")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn compiled_filters_are_kept_and_damaged_ones_compiled_again() {
    let redis = Redis::start();
    let switch = crate::scene::quiet_switch().await;
    let setup = Setup::new(switch.addr(), &redis).filter("10-good", "hostile", GOOD);
    let setup = setup.start().stop();
    let code = kept(&setup, ".code");
    assert_eq!(code.len(), 1, "one filter, one file of code");
    let whole = fs::read(&code[0]).unwrap();
    let damaged = [&whole[..whole.len() / 2], &[0x90; 4096], b""];
    let mut setup = setup;
    for damaged in damaged {
        fs::write(&code[0], damaged).unwrap();
        let host = setup.start();
        host.wait_log("compiled filter is damaged: compiling it again");
        host.wait_filter("10-good", |filter| filter["state"] == "running");
        setup = host.stop();
        assert_eq!(fs::read(&code[0]).unwrap().len(), whole.len());
    }
    let host = setup.start();
    host.wait_filter("10-good", |filter| filter["state"] == "running");
    assert!(
        !host.log().contains("compiled filter is damaged"),
        "this time it is taken as it is: {}",
        host.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_others_could_have_written_is_not_believed() {
    let redis = Redis::start();
    let switch = crate::scene::quiet_switch().await;
    let setup = Setup::new(switch.addr(), &redis).filter("10-good", "hostile", GOOD);
    let own = setup.journal().join("filters");
    fs::create_dir_all(&own).unwrap();
    fs::set_permissions(&own, Permissions::from_mode(0o777)).unwrap();
    let host = setup.start();
    let log = host.wait_log("neither compiled filters nor their versions are kept");
    assert!(
        log.contains("may be written by others (mode 777): chmod go-w, or remove it"),
        "{log}"
    );
    host.wait_filter("10-good", |filter| filter["state"] == "running");
    assert_eq!(
        fs::read_dir(&own).unwrap().count(),
        0,
        "and nothing is put there"
    );
}
