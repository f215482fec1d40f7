//! The page at `/` in a real browser: it shows what `/status` says, its buttons do what the token allows, text of others stays text, a
//! keyboard is enough, and nothing jumps. What it says of faults: `page_faults`.

use std::collections::BTreeMap;
use std::fs;

use jackfield::simulator::Event;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::harness::{component, place_filter, request, wait_for};
use crate::scene::{EVENTS, Scene, versioned};

const TOKEN: &str = "t0ken";
const DEAD_FILTER: &str = "attack = \"dead-letter\"\nevent = \"DTMF\"\n";

/// What stands on the page, by the section, the rows and the key of each place: `filters/10-redact/version`.
pub const SHOWN: &str = "(() => {
    const shown = {};
    for (const el of document.querySelectorAll('main [data-k], header [data-k]')) {
        const path = [el.dataset.k];
        for (let at = el.closest('[data-row]'); at; at = at.parentElement.closest('[data-row]')) path.unshift(at.dataset.row);
        path.unshift(el.closest('section')?.id ?? 'header');
        shown[path.join('/')] = el.textContent;
    }
    return shown;
})()";

pub fn open(scene: &Scene) -> Browser {
    let mut browser = Browser::open(&format!("http://{}/", scene.host.http));
    browser.wait("document.body?.dataset.mode === 'live'");
    // What came before is not in its tail.
    let listens = |status: &Value| status["listeners"].as_u64() >= Some(1);
    scene.host.wait_status("the page listens", listens);
    browser
}

fn shown(browser: &mut Browser) -> BTreeMap<String, String> {
    serde_json::from_value(browser.eval(SHOWN)).unwrap()
}

