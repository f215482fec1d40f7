//! The way of someone who writes a filter, with the real binary and the real cargo: from an empty folder outside of this
//! repository to an event in Redis, and what each command says when something is wrong.
//!
//! All crates are built in one target folder of their own, so that their dependencies are compiled once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use jackfield::simulator::Event;
use serde_json::{Value, json};

use crate::harness::{component, jackfield, root, wait_for};
use crate::scene::{EVENTS, Scene};

/// Runs `jackfield filter` as an author does: in a folder, with the author's environment.
fn filter_command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(jackfield());
    command
        .arg("filter")
        .args(args)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", root().join("target/authors"));
    command
}

/// Exit code, standard output, standard error.
fn ended(mut command: Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn filter(folder: &Path, args: &[&str]) -> (i32, String, String) {
    ended(filter_command(folder, args))
}

/// A new crate, with the dependencies of this repository: nothing is fetched that was not there.
fn new_crate(folder: &Path, name: &str) -> PathBuf {
    let (code, _, log) = filter(folder, &["new", name]);
    assert_eq!(code, 0, "{log}");
    let dir = folder.join(name);
    fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    dir
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} in {}", path.display());
    fs::write(path, text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_filter_goes_from_nothing_to_its_first_event_in_redis() {
    jackfield();
    let scene = Scene::start(|setup| setup).await;
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let dir = new_crate(folder.path(), "first-tag");
    let live = scene.host.filters.join("40-first-tag.wasm");
    fs::create_dir_all(&scene.host.filters).unwrap();
    fs::write(live.with_extension("toml"), "site = \"berlin\"\n").unwrap();
    let written = started.elapsed();
    let (code, out, log) = filter(&dir, &["build", "--output", live.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{log}");
    let built = started.elapsed();
    let status = scene
        .host
        .wait_filter("40-first-tag", |filter| filter["state"] == "running");
    scene
        .switch
        .fire(Event::new("CHANNEL_ANSWER").header("Caller-Destination-Number", "100"));
    let event = wait_for("the tagged call is in Redis", || {
        scene.redis.events(EVENTS).pop()
    });
    let delivered = started.elapsed();
    assert_eq!(event["X-Site"], "berlin");
    println!(
        "a new filter: crate after {written:?}, component in the running host's folder after {built:?}, \
        its first event in Redis after {delivered:?}"
    );

    let line = |name: &str, value: &str| format!("{name:<8} {value}\n");
    let digest = status["digest"].as_str().unwrap();
    for expected in [
        line("filter", "first-tag 0.1.0"),
        line("digest", digest),
        line("events", "CHANNEL_ANSWER"),
        line("headers", "Caller-Destination-Number"),
        line("golden", "2 ok"),
        line("path", live.to_str().unwrap()),
    ] {
        assert!(out.contains(&expected), "{out} should have {expected}");
    }
    assert_eq!(
        fs::read_dir(&scene.host.filters).unwrap().count(),
        2,
        "the component and its settings, nothing else"
    );
}

#[test]
fn golden_cases_say_what_differs_keep_a_component_from_being_written_and_take_over_what_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let dir = new_crate(folder.path(), "golden_tag");
    let output = folder.path().join("golden_tag.wasm");
    let output = output.to_str().unwrap();
    let case = dir.join("golden/answered.json");
    let original = fs::read_to_string(&case).unwrap();
    replace(&case, "\"value\": \"berlin\"", "\"value\": \"paris\"");

    let (code, out, log) = filter(&dir, &["test"]);
    let expected = "answered: failed: step 1: edit 1: expected {\"set\":{\"name\":\"X-Site\",\"value\":\"paris\"}}, \
        got {\"set\":{\"name\":\"X-Site\",\"value\":\"berlin\"}}\ndefaults: ok\n2 golden cases, 1 failed\n";
    assert_eq!((code, out.as_str()), (1, expected), "{log}");
    let (code, out, log) = filter(&dir, &["build", "--output", output]);
    assert_eq!((code, out.as_str()), (1, ""), "{log}");
    assert!(
        log.ends_with("got {\"set\":{\"name\":\"X-Site\",\"value\":\"berlin\"}}\n")
            && log.contains("jackfield: golden case answered: step 1: edit 1: expected"),
        "{log}"
    );
    assert!(!Path::new(output).exists(), "what fails is not written");

    let (code, out, log) = filter(&dir, &["test", "--update"]);
    let expected = "answered: updated\ndefaults: ok\n2 golden cases, 0 failed\n";
    assert_eq!((code, out.as_str()), (0, expected), "{log}");
    assert_eq!(
        fs::read_to_string(&case).unwrap(),
        original,
        "the file is as it was before, to the byte"
    );
    let (code, out, _) = filter(
        folder.path(),
        &["test", "--json", "--manifest-path", "golden_tag"],
    );
    let ok = |case: &str| json!({"case": case, "ok": true, "error": null, "updated": false});
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, answer), (0, json!([ok("answered"), ok("defaults")])));

    let (code, out, log) = filter(&dir, &["build", "--json", "--output", output]);
    assert_eq!(code, 0, "{log}");
    let built: Value = serde_json::from_str(&out).unwrap();
    let size = fs::metadata(output).unwrap().len();
    assert_eq!(
        (&built["path"], &built["size"], &built["golden_cases"]),
        (&json!(output), &json!(size), &json!(2))
    );
    let (code, out, _) = filter(&dir, &["check", output, "--json"]);
    let mut expected = built.as_object().unwrap().clone();
    expected.remove("path");
    expected.extend([
        ("file".to_owned(), json!(output)),
        ("ok".to_owned(), json!(true)),
        ("error".to_owned(), Value::Null),
    ]);
    let checked: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, checked),
        (0, json!([expected])),
        "check finds what build said"
    );
    let (code, out, _) = filter(&dir, &["test", output]);
    let expected = "answered: ok\ndefaults: ok\n2 golden cases, 0 failed\n";
    assert_eq!(
        (code, out.as_str()),
        (0, expected),
        "the component has its cases"
    );

    fs::write(&case, "{\"steps\": [{}]}").unwrap();
    let (code, _, log) = filter(&dir, &["test"]);
    let wrong = "golden/answered.json: step 1: allowed is either `event` or `tick`\n";
    assert!(code == 1 && log.ends_with(wrong), "{code} {log}");
    fs::remove_dir_all(dir.join("golden")).unwrap();
    let settings = folder.path().join("golden_tag.toml");
    fs::write(settings, "site = \"\"\n").unwrap();
    let (code, _, log) = filter(&dir, &["build", "--output", output]);
    let refused = "jackfield: a host would refuse it: settings refused: `site` has 0 characters; allowed are 1 to 64\n";
    assert!(code == 1 && log.ends_with(refused), "{code} {log}");
}

