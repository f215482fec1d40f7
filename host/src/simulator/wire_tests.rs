//! The simulator over a real socket: the conversations of the captures, and the disturbances that it can cause.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Event, Load, Settings, Simulator};

const DEADLINE: Duration = Duration::from_secs(10);
const LOGIN: &str = "auth ClueCon\n\n";
const GOODBYE: &str = "Content-Type: text/disconnect-notice\nContent-Length: 67\n\n\
    Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n";

async fn start(settings: Settings) -> Simulator {
    Simulator::start(settings).await.unwrap()
}

/// Sends all commands at once and returns everything until the server closes, without the greeting.
async fn talk(simulator: &Simulator, commands: &str) -> String {
    let mut client = Client::connect(simulator).await;
    client.send(commands).await;
    client.rest().await
}

/// The `Reply-Text` of every reply to the commands, after a login.
async fn replies(simulator: &Simulator, commands: &[&str]) -> Vec<String> {
    let commands = format!("{LOGIN}{}\n\nexit\n\n", commands.join("\n\n"));
    let all = talk(simulator, &commands).await;
    let replies = all
        .lines()
        .filter_map(|line| line.strip_prefix("Reply-Text: "));
    let mut replies: Vec<String> = replies.map(str::to_owned).collect();
    assert_eq!(replies.remove(0), "+OK accepted");
    assert_eq!(replies.pop().unwrap(), "+OK bye");
    replies
}

struct Client {
    stream: TcpStream,
}

impl Client {
    async fn connect(simulator: &Simulator) -> Client {
        let stream = TcpStream::connect(simulator.addr()).await.unwrap();
        Client { stream }
    }

