//! Commands to FreeSWITCH over the connection that the host has: who may run which, each caller its own answer, and what a caller is
//! told when there is none. Events are not held up by any of it.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jackfield::simulator::{Load, Settings, Simulator};
use serde_json::Value;

use crate::harness::{Host, Redis, Setup, post, wait_for};
use crate::numbered::{self, STREAM};

const TOKEN: &str = "Authorization: Bearer t0ken\r\n";

/// A host with a token that allows these commands, ready, and its link for commands too.
async fn start(allow: &str) -> (Simulator, Redis, Host) {
    start_with(allow, |setup| setup).await
}

async fn start_with(allow: &str, prepare: fn(Setup) -> Setup) -> (Simulator, Redis, Host) {
    let switch = Simulator::start(Settings::default()).await.unwrap();
    let redis = Redis::start();
    let setup = setup(&switch, &redis).env("JACKFIELD_ESL_ALLOW", allow);
    let host = prepare(setup).start();
    wait_commands(&host);
    (switch, redis, host)
}

/// A host that tries again soon.
fn setup(switch: &Simulator, redis: &Redis) -> Setup {
    Setup::new(switch.addr(), redis)
        .env("JACKFIELD_HTTP_TOKEN", "t0ken")
        .env("EVENTS_MAX_LEN", "0")
        .env("ESL_RECONNECT_DELAY", "50ms")
        .env("ESL_MAX_RECONNECT_DELAY", "200ms")
}

#[track_caller]
fn wait_commands(host: &Host) {
    host.wait_status("the link for commands is ready", |status| {
        status["ready"] == true && status["links"]["commands"]["state"] == "ready"
    });
}

fn run(http: SocketAddr, query: &str, command: &str) -> (u16, String) {
    post(http, &format!("/esl{query}"), TOKEN, command).unwrap()
}

/// The same beside the test.
fn begin(host: &Host, query: &'static str, command: &str) -> JoinHandle<(u16, String)> {
    let (http, command) = (host.http, command.to_owned());
    thread::spawn(move || run(http, query, &command))
}

/// Waits until FreeSWITCH has this command.
#[track_caller]
fn wait_sent(switch: &Simulator, command: &str) {
    wait_for(command, || {
        let commands = switch.commands();
        let mut lines = commands.iter().filter_map(|sent| sent.lines().next());
        lines.any(|line| line == command).then_some(())
    });
}

fn answer(text: &str) -> (u16, String) {
    (200, text.to_owned())
}