#[test]
fn check_says_of_each_component_what_it_is_or_why_a_host_refuses_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for name in ["good", "refused", "broken"] {
        fs::copy(component("hostile"), dir.join(format!("{name}.wasm"))).unwrap();
    }
    fs::write(
        dir.join("good.toml"),
        "attack = \"tick\"\ntick_ms = 50\nwants = [\"CODEC\", \"DTMF\"]\n",
    )
    .unwrap();
    fs::write(dir.join("refused.toml"), "attack = \"refuse\"\n").unwrap();
    fs::write(dir.join("broken.toml"), "[jackfield]\nmemory = 1\n").unwrap();
    fs::write(dir.join("text.wasm"), "no Wasm\n").unwrap();
    let files = [
        "good.wasm",
        "refused.wasm",
        "broken.wasm",
        "text.wasm",
        "missing.wasm",
    ];

    let (code, out, log) = filter(dir, &["check", "good.wasm"]);
    assert_eq!((code, log.as_str()), (0, ""));
    assert!(
        out.starts_with("good.wasm: ok\n  filter   hostile 0.1.0\n"),
        "{out}"
    );
    for line in [
        "  events   CODEC, DTMF\n",
        "  headers  Event-Name\n",
        "  tick     every 50 ms\n",
        "  golden   no cases\n",
        "jackfield:filter/host@0.1.0",
    ] {
        assert!(out.contains(line), "{out} should have {line}");
    }

    let (code, out, _) = filter(dir, &[&["check"], files.as_slice()].concat());
    assert_eq!(code, 1);
    for line in [
        "refused.wasm: refused: settings refused: refused: `attack` is \"refuse\"\n",
        "broken.wasm: refused: jackfield.memory = 1: allowed is a size from 64KiB to 4GiB such as 16MiB\n",
        "text.wasm: refused: ",
        "missing.wasm: refused: cannot be read: missing.wasm: no such file\n",
    ] {
        assert!(out.contains(line), "{out} should have {line}");
    }
    let (code, out, _) = filter(dir, &[&["check", "--json"], files.as_slice()].concat());
    let answer: Value = serde_json::from_str(&out).unwrap();
    let ok: Vec<&Value> = answer
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["ok"])
        .collect();
    assert_eq!(
        (code, ok),
        (
            1,
            vec![
                &json!(true),
                &json!(false),
                &json!(false),
                &json!(false),
                &json!(false)
            ]
        )
    );
    assert_eq!(answer[0]["tick_ms"], 50);
    assert_eq!(
        answer[1].get("digest"),
        None,
        "what is refused has no facts"
    );

    let (code, _, _) = filter(dir, &["check", "refused.wasm", "--settings", "good.toml"]);
    assert_eq!(code, 0, "other settings, another answer");
    let (code, out, log) = filter(dir, &["check", "good.wasm", "--settings", "none.toml"]);
    assert_eq!(
        (code, out.as_str(), log.as_str()),
        (2, "", "jackfield: --settings none.toml: no such file\n")
    );
    let (code, out, _) = filter(dir, &["check", "good.wasm", "--set", "filters.wasi=deny"]);
    assert!(
        code == 1 && out.contains("wasi = \"deny\" forbids WASI"),
        "the host's own settings count: {out}"
    );
    let (code, out, log) = filter(dir, &["test", "text.wasm"]);
    assert!(
        code == 1 && out.is_empty() && log.starts_with("jackfield: "),
        "{code} {log}"
    );
}

