//! The list of metrics, the alerts and the dashboard are what a host has: compared with one that has seen everything, and asked of a
//! real Prometheus beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jackfield::simulator::{Event, Load, Settings, Simulator};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Host, Redis, Setup, component, free_port, place_filter, post, root, wait_for,
};
use crate::listeners::Listening;
use crate::numbered::{self, STREAM};

const TOKEN: &str = "let-me-in";

/// A host after something of every kind: each filter does one thing to one kind of event.
struct Scene {
    switch: Arc<Simulator>,
    host: Host,
    redis: Redis,
}

async fn seen_everything() -> Scene {
    let settings = Settings {
        heartbeat: Duration::from_millis(200),
        ..Settings::default()
    };
    let switch = Arc::new(Simulator::start(settings).await.unwrap());
    let redis = Redis::start();
    let on = |attack: &str, event: &str| format!("attack = \"{attack}\"\nevent = \"{event}\"\n");
    let setup = Setup::new(switch.addr(), &redis)
        .env("EVENTS_MAX_LEN", "10000")
        .env("TRIM_INTERVAL", "100ms")
        .env("ESL_RECONNECT_DELAY", "50ms")
        .env("JACKFIELD_HTTP_TOKEN", TOKEN)
        .env("JACKFIELD_ESL_ALLOW", "status")
        .env("JACKFIELD_FILTERS_DEADLINE", "1s")
        .filter("10-version", "hostile", "attack = \"version\"\n")
        .filter("20-counts", "hostile", &on("log-and-count", "CUSTOM"))
        .filter("30-talks", "hostile", &on("flood-log", "CODEC"))
        .filter("40-makes", "hostile", &on("derive", "CODEC"))
        .filter("50-keeps", "hostile", &on("dead-letter", "DTMF"))
        .filter("60-fails", "hostile", &on("trap", "CHANNEL_PROGRESS"));
    let shadow = setup.filters().join("shadow");
    place_filter(
        &shadow,
        "10-version",
        &component("hostile"),
        "attack = \"version\"\n",
    );
    fs::write(setup.filters().join("70-refused.wasm"), "no component").unwrap();
    let host = setup.start();
    host.wait_ready();
    host.wait_filter("70-refused", |filter| filter["state"] == "refused");
    let scene = Scene {
        switch,
        host,
        redis,
    };
    scene.happen();
    scene
}

impl Scene {
    fn happen(&self) {
        let (switch, host) = (&self.switch, &self.host);
        self.redis
            .ask::<()>(&["XGROUP", "CREATE", STREAM, "readers", "$", "MKSTREAM"]);
        numbered::fire(switch, 0..20);
        // As many as it takes to have the filter that fails on them taken out.
        for name in ["CODEC", "DTMF"]
            .into_iter()
            .chain([["CHANNEL_PROGRESS"; 30]].concat())
        {
            switch.fire(Event::new(name));
        }
        host.wait_filter("60-fails", |filter| filter["state"] == "quarantined");
        let token = format!("Authorization: Bearer {TOKEN}\r\n");
        assert_eq!(post(host.http, "/esl", &token, "status").unwrap().0, 200);
        drop(Listening::start(host.http, "", ""));
        host.signal("HUP");
        host.wait_status("settings are read again", |status| {
            status["settings"]["reloads"] == 1
        });
        switch.cut();
        host.wait_status("the Event Socket was lost and is back", |status| {
            let link = &status["links"]["esl"];
            link["losses"] == 1 && link["state"] == "ready"
        });
    }

    /// A frame that is larger than any event may be.
    async fn fire_too_large(&self) {
        let head = b"Content-Length: 17000000\nContent-Type: text/event-json\n\n".to_vec();
        self.switch
            .write_raw(Bytes::from([head, vec![b'x'; 17_000_000]].concat()))
            .await;
        self.host.wait_status("it is lost", |status| {
            status["counts"]["lost_by"]["too_large"] == 1
        });
    }
}

/// What `docs/metrics.md` or `/metrics` says of one metric, by its name in queries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    meaning: String,
}