/// The two connections' commands that are neither login nor subscription.
fn commands_of_callers(switch: &Simulator) -> Vec<String> {
    let mut commands = switch.commands();
    commands.retain(|command| command.contains("api "));
    commands
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_freeswitch_s_text_as_it_came() {
    let (switch, _redis, host) = start("status,echo,show,nosuchcmd").await;
    let (code, status) = run(host.http, "", "status");
    assert_eq!(code, 200);
    assert!(
        status.starts_with("UP 0 years") && status.ends_with('\n'),
        "{status}"
    );
    for mode in ["", "?mode=api", "?mode=bgapi", "?mode=bgapi&timeout=10s"] {
        assert_eq!(
            run(host.http, mode, "echo grüße  %0a"),
            answer("grüße  %0a"),
            "{mode}"
        );
        let unknown = answer("-ERR nosuchcmd Command not found!\n");
        assert_eq!(run(host.http, mode, "nosuchcmd"), unknown, "{mode}");
    }
    assert_eq!(
        run(host.http, "", "show x").1,
        "-USAGE: channels as json|channels count\n"
    );
    assert_eq!(
        switch.logins(),
        2,
        "all over one connection beside that for events"
    );
    assert_eq!(
        host.metric("jackfield_commands_total{outcome=\"answered\"}"),
        Some(10.0)
    );
    let links = host.status()["links"].take();
    assert_eq!(links["commands"]["peer"], links["esl"]["peer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_the_token_runs_only_what_is_allowed() {
    let (switch, redis, host) = start("status,show").await;
    for header in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: t0ken\r\n",
    ] {
        let why = "running a command needs the token of http.token (Authorization: Bearer …)\n";
        assert_eq!(
            post(host.http, "/esl", header, "status").unwrap(),
            (403, why.to_owned()),
            "{header}"
        );
    }
    for (command, verb) in [
        ("originate user/1000 &echo", "originate"),
        ("STATUS", "STATUS"),
        ("bgapi status", "bgapi"),
        ("stat", "stat"),
    ] {
        let why = format!(
            "not_allowed: \"{verb}\" is not allowed: name it in esl.allow, the list of API commands that may be run over HTTP\n"
        );
        for mode in ["", "?mode=bgapi"] {
            assert_eq!(run(host.http, mode, command), (403, why.clone()), "{mode}");
        }
    }
    let open = Setup::new(switch.addr(), &redis)
        .env("JACKFIELD_ESL_ALLOW", "status")
        .start();
    let why = "running a command needs a token: set http.token\n";
    assert_eq!(
        run(open.http, "", "status"),
        (403, why.to_owned()),
        "no token is none that is right"
    );
    let strict = setup(&switch, &redis)
        .env("JACKFIELD_ROUTER_NAME", "strict")
        .start();
    let (code, why) = run(strict.http, "", "status");
    assert!(
        code == 403 && why.contains("esl.allow"),
        "nothing is the default: {code} {why}"
    );
    assert_eq!(host.get("/esl").0, 405, "looking runs nothing");
    assert_eq!(
        commands_of_callers(&switch),
        [""; 0],
        "none of it came to FreeSWITCH"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_is_refused_and_never_sent() {
    let (switch, _redis, host) = start("status,echo").await;
    for command in [
        "",
        " status",
        "status\n",
        "status\r\n\r\napi shutdown",
        "echo \0",
        "status\nX: y",
    ] {
        let why = format!(
            "bad_command: command {command:?}: allowed is one line of text that begins with the command's name, without carriage return, newline and NUL\n"
        );
        assert_eq!(
            run(host.http, "", command),
            (400, why.clone()),
            "{command:?}"
        );
        assert_eq!(
            run(host.http, "?mode=bgapi", command),
            (400, why),
            "{command:?}"
        );
    }
    for query in ["mode=x", "timeout=11m", "timeout=0", "timeout=5", "x=y"] {
        let why = format!(
            "query \"{query}\": allowed is mode=api, mode=bgapi, and timeout= with a duration above zero and up to 10m such as 30s\n"
        );
        assert_eq!(run(host.http, &format!("?{query}"), "status"), (400, why));
    }
    let large = format!("echo {}", "x".repeat(64 << 10));
    assert_eq!(run(host.http, "", &large).0, 413);
    let largest = "x".repeat((64 << 10) - 5);
    assert_eq!(
        run(host.http, "", &format!("echo {largest}")),
        answer(&largest)
    );
    assert_eq!(
        commands_of_callers(&switch).len(),
        1,
        "of all these one was sent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_callers_at_once_each_get_their_own_answer() {
    let (switch, _redis, host) = start("echo").await;
    let callers: Vec<_> = (0..300)
        .map(|number| {
            let query = if number % 3 == 0 {
                "?mode=bgapi&timeout=30s"
            } else {
                "?timeout=30s"
            };
            (
                number,
                begin(&host, query, &format!("echo caller {number}")),
            )
        })
        .collect();
    for (number, caller) in callers {
        assert_eq!(caller.join().unwrap(), answer(&format!("caller {number}")));
    }
    assert_eq!(
        switch.logins(),
        2,
        "all over one connection beside that for events"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_is_nobody_else_s() {
    let (_switch, _redis, host) = start("echo,msleep").await;
    for _ in 0..3 {
        let impatient: Vec<_> = (0..5)
            .map(|number| match number {
                0 => begin(&host, "?timeout=100ms", "msleep 700"),
                _ => begin(&host, "?timeout=100ms", &format!("echo late {number}")),
            })
            .collect();
        let why = "deadline: no answer within 100 ms: the command may have run, or may still run\n";
        for caller in impatient {
            let (code, text) = caller.join().unwrap();
            let is_own = code == 200 && text.starts_with("late ");
            assert!(
                is_own || (code, text.as_str()) == (504, why),
                "{code} {text}"
            );
        }
        for number in 0..5 {
            let text = format!("patient {number}");
            assert_eq!(run(host.http, "", &format!("echo {text}")), answer(&text));
        }
    }
    let (code, _) = run(host.http, "?mode=bgapi&timeout=100ms", "msleep 700");
    assert_eq!(code, 504, "a job has a deadline too");
    assert_eq!(run(host.http, "?mode=bgapi", "echo next"), answer("next"));
    let losses = host.status()["links"]["commands"]["losses"].take();
    assert_eq!(losses, 0, "being late costs no connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_connection_a_command_fails_at_once_and_with_one_again_it_runs() {
    let (switch, _redis, host) = start("echo").await;
    switch.set_refuse(true);
    switch.cut();
    host.wait_status("the loss is noticed", |status| {
        status["links"]["commands"]["state"] != "ready"
    });
    let why = "not_connected: no connection to FreeSWITCH: the command was not sent; /status says why (links.commands)\n";
    for query in ["?timeout=10m", "?mode=bgapi&timeout=10m"] {
        let since = Instant::now();
        assert_eq!(run(host.http, query, "echo x"), (503, why.to_owned()));
        assert!(
            since.elapsed() < Duration::from_secs(5),
            "at once, not {:?}",
            since.elapsed()
        );
    }
    assert_eq!(
        commands_of_callers(&switch),
        [""; 0],
        "it is not kept for later"
    );
    switch.set_refuse(false);
    wait_commands(&host);
    assert_eq!(run(host.http, "", "echo x"), answer("x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_tells_everyone_who_waits_and_events_go_on() {
    let (switch, redis, host) = start("echo,msleep").await;
    let blocked = begin(&host, "?timeout=1m", "msleep 30000");
    wait_sent(&switch, "api msleep 30000");
    let behind = [
        begin(&host, "?timeout=1m", "echo behind"),
        begin(&host, "?mode=bgapi&timeout=1m", "echo behind it"),
    ];
    numbered::fire(&switch, 0..10);
    host.wait_settled(10);
    switch.set_refuse(true);
    switch.cut_commands();
    let why = "connection_lost: connection to FreeSWITCH lost before the answer: the command may have run\n";
    assert_eq!(blocked.join().unwrap(), (503, why.to_owned()));
    for caller in behind {
        let (code, text) = caller.join().unwrap();
        // One that came after the loss was not sent.
        let is_told = text == why || text.starts_with("not_connected: ");
        assert!(code == 503 && is_told, "{code} {text}");
    }
    switch.set_refuse(false);
    wait_commands(&host);
    assert_eq!(run(host.http, "", "echo after"), answer("after"));
    numbered::fire(&switch, 10..20);
    let status = host.wait_settled(20);
    numbered::check(&redis, STREAM, 0..20);
    assert_eq!(status["links"]["esl"]["losses"], 0, "{status:#}");
    assert_eq!(status["links"]["commands"]["losses"], 1, "{status:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_answered_across_a_cut_of_the_link_for_commands() {
    // The link for events does not hear of background jobs.
    let deaf = |setup: Setup| setup.env("JACKFIELD_ESL_EVENTS", "CHANNEL_ANSWER");
    let (switch, _redis, host) = start_with("msleep,echo", deaf).await;
    let job = begin(&host, "?mode=bgapi&timeout=1m", "msleep 4000");
    wait_sent(&switch, "bgapi msleep 4000");
    // The answer to this one is behind the reply to that one.
    assert_eq!(run(host.http, "", "echo accepted"), answer("accepted"));
    switch.cut_commands();
    host.wait_status("it was lost and is back", |status| {
        let link = &status["links"]["commands"];
        link["losses"] == 1 && link["state"] == "ready"
    });
    assert_eq!(job.join().unwrap(), answer("+OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_while_the_link_for_commands_is_away_is_heard_of_by_the_one_for_events() {
    let (switch, _redis, host) = start("msleep,echo").await;
    let job = begin(&host, "?mode=bgapi&timeout=1m", "msleep 1500");
    wait_sent(&switch, "bgapi msleep 1500");
    assert_eq!(run(host.http, "", "echo accepted"), answer("accepted"));
    switch.set_refuse(true);
    switch.cut_commands();
    assert_eq!(job.join().unwrap(), answer("+OK"));
    let links = host.status()["links"].take();
    assert_ne!(links["commands"]["state"], "ready", "{links:#}");
    assert_eq!(links["esl"]["losses"], 0, "{links:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_links_come_back_after_a_restart_of_freeswitch() {
    let (switch, _redis, host) = start("global_getvar").await;
    let before = run(host.http, "", "global_getvar core_uuid");
    switch.restart();
    host.wait_status("both were lost and are back", |status| {
        let is_back = |link: &Value| link["losses"] == 1 && link["state"] == "ready";
        is_back(&status["links"]["esl"]) && is_back(&status["links"]["commands"])
    });
    let after = run(host.http, "", "global_getvar core_uuid");
    assert_eq!(after, answer(&switch.core_uuid()));
    assert_ne!(after, before, "these are two lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_blocks_holds_up_no_event() {
    let (switch, redis, host) = start("msleep").await;
    let blocked = begin(&host, "?timeout=1m", "msleep 60000");
    wait_sent(&switch, "api msleep 60000");
    numbered::fire(&switch, 0..1_000);
    host.wait_settled(1_000);
    numbered::check(&redis, STREAM, 0..1_000);
    assert!(
        !blocked.is_finished(),
        "all are in Redis while the command runs"
    );
    switch.cut_commands();
    assert_eq!(blocked.join().unwrap().0, 503, "it is not waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_flood_of_events_commands_are_answered_and_no_event_is_lost() {
    let (switch, _redis, host) = start("echo").await;
    let flood = switch.place_calls(Load {
        rate: 20_000.0,
        events: Some(100_000),
        calls_at_once: 1_000,
    });
    let http = host.http;
    let asking = thread::spawn(move || {
        let mut answered = 0;
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(4) {
            let text = format!("number {answered}");
            assert_eq!(run(http, "", &format!("echo {text}")), answer(&text));
            answered += 1;
        }
        answered
    });
    flood.await;
    let answered = asking.join().unwrap();
    assert!(answered > 40, "{answered} in 4 s");
    let sent = switch.sent();
    let status = host.wait_settled(sent.queued);
    assert_eq!(
        (sent.dropped, sent.given_up),
        (0, 0),
        "FreeSWITCH dropped nothing"
    );
    let inputs = status["counts"]["inputs"].as_u64();
    assert!(inputs >= Some(sent.queued), "{status:#}");
    assert_eq!(status["links"]["esl"]["losses"], 0, "{status:#}");
}

/// `jackfield esl` beside a running host.
fn cli(host: &Host, args: &[&str]) -> (i32, String, String) {
    let setup = Setup::default().env("JACKFIELD_HTTP_LISTEN", &host.http.to_string());
    let setup = setup.env("JACKFIELD_HTTP_TOKEN", "t0ken");
    setup.instead(&[&["esl"], args].concat()).run()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_prints_the_answer_and_fails_where_freeswitch_does() {
    let (switch, _redis, host) = start("echo,status,show,nosuchcmd,msleep").await;
    let said = |code: i32, out: &str| (code, out.to_owned(), String::new());
    assert_eq!(
        cli(&host, &["echo", "two", "words"]),
        said(0, "two words\n")
    );
    assert_eq!(
        cli(&host, &["--background", "echo in the background"]),
        said(0, "in the background\n")
    );
    assert_eq!(
        cli(&host, &["show", "x"]),
        said(1, "-USAGE: channels as json|channels count\n")
    );
    assert_eq!(
        cli(&host, &["nosuchcmd"]),
        said(1, "-ERR nosuchcmd Command not found!\n")
    );
    let json = "{\"command\":\"echo x\",\"ok\":true,\"answer\":\"x\"}\n";
    assert_eq!(cli(&host, &["echo x", "--json"]), said(0, json));
    let json = "{\"command\":\"nosuchcmd\",\"ok\":false,\"answer\":\"-ERR nosuchcmd Command not found!\\n\"}\n";
    assert_eq!(cli(&host, &["nosuchcmd", "--json"]), said(1, json));
    let (code, out, log) = cli(&host, &["uuid_kill", "x"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        log.contains("the host answered 403: not_allowed: \"uuid_kill\""),
        "{log}"
    );
    let (code, _, log) = cli(&host, &["msleep 3000", "--timeout", "100ms"]);
    assert_eq!(code, 1, "{log}");
    assert!(
        log.contains("504: deadline: no answer within 100 ms"),
        "{log}"
    );
    let (code, _, log) = cli(&host, &["echo x", "--timeout", "soon"]);
    assert!(
        code == 2 && log.contains("expected a duration"),
        "{code} {log}"
    );
    let tokenless = Setup::default().instead(&["esl", "status"]).run();
    assert_eq!(tokenless.0, 2, "{tokenless:?}");
    assert!(
        tokenless.2.starts_with("http.token: missing"),
        "{tokenless:?}"
    );
    assert_eq!(switch.logins(), 2);
}