#[test]
fn what_cannot_be_done_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let said = |args: &[&str], expected: (i32, &str)| {
        let (code, out, log) = filter(dir, args);
        assert_eq!(
            (code, log.as_str(), out.as_str()),
            (expected.0, expected.1, ""),
            "{args:?}"
        );
    };
    said(
        &["new", "1st"],
        (
            2,
            "jackfield: NAME = \"1st\": allowed is a crate's name: 1 to 64 ASCII letters, digits, - and _, beginning with a letter, \
            and no word that Rust or cargo has a use for\n",
        ),
    );
    fs::create_dir(dir.join("there")).unwrap();
    said(
        &["new", "there", "--into", "."],
        (
            1,
            "jackfield: ./there is there already; nothing was written\n",
        ),
    );
    assert_eq!(fs::read_dir(dir.join("there")).unwrap().count(), 0);
    let no_crate =
        "jackfield: no Cargo.toml in .; `jackfield filter new NAME` writes a filter's crate\n";
    said(&["build"], (2, no_crate));
    said(&["test"], (2, no_crate));
    said(
        &["build", "--output", "filters.d"],
        (
            2,
            "jackfield: --output filters.d: allowed is a file name that ends in .wasm\n",
        ),
    );

    let crate_dir = new_crate(dir, "unbuilt");
    let mut command = filter_command(&crate_dir, &["build"]);
    command.env("CARGO", "/no/such/cargo");
    let (code, _, log) = ended(command);
    assert!(
        code == 1 && log.contains("cargo is missing (/no/such/cargo); install Rust: curl"),
        "{code} {log}"
    );
    let script = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let mut command = filter_command(&crate_dir, &["test"]);
    command
        .env("CARGO", script("cargo", "exit 101"))
        .env("RUSTC", script("rustc", "echo /no/such/libdir"));
    let (code, _, log) = ended(command);
    assert_eq!(
        (code, log.as_str()),
        (
            1,
            "jackfield: the compiler lacks the target wasm32-wasip2; install it: rustup target add wasm32-wasip2\n"
        )
    );
    replace(
        &crate_dir.join("Cargo.toml"),
        "\"cdylib\", \"rlib\"",
        "\"rlib\"",
    );
    let (code, _, log) = filter(&crate_dir, &["build"]);
    let why = "jackfield: unbuilt makes no component; its Cargo.toml needs: [lib] crate-type = [\"cdylib\", \"rlib\"]\n";
    assert!(code == 1 && log.ends_with(why), "{code} {log}");
    replace(
        &crate_dir.join("src/lib.rs"),
        "Verdict::Pass",
        "Verdict::Go",
    );
    let (code, _, log) = filter(&crate_dir, &["build"]);
    assert!(
        code == 1 && log.contains("no variant") && log.ends_with("jackfield: cargo build failed\n"),
        "{code} {log}"
    );
}

#[test]
fn every_filter_command_explains_itself_with_an_example() {
    for name in ["new", "build", "check", "test"] {
        let (code, out, _) = filter(Path::new("/"), &[name, "--help"]);
        assert!(
            code == 0 && out.contains(&format!("Examples:\n  jackfield filter {name}")),
            "{name}: {out}"
        );
    }
}

#[test]
fn cases_in_a_folder_try_a_component_of_any_language() {
    let redact = component("redact");
    let (file, golden) = (
        redact.to_str().unwrap(),
        root().join("filters/redact/golden"),
    );
    let (code, out, log) = filter(
        &root(),
        &["test", file, "--golden", golden.to_str().unwrap()],
    );
    assert_eq!(code, 0, "{out}{log}");
    assert!(
        out.ends_with("masked: ok\nprefixes: ok\n4 golden cases, 0 failed\n"),
        "{out}"
    );
    let (code, out, _) = filter(&root(), &["test", file, "--golden", "filters/route/golden"]);
    assert_eq!(code, 1);
    assert!(
        out.contains("first-match: failed: does not start: settings refused: "),
        "{out}"
    );
    let (code, _, log) = filter(&root(), &["test", file, "--golden", "no-such-folder"]);
    assert_eq!(
        (code, log.as_str()),
        (
            1,
            "jackfield: cannot read no-such-folder: No such file or directory (os error 2)\n"
        )
    );
}