fn documented() -> BTreeMap<String, Metric> {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let mut metrics = BTreeMap::new();
    for row in page.lines().filter(|line| line.matches(" | ").count() == 5) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, _unit, went_before, meaning] = cells[..] else {
            panic!("six columns: {row}");
        };
        let Some(name) = name
            .strip_prefix('`')
            .and_then(|name| name.strip_suffix('`'))
        else {
            continue;
        };
        assert_eq!(
            went_before == "yes",
            name.starts_with("telephony_"),
            "{row}"
        );
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        let metric = Metric {
            kind: kind.to_owned(),
            labels: labels
                .map(|label| label.trim_matches('`').to_owned())
                .collect(),
            meaning: meaning.to_owned(),
        };
        assert!(
            metrics.insert(name.to_owned(), metric).is_none(),
            "twice: {row}"
        );
    }
    metrics
}

/// Those that have a sample.
fn exported(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    let (mut name, mut metric) = (String::new(), Metric::default());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (family, help) = help.split_once(' ').unwrap();
            (name, metric) = (family.to_owned(), Metric::default());
            metric.meaning = help.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            metric.kind = kind.rsplit(' ').next().unwrap().to_owned();
            if metric.kind == "counter" {
                name.push_str("_total");
            }
        } else if !line.starts_with('#') {
            let labels = line.split_once('{').map_or("", |(_, rest)| rest);
            // A value may have anything but a quotation mark in it; none of these has a comma before one.
            let names = labels
                .split("=\"")
                .filter_map(|part| part.rsplit([',', '"']).next());
            let names = names.filter(|name| *name != "le" && !name.contains(['}', ' ']));
            let labels: BTreeSet<String> = names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect();
            let known = metrics.entry(name.clone()).or_insert_with(|| Metric {
                kind: metric.kind.clone(),
                labels: labels.clone(),
                meaning: metric.meaning.clone(),
            });
            assert_eq!(
                known.labels, labels,
                "one family has one set of labels: {line}"
            );
        }
    }
    metrics
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_metrics_is_that_of_a_host_that_has_seen_everything() {
    let scene = seen_everything().await;
    scene.fire_too_large().await;
    let documented = documented();
    // Streams and consumers are looked at every few seconds.
    let missing = |found: &BTreeMap<String, Metric>| -> Vec<String> {
        let missing = documented.keys().filter(|name| !found.contains_key(*name));
        missing.cloned().collect()
    };
    let started = std::time::Instant::now();
    let found = loop {
        let found = exported(&scene.host.get("/metrics").1);
        if missing(&found).is_empty() {
            break found;
        }
        assert!(
            started.elapsed() < crate::harness::DEADLINE,
            "in docs/metrics.md and not in /metrics: {:?}",
            missing(&found)
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for (name, metric) in &found {
        let row = documented
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in docs/metrics.md: {metric:?}"));
        assert_eq!(
            (&row.kind, &row.labels),
            (&metric.kind, &metric.labels),
            "{name}"
        );
        assert!(
            row.meaning.starts_with(&metric.meaning),
            "{name}: the row begins with what /metrics says\n{}\n{}",
            row.meaning,
            metric.meaning
        );
    }
}

fn promtool(args: &[&str]) -> Output {
    let output = Command::new("promtool")
        .current_dir(root().join("deploy/prometheus"))
        .args(args)
        .output();
    output.expect("promtool is missing: apt-get install prometheus")
}

#[test]
fn the_alerts_fire_when_they_should_and_not_next_to_it() {
    for args in [
        ["check", "rules", "rules.yaml"],
        ["test", "rules", "rules_test.yaml"],
    ] {
        let output = promtool(&args);
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
}

fn rules() -> String {
    fs::read_to_string(root().join("deploy/prometheus/rules.yaml")).unwrap()
}

#[test]
fn every_alert_is_tested_and_says_what_to_do() {
    let rules = rules();
    let alerts: BTreeSet<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() > 8, "{alerts:?}");
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `Jackfield"));
    let rows: BTreeSet<String> = rows
        .map(|row| format!("Jackfield{}", row.split('`').next().unwrap()))
        .collect();
    assert!(
        rows.iter().map(String::as_str).eq(alerts.iter().copied()),
        "docs/metrics.md: {rows:?}\n{alerts:?}"
    );
    let tests = fs::read_to_string(root().join("deploy/prometheus/rules_test.yaml")).unwrap();
    for alert in alerts {
        let fires = format!("      - alertname: {alert}\n");
        let is_quiet = format!("      - {{alertname: {alert}, ");
        assert!(
            tests.contains(&fires) && tests.contains(&is_quiet),
            "rules_test.yaml: {alert}"
        );
    }
}

/// The queries of the dashboard, each with the title of its panel.
fn queries() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("deploy/grafana/jackfield.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries = panels.iter().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(move |target| {
            let expr = target["expr"].as_str().unwrap();
            // What Grafana puts there: a few scrapes, and all hosts.
            let expr = expr
                .replace("$__rate_interval", "5s")
                .replace("$instance", ".*");
            assert!(!expr.contains('$'), "{title}: {expr}");
            (title.to_owned(), expr)
        })
    });
    queries.collect()
}