/// A number as people read it.
fn grouped(number: &Value) -> String {
    let digits = number.as_u64().unwrap().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What must stand on the page for this status, place by place.
fn expected(status: &Value) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut say = |path: String, text: String| all.insert(path, text);
    let counts = &status["counts"];
    for account in [
        "received",
        "delivered",
        "dropped",
        "dead_lettered",
        "lost",
        "pending",
    ] {
        say(
            format!("accounts/counts.{account}"),
            grouped(&counts[account]),
        );
    }
    say("accounts/balanced".into(), "they add up".into());
    say("causes/From the socket".into(), grouped(&counts["inputs"]));
    for dropped in counts["dropped_by"].as_array().unwrap() {
        let cause = format!("{}: {}", text(&dropped["by"]), text(&dropped["reason"]));
        say(
            format!("causes/{cause}/events"),
            grouped(&dropped["events"]),
        );
    }
    for alarm in status["alarms"].as_array().unwrap() {
        let name = alarm["name"].as_str().unwrap_or_default();
        let stage = text(&alarm["stage"]);
        say(
            format!("alarms/{stage} {name}/cause"),
            text(&alarm["cause"]),
        );
        let level = if alarm["level"] == "error" {
            "error"
        } else {
            "warning"
        };
        say(format!("alarms/{stage} {name}/level"), level.into());
    }
    for (name, link) in status["links"].as_object().unwrap() {
        let words = BTreeMap::from([("green", "good"), ("orange", "fair"), ("red", "bad")]);
        let health = &link["health"];
        let level = format!(
            "{} {}",
            health["value"],
            words[text(&health["level"]).as_str()]
        );
        say(format!("links/{name}/level"), level);
        let losses = grouped(&link["losses"]);
        let tally = format!(
            "lost {losses}, came up {}, failed tries since {}",
            link["connects"], link["attempts"]
        );
        say(format!("links/{name}/Tally"), tally);
    }
    for (stage, times) in status["stages"].as_object().unwrap() {
        assert!(times["busy_us"].is_u64());
        let title = format!("{}{}", stage[..1].to_uppercase(), &stage[1..]);
        say(format!("flow/{stage}/title"), title);
    }
    for filter in status["filters"].as_array().unwrap() {
        let row = format!("filters/{}", text(&filter["file"]));
        let tally = &filter["tally"];
        for (key, number) in [
            ("events", "events"),
            ("drops", "drops"),
            ("reroutes", "reroutes"),
            ("failures", "failures"),
        ] {
            say(format!("{row}/{key}"), grouped(&tally[number]));
        }
        say(format!("{row}/version"), text(&filter["version"]));
        say(
            format!("{row}/digest"),
            text(&filter["digest"])[..12].to_owned(),
        );
        say(
            format!("{row}/state"),
            if filter["probation"] == true {
                "on probation".into()
            } else {
                text(&filter["state"])
            },
        );
        say(
            format!("flow/pipeline/{}/name", text(&filter["file"])),
            text(&filter["file"]),
        );
        let shadow = &filter["shadow"];
        if !shadow.is_null() {
            let said = format!(
                "{} {}: same {}, differs {}, skipped {}, failed {}",
                text(&shadow["version"]),
                &text(&shadow["digest"])[..12],
                grouped(&shadow["same"]),
                grouped(&shadow["differs"]),
                grouped(&shadow["skipped"]),
                grouped(&shadow["failed"]),
            );
            say(format!("{row}/shadow"), said);
            let samples = shadow["samples"].as_array().unwrap().iter().rev();
            let samples = samples.map(|sample| {
                format!("{} {}", text(&sample["event"]), text(&sample["difference"]))
            });
            say(format!("{row}/samples"), samples.collect());
        }
    }
    for stream in status["streams"].as_array().unwrap() {
        let row = format!("redis/{}", text(&stream["name"]));
        say(format!("{row}/entries"), grouped(&stream["entries"]));
        let length = &stream["length"];
        let length = if length.is_null() {
            "not known".to_owned()
        } else {
            grouped(length)
        };
        let most = if stream["max_len"] == 0 {
            "any".to_owned()
        } else {
            grouped(&stream["max_len"])
        };
        say(format!("{row}/length"), format!("{length}, {most}"));
    }
    let (lane, journal, dead) = (&status["lane"], &status["journal"], &status["dead_letters"]);
    say("redis/lane.cursor".into(), lane["cursor"].to_string());
    say("redis/lane.waiting".into(), grouped(&lane["waiting"]));
    say("redis/lane.batches".into(), grouped(&lane["batches"]));
    say("journal/Newest input".into(), journal["last"].to_string());
    say(
        "journal/In Redis up to".into(),
        journal["acknowledged"].to_string(),
    );
    say(
        "journal/Not decided yet".into(),
        grouped(&journal["waiting"]),
    );
    say("dead/dead.stream".into(), text(&dead["stream"]));
    say("dead/dead.length".into(), grouped(&dead["length"]));
    say("dead/dead.local".into(), grouped(&dead["local"]));
    say("header/router".into(), text(&status["router"]));
    say("header/version".into(), text(&status["version"]));
    say(
        "header/state".into(),
        if status["ready"] == true {
            "Ready".into()
        } else {
            "Not ready".into()
        },
    );
    all
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Waits until the page shows what `/status` says at the same time.
#[track_caller]
fn assert_shows_status(scene: &Scene, browser: &mut Browser) {
    let mut differences = Vec::new();
    let settled = (0..100).any(|_| {
        let expected = expected(&scene.host.status());
        let shown = shown(browser);
        differences = expected
            .into_iter()
            .filter(|(path, text)| shown.get(path) != Some(text))
            .map(|(path, text)| format!("{path}: {:?}, not {text:?}", shown.get(&path)))
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(
            if differences.is_empty() { 0 } else { 100 },
        ));
        differences.is_empty()
    });
    assert!(settled, "{differences:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_status_says() {
    let mut scene = Scene::start(|setup| {
        setup
            .filter("10-version", "hostile", &versioned("old"))
            .filter("20-dead", "hostile", DEAD_FILTER)
            .filter(
                "30-drop",
                "hostile",
                "attack = \"long-reason\"\nevent = \"CHANNEL_BRIDGE\"\n",
            )
    })
    .await;
    let shadows = scene.host.filters.join("shadow");
    place_filter(
        &shadows,
        "10-version",
        &component("hostile"),
        &versioned("new"),
    );
    scene.host.wait_filter("10-version", |filter| {
        filter["shadow"]["version"] == "0.1.0"
    });
    scene.fire(1_200);
    for _ in 0..3 {
        scene.switch.fire(Event::new("DTMF"));
        scene.switch.fire(Event::new("CHANNEL_BRIDGE"));
    }
    scene.settle();
    scene.host.wait_filter("10-version", |filter| {
        let shadow = &filter["shadow"];
        shadow["differs"].as_u64().unwrap() + shadow["skipped"].as_u64().unwrap() == 1_206
    });
    scene
        .host
        .wait_status("the streams were looked at", |status| {
            let streams = status["streams"].as_array().unwrap().iter();
            let length = |stream: &Value| stream["name"] != EVENTS || stream["length"] == 1_200;
            streams.into_iter().all(length) && status["dead_letters"]["length"] == 3
        });
    let mut browser = open(&scene);
    assert_shows_status(&scene, &mut browser);
    let order =
        "[...document.querySelectorAll('[data-list=flow] > li')].map(li => li.dataset.row).join()";
    assert_eq!(
        browser.eval(order),
        "esl,intake,journal,pipeline,writer,streams"
    );
    let order = "[...document.querySelectorAll('[data-row=pipeline] [data-k=name]')].map(el => el.textContent).join()";
    assert_eq!(browser.eval(order), "10-version,20-dead,30-drop");
    browser.wait("document.querySelectorAll('#dead tbody tr').length === 3");

    // An event of the tail, and why.
    scene.fire(1);
    browser.wait("document.querySelector('#rows button').textContent === 'CHANNEL_ANSWER'");
    let became = browser.eval("document.querySelector('#rows [data-k=became]').textContent");
    assert_eq!(became, format!("→ {EVENTS}"));
    browser.eval("document.querySelector('#rows button').click()");
    let why = browser
        .wait("document.querySelector('#why[open] #why-told td')?.closest('#why').textContent");
    for part in [
        "10-version",
        "set X-Version = old",
        &format!("→ {EVENTS}"),
        "Number",
        "1200",
    ] {
        assert!(text(&why).contains(part), "{part}: {why}");
    }
    browser.assert_no_complaints();
}

#[tokio::test(flavor = "multi_thread")]
async fn buttons_do_what_the_token_allows_and_say_why_not() {
    let mut scene = Scene::start(|setup| {
        setup
            .env("JACKFIELD_HTTP_TOKEN", TOKEN)
            .config("[filters]\nprobation = \"100ms\"\n")
            .filter("10-version", "hostile", &versioned("old"))
            .filter("20-dead", "hostile", DEAD_FILTER)
    })
    .await;
    scene.switch.fire(Event::new("DTMF"));
    scene.fire(1);
    scene.settle();
    scene
        .host
        .wait_filter("10-version", |filter| filter["probation"] == false);
    place_filter(
        &scene.host.filters,
        "10-version",
        &scene.build(1),
        &versioned("new"),
    );
    scene.host.wait_filter("10-version", |filter| {
        filter["good"].as_array().unwrap().len() == 1
    });
    let mut browser = open(&scene);
    let button = |act: &str, row: &str| format!("document.querySelector('{row} [data-act={act}]')");
    let (reconnect, refresh) = (
        button("reconnect", "#links [data-row=redis]"),
        button("refresh", "header"),
    );
    let (roll_back, replay) = (
        button("rollback", "[data-row=\"10-version\"]"),
        button("replay", "#dead"),
    );
    browser.wait(&format!("!!{replay}"));
    for button in [&reconnect, &refresh, &roll_back, &replay] {
        browser.wait(&format!("{button}.ariaDisabled === 'true'"));
        let why = browser.eval(&format!("{button}.title"));
        assert_eq!(why, "The buttons need the token of http.token.");
    }
    browser.eval(&format!("{reconnect}.click()"));
    let says = browser.wait("document.querySelector('#token[open] #token-says').textContent");
    assert_eq!(says, "The buttons need the token of http.token.");
    browser.type_text("wrong");
    browser.press("Enter");
    browser.wait(
        "document.querySelector('#token-says').textContent === 'The host refuses this token.'",
    );
    browser.type_text(TOKEN);
    browser.press("Enter");
    browser.wait("!document.querySelector('#token').open");
    assert_eq!(
        browser.eval("sessionStorage.getItem('jackfield-token')"),
        TOKEN
    );
    assert_eq!(browser.eval("location.href.includes('t0ken')"), false);

    for (button, answer) in [
        (&reconnect, "Done: redis is ready."),
        (
            &refresh,
            "The host answered 409: settings taken: nothing has changed; calls not known: ",
        ),
        (&roll_back, "Done: 10-version went from "),
        (&replay, "Done: it is input 10995116277"),
    ] {
        browser.wait(&format!("{button}.ariaDisabled === 'false'"));
        browser.eval(&format!("{button}.click()"));
        browser.wait("document.querySelector('#ask').open");
        browser.eval("document.querySelector('#ask-do').click()");
        let said = browser.wait("document.querySelector('#ask-says').textContent.match(/^(Done|The host|No answer).*/)?.[0]");
        assert!(text(&said).starts_with(answer), "{said}");
        browser.press("Enter");
        browser.wait("!document.querySelector('#ask').open");
    }
    scene
        .host
        .wait_filter("10-version", |filter| filter["good"] == json!([]));
    browser.wait(&format!(
        "{roll_back}.title === 'There is no version of this filter to go back to.'"
    ));
    scene.host.wait_settled(3);
    assert_shows_status(&scene, &mut browser);
    browser.assert_no_complaints();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_elsewhere_is_asked_for_the_token() {
    let scene = Scene::start(|setup| setup.env("JACKFIELD_HTTP_TOKEN", TOKEN)).await;
    let (code, head, _) = request(
        scene.host.http,
        "GET",
        "/",
        "X-Forwarded-For: 192.0.2.7\r\n",
    )
    .unwrap();
    assert_eq!(code, 200, "it holds no call data");
    for line in [
        "content-security-policy: default-src 'none'; script-src 'sha256-",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "frame-ancestors 'none'",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    // A name of somebody's own that leads here is no loopback peer.
    let mut browser = Browser::open("about:blank");
    let headers = json!({ "headers": { "Via": "a proxy" } });
    browser.call("Network.enable", json!({}));
    browser.call("Network.setExtraHTTPHeaders", headers);
    browser.call(
        "Page.navigate",
        json!({ "url": format!("http://{}/", scene.host.http) }),
    );
    browser
        .wait("document.querySelector('#token')?.open && document.body.dataset.mode === 'locked'");
    browser.type_text(TOKEN);
    browser.press("Enter");
    browser
        .wait("document.body?.dataset.mode === 'live' && !document.querySelector('#token').open");
    browser.assert_no_complaints();
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_others_stays_text_a_keyboard_is_enough_and_nothing_jumps() {
    const EVIL: &str = "<img src=x onerror=evil=1>";
    let mut scene = Scene::start(|setup| {
        let refused = format!("attack = \"<script>evil=1</script>{}\"\n", "W".repeat(300));
        setup
            .filter(&format!("10-{EVIL}"), "hostile", "attack = \"odd-value\"\n")
            .filter(&format!("20-{}", "long".repeat(50)), "hostile", &refused)
            .filter("30-dead", "hostile", DEAD_FILTER)
            .filter(
                "40-drop",
                "hostile",
                "attack = \"long-reason\"\nevent = \"CHANNEL_BRIDGE\"\n",
            )
    })
    .await;
    let hostile = |name: &str| {
        Event::new(name)
            .header("Unique-ID", EVIL)
            .header(EVIL, "\"><script>evil=1</script>\u{7}\u{202e}")
            .header("Long", "W".repeat(20_000))
    };
    for name in ["DTMF", "CHANNEL_BRIDGE", "CHANNEL_ANSWER"] {
        scene.switch.fire(hostile(name));
    }
    scene.settle();
    let mut browser = open(&scene);
    browser.wait("!!document.querySelector('#dead [data-act=replay]')");
    for _ in 0..2 {
        scene.switch.fire(hostile("CHANNEL_ANSWER"));
    }
    browser.wait("document.querySelectorAll('#rows button')[1].dataset.lsn");
    browser.eval("document.querySelector('#rows button').click()");
    let why =
        browser.wait("document.querySelector('#why-told td')?.closest('#why-told').textContent");
    assert!(
        text(&why).contains(EVIL) && text(&why).contains("X-Odd = a␍␊␍␊b␀c␛[2J\u{fffd}"),
        "{why}"
    );
    browser.press("Escape");
    let file = browser.eval("document.querySelector('#filters [data-k=file]').textContent");
    assert_eq!(file, format!("10-{EVIL}"));
    for (width, height) in [(360, 740), (1440, 900)] {
        browser.resize(width, height);
        browser.wait(&format!("innerWidth === {width}"));
        let widest = browser
            .eval("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)");
        assert_eq!(widest, width, "nothing is wider than the window");
    }
    assert_eq!(
        browser.eval("typeof evil"),
        "undefined",
        "no text of others ran"
    );

    // Every control has a name, and Tab reaches it.
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    for node in tree["nodes"].as_array().unwrap() {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        let is_control = [
            "button",
            "link",
            "textbox",
            "searchbox",
            "checkbox",
            "DisclosureTriangle",
        ]
        .contains(&role);
        let is_seen = node["ignored"] == false;
        assert!(
            !is_control || !is_seen || node["name"]["value"] != "",
            "without a name: {node:#}"
        );
    }
    for (landmark, least) in [
        ("banner", 1),
        ("main", 1),
        ("navigation", 1),
        ("heading", 10),
        ("columnheader", 15),
    ] {
        let nodes = tree["nodes"].as_array().unwrap().iter();
        let found = nodes
            .filter(|node| node["role"]["value"] == landmark)
            .count();
        assert!(found >= least, "{found} of {landmark}");
    }
    let reached = tab_through(&mut browser);
    let unreached = browser.eval(
        "[...document.querySelectorAll('a[href], button, input, [tabindex]')]
            .filter(el => el.offsetParent && el.tabIndex >= 0 && !el.dataset.reached).map(el => el.outerHTML)",
    );
    assert_eq!(unreached, json!([]), "{reached} places were reached");
    let arrows = "document.querySelector('#rows button').focus()";
    browser.eval(arrows);
    browser.press("ArrowDown");
    browser.wait(
        "[...document.querySelectorAll('#rows button')].indexOf(document.activeElement) === 1",
    );
    browser.press("Enter");
    browser.wait("document.querySelector('#why').open");
    browser.press("Escape");
    browser.wait("!document.querySelector('#why').open");
    browser.eval("document.activeElement.blur(); scrollTo(0, 0)");

    // Live traffic moves nothing.
    browser.eval(
        "shifts = []; new PerformanceObserver(seen => shifts.push(...seen.getEntries()
            .map(one => [one.value, ...one.sources.map(source => source.node?.outerHTML?.slice(0, 200))])))
            .observe({ type: 'layout-shift' })",
    );
    let firing = scene.fire_steadily();
    let read = |browser: &mut Browser| browser.eval("past.at(-1).status.counts.received").as_u64();
    let first = read(&mut browser);
    wait_for(
        "the page has read /status with other numbers three times",
        || {
            let mut last = first;
            (0..3).all(|_| {
            let now = browser.wait(&format!("past.at(-1).status.counts.received > {} && past.at(-1).status.counts.received", last.unwrap()));
            last = now.as_u64();
            true
        })
        .then_some(())
        },
    );
    scene.stop(firing);
    let shifts = browser.eval("shifts");
    let sum: f64 = shifts
        .as_array()
        .unwrap()
        .iter()
        .map(|shift| shift[0].as_f64().unwrap())
        .sum();
    assert!(sum < 0.005, "{sum}: {shifts:#}");
    browser.assert_no_complaints();
    drop(fs::remove_file(scene.host.filters.join("30-dead.wasm")));
}

/// Presses Tab until it comes round, and marks what it came by.
fn tab_through(browser: &mut Browser) -> u64 {
    browser.eval("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')");
    (1..300)
        .find(|_| {
            browser.press("Tab");
            let again = browser.eval(
                "(el => { const again = el === document.body || el.dataset.reached; el.dataset.reached = 1; return Boolean(again); })(document.activeElement)",
            );
            again == true
        })
        .expect("Tab comes round")
}
