//! Filters go live through a mounted folder: as a file that is dropped into it, and as a ConfigMap that is swapped.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jackfield::simulator::Simulator;
use tempfile::TempDir;

use crate::engine::{Container, switch, variable};
use crate::harness::{Redis, place_filter};
use crate::numbered::{self, Firing, STREAM};

const FILE: &str = "10-route";

/// A folder that the user of the image may read, and the argument that mounts it.
fn folder() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mount = format!(
        "--volume={}:/jackfield/filters.d:ro",
        folder.path().display()
    );
    (folder, mount)
}

/// The component of the filter `route`, of the Dockerfile's stage `filters`.
fn route() -> PathBuf {
    Path::new(&variable("CONTAINER_FILTERS")).join("route.wasm")
}

fn to(stream: &str) -> String {
    format!("[[rule]]\nevent = \"CUSTOM\"\nstreams = [\"{stream}\"]\n")
}

/// Waits until numbers come to the stream, and says how long it took from now.
#[track_caller]
fn wait_for_numbers(host: &Container, redis: &Redis, stream: &str, what: &str) {
    let changed = Instant::now();
    host.wait(&format!("numbers come to {stream}"), || {
        (redis.ask::<u64>(&["XLEN", stream]) > 100).then_some(())
    });
    eprintln!(
        "{what} was live after {:.2} s at the most",
        changed.elapsed().as_secs_f64()
    );
}

/// Ends the load: the streams have all numbers that were fired, one after the other.
async fn check_all(host: &Container, redis: &Redis, firing: Firing, streams: &[&str]) {
    let fired = firing.stop().await;
    host.wait_settled(fired);
    let found: Vec<u64> = streams
        .iter()
        .flat_map(|stream| numbered::in_stream(redis, stream))
        .collect();
    assert_eq!(found.len() as u64, fired);
    assert!(
        found.into_iter().eq(0..fired),
        "each change was between two events"
    );
}

async fn start(mount: &str) -> (Arc<Simulator>, Redis, Container, Firing) {
    let (switch, redis) = (Arc::new(switch().await), Redis::start());
    let host = Container::start(&switch, &redis, &[mount]);
    host.wait_ready();
    let firing = Firing::start(&switch);
    (switch, redis, host, firing)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_dropped_into_the_folder_goes_live() {
    let (folder, mount) = folder();
    let (_switch, redis, host, firing) = start(&mount).await;
    wait_for_numbers(&host, &redis, STREAM, "the default route");
    place_filter(folder.path(), FILE, &route(), &to("freeswitch:dropped"));
    wait_for_numbers(&host, &redis, "freeswitch:dropped", "the dropped component");
    fs::write(
        folder.path().join(format!("{FILE}.toml")),
        to("freeswitch:changed"),
    )
    .unwrap();
    wait_for_numbers(&host, &redis, "freeswitch:changed", "its new settings");
    check_all(
        &host,
        &redis,
        firing,
        &[STREAM, "freeswitch:dropped", "freeswitch:changed"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_that_is_swapped_goes_live() {
    let (folder, mount) = folder();
    // As the kubelet does it: a folder for each version, `..data` names the current one, and every file is a link through it.
    let write = |version: &str, stream: &str| {
        let of = folder.path().join(version);
        fs::create_dir(&of).unwrap();
        fs::write(of.join(format!("{FILE}.toml")), to(stream)).unwrap();
        fs::copy(route(), of.join(format!("{FILE}.wasm"))).unwrap();
        symlink(version, folder.path().join("..data_tmp")).unwrap();
        fs::rename(
            folder.path().join("..data_tmp"),
            folder.path().join("..data"),
        )
        .unwrap();
    };
    write("..2026_11_30_1", "freeswitch:first");
    for file in ["10-route.toml", "10-route.wasm"] {
        symlink(format!("..data/{file}"), folder.path().join(file)).unwrap();
    }
    let (_switch, redis, host, firing) = start(&mount).await;
    wait_for_numbers(&host, &redis, "freeswitch:first", "the first version");
    write("..2026_11_30_2", "freeswitch:second");
    wait_for_numbers(&host, &redis, "freeswitch:second", "the second version");
    fs::remove_dir_all(folder.path().join("..2026_11_30_1")).unwrap();
    write("..2026_11_30_3", "freeswitch:third");
    wait_for_numbers(&host, &redis, "freeswitch:third", "the third version");
    check_all(
        &host,
        &redis,
        firing,
        &["freeswitch:first", "freeswitch:second", "freeswitch:third"],
    )
    .await;
}