/// The metrics that a text of queries names, as docs/metrics.md has them.
fn metrics_of(queries: &str) -> BTreeSet<String> {
    let words = queries.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours =
        words.filter(|word| word.starts_with("jackfield_") || word.starts_with("telephony_"));
    ours.map(|word| {
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| word.strip_suffix(part));
        family.unwrap_or(word).to_owned()
    })
    .collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let documented = documented();
    let dashboard = queries()
        .into_iter()
        .map(|(_, query)| query + "\n")
        .collect::<String>();
    for name in metrics_of(&(rules() + &dashboard)) {
        assert!(
            documented.contains_key(&name),
            "{name} is not in docs/metrics.md"
        );
    }
}

/// A Prometheus that scrapes a host, and evaluates the alerts.
struct Prometheus {
    _folder: TempDir,
    server: Child,
    url: String,
}

impl Prometheus {
    fn start(host: &Host) -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prometheus.yaml");
        let rules = root().join("deploy/prometheus/rules.yaml");
        let text = format!(
            "global: {{scrape_interval: 250ms, evaluation_interval: 250ms}}\nrule_files: [{rules:?}]\n\
             scrape_configs: [{{job_name: jackfield, static_configs: [{{targets: [\"{}\"]}}]}}]\n",
            host.http
        );
        fs::write(&file, text).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let server = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Prometheus {
            _folder: folder,
            server: server.expect("prometheus is missing: apt-get install prometheus"),
            url: format!("http://{address}"),
        }
    }

    /// The samples that a query gives: the labels and the value of each.
    fn ask(&self, query: &str) -> Result<Vec<(String, f64)>, String> {
        let output = promtool(&["query", "instant", &self.url, query]);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8(output.stdout).unwrap();
        let sample = |line: &str| {
            let (labels, rest) = line.rsplit_once(" => ").unwrap();
            let value = rest.split(' ').next().unwrap().parse().unwrap();
            (labels.to_owned(), value)
        };
        // Nothing is said by an empty line.
        Ok(text
            .lines()
            .filter(|line| !line.is_empty())
            .map(sample)
            .collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_has_an_answer_and_no_alert_is_false() {
    let scene = seen_everything().await;
    let prometheus = Prometheus::start(&scene.host);
    let switch = Arc::clone(&scene.switch);
    let calls = tokio::spawn(async move { switch.place_calls(Load::default()).await });
    wait_for("the host is scraped", || {
        prometheus
            .ask("jackfield_received_total")
            .ok()
            .filter(|samples| !samples.is_empty())
    });
    scene.fire_too_large().await;
    for (title, query) in queries() {
        wait_for(&format!("{title}: an answer to {query}"), || {
            let samples = prometheus
                .ask(&query)
                .unwrap_or_else(|error| panic!("{title}: {query}: {error}"));
            // A share of nothing is no number.
            samples
                .iter()
                .any(|(_, value)| !value.is_nan())
                .then_some(())
        });
    }
    let alerts = wait_for("what was lost is an alert", || {
        let alerts = prometheus.ask("ALERTS").unwrap();
        let is_lost = |(labels, _): &(String, f64)| labels.contains("alertname=\"JackfieldLost\"");
        alerts.iter().any(is_lost).then_some(alerts)
    });
    for quiet in [
        "Down",
        "Unbalanced",
        "OldestPending",
        "LinkDown",
        "JournalFilling",
        "JournalBroken",
        "Unhealable",
        "SettingsRefused",
    ] {
        let name = format!("alertname=\"Jackfield{quiet}\"");
        assert!(
            alerts.iter().all(|(labels, _)| !labels.contains(&name)),
            "{quiet} is no matter here: {alerts:?}"
        );
    }
    calls.abort();
}