    async fn subscribed(simulator: &Simulator, words: &str) -> Client {
        let mut client = Client::connect(simulator).await;
        client.send(&format!("{LOGIN}event {words}\n\n")).await;
        client.until("event listener enabled").await;
        client.until("\n\n").await;
        client
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads byte by byte up to and with a text.
    async fn until(&mut self, text: &str) -> String {
        let mut read = Vec::new();
        let wanted = async {
            while !read.ends_with(text.as_bytes()) {
                read.push(self.stream.read_u8().await.unwrap());
            }
        };
        let in_time = timeout(DEADLINE, wanted).await.is_ok();
        let read = String::from_utf8_lossy(&read).into_owned();
        assert!(in_time, "{text:?} did not come, but {read:?}");
        read
    }

    async fn rest(mut self) -> String {
        let mut rest = Vec::new();
        timeout(DEADLINE, self.stream.read_to_end(&mut rest))
            .await
            .expect("an end")
            .unwrap();
        let rest = String::from_utf8_lossy(&rest).into_owned();
        let greeting = "Content-Type: auth/request\n\n";
        rest.strip_prefix(greeting).unwrap_or(&rest).to_owned()
    }
}

#[tokio::test]
async fn logins_are_answered_as_captured() {
    let user = Some(("reader@lab.example".to_owned(), "readerpw".to_owned()));
    let simulator = start(Settings {
        user,
        ..Settings::default()
    })
    .await;
    let invalid = format!("Content-Type: command/reply\nReply-Text: -ERR invalid\n\n{GOODBYE}");
    assert_eq!(talk(&simulator, "auth wrong\n\n").await, invalid);
    assert_eq!(
        talk(&simulator, "userauth reader@lab.example:nope\n\n").await,
        invalid
    );
    let not_found = "Content-Type: command/reply\nReply-Text: -ERR command not found\n\n";
    let bye = format!("Content-Type: command/reply\nReply-Text: +OK bye\n\n{GOODBYE}");
    let late = talk(
        &simulator,
        "api status\n\nevent plain ALL\n\nauth ClueCon\n\nexit\n\n",
    )
    .await;
    let accepted = "Content-Type: command/reply\nReply-Text: +OK accepted\n\n";
    assert_eq!(late, format!("{not_found}{not_found}{accepted}{bye}"));
    let user = talk(
        &simulator,
        "userauth reader@lab.example:readerpw\n\nexit\n\n",
    )
    .await;
    assert!(user.contains("+OK accepted\nAllowed-Events: "), "{user}");
    assert_eq!(simulator.logins(), 2);
    simulator.stop().await;
}

#[tokio::test]
async fn an_access_list_rejects_without_a_greeting() {
    let simulator = start(Settings {
        acl_reject: true,
        ..Settings::default()
    })
    .await;
    let rejected = talk(&simulator, "").await;
    let rejection =
        "Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n";
    assert_eq!(rejected, format!("{rejection}{GOODBYE}"));
    simulator.stop().await;
}

#[tokio::test]
async fn subscription_commands_are_answered_as_captured() {
    let simulator = start(Settings::default()).await;
    let conversation = [
        ("event plain", "-ERR no keywords supplied"),
        ("event", "-ERR no keywords supplied"),
        ("nixevent", "-ERR no keywords supplied"),
        ("noevents", "-ERR not listening for events"),
        ("event plain NOSUCH", "-ERR no keywords supplied"),
        ("event json", "-ERR no keywords supplied"),
        ("event channel_answer", "+OK event listener enabled json"),
        (
            "event plain HEARTBEAT BOGUS CHANNEL_ANSWER",
            "+OK event listener enabled plain",
        ),
        ("event xml CHANNEL_ANSWER", "-ERR xml is not simulated"),
        ("nixevent CHANNEL_ANSWER", "+OK events nixed"),
        ("nixevent nosuchevent", "-ERR no keywords supplied"),
        ("noevents x", "+OK no longer listening for events"),
        ("filter", "-ERR command not found"),
        ("filter Event-Name", "-ERR invalid syntax"),
        (
            "filter Event-Name CHANNEL_ANSWER",
            "+OK filter added. [Event-Name]=[CHANNEL_ANSWER]",
        ),
        (
            "filter delete Event-Name CHANNEL_ANSWER",
            "+OK filter deleted. [Event-Name][CHANNEL_ANSWER]",
        ),
        (
            "filter delete Event-Name",
            "+OK filter deleted. [Event-Name][]",
        ),
        ("filter delete all", "+OK filter deleted. [all][]"),
    ];
    let commands = conversation.map(|(command, _)| command);
    let expected = conversation.map(|(_, reply)| reply);
    assert_eq!(replies(&simulator, &commands).await, expected);
    let heard = simulator.commands();
    assert!(
        heard
            .iter()
            .any(|command| command == "filter Event-Name CHANNEL_ANSWER"),
        "{heard:?}"
    );
    simulator.stop().await;
}

#[tokio::test]
async fn other_commands_are_answered_as_captured() {
    let simulator = start(Settings::default()).await;
    let conversation = [
        ("hello", "-ERR command not found"),
        ("GET / HTTP/1.1\r\nHost: x\r", "-ERR command not found"),
        ("auth ClueCon", "-ERR command not found"),
        ("api", "-ERR command not found"),
        ("bgapi", "-ERR command not found"),
        (
            "sendmsg nosuch-uuid\ncall-command: execute",
            "-ERR invalid session id [nosuch-uuid]",
        ),
        ("linger", "-ERR not controlling a session"),
        ("nolinger", "-ERR not controlling a session"),
        ("divert_events on", "-ERR not controlling a session."),
        ("nolog", "-ERR not loging"),
        ("log debug", "+OK log level debug [7]"),
        ("log nosuchlevel", "-ERR invalid log level"),
        ("log 4", "+OK log level 4 [4]"),
        ("log", "+OK log level  [7]"),
        ("nolog", "+OK no longer logging"),
        (
            "bgapi echo x\nJob-UUID: my-own-job-id-1",
            "+OK Job-UUID: my-own-job-id-1",
        ),
    ];
    let commands = conversation.map(|(command, _)| command);
    assert_eq!(
        replies(&simulator, &commands).await,
        conversation.map(|(_, reply)| reply)
    );
    simulator.stop().await;
}

#[tokio::test]
async fn api_commands_are_answered() {
    let simulator = start(Settings::default()).await;
    let conversation = [
        (
            "api version",
            "FreeSWITCH Version 1.11.2-release~64bit ( 64bit)\n",
        ),
        ("api switchname", "sim1"),
        ("API hostname", "sim"),
        ("api echo a\tb", "a\tb"),
        (
            "api nosuchcmd arg one",
            "-ERR nosuchcmd Command not found!\n",
        ),
        ("api ", "-ERR  Command not found!\n"),
        ("api global_getvar nosuchvar", "-ERR no reply\n"),
        ("api show channels as json", "{\"row_count\": 0}\n"),
        ("api uuid_exists nosuch", "false"),
    ];
    for (command, answer) in conversation {
        let all = talk(&simulator, &format!("{LOGIN}{command}\n\nexit\n\n")).await;
        let expected = format!(
            "Content-Type: api/response\nContent-Length: {}\n\n{answer}",
            answer.len()
        );
        assert!(all.contains(&expected), "{command}: {all}");
    }
    simulator.stop().await;
}

#[tokio::test]
async fn a_background_job_ends_in_an_event() {
    let simulator = start(Settings::default()).await;
    let mut client = Client::subscribed(&simulator, "plain API BACKGROUND_JOB").await;
    client
        .send("bgapi echo custom id\nJob-UUID: mine\n\n")
        .await;
    client
        .until("Reply-Text: +OK Job-UUID: mine\nJob-UUID: mine\n\n")
        .await;
    let api = client.until("API-Command-Argument: custom%20id\n\n").await;
    assert!(
        api.contains("\nEvent-Calling-Function: switch_api_execute\n"),
        "{api}"
    );
    let job = client.until("\n\ncustom id").await;
    let end = "Job-UUID: mine\nJob-Command: echo\nJob-Command-Arg: custom%20id\nContent-Length: 9\n\ncustom id";
    assert!(job.ends_with(end), "{job}");
    assert!(
        job.contains("\nEvent-Calling-Function: api_exec\n"),
        "{job}"
    );
    simulator.stop().await;
}

#[tokio::test]
async fn a_sent_event_carries_forged_headers_before_the_true_ones() {
    let simulator = start(Settings::default()).await;
    let mut client = Client::subscribed(&simulator, "json CUSTOM lab::note").await;
    client
        .send("sendevent CUSTOM\nEvent-Subclass: lab::note\nEvent-Name: FORGED\nARR: ARRAY::p|:q\nContent-Length: 5\n\nhello")
        .await;
    client.until("+OK ").await;
    let event = client.until("\"_body\":\"hello\"}").await;
    let start = "{\"Event-Subclass\":\"lab::note\",\"Command\":\"sendevent CUSTOM\",\"Event-Name\":\"FORGED\",\
        \"ARR\":[\"p\",\"q\"],\"Content-Length\":\"5\",\"Event-UUID\":\"";
    assert!(event.contains(start), "{event}");
    assert!(
        event.contains("\"Event-Name\":\"CUSTOM\",\"Core-UUID\""),
        "{event}"
    );
    simulator.stop().await;
}

#[tokio::test]
async fn half_a_command_holds_the_events_back() {
    let simulator = start(Settings::default()).await;
    let mut client = Client::subscribed(&simulator, "plain CUSTOM test::x").await;
    client.send("api ver").await;
    let fire = |number: &str| {
        simulator.fire(
            Event::new("CUSTOM")
                .header("Event-Subclass", "test::x")
                .header("N", number),
        )
    };
    // The half command has certainly arrived once a second connection is served after it.
    replies(&simulator, &[]).await;
    fire("1");
    client.send("sion\n\n").await;
    let answered = client.until("( 64bit)\n").await;
    assert!(
        !answered.contains("N: 1"),
        "the event waits for the answer: {answered}"
    );
    client.until("N: 1\n\n").await;
    simulator.stop().await;
}

#[tokio::test]
async fn heartbeats_come_and_can_be_filtered_away() {
    let simulator = start(Settings {
        heartbeat: Duration::from_millis(5),
        ..Settings::default()
    })
    .await;
    let mut client = Client::subscribed(&simulator, "plain HEARTBEAT RE_SCHEDULE").await;
    client
        .until("\nEvent-Info: System%20Ready\nUp-Time: ")
        .await;
    client.until("\nTask-Desc: heartbeat\n").await;
    client.send("filter Event-Name CUSTOM\n\n").await;
    client
        .until("+OK filter added. [Event-Name]=[CUSTOM]\n\n")
        .await;
    client.send("exit\n\n").await;
    client.until("+OK bye\n\n").await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_full_queue_drops_and_then_gives_the_listener_up() {
    let simulator = start(Settings {
        max_queue: 10,
        ..Settings::default()
    })
    .await;
    let client = Client::subscribed(&simulator, "plain CUSTOM test::x").await;
    let big = "x".repeat(1_000_000);
    for _ in 0..600 {
        simulator.fire(
            Event::new("CUSTOM")
                .header("Event-Subclass", "test::x")
                .body(&big),
        );
    }
    let sent = simulator.sent();
    assert!(sent.dropped > 500, "{sent:?}");
    let end = "Content-Type: text/disconnect-notice\nContent-Length: 39\n\nkilled listener because of lost events\n";
    assert!(client.rest().await.ends_with(end), "the notice comes last");
    simulator.stop().await;
}

#[tokio::test]
async fn an_unpaced_load_waits_instead_of_dropping() {
    let simulator = start(Settings {
        max_queue: 5,
        ..Settings::default()
    })
    .await;
    let client = Client::subscribed(&simulator, "json ALL").await;
    let load = Load {
        rate: 0.0,
        events: Some(2_000),
        calls_at_once: 50,
    };
    let (fired, text) = tokio::join!(
        async {
            let fired = simulator.place_calls(load).await;
            simulator.shut_down_notice().await;
            fired
        },
        client.rest()
    );
    assert_eq!(fired, 2_000);
    assert_eq!(simulator.sent().dropped, 0);
    assert_eq!(text.matches("Content-Type: text/event-json").count(), 2_000);
    assert!(text.ends_with("\n\nThe system is being shut down.\n"));
    simulator.stop().await;
}

#[tokio::test]
async fn a_paced_load_keeps_its_rate_and_needs_no_listener() {
    let simulator = start(Settings::default()).await;
    let started = std::time::Instant::now();
    let load = Load {
        rate: 20_000.0,
        events: Some(2_000),
        calls_at_once: 5_000,
    };
    assert_eq!(simulator.place_calls(load).await, 2_000);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(95), "too fast: {took:?}");
    assert_eq!(
        (simulator.sent().fired, simulator.sent().queued),
        (2_000, 0)
    );
    simulator.stop().await;
}

#[tokio::test]
async fn noevents_sets_a_waiting_load_free() {
    let simulator = start(Settings::default()).await;
    let mut client = Client::subscribed(&simulator, "plain ALL").await;
    // Half a command holds the events back, so the queue fills and the load waits.
    client.send("noev").await;
    let load = Load {
        rate: 0.0,
        events: Some(20_000),
        calls_at_once: 10,
    };
    let finish = async {
        while simulator.sent().queued < 1_000 {
            tokio::task::yield_now().await;
        }
        client.send("ents\n\n").await;
    };
    let both = async { tokio::join!(simulator.place_calls(load), finish).0 };
    assert_eq!(timeout(DEADLINE, both).await.expect("no stall"), 20_000);
    simulator.stop().await;
}

#[tokio::test]
async fn live_calls_are_listed() {
    let simulator = start(Settings::default()).await;
    simulator.fire(
        Event::new("CHANNEL_CREATE")
            .header("Unique-ID", "a")
            .header("Channel-State", "CS_INIT"),
    );
    simulator.fire(
        Event::new("CHANNEL_STATE")
            .header("Unique-ID", "a")
            .header("Channel-State", "CS_EXECUTE"),
    );
    let listed = talk(
        &simulator,
        &format!("{LOGIN}api show channels as json\n\nexit\n\n"),
    )
    .await;
    assert!(
        listed.contains("{\"row_count\":1,\"rows\":[{\"uuid\":\"a\",\"direction\":\"\","),
        "{listed}"
    );
    assert!(listed.contains("\"state\":\"CS_EXECUTE\""), "{listed}");
    simulator.fire(Event::new("CHANNEL_DESTROY").header("Unique-ID", "a"));
    let listed = talk(
        &simulator,
        &format!("{LOGIN}api show channels as json\n\nexit\n\n"),
    )
    .await;
    assert!(listed.contains("{\"row_count\": 0}"), "{listed}");
    simulator.stop().await;
}

#[tokio::test]
async fn a_restart_changes_the_identity_and_cuts() {
    let simulator = start(Settings::default()).await;
    let client = Client::subscribed(&simulator, "plain ALL").await;
    let (core_uuid, sequence) = (simulator.core_uuid(), simulator.fire(Event::new("NAT")));
    simulator
        .write_raw(Bytes::from_static(b"Content-Length: 9\n\ncut"))
        .await;
    simulator.restart();
    let text = client.rest().await;
    assert!(
        text.ends_with("Content-Length: 9\n\ncut"),
        "no notice: {text}"
    );
    assert_ne!(simulator.core_uuid(), core_uuid);
    assert_eq!(
        simulator.fire(Event::new("NAT")),
        sequence,
        "numbers start again"
    );
    simulator.stop().await;
}

#[tokio::test]
async fn while_silent_only_commands_are_answered() {
    let simulator = start(Settings {
        heartbeat: Duration::from_millis(1),
        ..Settings::default()
    })
    .await;
    simulator.set_silent(true);
    let mut client = Client::subscribed(&simulator, "plain ALL").await;
    simulator.fire(Event::new("NAT"));
    client.send("api switchname\n\nexit\n\n").await;
    let text = client.rest().await;
    assert!(
        text.contains("sim1") && !text.contains("Event-Name"),
        "{text}"
    );
    simulator.stop().await;
}

#[tokio::test]
async fn while_refusing_connections_end_at_once() {
    let simulator = start(Settings::default()).await;
    simulator.set_refuse(true);
    assert_eq!(talk(&simulator, "").await, "");
    simulator.set_refuse(false);
    assert_eq!(
        replies(&simulator, &["noevents"]).await,
        ["-ERR not listening for events"]
    );
    simulator.stop().await;
}
